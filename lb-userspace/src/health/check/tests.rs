//! Thresholds, paces and the bound on detection.

use proptest::prelude::*;

use super::*;

const TIMING: Timing = Timing {
    interval: Duration::from_secs(2),
    fast_interval: Duration::from_millis(500),
    timeout: Duration::from_secs(1),
    healthy_threshold: 2,
    unhealthy_threshold: 3,
    max_interval: Duration::from_secs(60),
};

fn record(state: &mut CheckState, outcomes: &str) -> Vec<Option<Standing>> {
    let now = Instant::now();
    let outcome = |c| if c == '+' { Outcome::Passed } else { Outcome::Failed };
    outcomes.chars().map(|c| state.record(now, outcome(c))).collect()
}

fn pause(state: &CheckState, took: u64, jitter: f64) -> Duration {
    let started = Instant::now();
    state.next(started, started + Duration::from_millis(took), jitter) - started
}

#[test]
fn the_first_success_decides_and_the_first_failures_do_not() {
    let mut state = CheckState::new(TIMING, Standing::Unknown);
    assert_eq!(record(&mut state, "+"), [Some(Standing::Passing)]);
    let mut state = CheckState::new(TIMING, Standing::Unknown);
    assert_eq!(record(&mut state, "---"), [None, None, Some(Standing::Failing)]);
    let mut state = CheckState::new(TIMING, Standing::Unknown);
    assert_eq!(record(&mut state, "--+"), [None, None, Some(Standing::Passing)]);
}

#[test]
fn a_standing_changes_after_as_many_results_in_a_row_as_its_threshold() {
    let mut state = CheckState::new(TIMING, Standing::Passing);
    assert_eq!(state.since(), None);
    assert_eq!(record(&mut state, "--+--"), [None; 5], "interrupted");
    assert_eq!(record(&mut state, "-"), [Some(Standing::Failing)]);
    assert_eq!(record(&mut state, "-+-+"), [None; 4]);
    assert_eq!(record(&mut state, "++"), [Some(Standing::Passing), None]);
    assert_eq!(state.streak(), Some((Outcome::Passed, 3)));
    assert!(state.since().is_some());
}

#[test]
fn doubt_is_settled_at_the_fast_pace_without_jitter() {
    for (standing, outcomes) in [
        (Standing::Unknown, "-"),
        (Standing::Passing, "-"),
        (Standing::Passing, "+--"),
        (Standing::Failing, "+"),
    ] {
        let mut state = CheckState::new(TIMING, standing);
        record(&mut state, outcomes);
        assert!(state.is_deciding());
        assert_eq!(pause(&state, 10, 0.7), Duration::from_millis(500), "{standing:?} {outcomes}");
        assert_eq!(pause(&state, 800, 0.7), Duration::from_millis(800), "at once where it took longer");
    }
}

#[test]
fn jitter_only_shortens() {
    for (standing, outcomes) in [(Standing::Passing, "+"), (Standing::Failing, "-"), (Standing::Passing, "")]
    {
        let mut state = CheckState::new(TIMING, standing);
        record(&mut state, outcomes);
        assert_eq!(pause(&state, 10, 0.0), Duration::from_secs(2));
        assert_eq!(pause(&state, 10, 0.5), Duration::from_millis(1900));
        assert!(pause(&state, 10, 0.999) >= Duration::from_millis(1800));
        assert_eq!(pause(&state, 10, f64::NAN), Duration::from_secs(2));
        assert_eq!(pause(&state, 3000, 0.5), Duration::from_secs(3), "never before the last one ended");
    }
}

#[test]
fn a_check_that_keeps_failing_is_slowed_down_and_a_success_ends_that() {
    let mut state = CheckState::new(TIMING, Standing::Failing);
    let mut paces = Vec::new();
    for _ in 0..200 {
        record(&mut state, "-");
        paces.push(pause(&state, 10, 0.5).as_millis());
    }
    assert_eq!(paces[11], 1900, "twelve failures");
    assert_eq!(paces[12..17], [4000; 5]);
    assert_eq!(paces[17..22], [8000; 5]);
    assert_eq!(paces[27..32], [32_000; 5]);
    assert!(paces[32..].iter().all(|pace| *pace == 57_000), "{paces:?}");
    assert_eq!(pause(&state, 10, 1.0), Duration::from_secs(60), "never above the longest");
    assert_eq!(pause(&state, 10, 0.0), Duration::from_secs(54));
    record(&mut state, "+");
    assert_eq!(pause(&state, 10, 0.5), TIMING.fast_interval);
}

#[test]
fn no_back_off_where_the_longest_interval_is_the_interval() {
    let mut state = CheckState::new(Timing { max_interval: TIMING.interval, ..TIMING }, Standing::Failing);
    record(&mut state, &"-".repeat(100));
    assert_eq!(pause(&state, 10, 0.0), Duration::from_secs(2));
    assert_eq!(pause(&state, 10, 1.0), Duration::from_millis(1800));
}

fn timing() -> impl Strategy<Value = Timing> {
    (20u64..5000, 0.0f64..=1.0, 0.01f64..=1.5, 1u32..5, 1u32..6, 1u32..20).prop_map(
        |(interval, fast, timeout, healthy, unhealthy, factor)| {
            let interval = Duration::from_millis(interval);
            Timing {
                interval,
                fast_interval: interval.mul_f64(fast),
                timeout: interval.mul_f64(timeout),
                healthy_threshold: healthy,
                unhealthy_threshold: unhealthy,
                max_interval: interval * factor,
            }
        },
    )
}

proptest! {
    /// Probes see the backend as it is at some moment while they run; it fails at any moment, also in mid-probe.
    #[test]
    fn a_failure_is_decided_within_the_bound(
        timing in timing(),
        fails_after in 0.0f64..10.0,
        draws in prop::collection::vec((0.0f64..1.0, 0.0f64..=1.0, 0.0f64..=1.0), 100),
    ) {
        let start = Instant::now();
        let fails = start + timing.interval.mul_f64(fails_after);
        let mut state = CheckState::new(timing, Standing::Passing);
        let mut started = start;
        let mut decided = None;
        for (jitter, took, seen) in draws {
            let took = timing.timeout.mul_f64(took);
            let ended = started + took;
            let failed = started + took.mul_f64(seen) >= fails;
            let outcome = if failed { Outcome::Failed } else { Outcome::Passed };
            if state.record(ended, outcome) == Some(Standing::Failing) {
                decided = Some(ended);
                break;
            }
            let next = state.next(started, ended, jitter);
            prop_assert!(next >= ended);
            started = next;
        }
        let probes = timing.timeout.max(timing.fast_interval) * timing.unhealthy_threshold;
        let bound = timing.interval.max(timing.timeout) + probes;
        let late = decided.unwrap() - fails;
        prop_assert!(late <= bound, "{late:?} > {bound:?}");
    }
}
