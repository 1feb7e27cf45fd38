//! Policies, tracking and times: what keys mean, and who has the last word.

use std::time::Duration;

use super::{bad, parse};
use crate::config::{flows, flows_value as value, shapes, value::Fault};
use crate::model::{Algorithm, DrainRules, FlowRules, IdleTimes, OnRemove, Protocol, Service, Tracking};

const SECOND: Duration = Duration::from_secs(1);

/// The services of a config with these defaults, service and pool keys.
fn services(defaults: &str, service: &str, pool: &str) -> Vec<Service> {
    let text = format!(
        "version: 1\ndefaults: {{{defaults}}}\nservices:\n  - {{name: web, address: 203.0.113.10, \
         protocols: [tcp, udp], port: 80, pool: p{service}}}\npools:\n  - {{name: p, forwarding: l2, backends: \
         [{{address: 192.0.2.1}}]{pool}}}\n"
    );
    let loaded = parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let effective = loaded.effective();
    let again = parse(&effective).unwrap_or_else(|errors| panic!("{effective}\n{errors}"));
    assert_eq!(again.model, loaded.model, "{effective}");
    assert_eq!(again.effective(), effective);
    loaded.model.services
}

#[test]
fn findings() {
    assert!(bad::check("flows.txt") >= 11);
}

#[test]
fn what_is_not_written_is_the_protocols_default() {
    for service in services("", "", "") {
        assert_eq!(service.flows, FlowRules::of(service.id.protocol));
        assert_eq!(service.drain, DrainRules::default());
    }
    assert_ne!(IdleTimes::of(Protocol::Tcp), IdleTimes::of(Protocol::Udp));
}

#[test]
fn every_key_has_its_meaning() {
    let keys = ", algorithm: round-robin, tracking: always, idle: {established: 1s, half_open: 2s, closing: 1500ms}, \
                affinity: {by: source, timeout: 3s}, max_unsettled: 1h, on_remove: drop, drain_deadline: 4s, slow_start: 5s";
    for service in services("", keys, "") {
        let idle =
            IdleTimes { established: SECOND, half_open: 2 * SECOND, closing: Duration::from_millis(1500) };
        assert_eq!(
            service.flows,
            FlowRules {
                algorithm: Algorithm::RoundRobin,
                tracking: Tracking::Always,
                idle,
                affinity: Some(3 * SECOND),
                max_unsettled: 3600 * SECOND,
            }
        );
        let deadline = Some(4 * SECOND);
        assert_eq!(service.drain, DrainRules { on_remove: OnRemove::Drop, deadline, slow_start: 5 * SECOND });
    }
}

#[test]
fn every_algorithm_has_its_name() {
    use Algorithm::{LeastBandwidth, LeastConnections, LeastResponseTime, Maglev, RoundRobin, SourceHash};
    for (name, algorithm) in [
        ("maglev", Maglev),
        ("source-hash", SourceHash),
        ("round-robin", RoundRobin),
        ("least-connections", LeastConnections),
        ("least-response-time", LeastResponseTime),
        ("least-bandwidth", LeastBandwidth),
    ] {
        let service = &services("health_check: {type: tcp}", &format!(", algorithm: {name}"), "")[0];
        assert_eq!(service.flows.algorithm, algorithm);
    }
    for (elsewhere, ours) in
        [("leastconn", "least-connections"), ("ip_hash", "source-hash"), ("WRR", "round-robin")]
    {
        assert_eq!((value::ALGORITHM.parse)(elsewhere), Err(Fault::Word(Some(ours))));
    }
}

#[test]
fn the_nearest_word_counts_key_by_key() {
    let defaults = "idle: {established: 5m, closing: 10s}, affinity: {by: source}, on_remove: drop, \
                    drain_deadline: 1h, slow_start: 1m, tracking: always";
    let pool = ", drain_deadline: 30m, slow_start: 30s";
    let service = &services(defaults, ", idle: 10m, affinity: none, slow_start: 0s", pool)[0];
    let IdleTimes { established, half_open, closing } = service.flows.idle;
    assert_eq!((established, half_open, closing), (600 * SECOND, 60 * SECOND, 10 * SECOND));
    assert_eq!((service.flows.affinity, service.flows.tracking), (None, Tracking::Always));
    assert_eq!(
        service.drain,
        DrainRules { on_remove: OnRemove::Drop, deadline: Some(1800 * SECOND), slow_start: Duration::ZERO }
    );
    let service = &services(defaults, ", drain_deadline: none", pool)[0];
    assert_eq!((service.drain.deadline, service.drain.slow_start), (None, 30 * SECOND));
    assert_eq!(service.flows.affinity, Some(600 * SECOND));
}

#[test]
fn backends_of_a_services_own_obey_it() {
    let text = "version: 1\nservices: [{name: web, address: 203.0.113.10, protocol: tcp, port: 80, forwarding: l2, \
                backends: [{address: 192.0.2.1}], slow_start: 10s, drain_deadline: 2m}]\n";
    let loaded = parse(text).unwrap();
    let rules = DrainRules { deadline: Some(120 * SECOND), slow_start: 10 * SECOND, ..DrainRules::default() };
    assert_eq!(loaded.model.services[0].drain, rules);
}

#[test]
fn times_fit_where_the_data_plane_keeps_them() {
    let tenths = |time: Duration| time.as_millis() / 100;
    let longest = (value::SECOND_TO_HOUR.parse)("1h").unwrap();
    assert!(tenths(longest) <= u16::MAX.into());
    let longest = (value::IDLE.parse)("24h").unwrap();
    assert!(longest.as_millis() <= u32::MAX.into());
}

/// By itself a slot settles an idle time after its last change at the earliest.
#[test]
fn unsettled_time_grows_with_the_idle_time() {
    let service = &services("", ", idle: 24h", "")[0];
    assert_eq!(service.flows.max_unsettled, 48 * 3600 * SECOND);
}

#[test]
fn every_key_is_documented() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let read = |name| std::fs::read_to_string(examples.join(name)).unwrap();
    let (rules, full) = (read("CONFIG.md"), read("full.yaml"));
    for shape in
        [&flows::IDLE, &flows::AFFINITY, &shapes::SERVICE, &shapes::POOL, &shapes::LIMITS, &shapes::DEFAULTS]
    {
        for key in shape.keys {
            assert!(rules.contains(&format!("`{key}`")), "CONFIG.md: {}: `{key}`", shape.what);
            assert!(
                full.contains(&format!("{key}: ")) || full.contains(&format!("{key}:\n")),
                "full.yaml: {key}"
            );
        }
    }
    for name in [
        "maglev",
        "source-hash",
        "round-robin",
        "least-connections",
        "least-response-time",
        "least-bandwidth",
    ] {
        assert!(rules.contains(&format!("| `{name}` |")), "{name}");
    }
}
