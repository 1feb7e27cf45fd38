//! Backends on their way out: what is left of their flows, and how long that may take.

use std::collections::BTreeMap;

use serde::Serialize;

use super::error::Failure;
use super::status::duration;
use super::view::{BackendView, ServiceView};
use crate::daemon::Saved;
use crate::dataplane::{DataPlane, KernelPlane};
use crate::model::{Model, Tracking};
use crate::reconcile::{Census, Observed};

/// How far a backend's drain is.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Progress {
    /// Since when by config or operator, in seconds since 1970; `null` where its agent has it drain.
    pub(super) since: Option<u64>,
    /// When what is left of its flows moves, in seconds since 1970; `null`: whenever they end.
    pub(super) deadline: Option<u64>,
    /// When the first of its slots settles by `max_unsettled` whatever is left there, in seconds since 1970; `null` where
    /// that moves no flow.
    pub(super) settles_at: Option<u64>,
    /// Flows that are recorded on it; `null` where the service records none.
    pub(super) flows_left: Option<u64>,
    /// Whether these are all. Otherwise older ones may be silent since the drain began, and are recorded when they speak.
    pub(super) complete: bool,
    /// Whether its flows are found in settled slots too.
    #[serde(skip)]
    pub(super) keeps_all: bool,
    /// Whether a daemon runs, without which nothing of this happens by itself.
    #[serde(skip)]
    pub(super) attended: bool,
}

impl Progress {
    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.complete && self.flows_left == Some(0)
    }

    /// When what is left of its flows moves, in words.
    fn end(&self, now: u64) -> String {
        let later = if self.attended { "" } else { ": they move with the next `lb apply` or `lb run`" };
        let first = self.settles_at.filter(|at| self.deadline.is_none_or(|deadline| *at < deadline));
        match (first, self.deadline) {
            (_, Some(end)) if end <= now => format!(", its deadline is over{later}"),
            _ if self.is_empty() => String::new(),
            (Some(at), _) if at > now => {
                format!(", {} until they move (`max_unsettled`)", duration(at - now))
            }
            (Some(_), _) => ", `max_unsettled` is over".to_owned(),
            (None, Some(end)) => format!(", {} until they move", duration(end - now)),
            (None, None) => String::new(),
        }
    }

    /// Whether its time is over.
    pub(super) fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Saved::now())
    }
}

/// States in which a backend keeps flows and gets no new ones.
fn drains(backend: &BackendView) -> bool {
    matches!(backend.state, "draining" | "leaving" | "drained")
}

/// What the daemon knows of drains; `None` without one.
pub(super) type Settling = BTreeMap<u32, u64>;

/// Adds what is known of drains; `settling` is what the daemon says: in how many seconds slots settle by force that have
/// this backend's flows. Flows are counted only where somebody drains: there may be millions.
pub(super) fn add(
    services: &mut [ServiceView],
    model: &Model,
    saved: &Saved,
    plane: &KernelPlane,
    observed: &Observed,
    settling: Option<&Settling>,
) -> Result<(), Failure> {
    let deadlines = saved.drains.deadlines(model, &saved.overrides);
    let ends: BTreeMap<_, u64> = deadlines
        .into_iter()
        .map(|((service, backend), end)| ((service.to_string(), backend), end))
        .collect();
    // Whose time is over gets nothing, and is down for the data plane.
    for service in services.iter_mut() {
        let id = service.id.clone();
        for backend in &mut service.backends {
            let over = ends.get(&(id.clone(), backend.address)).is_some_and(|end| *end <= Saved::now());
            // What its probes say is on top of the data plane's state; without a daemon that is all there is.
            let judged = backend.health.is_some() && backend.state == "draining";
            if over && (judged || matches!(backend.state, "down" | "disabled")) {
                backend.state = "drained";
            }
        }
    }
    if !services.iter().flat_map(|service| &service.backends).any(drains) {
        return Ok(());
    }
    let flows = plane.flows()?;
    let counted = flows.map(|flows| Census::of(observed, &flows));
    for (service, rules) in services.iter_mut().zip(model.services.iter().map(|service| service.flows)) {
        let id = service.id.clone();
        for backend in service.backends.iter_mut().filter(|backend| drains(backend)) {
            let word = backend.operator.as_ref().map(|word| word.since);
            let left = counted.as_ref().filter(|_| rules.tracking != Tracking::Never);
            let since = word.or_else(|| saved.drains.since(&id, backend.address));
            let keeps_all = rules.records_all() || rules.tracking == Tracking::Never;
            // Slots that changed before the drain settle earlier; of those only the daemon knows.
            let latest = since.map(|since| since + rules.max_unsettled.as_secs());
            let known = settling.and_then(|known| known.get(&backend.id)).map(|left| Saved::now() + left);
            backend.drain = Some(Progress {
                since,
                settles_at: known.or(latest).filter(|_| !keeps_all),
                keeps_all,
                attended: settling.is_some(),
                deadline: ends.get(&(id.clone(), backend.address)).copied(),
                flows_left: left.map(|left| left.flows.get(&backend.id).copied().unwrap_or(0)),
                complete: left.is_some_and(|left| rules.records_all() || !left.may_have_unseen(backend.id)),
            });
        }
    }
    Ok(())
}

/// What is left, in words; `None` of a backend that does not drain.
pub(super) fn words(backend: &BackendView) -> Option<String> {
    let progress = backend.drain?;
    let flows = match (progress.flows_left, progress.complete) {
        (None, _) => "flows are not counted".to_owned(),
        (Some(0), true) => "no flow left".to_owned(),
        (Some(1), true) => "1 flow left".to_owned(),
        (Some(count), true) => format!("{count} flows left"),
        (Some(1), false) => "≥ 1 flow left".to_owned(),
        (Some(count), false) => format!("≥ {count} flows left"),
    };
    Some(format!("{flows}{}", progress.end(Saved::now())))
}

/// A line for a backend that drains and has none by the operator's word.
pub(super) fn line(backend: &BackendView) -> Option<String> {
    let words = words(backend).filter(|_| backend.operator.is_none())?;
    let since = backend.drain.and_then(|progress| progress.since);
    let since = since
        .map_or_else(String::new, |since| format!(" for {}", duration(Saved::now().saturating_sub(since))));
    Some(format!("{} {}{since}, {words}", backend.address, backend.state))
}
