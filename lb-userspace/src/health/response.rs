//! Shares that follow how fast backends answer probes. Pure; knows neither probes nor weights.
//!
//! A backend's share is that of the fastest one's latency in its own, between a quarter and all of its weight. Every
//! change moves slots, which settle an idle time after the last one: so a share changes only where another has been
//! deserved for a while that differs by more than a fifth, and after several changes there is a rest in which rings
//! settle. Jitter of a fifth and single late answers change nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::ewma::Ewma;

/// For how long a latency counts: several probes at the usual intervals.
const MEMORY: Duration = Duration::from_secs(8);
/// What is shorter says more of the prober than of the backend, in seconds.
const SHORTEST: f64 = 0.001;
/// Least share of its weight that a slow backend keeps, in percent: it still has to show that it has become faster.
const LEAST: u32 = 25;
/// Differences of less than this part of what is in force, in percent, are noise.
const NOISE: u32 = 20;
/// Who deserves so much gets all, in percent.
const NEARLY_ALL: u32 = 90;
/// For how long another share has to be deserved, and from one change to the next.
const INTERVAL: Duration = Duration::from_secs(20);
/// Changes without a rest between them.
const CHANGES: u32 = 8;

/// What is known of the backends of a service.
#[derive(Clone, Debug, Default)]
pub struct Response {
    backends: BTreeMap<IpAddr, Known>,
    /// How long a rest is.
    rest: Duration,
    changed: Option<Instant>,
    /// Since the last rest.
    changes: u32,
}

#[derive(Clone, Debug)]
struct Known {
    /// The last samples in seconds, in the order in which they came, and when the newest came.
    recent: [f64; 3],
    at: Option<Instant>,
    mean: Ewma,
    percent: u32,
    /// Since when it deserves more, or less.
    differs: Option<(Ordering, Instant)>,
}

impl Default for Known {
    fn default() -> Self {
        Self { recent: [0.0; 3], at: None, mean: Ewma::default(), percent: 100, differs: None }
    }
}

impl Known {
    /// One of three may be anything: their median counts.
    fn sample(&mut self, latency: Duration, at: Instant) {
        let latency = latency.as_secs_f64().max(SHORTEST);
        let [_, older, newer] = self.recent;
        self.recent = if self.at.is_some() { [older, newer, latency] } else { [latency; 3] };
        self.at = Some(at);
        let mut sorted = self.recent;
        sorted.sort_unstable_by(f64::total_cmp);
        let [_, median, _] = sorted;
        self.mean.add(median, at, MEMORY);
    }

    fn latency(&self) -> Option<f64> {
        self.at.map(|_| self.mean.value())
    }

    /// The share that its latency deserves, where the fastest has this one; what is in force unless it differs much.
    fn deserved(&self, fastest: f64) -> u32 {
        let Some(latency) = self.latency() else { return self.percent };
        let share = (100.0 * fastest / latency).round();
        let share = (share.min(100.0) as u32).max(LEAST);
        let differs = share.abs_diff(self.percent) * 100 >= self.percent * NOISE;
        if share >= NEARLY_ALL {
            100
        } else if differs {
            share
        } else {
            self.percent
        }
    }

    /// Whether it has deserved this share for long enough.
    fn is_due(&mut self, deserved: u32, now: Instant) -> bool {
        let direction = deserved.cmp(&self.percent);
        let same = self.differs.filter(|(before, _)| *before == direction);
        self.differs = (direction != Ordering::Equal).then(|| same.unwrap_or((direction, now)));
        self.differs.is_some_and(|(_, since)| now.saturating_duration_since(since) >= INTERVAL)
    }
}

impl Response {
    /// What is known, for a service whose flows are dead after such a silence; of these backends only.
    pub fn keep(&mut self, idle: Duration, present: impl Fn(IpAddr) -> bool) {
        // A sweep a minute settles what may settle.
        self.rest = idle + Duration::from_secs(60);
        self.backends.retain(|address, _| present(*address));
    }

    /// Takes how long a backend's last probe took that succeeded; one that was taken already is none.
    pub fn sample(&mut self, backend: IpAddr, latency: Duration, at: Instant) {
        let known = self.backends.entry(backend).or_default();
        if known.at.is_none_or(|last| at > last) {
            known.sample(latency, at);
        }
    }

    /// Changes shares of those who serve, where others are deserved and it is time. To be called as samples come.
    pub fn step(&mut self, now: Instant, serves: impl Fn(IpAddr) -> bool) {
        let latencies = self.backends.iter().filter(|(address, _)| serves(**address));
        let Some(fastest) = latencies.filter_map(|(_, known)| known.latency()).reduce(f64::min) else {
            return;
        };
        let may_change = self.may_change(now);
        let mut changed = false;
        for (_, known) in self.backends.iter_mut().filter(|(address, _)| serves(**address)) {
            let deserved = known.deserved(fastest);
            if known.is_due(deserved, now) && may_change {
                known.percent = deserved;
                known.differs = None;
                changed = true;
            }
        }
        if changed {
            let rested = self.since_change(now).is_none_or(|since| since >= self.rest);
            self.changes = if rested { 1 } else { self.changes + 1 };
            self.changed = Some(now);
        }
    }

    /// Share of its weight that a backend gets, in percent.
    pub fn percent(&self, backend: IpAddr) -> u32 {
        self.backends.get(&backend).map_or(100, |known| known.percent)
    }

    fn since_change(&self, now: Instant) -> Option<Duration> {
        self.changed.map(|at| now.saturating_duration_since(at))
    }

    fn may_change(&self, now: Instant) -> bool {
        let wait = if self.changes < CHANGES { INTERVAL } else { self.rest };
        self.since_change(now).is_none_or(|since| since >= wait)
    }
}

#[cfg(test)]
mod tests;
