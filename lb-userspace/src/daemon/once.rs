//! What the daemon does, done once and without staying: for `lb attach`, and for `lb apply` where no daemon runs.

use std::time::Duration;

use super::engine::Machine;
use super::{Applied, Candidate, Engine, Error, Instance, announce, targets};
use crate::dataplane::KernelPlane;
use crate::model::Interface;
use crate::netlink::{Resolutions, Snapshot, links, resolve};

/// How long unresolved next hops are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Loads, fills and attaches.
pub async fn attach_once(
    instance: &Instance,
    candidate: Candidate,
    wanted: &[Interface],
) -> Result<Applied, Error> {
    let (links, resolutions) = look(&candidate).await?;
    let machine = Machine { links: &links, resolutions: &resolutions };
    let (engine, applied) = Engine::start(instance, candidate, wanted, machine)?;
    announce::all(announce::places(&engine.assembled().advertised, &links)).await;
    Ok(applied)
}

/// Brings a pinned data plane that no daemon follows to a config.
pub async fn apply_once(instance: &Instance, candidate: Candidate, dry_run: bool) -> Result<Applied, Error> {
    let (links, resolutions) = look(&candidate).await?;
    let machine = Machine { links: &links, resolutions: &resolutions };
    KernelPlane::open(&instance.pins)?; // before the lock makes a directory for it
    let mut engine = Engine::adopt(instance, &candidate, instance.pins.lock()?)?;
    if dry_run {
        return engine.preview(&candidate, machine);
    }
    let applied = engine.apply(candidate, machine)?;
    announce::all(announce::places(&engine.assembled().advertised, &links)).await;
    Ok(applied)
}

/// The current view of a machine, once.
async fn look(candidate: &Candidate) -> Result<(Snapshot, Resolutions), Error> {
    let resolutions = resolve(targets(&candidate.loaded.model), PATIENCE).await?;
    let links = links().await?;
    Ok((links, resolutions))
}
