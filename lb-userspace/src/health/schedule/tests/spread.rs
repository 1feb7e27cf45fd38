//! Ten thousand checks in simulated time: how many probes fall into any 10 ms.

use super::*;

const CHECKS: usize = 10_000;
const BIN: Duration = Duration::from_millis(10);
const STALL: Duration = Duration::from_millis(200);

/// What became of a simulated run.
struct Outcome {
    /// Probes per bin.
    bins: Vec<usize>,
    probes: Vec<u32>,
    latest_first: Duration,
    longest_pause: Duration,
}

impl Outcome {
    fn most(&self) -> usize {
        self.bins.iter().copied().max().unwrap()
    }
}

/// A process that probes, each probe taking 1 to 20 ms, and that stands still for a while at `stalls`.
struct Simulation {
    schedule: Schedule<usize>,
    start: Instant,
    now: Instant,
    interval: Duration,
    ends: BTreeSet<(Instant, usize)>,
    started: Vec<Option<Instant>>,
    chance: u64,
    outcome: Outcome,
}

impl Simulation {
    fn new(interval: Duration, lasts: Duration) -> Self {
        let start = Instant::now();
        let mut schedule = Schedule::new(2000);
        (0..CHECKS).for_each(|id| schedule.insert(id, start, interval));
        let bins = vec![0; (lasts.as_millis() / BIN.as_millis()) as usize + 1];
        let zero = Duration::ZERO;
        let outcome = Outcome { bins, probes: vec![0; CHECKS], latest_first: zero, longest_pause: zero };
        let (ends, started) = (BTreeSet::new(), vec![None; CHECKS]);
        Self { schedule, start, now: start, interval, ends, started, chance: 1, outcome }
    }

    /// In 0.0..1.0, by a linear congruential generator.
    fn draw(&mut self) -> f64 {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 11) as f64 / 2f64.powi(53)
    }

    fn end_probes(&mut self) {
        while let Some((end, id)) = self.ends.first().copied().filter(|(end, _)| *end <= self.now) {
            self.ends.pop_first();
            let pause = self.interval.mul_f64(1.0 - 0.1 * self.draw());
            let next = (self.started[id].unwrap() + pause).max(end);
            self.schedule.reschedule(id, next, Urgency::Paced);
        }
    }

    fn start_probes(&mut self) {
        for id in self.schedule.due(self.now) {
            let took = ms(1 + (self.draw() * 20.0) as u64);
            self.ends.insert((self.now + took, id));
            let since = self.now - self.start;
            let outcome = &mut self.outcome;
            outcome.bins[(since.as_millis() / BIN.as_millis()) as usize] += 1;
            outcome.probes[id] += 1;
            match self.started[id].replace(self.now) {
                None => outcome.latest_first = outcome.latest_first.max(since),
                Some(before) => outcome.longest_pause = outcome.longest_pause.max(self.now - before),
            }
        }
    }

    fn run(mut self, lasts: Duration, stalls: &[u64]) -> Outcome {
        let end = self.start + lasts;
        let start = self.start;
        let mut stalls = stalls.iter().map(|at| start + ms(*at)).peekable();
        while self.now < end {
            self.end_probes();
            self.start_probes();
            let ends = self.ends.first().map(|(end, _)| *end);
            let next = self.schedule.next_wakeup(self.now).into_iter().chain(ends).min().unwrap_or(end);
            self.now = next.max(self.now);
            if stalls.next_if(|at| *at <= self.now).is_some() {
                self.now += STALL;
            }
        }
        self.outcome
    }
}

fn simulate(interval: Duration, lasts: Duration, stalls: &[u64]) -> Outcome {
    let outcome = Simulation::new(interval, lasts).run(lasts, stalls);
    let mut sorted = outcome.bins.clone();
    sorted.sort_unstable();
    let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    println!(
        "{CHECKS} checks every {interval:?} for {lasts:?}, stalls at {stalls:?} ms: probes per 10 ms: \
         median {}, 99 % {}, most {}; first probes within {:?}, longest pause {:?}",
        at(50),
        at(99),
        outcome.most(),
        outcome.latest_first,
        outcome.longest_pause,
    );
    outcome
}

#[test]
fn no_ten_milliseconds_see_more_than_three_times_their_mean_even_after_stalls() {
    let mean = CHECKS / 200;
    for stalls in [&[][..], &[500, 3000, 3210, 7000]] {
        let outcome = simulate(INTERVAL, Duration::from_secs(10), stalls);
        assert!(outcome.most() <= 3 * mean);
        assert!(outcome.probes.iter().all(|probes| *probes >= 4));
    }
}

#[test]
fn ten_thousand_at_once_are_probed_within_a_second_and_then_spread_over_the_interval() {
    let outcome = simulate(INTERVAL, Duration::from_secs(6), &[]);
    assert!(outcome.latest_first <= ms(1010));
    assert!(outcome.longest_pause <= INTERVAL + ms(50), "nobody waits for a token");
    let settled = &outcome.bins[150..600];
    assert!(settled.iter().all(|count| (20..=100).contains(count)), "{settled:?}");
}

#[test]
fn long_intervals_have_their_first_round_in_a_second_too() {
    let interval = Duration::from_secs(30);
    let outcome = simulate(interval, Duration::from_secs(60), &[20_000]);
    assert!(outcome.latest_first <= ms(1010));
    assert!(outcome.longest_pause <= interval + ms(50) + STALL);
    assert!(outcome.bins[110..].iter().all(|count| *count <= 15), "three times 3.3, and a half");
}
