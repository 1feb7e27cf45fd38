//! What the daemon does, done once and without staying: for `lb attach`, and for `lb apply` where no daemon runs.

use std::time::Duration;

use super::engine::{accepted, down, fit};
use super::overrides::{self, Order};
use super::{
    Applied, Candidate, Engine, Error, Finding, Instance, Machine, Saved, announce, is_running, next_hops,
    tuning,
};
use crate::config;
use crate::dataplane::{KernelPlane, attached, recover};
use crate::model::Interface;
use crate::netlink::{Resolutions, Snapshot, Target, links, resolve};
use crate::reconcile::Observed;

/// How long unresolved next hops are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Loads, fills and attaches.
pub async fn attach_once(
    instance: &Instance,
    candidate: Candidate,
    wanted: &[Interface],
) -> Result<Applied, Error> {
    // Before the network is looked at: a new MTU is to be seen.
    let refused = tune(instance, wanted);
    let mut applied = untune(instance, wanted, attach_tuned(instance, candidate, wanted).await)?;
    applied.warnings.extend(refused);
    Ok(applied)
}

async fn attach_tuned(
    instance: &Instance,
    candidate: Candidate,
    wanted: &[Interface],
) -> Result<Applied, Error> {
    let (links, resolutions) = look(instance, &candidate).await?;
    let machine = Machine { links: &links, resolutions: &resolutions };
    let (mut engine, mut applied) = Engine::start(instance, candidate, wanted, machine)?;
    announce::all(announce::places(&engine.assembled().advertised, &links)).await;
    applied.warnings.extend(complete(&mut engine, machine).await?);
    Ok(applied)
}

/// Sets interfaces that are about to be attached to; what was refused. Where a daemon runs they are its own.
pub(super) fn tune(instance: &Instance, interfaces: &[Interface]) -> Vec<Finding> {
    if is_running(&instance.socket) {
        return Vec::new();
    }
    tuning::apply(&instance.nic, interfaces, &indices(instance))
}

/// Undoes [`tune`] where the attach has come to nothing and nothing was attached before.
pub(super) fn untune<T>(
    instance: &Instance,
    interfaces: &[Interface],
    attached: Result<T, Error>,
) -> Result<T, Error> {
    if attached.is_err() && indices(instance).is_empty() && !is_running(&instance.socket) {
        tuning::undo(&instance.nic, interfaces);
    }
    attached
}

/// The interfaces that have the program.
fn indices(instance: &Instance) -> Vec<u32> {
    attached(&instance.pins).into_iter().map(|found| found.ifindex).collect()
}

/// Brings a pinned data plane that no daemon follows to a config.
pub async fn apply_once(instance: &Instance, candidate: Candidate, dry_run: bool) -> Result<Applied, Error> {
    let (links, resolutions) = look(instance, &candidate).await?;
    let machine = Machine { links: &links, resolutions: &resolutions };
    KernelPlane::open(&instance.pins)?; // before the lock makes a directory for it
    let lock = instance.lock()?;
    let mut moved = None;
    if !dry_run {
        let accepted = |observed: &Observed| accepted(instance, &candidate, observed);
        moved = fit(&instance.pins, &candidate.loaded.model, &accepted)?;
    }
    let mut engine = Engine::adopt(instance, &candidate, lock)?;
    if dry_run {
        return engine.preview(&candidate, machine);
    }
    tidy_up(&mut engine)?;
    let mut applied = engine.apply(candidate, machine)?;
    applied.warnings.extend(moved);
    let listed = &engine.model().interfaces;
    let ours = |interface: &&Interface| engine.interfaces().iter().any(|own| own.name == interface.name);
    let interfaces: Vec<Interface> = listed.iter().filter(ours).cloned().collect();
    applied.warnings.extend(tuning::apply(&instance.nic, &interfaces, &indices(instance)));
    announce::all(announce::places(&engine.assembled().advertised, &links)).await;
    applied.warnings.extend(complete(&mut engine, machine).await?);
    Ok(applied)
}

/// What time has settled since somebody last wrote.
fn tidy_up(engine: &mut Engine) -> Result<(), Error> {
    engine.sweep()?;
    let gone = engine.let_go_alone()?;
    for backend in gone {
        tracing::debug!(service = backend.service, backend = %backend.backend.address, "gone");
    }
    Ok(())
}

/// Takes the second steps of what was planned; what would take too long is told.
async fn complete(engine: &mut Engine, machine: Machine<'_>) -> Result<Option<Finding>, Error> {
    while let Some(wait) = engine.due_in() {
        if wait > PATIENCE {
            return Ok(Some(Finding::warning(
                "LB046",
                "a service's hash or ring size changes only when all of its live flows are recorded"
                    .to_owned(),
                "let a daemon finish it (`lb run`): that takes the service's longest idle time",
            )));
        }
        tokio::time::sleep(wait).await;
        engine.follow(machine)?;
    }
    Ok(None)
}

/// The current view of a machine, once.
async fn look(instance: &Instance, candidate: &Candidate) -> Result<(Snapshot, Resolutions), Error> {
    let resolutions = resolve(targets(instance, candidate)?, PATIENCE).await?;
    let links = links().await?;
    Ok((links, resolutions))
}

/// The next hops that a config needs, and those of backends that it removes or that are leaving already: their flows go
/// on.
pub(super) fn targets(instance: &Instance, candidate: &Candidate) -> Result<Vec<Target>, Error> {
    let mut wanted = next_hops(&candidate.loaded.model);
    let saved = Saved::load(&instance.state)?.unwrap_or_default();
    let before = config::parse(&saved.origin, &saved.config).ok();
    let mut present = before.map(|before| next_hops(&saved.drains.join(&before.model))).unwrap_or_default();
    present.retain(|old| wanted.iter().all(|target| target.address != old.address));
    wanted.extend(present);
    Ok(wanted)
}

/// Takes the operator's word about a backend where no daemon runs; whom it is about.
pub async fn order_once(instance: &Instance, order: &Order) -> Result<Vec<String>, Error> {
    KernelPlane::open(&instance.pins)?; // before the lock makes a directory for it
    let lock = instance.lock()?;
    recover(&instance.pins)?;
    let plane = KernelPlane::open(&instance.pins)?;
    let saved = Saved::load(&instance.state)?.unwrap_or_default();
    let candidate = Candidate::parse(&saved.origin, &saved.config, true)?;
    let present = overrides::current(&saved.overrides, Saved::now());
    let down = down(&plane.glance()?);
    let model = saved.drains.join(&candidate.loaded.model);
    let followed = overrides::follow(&model, &present, order, &down, Saved::now());
    let (words, meant) = followed.map_err(|finding| Error::Findings(vec![finding]))?;
    let (links, resolutions) = look(instance, &candidate).await?;
    Saved { overrides: words, ..saved }.store(&instance.state)?;
    let mut engine = Engine::adopt(instance, &candidate, lock)?;
    tidy_up(&mut engine)?;
    let machine = Machine { links: &links, resolutions: &resolutions };
    engine.apply(candidate, machine)?;
    if let Some(finding) = complete(&mut engine, machine).await? {
        tracing::warn!("{finding}");
    }
    Ok(meant)
}
