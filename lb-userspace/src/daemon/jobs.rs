//! Configs on their way: they wait for their turn, and for their next hops, while everything else goes on.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Candidate, Error, Reply, next_hops};
use crate::model::Model;
use crate::netlink::{Resolutions, Target, Watcher, resolve};

/// How long unresolved next hops are waited for before a config is applied without them.
const PATIENCE: Duration = Duration::from_secs(2);

/// A config to apply, or to look at.
pub(super) struct Job {
    pub(super) candidate: Candidate,
    pub(super) purpose: Purpose,
}

/// Why.
pub(super) enum Purpose {
    /// The file has changed.
    Reload,
    /// A client asks.
    Apply(oneshot::Sender<Reply>),
    /// A client asks what would change.
    Preview(oneshot::Sender<Reply>),
}

/// The next hops of a preview; those of the others are the watcher's.
pub(super) type Settled = Result<Option<Resolutions>, Error>;

type Settling = Pin<Box<dyn Future<Output = Settled>>>;

/// Configs on their way.
#[derive(Default)]
pub(super) struct Jobs {
    queue: VecDeque<Job>,
    /// The one whose next hops are being resolved.
    current: Option<(Job, Settling)>,
}

impl Jobs {
    pub(super) fn push(&mut self, job: Job) {
        self.queue.push_back(job);
    }

    /// The next one, if none is being worked on.
    pub(super) fn next(&mut self) -> Option<Job> {
        if self.current.is_some() { None } else { self.queue.pop_front() }
    }

    /// Has its next hops resolved; those of the `present` model stay resolved meanwhile.
    pub(super) fn begin(&mut self, job: Job, watcher: &Watcher, present: &Model) {
        let mut wanted = next_hops(&job.candidate.loaded.model);
        // Backends that leave keep their flows.
        let mut leaving = next_hops(present);
        leaving.retain(|old| wanted.iter().all(|target| target.address != old.address));
        wanted.extend(leaving);
        let settling: Settling = match job.purpose {
            Purpose::Preview(_) => Box::pin(async move { Ok(Some(resolve(wanted, PATIENCE).await?)) }),
            Purpose::Reload | Purpose::Apply(_) => {
                watcher.set_targets(wanted.clone());
                let settled = settled(watcher, wanted);
                Box::pin(async move {
                    settled.await;
                    Ok(None)
                })
            }
        };
        self.current = Some((job, settling));
    }

    /// Waits for the next hops of the one being worked on, for ever if there is none.
    pub(super) async fn settled(&mut self) -> Settled {
        match &mut self.current {
            Some((_, settling)) => settling.await,
            None => std::future::pending().await,
        }
    }

    /// The one whose next hops are known now.
    pub(super) fn take(&mut self) -> Option<Job> {
        self.current.take().map(|(job, _)| job)
    }
}

/// Waits until all of them are resolved, or patience ends.
pub(super) fn settled(watcher: &Watcher, wanted: Vec<Target>) -> impl Future<Output = ()> + 'static {
    let mut resolutions = watcher.resolutions();
    async move {
        let complete = |found: &Arc<Resolutions>| {
            wanted
                .iter()
                .all(|target| found.get(&target.address).is_some_and(|resolution| !resolution.is_pending()))
        };
        let _patience_ended = tokio::time::timeout(PATIENCE, resolutions.wait_for(complete)).await;
    }
}
