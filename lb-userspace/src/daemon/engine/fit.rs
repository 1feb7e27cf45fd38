//! Maps that do not fit a config: those of a data plane that is there are exchanged for others, without a gap.

use crate::daemon::{Error, sizing};
use crate::dataplane::{KernelPlane, Pins, Resize, recover};
use crate::model::Model;
use crate::reconcile::{Observed, Size};

/// Ends what a killed process left, and moves to maps of the sizes that `model` asks for, where there are maps and they
/// differ. To be called by whoever holds the lock, before the maps are opened. Where there is no room for larger ones the
/// old ones go on; if they are too small for the config, that is told by its plan.
pub(in crate::daemon) fn fit(pins: &Pins, model: &Model) -> Result<(), Error> {
    recover(pins)?;
    if !pins.is_live() {
        return Ok(());
    }
    let observed = KernelPlane::open(pins)?.glance()?;
    let size = sizing::moved(model, &observed.size, &used(&observed));
    if size == observed.size {
        return Ok(());
    }
    let moved = Resize::prepare(pins, &size).and_then(|resize| {
        resize.switch()?;
        resize.finish()
    });
    match moved {
        Ok(()) => tracing::info!(?size, "moved to maps of other sizes"),
        Err(error) => {
            tracing::error!(%error, "could not move to maps of other sizes: the old ones are in use")
        }
    }
    Ok(())
}

/// The least that maps must hold for all that is in them.
fn used(observed: &Observed) -> Size {
    // All entries: of a service whose ring was being exchanged, some may name the old one.
    let entries: Vec<_> = observed.ranges.values().chain(observed.exact.values()).collect();
    let schedules = observed.policies.values().map(|policy| policy.schedule_start + policy.schedule_size);
    let ends = entries.iter().map(|entry| entry.ring_start + entry.ring_size).chain(schedules);
    let services =
        entries.iter().map(|entry| entry.id).chain(observed.backends.values().map(|backend| backend.service));
    Size {
        services: services.max().map_or(0, |id| id + 1),
        keys: observed.exact.len() as u32,
        vips: observed.vips.len() as u32,
        ring_slots: ends.max().unwrap_or(0),
        backends: observed.backends.keys().next_back().copied().unwrap_or(0),
        ports: observed.size.ports,
        ..Size::default()
    }
}
