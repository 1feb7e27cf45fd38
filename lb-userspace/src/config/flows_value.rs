//! Scalars about flows: policies, tracking, times. Pure text in, value or fault out.

use std::time::Duration;

use super::health_value::{DAY, HOUR, SECOND, duration};
use super::value::{Fault, Reader, number, word};
use crate::model::{Algorithm, OnRemove, Tracking};

/// How long a client is remembered unless the config says otherwise.
pub(super) const AFFINITY_TIMEOUT: Duration = Duration::from_secs(10 * 60);

const ALGORITHMS: [(&str, Algorithm); 6] = [
    ("maglev", Algorithm::Maglev),
    ("source-hash", Algorithm::SourceHash),
    ("round-robin", Algorithm::RoundRobin),
    ("least-connections", Algorithm::LeastConnections),
    ("least-response-time", Algorithm::LeastResponseTime),
    ("least-bandwidth", Algorithm::LeastBandwidth),
];

/// What other load balancers call them.
const ELSEWHERE: [(&str, &str); 14] = [
    ("mh", "maglev"),
    ("random", "maglev"),
    ("sh", "source-hash"),
    ("source", "source-hash"),
    ("ip_hash", "source-hash"),
    ("rr", "round-robin"),
    ("wrr", "round-robin"),
    ("roundrobin", "round-robin"),
    ("lc", "least-connections"),
    ("wlc", "least-connections"),
    ("leastconn", "least-connections"),
    ("least_conn", "least-connections"),
    ("least_request", "least-connections"),
    ("least_time", "least-response-time"),
];

pub(super) const ALGORITHM: Reader<Algorithm> = Reader {
    expected: "maglev, source-hash, round-robin, least-connections, least-response-time or least-bandwidth",
    parse: |text| {
        word(text, &ALGORITHMS, &[]).map_err(|fault| {
            let lower = text.to_ascii_lowercase();
            let known = ELSEWHERE.iter().find(|(name, _)| *name == lower);
            known.map_or(fault, |(_, ours)| Fault::Word(Some(ours)))
        })
    },
};
pub(super) const TRACKING: Reader<Tracking> = Reader {
    expected: "auto, always or never",
    parse: |text| {
        use Tracking::{Always, Auto, Never};
        word(text, &[("auto", Auto), ("always", Always), ("never", Never)], &[])
    },
};
pub(super) const ON_REMOVE: Reader<OnRemove> = Reader {
    expected: "drain or drop",
    parse: |text| word(text, &[("drain", OnRemove::Drain), ("drop", OnRemove::Drop)], &[]),
};
pub(super) const AFFINITY_BY: Reader<()> =
    Reader { expected: "source", parse: |text| word(text, &[("source", ())], &[]) };
/// `idle` as one time.
pub(super) const IDLE: Reader<Duration> = Reader {
    expected: "a duration from 1s to 24h, or a mapping such as {established: 15m, half_open: 60s, closing: 2m}",
    parse: |text| duration(text, SECOND, DAY),
};
/// What fits the tenths of a second of a service's entry.
pub(super) const SECOND_TO_HOUR: Reader<Duration> =
    Reader { expected: "a duration from 1s to 1h", parse: |text| duration(text, SECOND, HOUR) };
pub(super) const SECOND_TO_WEEK: Reader<Duration> =
    Reader { expected: "a duration from 1s to 168h", parse: |text| duration(text, SECOND, 7 * DAY) };
pub(super) const DRAIN_DEADLINE: Reader<Option<Duration>> = Reader {
    expected: "a duration from 1s to 168h, or none",
    parse: |text| if text == "none" { Ok(None) } else { duration(text, SECOND, 7 * DAY).map(Some) },
};
pub(super) const RECEIVING_CPUS: Reader<u32> = Reader {
    expected: "a number from 1 to 8192",
    parse: |text| u32::try_from(number(text, 1, 8192)?).map_err(|_| Fault::Value),
};

/// The word for an algorithm.
pub(super) fn algorithm_name(algorithm: Algorithm) -> &'static str {
    ALGORITHMS.iter().find(|(_, known)| *known == algorithm).map_or("maglev", |(name, _)| name)
}
