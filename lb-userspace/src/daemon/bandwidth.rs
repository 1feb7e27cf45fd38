//! How many bytes per second backends get, from what their counters say now and then. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lb_common::abi::BackendId;

use crate::health::ewma::Ewma;

/// For how long a second's bytes count.
const MEMORY: Duration = Duration::from_secs(5);

/// What the counters have said.
#[derive(Debug, Default)]
pub(super) struct Bandwidth(BTreeMap<BackendId, Measured>);

#[derive(Debug)]
struct Measured {
    bytes: u64,
    at: Instant,
    mean: Ewma,
}

impl Bandwidth {
    /// Takes the counters of all backends that are measured; their bytes per second. Of a backend of whom nothing was
    /// known it says nothing yet, so that what a process before this one has measured stays; what has begun to count
    /// anew is another backend.
    pub(super) fn measure(
        &mut self,
        bytes: &BTreeMap<BackendId, u64>,
        now: Instant,
    ) -> Vec<(BackendId, u64)> {
        self.0.retain(|id, measured| bytes.get(id).is_some_and(|bytes| *bytes >= measured.bytes));
        let mut loads = Vec::new();
        for (id, bytes) in bytes {
            let fresh = || Measured { bytes: *bytes, at: now, mean: Ewma::default() };
            let measured = self.0.entry(*id).or_insert_with(fresh);
            let seconds = now.saturating_duration_since(measured.at).as_secs_f64();
            if seconds > 0.0 {
                measured.mean.add(bytes.saturating_sub(measured.bytes) as f64 / seconds, now, MEMORY);
                (measured.bytes, measured.at) = (*bytes, now);
                loads.push((*id, measured.mean.value().round() as u64));
            }
        }
        loads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(n: u32) -> BackendId {
        BackendId::new(n).unwrap()
    }

    /// Measures every second while backend 1 gets so many bytes in each.
    fn run(
        bandwidth: &mut Bandwidth,
        (bytes, now): (&mut u64, &mut Instant),
        rate: u64,
        seconds: u32,
    ) -> u64 {
        let mut load = None;
        for _ in 0..seconds {
            *now += SECOND;
            *bytes += rate;
            load = bandwidth.measure(&BTreeMap::from([(id(1), *bytes)]), *now).first().copied();
        }
        load.unwrap().1
    }

    #[test]
    fn loads_follow_rates_and_forget_them() {
        let (mut bandwidth, mut bytes, mut now) = (Bandwidth::default(), 1 << 40, Instant::now());
        let first = bandwidth.measure(&BTreeMap::from([(id(1), bytes)]), now);
        assert_eq!(first, [], "what was counted before says nothing of its rate");
        assert_eq!(run(&mut bandwidth, (&mut bytes, &mut now), 1000, 1), 1000, "nothing is known but this");
        let after_memory = run(&mut bandwidth, (&mut bytes, &mut now), 2000, 5);
        assert!((1600..1660).contains(&after_memory), "{after_memory}");
        assert!(run(&mut bandwidth, (&mut bytes, &mut now), 2000, 60).abs_diff(2000) <= 1);
        assert_eq!(run(&mut bandwidth, (&mut bytes, &mut now), 0, 60), 0, "idle");
        assert_eq!(run(&mut bandwidth, (&mut bytes, &mut now), 0, 60), 0, "and stays so");
    }

    #[test]
    fn an_id_that_counts_anew_is_another_backend() {
        let (mut bandwidth, mut bytes, mut now) = (Bandwidth::default(), 0, Instant::now());
        run(&mut bandwidth, (&mut bytes, &mut now), 1000, 60);
        let load = bandwidth.measure(&BTreeMap::from([(id(1), 10)]), now + SECOND);
        assert_eq!(load, []);
    }

    #[test]
    fn who_is_not_measured_any_more_is_forgotten() {
        let mut bandwidth = Bandwidth::default();
        bandwidth.measure(&BTreeMap::from([(id(1), 5), (id(2), 5)]), Instant::now());
        bandwidth.measure(&BTreeMap::from([(id(2), 5)]), Instant::now());
        assert_eq!(bandwidth.0.len(), 1);
    }
}
