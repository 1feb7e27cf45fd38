//! Slow start: a backend that begins to serve gets its weight in steps. Pure; knows neither why it serves nor what its
//! weight is.

use std::time::{Duration, Instant};

/// Share of its weight that a backend begins with, in percent.
const FIRST: u32 = 10;
/// Every step moves slots, which settle an idle time after the last one: so there are no more than this,
const STEPS: u32 = 8;
/// and none takes less.
const LEAST_STEP: Duration = Duration::from_secs(1);

/// How far a backend has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SlowStart {
    serves: bool,
    start: Option<Start>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Start {
    began: Instant,
    /// Steps that are done.
    done: u32,
}

impl SlowStart {
    /// For a backend that serves already, as far as anybody knows: it needs no start.
    pub fn warm() -> Self {
        Self { serves: true, start: None }
    }

    /// For one that is new.
    pub fn cold() -> Self {
        Self { serves: false, start: None }
    }

    /// Share of its weight in percent, of a backend that serves now or does not; `time` is what the whole start takes,
    /// zero: none.
    pub fn percent(&mut self, time: Duration, serves: bool, now: Instant) -> u32 {
        if serves && !self.serves && !time.is_zero() {
            self.start = Some(Start { began: now, done: 0 });
        }
        self.serves = serves;
        let Some(start) = self.start.as_mut().filter(|_| serves) else {
            self.start = None;
            return 100;
        };
        let since = now.saturating_duration_since(start.began).as_nanos();
        start.done = u32::try_from(since / step(time).as_nanos().max(1)).unwrap_or(u32::MAX);
        if start.done >= steps(time) {
            self.start = None;
            return 100;
        }
        FIRST + (100 - FIRST) * start.done / steps(time)
    }

    /// When the share changes next.
    pub fn next_step(&self, time: Duration) -> Option<Instant> {
        self.start.map(|start| start.began + step(time) * (start.done + 1))
    }
}

fn steps(time: Duration) -> u32 {
    u32::try_from(time.as_nanos() / LEAST_STEP.as_nanos()).unwrap_or(STEPS).clamp(1, STEPS)
}

fn step(time: Duration) -> Duration {
    time / steps(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(30);

    /// All shares from the beginning of a start on, with the seconds that each comes after.
    fn course(slow: &mut SlowStart, time: Duration, begin: Instant) -> Vec<(f64, u32)> {
        let mut course = vec![(0.0, slow.percent(time, true, begin))];
        let mut now = begin;
        while let Some(next) = slow.next_step(time) {
            assert!(next > now, "never the same moment again");
            now = next;
            course.push(((now - begin).as_secs_f64(), slow.percent(time, true, now)));
        }
        course
    }

    #[test]
    fn who_is_new_or_comes_back_starts_slowly() {
        let now = Instant::now();
        let mut slow = SlowStart::cold();
        let expected = [10, 21, 32, 43, 55, 66, 77, 88, 100];
        let times = (0..).map(|step| f64::from(step) * 3.75);
        let expected: Vec<(f64, u32)> = times.zip(expected).collect();
        assert_eq!(course(&mut slow, TIME, now), expected);
        let later = now + TIME * 2;
        assert_eq!(slow.percent(TIME, true, later), 100, "once");
        assert_eq!(slow.percent(TIME, false, later), 100, "what does not serve has no share to speak of");
        assert_eq!(course(&mut slow, TIME, later), expected, "after a failure again");
    }

    #[test]
    fn who_serves_already_needs_no_start() {
        let now = Instant::now();
        let mut slow = SlowStart::warm();
        assert_eq!((slow.percent(TIME, true, now), slow.next_step(TIME)), (100, None));
    }

    #[test]
    fn one_that_fails_on_the_way_begins_again() {
        let now = Instant::now();
        let mut slow = SlowStart::cold();
        slow.percent(TIME, true, now);
        let half = now + TIME / 2;
        assert_eq!(slow.percent(TIME, true, half), 55);
        slow.percent(TIME, false, half);
        assert_eq!(slow.next_step(TIME), None);
        assert_eq!(slow.percent(TIME, true, half), 10);
    }

    #[test]
    fn short_starts_have_few_steps_and_none_is_no_start() {
        let now = Instant::now();
        let steps = |time| course(&mut SlowStart::cold(), time, now).len() - 1;
        assert_eq!(steps(Duration::from_millis(300)), 1);
        assert_eq!(steps(Duration::from_millis(3500)), 3);
        assert_eq!(steps(Duration::from_secs(3600)), 8);
        assert_eq!(course(&mut SlowStart::cold(), Duration::ZERO, now), [(0.0, 100)]);
    }

    #[test]
    fn a_config_without_it_ends_a_start() {
        let now = Instant::now();
        let mut slow = SlowStart::cold();
        assert_eq!(slow.percent(TIME, true, now), 10);
        assert_eq!(slow.percent(Duration::ZERO, true, now + Duration::from_secs(1)), 100);
        assert_eq!(slow.next_step(Duration::ZERO), None);
    }
}
