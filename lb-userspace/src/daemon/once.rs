//! What the daemon does, done once and without staying: for `lb attach`, and for `lb apply` where no daemon runs.

use std::time::Duration;

use super::engine::down;
use super::overrides::{self, Order};
use super::{Applied, Candidate, Engine, Error, Instance, Machine, Saved, announce, next_hops};
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
    let resolutions = resolve(next_hops(&candidate.loaded.model), PATIENCE).await?;
    let links = links().await?;
    Ok((links, resolutions))
}

/// Takes the operator's word about a backend where no daemon runs; whom it is about.
pub async fn order_once(instance: &Instance, order: &Order) -> Result<Vec<String>, Error> {
    let plane = KernelPlane::open(&instance.pins)?;
    let lock = instance.pins.lock()?;
    let saved = Saved::load(&instance.state)?.unwrap_or_default();
    let candidate = Candidate::parse(&saved.origin, &saved.config, true)?;
    let present = overrides::current(&saved.overrides, Saved::now());
    let down = down(&plane.glance()?);
    let followed = overrides::follow(&candidate.loaded.model, &present, order, &down, Saved::now());
    let (words, meant) = followed.map_err(|finding| Error::Findings(vec![finding]))?;
    let (links, resolutions) = look(&candidate).await?;
    Saved { overrides: words, ..saved }.store(&instance.state)?;
    let mut engine = Engine::adopt(instance, &candidate, lock)?;
    engine.apply(candidate, Machine { links: &links, resolutions: &resolutions })?;
    Ok(meant)
}
