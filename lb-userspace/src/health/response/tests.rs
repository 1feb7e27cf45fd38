//! Slow backends lose weight and get it back; noise moves nothing; rings get their rests.

use super::*;
use proptest::prelude::*;

const IDLE: Duration = Duration::from_secs(900);
const PROBES: Duration = Duration::from_secs(2);
const FAST: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(50);

fn address(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

/// Backends that are probed every two seconds and serve all the time.
struct Bench {
    response: Response,
    now: Instant,
    /// When shares changed.
    changes: Vec<Instant>,
}

impl Bench {
    fn new() -> Self {
        let mut response = Response::default();
        response.keep(IDLE, |_| true);
        Self { response, now: Instant::now(), changes: Vec::new() }
    }

    fn shares(&self, backends: u8) -> Vec<u32> {
        (0..backends).map(|n| self.response.percent(address(n))).collect()
    }

    /// Lets time go by; `latency` is what the probe of a backend takes.
    fn run(&mut self, time: Duration, backends: u8, mut latency: impl FnMut(u8) -> Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += PROBES;
            for n in 0..backends {
                self.response.sample(address(n), latency(n), self.now);
            }
            let before = self.shares(backends);
            self.response.step(self.now, |_| true);
            if self.shares(backends) != before {
                self.changes.push(self.now);
            }
        }
    }
}

#[test]
fn a_slow_backend_loses_weight_within_two_intervals_and_gets_it_back() {
    let mut bench = Bench::new();
    bench.run(Duration::from_secs(60), 3, |_| FAST);
    assert_eq!(bench.shares(3), [100, 100, 100]);
    bench.run(2 * INTERVAL, 3, |n| if n == 1 { SLOW } else { FAST });
    assert_eq!(bench.shares(3), [100, LEAST, 100]);
    bench.run(4 * INTERVAL, 3, |_| FAST);
    assert_eq!(bench.shares(3), [100, 100, 100]);
}

#[test]
fn shares_are_inverse_to_latencies() {
    let mut bench = Bench::new();
    bench.run(Duration::from_secs(120), 3, |n| FAST * [1, 2, 3][usize::from(n)]);
    let shares = bench.shares(3);
    assert_eq!(shares[0], 100);
    assert!(shares[1].abs_diff(50) <= 1 && shares[2].abs_diff(33) <= 1, "{shares:?}");
    assert_eq!(bench.changes.len(), 1, "once");
}

#[test]
fn what_is_faster_than_a_millisecond_is_equally_fast() {
    let mut bench = Bench::new();
    bench.run(Duration::from_secs(60), 2, |n| Duration::from_micros([50, 900][usize::from(n)]));
    assert_eq!(bench.shares(2), [100, 100]);
}

/// One that always flips must not keep its ring from settling.
#[test]
fn after_some_changes_there_is_a_rest() {
    let mut bench = Bench::new();
    for turn in 0..60 {
        bench.run(Duration::from_secs(60), 2, |n| if turn % 2 == n { SLOW } else { FAST });
    }
    let gaps: Vec<Duration> = bench.changes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= INTERVAL), "{gaps:?}");
    let hour = Duration::from_secs(3600);
    let rests = gaps.iter().filter(|gap| **gap >= IDLE).count();
    assert!(rests >= 2, "{gaps:?} in {hour:?}");
    let runs = gaps.split(|gap| *gap >= IDLE + Duration::from_secs(60));
    assert!(runs.map(<[_]>::len).all(|run| run < CHANGES as usize), "{gaps:?}");
}

#[test]
fn who_does_not_serve_sets_no_pace_and_keeps_its_share() {
    let mut response = Response::default();
    response.keep(IDLE, |_| true);
    let mut now = Instant::now();
    for _ in 0..60 {
        now += PROBES;
        response.sample(address(0), FAST, now);
        response.sample(address(1), SLOW, now);
        response.step(now, |backend| backend == address(1));
    }
    assert_eq!((response.percent(address(0)), response.percent(address(1))), (100, 100));
    response.keep(IDLE, |backend| backend == address(1));
    assert_eq!(response.backends.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(50) })]

    /// Jitter of a fifth either way, and now and then a probe that takes ten times as long.
    #[test]
    fn noise_moves_nothing(seed in any::<u64>()) {
        let mut state = seed | 1;
        let mut random = move || {
            // xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut since = [0u32; 5];
        let mut bench = Bench::new();
        bench.run(Duration::from_secs(900), 5, |n| {
            let since = &mut since[usize::from(n)];
            *since += 1;
            if *since > 5 && random().is_multiple_of(10) {
                *since = 0;
                return SLOW;
            }
            FAST * (80 + (random() % 41) as u32) / 100
        });
        prop_assert_eq!(bench.shares(5), vec![100; 5]);
    }
}
