//! What policies promise, with the program in the kernel: shares against theory, live counts, affinity, and that who
//! drains gets nobody new.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use lb_common::abi::{BackendState, Protocol};
use lb_tests::bpf::{Action, Bench};
use lb_tests::packets::{Flow, Packet, Segment};
use lb_tests::scene::{self, INBOUND, VIP};
use lb_userspace::model::{Algorithm, FlowRules};
use lb_userspace::reconcile::{Desired, DesiredBackend, DesiredService};

const PORT: u16 = 80;
/// The last bytes of the backends' addresses.
const BACKENDS: [u8; 3] = [21, 22, 23];

const ALL: [Algorithm; 6] = [
    Algorithm::Maglev,
    Algorithm::SourceHash,
    Algorithm::RoundRobin,
    Algorithm::LeastConnections,
    Algorithm::LeastResponseTime,
    Algorithm::LeastBandwidth,
];

/// A service with three backends of these weights.
fn service(port: u16, weights: [u32; 3], algorithm: Algorithm, affinity: Option<Duration>) -> DesiredService {
    let backend = |(number, weight)| DesiredBackend { weight, ..scene::backend(1, number, None) };
    let backends = BACKENDS.into_iter().zip(weights).map(backend).collect();
    let flows = FlowRules { algorithm, affinity, ..FlowRules::of(Protocol::Tcp) };
    DesiredService { flows, ..scene::service(Protocol::Tcp, port, backends) }
}

fn desired(services: Vec<DesiredService>) -> Desired {
    Desired { services, ..scene::desired() }
}

fn bench(weights: [u32; 3], algorithm: Algorithm, affinity: Option<Duration>) -> Bench {
    Bench::new(&desired(vec![service(PORT, weights, algorithm, affinity)]))
}

/// A flow of the client with this number.
fn flow(client: u32, from_port: u16, port: u16) -> Flow {
    // 198.18.0.0/15 is for benchmarks (RFC 2544 appendix C.2.2).
    Flow { from: (Ipv4Addr::from(0xc612_0000 + client), from_port), to: (VIP, port) }
}

/// The backend that a segment gets to.
fn whose(bench: &mut Bench, flow: Flow, segment: Segment) -> u8 {
    let (action, frame) = bench.kernel(&Packet::tcp(INBOUND, flow, segment).bytes());
    assert_eq!(action, Action::Transmit);
    let found = BACKENDS.into_iter().find(|number| frame.starts_with(&scene::mac(*number)));
    found.expect("one of the backends")
}

/// How many of these flows begin on each backend.
fn shares(bench: &mut Bench, flows: impl Iterator<Item = Flow>) -> BTreeMap<u8, u32> {
    let mut shares = BTreeMap::new();
    for flow in flows {
        *shares.entry(whose(bench, flow, Segment::Syn)).or_default() += 1;
    }
    shares
}

/// Five standard deviations of how many of `n` flows fall to a backend with this share: less than one test in a million
/// errs.
fn slack(n: u32, share: f64) -> f64 {
    5.0 * (f64::from(n) * share * (1.0 - share)).sqrt()
}

fn assert_shares(shares: &BTreeMap<u8, u32>, weights: [u32; 3]) {
    let (n, total) = (shares.values().sum::<u32>(), weights.iter().sum::<u32>());
    for (number, weight) in BACKENDS.into_iter().zip(weights) {
        let share = f64::from(weight) / f64::from(total);
        let got = f64::from(shares.get(&number).copied().unwrap_or(0));
        let wanted = f64::from(n) * share;
        assert!((got - wanted).abs() <= slack(n, share), "{number}: {got} of {n}, {wanted} wanted");
    }
}

