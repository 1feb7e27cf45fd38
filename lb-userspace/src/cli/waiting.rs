//! `lb drain --wait`: until nothing is left of the flows of drained backends.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::Context;
use super::drains;
use super::error::Failure;
use super::view::{BackendView, View};
use crate::daemon::{self, Instance, Request};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);
/// For how long there may be no daemon: one is restarted, say.
const PATIENCE: Duration = Duration::from_secs(30);

/// Slots that were forced to settle, by service as services are displayed, when it was last looked.
pub(super) struct Forced(BTreeMap<String, u64>);

impl Forced {
    /// Until now; a failure where no daemon runs, which alone ends drains.
    pub(super) fn until_now(instance: &Instance) -> Result<Self, Failure> {
        let reply = daemon::request(&instance.socket, &Request::Health)?;
        let nobody = "no daemon runs: drains and deadlines do not end by themselves, so --wait would wait for ever. \
                      Nothing changed; start `lb run` first, or leave --wait out";
        Ok(Self(reply.ok_or_else(|| Failure::failed(nobody))?.forced))
    }

    /// How many more there are of a service since then. A daemon that has begun since counts from zero.
    fn more(&self, now: &BTreeMap<String, u64>, service: &str) -> u64 {
        let (then, now) = (self.0.get(service).copied(), now.get(service).copied().unwrap_or(0));
        now.checked_sub(then.unwrap_or(0)).unwrap_or(now)
    }
}

/// Waits until the backends (POOL/ADDRESS) have no flow left, and says how far it is; fails when flows of theirs had to
/// move, or they drain no more.
pub(super) fn until_empty(
    context: &Context,
    meant: &[String],
    mut forced: Forced,
) -> Result<ExitCode, Failure> {
    let (mut told, mut attended) = (String::new(), Instant::now());
    let mut was_empty = false;
    loop {
        let view = View::read(context)?;
        if let Some(now) = &view.forced {
            attended = Instant::now();
            complain(&view, meant, &forced, now)?;
            forced = Forced(now.clone());
        } else if attended.elapsed() > PATIENCE {
            let message =
                "the daemon has ended: drains and deadlines do not end by themselves before `lb run`";
            return Err(Failure::failed(message));
        }
        let backends: Vec<&BackendView> = ours(&view, meant).map(|(_, backend)| backend).collect();
        // Without a daemon nothing moves when it is time.
        let over = |backend: &&BackendView| backend.drain.is_some_and(|progress| progress.is_over());
        if view.forced.is_some() && backends.iter().any(over) {
            return Err(Failure::failed("the deadline has come: what was left of its flows has moved"));
        }
        if let Some(other) = backends.iter().find(|backend| backend.drain.is_none()) {
            return Err(Failure::failed(format!("{} is {} and does not drain", other.address, other.state)));
        }
        let left = backends.iter().filter_map(|b| Some(format!("{}: {}", b.address, drains::words(b)?)));
        let left = left.collect::<Vec<_>>().join("; ");
        let empty = backends.iter().all(|backend| backend.drain.is_some_and(|progress| progress.is_empty()));
        // Once more: what was forced is asked for before flows are counted.
        if empty && was_empty && view.forced.is_some() {
            eprintln!("{left}");
            return Ok(ExitCode::SUCCESS);
        }
        was_empty = empty;
        if !empty && left != told && (std::io::stderr().is_terminal() || told.is_empty()) {
            eprintln!("{left}");
        }
        told = left;
        if !empty {
            std::thread::sleep(LOOK);
        }
    }
}

/// The backends that are meant, and their services.
fn ours<'a>(view: &'a View, meant: &'a [String]) -> impl Iterator<Item = (&'a str, &'a BackendView)> {
    let all =
        view.services.iter().flat_map(|service| service.backends.iter().map(move |b| (&*service.id, b)));
    all.filter(|(service, backend)| {
        let pool = view.pools.get(*service);
        pool.is_some_and(|pool| meant.contains(&format!("{pool}/{}", backend.address)))
    })
}

/// Fails where slots of their services were forced to settle: flows in them are not known any more, and have moved.
fn complain(
    view: &View,
    meant: &[String],
    before: &Forced,
    now: &BTreeMap<String, u64>,
) -> Result<(), Failure> {
    for (service, _) in ours(view, meant).filter(|(_, backend)| backend.drain.is_some_and(|p| !p.keeps_all)) {
        let slots = before.more(now, service);
        if slots > 0 {
            return Err(Failure::failed(format!(
                "`max_unsettled` was over first: {slots} slots of {service} were forced to settle, and flows that were \
                 left in them have moved; raise `max_unsettled` for longer drains"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forced_slots_are_those_since_then() {
        let of = |web: u64| BTreeMap::from([("web".to_owned(), web)]);
        let before = Forced(of(5));
        assert_eq!(before.more(&of(5), "web"), 0);
        assert_eq!(before.more(&of(7), "web"), 2);
        assert_eq!(before.more(&of(7), "dns"), 0);
        // Another daemon's count.
        assert_eq!(before.more(&of(3), "web"), 3);
        assert_eq!(Forced(BTreeMap::new()).more(&of(3), "web"), 3);
    }
}
