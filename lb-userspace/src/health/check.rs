//! One check of one backend: from results to a standing, and when the next probe starts. Knows neither what is probed
//! nor what a standing is used for; time and chance are handed in.

use std::time::{Duration, Instant};

use crate::model::Timing;

/// Failures in a row, beyond those that decided, after which a check is slowed down.
const PATIENCE: u32 = 10;
/// Failures in a row for each further doubling.
const DOUBLING: u32 = 5;
/// How far chance moves a probe: this fraction of its interval.
const JITTER: f64 = 0.1;

/// What a check says of its backend.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Standing {
    /// Not enough results yet.
    #[default]
    Unknown,
    /// It works.
    Passing,
    /// It does not.
    Failing,
}

/// How one probe ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Any other way, running out of time included.
    Failed,
}

/// The results of one check so far, as far as they matter.
#[derive(Clone, Debug)]
pub struct CheckState {
    timing: Timing,
    standing: Standing,
    since: Option<Instant>,
    last: Option<Outcome>,
    streak: u32,
    suspected: bool,
}

impl CheckState {
    /// Starts without results; `standing` is what is known from before the daemon restarted.
    pub fn new(timing: Timing, standing: Standing) -> Self {
        Self { timing, standing, since: None, last: None, streak: 0, suspected: false }
    }

    /// Takes a result in; the new standing if this one changed it.
    ///
    /// A backend that nothing is known of passes with its first success, but fails only as a passing one would.
    pub fn record(&mut self, now: Instant, outcome: Outcome) -> Option<Standing> {
        self.streak = if self.last == Some(outcome) { self.streak.saturating_add(1) } else { 1 };
        self.last = Some(outcome);
        let suspected = std::mem::take(&mut self.suspected);
        let (standing, needed) = match (self.standing, outcome) {
            (Standing::Unknown, Outcome::Passed) => (Standing::Passing, 1),
            (Standing::Unknown | Standing::Passing, Outcome::Failed) => {
                (Standing::Failing, self.timing.unhealthy_threshold)
            }
            (Standing::Failing, Outcome::Passed) => (Standing::Passing, self.timing.healthy_threshold),
            (Standing::Passing, Outcome::Passed) | (Standing::Failing, Outcome::Failed) => return None,
        };
        let decided = suspected && outcome == Outcome::Failed;
        if self.streak < needed && !decided {
            return None;
        }
        self.standing = standing;
        self.since = Some(now);
        Some(standing)
    }

    /// Something else speaks against the backend: its link or its neighbour entry is gone. Then one failure decides.
    pub fn suspect(&mut self) {
        self.suspected = true;
    }

    /// What the check says now.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// How many of the last results were the same, and which; `None` before the first.
    pub fn streak(&self) -> Option<(Outcome, u32)> {
        self.last.map(|outcome| (outcome, self.streak))
    }

    /// When the standing was decided; `None`: not in this daemon's life.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether the last result speaks against the standing, so that a decision is near and probes follow fast.
    pub fn is_deciding(&self) -> bool {
        match self.standing {
            Standing::Unknown => self.last.is_some(),
            Standing::Passing => self.last == Some(Outcome::Failed),
            Standing::Failing => self.last == Some(Outcome::Passed),
        }
    }

    /// When the next probe starts, after one from `started` to `ended`. `jitter` in 0.0..1.0 is drawn by the caller.
    ///
    /// Chance only ever shortens the interval of a check that may have something to find out, so that a failure is
    /// decided within `interval` and, for each of `unhealthy_threshold` probes, the longer of `timeout` and
    /// `fast_interval`; a `timeout` above `interval` stands for it.
    pub fn next(&self, started: Instant, ended: Instant, jitter: f64) -> Instant {
        let pause = if self.is_deciding() { self.timing.fast_interval } else { self.pause(jitter) };
        ended.max(started + pause)
    }

    fn pause(&self, jitter: f64) -> Duration {
        let drawn = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 };
        let interval = self.timing.interval;
        let slowed = interval.saturating_mul(self.slowdown()).min(self.timing.max_interval);
        if slowed <= interval {
            return interval.mul_f64(1.0 - JITTER * drawn);
        }
        // Drawn below the cap rather than cut off at it: half of all draws would come out equal.
        let (least, most) = (slowed.mul_f64(1.0 - JITTER), slowed.mul_f64(1.0 + JITTER));
        let most = most.min(self.timing.max_interval);
        least + most.saturating_sub(least).mul_f64(drawn)
    }

    /// By what the interval is multiplied: 1 until [`PATIENCE`] runs out, 2 from there on, and doubled again every
    /// [`DOUBLING`] failures.
    fn slowdown(&self) -> u32 {
        let patience = self.timing.unhealthy_threshold.saturating_add(PATIENCE);
        match (self.standing, self.last) {
            (Standing::Failing, Some(Outcome::Failed)) if self.streak >= patience => {
                let doublings = 1 + (self.streak - patience) / DOUBLING;
                1u32.checked_shl(doublings).unwrap_or(u32::MAX)
            }
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests;