/// Turns are this CPU's own: see `Bench`, which stays on one.
#[test]
fn round_robin_is_exact_over_a_period() {
    let mut bench = bench([300, 200, 100], Algorithm::RoundRobin, None);
    let turns: Vec<u8> = (0..60).map(|n| whose(&mut bench, flow(n, 1000, PORT), Segment::Syn)).collect();
    let (first, rest) = turns.split_at(6);
    assert!(rest.chunks(6).all(|period| period == first), "{turns:?}");
    for (number, count) in BACKENDS.into_iter().zip([3, 2, 1]) {
        assert_eq!(first.iter().filter(|turn| **turn == number).count(), count, "{first:?}");
    }
    assert!(first.windows(3).all(|three| three.iter().any(|turn| *turn != three[0])), "spread: {first:?}");
    // What is recorded takes no turn.
    for (n, turn) in (0..).zip(&turns) {
        assert_eq!(whose(&mut bench, flow(n, 1000, PORT), Segment::Syn), *turn);
        assert_eq!(whose(&mut bench, flow(n, 1000, PORT), Segment::Ack), *turn);
    }
    assert_eq!(whose(&mut bench, flow(1000, 1000, PORT), Segment::Syn), first[0]);
}

#[test]
fn hashes_share_by_weight() {
    for algorithm in [Algorithm::Maglev, Algorithm::LeastResponseTime] {
        let mut bench = bench([300, 200, 100], algorithm, None);
        assert_shares(&shares(&mut bench, (0..3000).map(|n| flow(1, n, PORT))), [300, 200, 100]);
    }
    let mut bench = bench([300, 200, 100], Algorithm::SourceHash, None);
    assert_shares(&shares(&mut bench, (0..3000).map(|n| flow(n, 1000, PORT))), [300, 200, 100]);
}

#[test]
fn the_source_hash_keeps_all_ports_of_a_client_together() {
    let mut bench = bench([100; 3], Algorithm::SourceHash, None);
    for client in 0..50 {
        let shares = shares(&mut bench, (0..40).map(|n| flow(client, 1000 + 17 * n, PORT)));
        assert_eq!(shares.len(), 1, "client {client}: {shares:?}");
    }
}

/// Every third flow lives, the others end at once: what is in turn for every third gets all that live.
fn most_living_flows(algorithm: Algorithm) -> (u32, Bench) {
    let mut bench = bench([100; 3], algorithm, None);
    let mut living: BTreeMap<u8, u32> = BTreeMap::new();
    for n in 0..300 {
        let flow = flow(n, 1000, PORT);
        let backend = whose(&mut bench, flow, Segment::Syn);
        whose(&mut bench, flow, Segment::Ack);
        if u32::is_multiple_of(n, 3) {
            *living.entry(backend).or_default() += 1;
        } else {
            assert_eq!(whose(&mut bench, flow, Segment::Fin), backend);
        }
    }
    assert_eq!(living.values().sum::<u32>(), 100);
    (living.into_values().max().unwrap_or(0), bench)
}

#[test]
fn least_connections_bounds_what_unequal_flows_do_to_round_robin() {
    let (most, _) = most_living_flows(Algorithm::RoundRobin);
    assert_eq!(most, 100, "all on one");
    let (most, mut bench) = most_living_flows(Algorithm::LeastConnections);
    assert!(most <= 38, "{most} of 100 on one of three");
    let loads = bench.loads();
    assert_eq!(loads.values().sum::<i64>(), 100, "those that live: {loads:?}");
    assert_eq!(loads.values().max(), Some(&i64::from(most)));
    for n in (0..300).step_by(3) {
        whose(&mut bench, flow(n, 1000, PORT), Segment::Fin);
        // One more says nothing new.
        whose(&mut bench, flow(n, 1000, PORT), Segment::Fin);
    }
    assert!(bench.loads().values().all(|load| *load == 0), "{:?}", bench.loads());
}

