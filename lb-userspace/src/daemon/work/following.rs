//! The data plane follows decisions about backends, neighbours and interfaces; what cannot be followed is tried again.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::{Daemon, Error, Machine};
use crate::daemon::report::unreachable_backends;
use crate::netlink::{Resolutions, links};

/// After how long a failure that goes on is told again.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The failure that was told last: what is tried several times a second is not told as often.
#[derive(Default)]
pub(super) struct Trouble(Option<(String, Instant)>);

impl Trouble {
    pub(super) fn tell(&mut self, error: &Error, what: &str) {
        let (words, now) = (error.to_string(), Instant::now());
        let told = |(last, at): &(String, Instant)| *last == words && now.duration_since(*at) < TELL_AGAIN;
        if self.0.as_ref().is_some_and(told) {
            return tracing::debug!(%error, "{what}");
        }
        tracing::error!(%error, "{what}");
        self.0 = Some((words, now));
    }

    pub(super) fn is_over(&mut self) {
        if self.0.take().is_some() {
            tracing::info!("the data plane follows again");
        }
    }
}

impl Daemon {
    /// Has the data plane follow the decisions about backends.
    pub(super) async fn decide(&mut self) {
        let decided = self.health.decide();
        if decided.uses != *self.engine.uses() || self.unfollowed {
            self.engine.set_uses(decided.uses);
            let resolutions = self.resolutions.borrow().clone();
            let followed = match links().await {
                Ok(links) => self.engine.follow(Machine { links: &links, resolutions: &resolutions }),
                Err(error) => Err(error.into()),
            };
            match followed {
                Ok(changes) => {
                    self.unfollowed = false;
                    self.trouble.is_over();
                    tracing::debug!(?changes, "backends' states followed");
                }
                Err(error) => self.not_followed(&error, "could not follow backends' states"),
            }
        }
    }

    /// Looks anew at the network: the watcher's last view of the interfaces may be from before our own attach.
    pub(super) async fn follow(&mut self) {
        let resolutions = self.resolutions.borrow_and_update().clone();
        self.links.mark_unchanged();
        let present = match links().await {
            Ok(links) => links,
            Err(error) => {
                return self.not_followed(&error.into(), "could not look at the interfaces");
            }
        };
        match self.engine.follow(Machine { links: &present, resolutions: &resolutions }) {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => {
                tracing::info!(?changes, "followed neighbours and interfaces");
                self.events = self.engine.events();
                self.announce(&present);
                self.tune_new();
                unreachable_backends(&resolutions);
            }
            Err(error) => {
                self.not_followed(&error, "could not follow neighbours and interfaces");
            }
        }
        if self.health.has_lost_gate(&present) {
            tracing::warn!("the probes' interface is gone or down: making it anew");
            self.attend().await;
        }
        if self.seen != resolutions {
            let lost = lost(&self.seen, &resolutions);
            self.seen = resolutions;
            // First they learn that there is no way, then they are asked for.
            self.assign().await;
            self.health.suspect(&lost);
        }
    }

    /// What was stopped half-way is due again after a second; everything else is tried again as soon as may be.
    fn not_followed(&mut self, error: &Error, what: &str) {
        self.unfollowed = !matches!(error, Error::Partly(_));
        self.trouble.tell(error, what);
    }

    /// Tries again what could not be done.
    pub(in crate::daemon) async fn retry(&mut self) {
        if self.unfollowed {
            self.decide().await;
        }
    }
}

/// Backends that could be sent to before, and cannot now.
fn lost(before: &Resolutions, now: &Resolutions) -> Vec<IpAddr> {
    let gone = |address: &&IpAddr| now.get(address).is_some_and(|found| found.next_hop().is_none());
    let could = before.iter().filter(|(_, found)| found.next_hop().is_some());
    could.map(|(address, _)| address).filter(gone).copied().collect()
}
