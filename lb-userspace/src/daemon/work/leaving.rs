//! Backends that have left the config, and drains whose time is over.

use super::{Daemon, Error, Saved, State, next_hops, overrides, ways};
use crate::daemon::Leaver;
use crate::daemon::overrides::Word;

impl Daemon {
    /// Takes back the operator's words whose time is over, and ends the drains whose deadline has come.
    pub(super) async fn end_drains(&mut self) {
        self.expire_overrides();
        let expired = self.engine.expire();
        tracing::info!("the operator's words and drains whose time is over have ended");
        // Who drains longer than that is out, though nothing about its health has changed.
        self.unfollowed = true;
        self.let_go(expired).await;
        self.decide().await;
    }

    /// Goes on without backends that have left and need nothing any more.
    pub(super) async fn let_go(&mut self, gone: Result<Vec<Leaver>, Error>) {
        let gone = match gone {
            Ok(gone) if gone.is_empty() => return,
            Ok(gone) => gone,
            Err(error) => return tracing::error!(%error, "backends that are leaving were not looked at"),
        };
        for Leaver { service, backend, since, .. } in gone {
            let seconds = Saved::now().saturating_sub(since);
            tracing::info!(service, backend = %backend.address, seconds, "a backend that the config has removed is gone");
        }
        self.unfollowed = true;
        self.health.set_model(self.engine.model(), |_| State::Unknown);
        self.ways = ways(self.engine.model());
        self.attend().await;
        self.watcher.set_targets(next_hops(self.engine.model()));
    }

    /// Takes back the operator's words whose time is over.
    fn expire_overrides(&mut self) {
        let (current, ended) = overrides::split(self.engine.overrides(), Saved::now());
        for word in &ended {
            self.health.tell_operator(
                &format!("{}/{}", word.pool, word.backend),
                Word::Enable,
                Some("its time is over"),
            );
        }
        self.engine.set_overrides(current);
        self.health.set_overrides(overrides::by_place(self.engine.overrides()));
    }
}