#[test]
fn least_connections_goes_by_weight() {
    let mut bench = bench([300, 200, 100], Algorithm::LeastConnections, None);
    let shares = shares(&mut bench, (0..600).map(|n| flow(n, 1000, PORT)));
    for (number, wanted) in BACKENDS.into_iter().zip([300, 200, 100]) {
        assert!(shares[&number].abs_diff(wanted) <= 20, "{shares:?}");
    }
}

#[test]
fn least_bandwidth_avoids_who_has_most() {
    let mut bench = bench([100; 3], Algorithm::LeastBandwidth, None);
    assert_shares(&shares(&mut bench, (0..600).map(|n| flow(n, 1000, PORT))), [100; 3]);
    bench.set_load(BACKENDS[0], 1_000_000);
    let shares = shares(&mut bench, (0..600).map(|n| flow(n, 1001, PORT)));
    assert_eq!(shares.get(&BACKENDS[0]), None, "{shares:?}");
}

#[test]
fn a_client_stays_with_its_backend_while_it_is_remembered() {
    let mut bench = bench([100; 3], Algorithm::RoundRobin, Some(Duration::from_secs(600)));
    let first: Vec<u8> = (0..6).map(|n| whose(&mut bench, flow(n, 1000, PORT), Segment::Syn)).collect();
    assert_eq!(first[..3], first[3..], "in turn");
    for port in 1001..1020 {
        for (n, backend) in (0..).zip(&first) {
            assert_eq!(whose(&mut bench, flow(n, port, PORT), Segment::Syn), *backend);
        }
    }
}

#[test]
fn a_client_that_was_silent_for_longer_is_a_new_one() {
    let timeout = Duration::from_millis(50);
    let mut bench = bench([100; 3], Algorithm::RoundRobin, Some(timeout));
    let first = whose(&mut bench, flow(1, 1000, PORT), Segment::Syn);
    sleep(2 * timeout);
    let second = whose(&mut bench, flow(1, 1001, PORT), Segment::Syn);
    assert_ne!(first, second, "the next turn");
    assert_eq!(whose(&mut bench, flow(1, 1000, PORT), Segment::Ack), first, "its flow stays where it is");
}

/// By no policy, with and without affinity; flows that are there stay.
#[test]
fn who_drains_gets_no_new_flow() {
    let affinities = [None, Some(Duration::from_secs(600))];
    let cases = ALL.into_iter().flat_map(|algorithm| affinities.map(|affinity| (algorithm, affinity)));
    let cases: Vec<(u16, (Algorithm, Option<Duration>))> = (1000..).zip(cases).collect();
    let services = |draining: bool| {
        let one = |(port, (algorithm, affinity)): &(u16, (Algorithm, Option<Duration>))| {
            let mut service = service(*port, [100; 3], *algorithm, *affinity);
            if draining {
                let second = &mut service.backends[1];
                (second.state, second.weight) = (BackendState::Draining, 0);
            }
            service
        };
        desired(cases.iter().map(one).collect())
    };
    let mut bench = Bench::new(&services(false));
    let mut before = BTreeMap::new();
    for (port, _) in &cases {
        for client in 0..60 {
            let flow = flow(client, 1000, *port);
            before.insert((*port, client), whose(&mut bench, flow, Segment::Syn));
            whose(&mut bench, flow, Segment::Ack);
        }
    }
    bench.apply(&services(true));
    for (port, (algorithm, affinity)) in &cases {
        let case = format!("{algorithm:?}, affinity {affinity:?}");
        for client in 0..120 {
            let new = whose(&mut bench, flow(client, 1001, *port), Segment::Syn);
            assert_ne!(new, BACKENDS[1], "{case}: client {client}");
            if affinity.is_some() {
                let again = whose(&mut bench, flow(client, 1002, *port), Segment::Syn);
                assert_eq!(again, new, "{case}: client {client}");
            }
        }
        for client in 0..60 {
            let now = whose(&mut bench, flow(client, 1000, *port), Segment::Ack);
            assert_eq!(now, before[&(*port, client)], "{case}: client {client}'s flow moved");
        }
    }
}
