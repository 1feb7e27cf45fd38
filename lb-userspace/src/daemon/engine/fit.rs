//! Maps that do not fit a config: those of a data plane that is there are exchanged for others, without a gap.

use super::{Candidate, places};
use crate::daemon::guard::guard;
use crate::daemon::sizing::Lack;
use crate::daemon::{Error, Finding, Instance, Saved, overrides, sizing};
use crate::dataplane::{KernelPlane, Pins, Resize, recover};
use crate::model::Model;
use crate::reconcile::{Observed, Size};

/// Ends what a killed process left, and moves to maps of the sizes that `model` asks for, where there are maps and they
/// differ. To be called by whoever holds the lock, before the maps are opened. Where there is no room for larger ones the
/// old ones go on; if they are too small for the config, that is told by its plan. What the operator should know of it.
pub(in crate::daemon) fn fit(
    pins: &Pins,
    model: &Model,
    accepted: Accepted<'_>,
) -> Result<Option<Finding>, Error> {
    recover(pins)?;
    if !pins.is_live() {
        return Ok(None);
    }
    let observed = KernelPlane::open(pins)?.glance()?;
    // What is going to be refused changes nothing.
    if !accepted(&observed) {
        return Ok(None);
    }
    let size = sizing::moved(model, &observed.size, &used(&observed));
    if size == observed.size {
        return Ok(None);
    }
    let moved = Resize::prepare(pins, &size).and_then(|mut resize| {
        resize.switch()?;
        resize.finish()
    });
    match moved {
        Ok(brought) => {
            tracing::info!(?size, "moved to maps of other sizes");
            Ok(brought.is_less().then(|| {
                let help = "connections whose record is lost go by their hash; larger `limits` have room for all, and \
                            so have the parts of all CPUs if lb may use them (cpusets)";
                Finding::warning("LB048", brought.to_string(), help)
            }))
        }
        Err(error) => {
            recover(pins)?;
            Ok(Some(Finding::warning(
                "LB047",
                format!("could not move to maps of other sizes, those that are in use go on: {error}"),
                "the next start of the daemon, or `lb apply` without one, tries it again",
            )))
        }
    }
}

/// What of a config is not in force, because the maps are not as large as it asks for.
pub fn waiting(model: &Model, observed: &Observed) -> Vec<Finding> {
    let lacks = sizing::lacks(model, &observed.size, &used(observed));
    let finding = |lack: Lack| {
        let help = "the maps move to other sizes, without a gap, when the daemon starts again";
        Finding::warning("LB039", lack.to_string(), help)
    };
    lacks.into_iter().map(finding).collect()
}

/// Whether guard rails let a config through, in this state of the data plane.
type Accepted<'a> = &'a dyn Fn(&Observed) -> bool;

/// What they say of a candidate.
pub(in crate::daemon) fn accepted(instance: &Instance, candidate: &Candidate, observed: &Observed) -> bool {
    let saved = Saved::load(&instance.state).ok().flatten().unwrap_or_default();
    let words = overrides::current(&saved.overrides, Saved::now());
    candidate.force || guard(&places(observed), &words, &candidate.loaded.model).is_empty()
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
