//! How many flows began of late, by backend: samples of counters, a minute or so apart. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::blast::Accuracy;

/// For so long samples are kept.
const MEMORY: Duration = Duration::from_secs(16 * 60);
/// So far they are apart at least.
const APART: Duration = Duration::from_secs(30);

/// Samples of the counters of new flows.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    /// When, in nanoseconds of the monotonic clock, and new flows by backend number; the oldest first.
    samples: VecDeque<(u64, BTreeMap<u32, u64>)>,
}

/// New flows of late.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Recent {
    /// By backend number.
    pub(super) flows: BTreeMap<u32, u64>,
    /// Whether these are all that ever began, or those of the time that was asked for.
    pub(super) accuracy: Accuracy,
}

impl Pace {
    /// Whether it is time for another sample.
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        let apart = |at: &u64| u128::from(now_ns.saturating_sub(*at)) >= APART.as_nanos();
        self.samples.back().is_none_or(|(at, _)| apart(at))
    }

    /// Takes a sample.
    pub(super) fn note(&mut self, now_ns: u64, flows: BTreeMap<u32, u64>) {
        let old = |at: &u64| u128::from(now_ns.saturating_sub(*at)) > MEMORY.as_nanos();
        while self.samples.get(1).is_some_and(|(at, _)| old(at)) {
            self.samples.pop_front();
        }
        self.samples.push_back((now_ns, flows));
    }

    /// Flows that began within about `window`, by what is counted `now`; all that ever began where nobody has counted for
    /// so long. Of longer ones than are kept what is known.
    pub(super) fn recent(&self, now_ns: u64, now: BTreeMap<u32, u64>, window: Duration) -> Recent {
        let window_ns = window.min(MEMORY).as_nanos();
        let before =
            |(at, _): &&(u64, BTreeMap<u32, u64>)| u128::from(now_ns.saturating_sub(*at)) >= window_ns;
        let Some((_, then)) = self.samples.iter().rev().find(before) else {
            return Recent { flows: now, accuracy: Accuracy::AtMost };
        };
        // A number given anew starts over at zero.
        let since = |(id, count): (u32, u64)| match then.get(&id) {
            Some(then) if *then <= count => (id, count - then),
            _ => (id, count),
        };
        Recent { flows: now.into_iter().map(since).collect(), accuracy: Accuracy::About }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn counts(flows: u64) -> BTreeMap<u32, u64> {
        BTreeMap::from([(1, flows)])
    }

    #[test]
    fn what_began_within_the_window_is_told_from_what_ever_began() {
        let mut pace = Pace::default();
        assert!(pace.is_due(0));
        let window = Duration::from_secs(120);
        assert_eq!(pace.recent(SECOND, counts(500), window).accuracy, Accuracy::AtMost);
        for minute in 0..40 {
            pace.note(minute * 60 * SECOND, counts(1000 + minute * 10));
        }
        let recent = pace.recent(39 * 60 * SECOND, counts(1400), window);
        assert_eq!(recent, Recent { flows: counts(1400 - 1370), accuracy: Accuracy::About });
        assert!(pace.samples.len() <= 18, "{} samples are kept", pace.samples.len());
        assert!(!pace.is_due((39 * 60 + 29) * SECOND) && pace.is_due((39 * 60 + 30) * SECOND));
        // Longer than is remembered: what is known.
        let long = pace.recent(39 * 60 * SECOND, counts(1400), Duration::from_secs(86_400));
        assert_eq!((long.flows, long.accuracy), (counts(1400 - 1230), Accuracy::About));
        let anew = pace.recent(39 * 60 * SECOND, counts(7), window);
        assert_eq!(anew.flows, counts(7), "the number has been given anew");
    }
}
