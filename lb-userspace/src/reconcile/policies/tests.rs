//! The laws of policies, over random histories of configurations on the in-memory data plane.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lb_common::abi::{BackendState, LoadEntry, PolicyKind, Protocol, ServiceEntry};
use proptest::prelude::*;

use super::super::{
    Desired, DesiredBackend, FlowSizes, History, Memo, Observed, Plan, PlanError, Size, Step, follow, narrow,
    plan,
};
use crate::dataplane::{DataPlane, MemoryPlane};
use crate::model::{Admission, Algorithm, FlowRules, ServiceId};
use crate::reconcile::DesiredService;

const FLOWS: FlowSizes = FlowSizes { half_open: 10, established: 10, old: 10 };
const SIZE: Size = Size {
    services: 16,
    keys: 64,
    vips: 16,
    ring_slots: 2000,
    backends: 128,
    ports: 4,
    tcp_flows: FLOWS,
    udp_flows: FLOWS,
    affinity: 10,
};
const RING: u32 = 101;

/// A service: whether each backend is down, and its weight; its algorithm, and whether it has affinity.
#[derive(Clone, Debug)]
struct Spec {
    backends: BTreeMap<u8, (u32, bool)>,
    algorithm: Algorithm,
    affinity: bool,
}

type Specs = BTreeMap<u8, Spec>;

fn service_id(n: u8) -> ServiceId {
    ServiceId::single([203, 0, 113, n], Protocol::Tcp, 80)
}

fn backend(n: u8, weight: u32, down: bool) -> DesiredBackend {
    let state = match (weight, down) {
        (_, true) => BackendState::Down,
        (0, false) => BackendState::Draining,
        (_, false) => BackendState::Up,
    };
    let address = IpAddr::from([198, 51, 100, n]);
    DesiredBackend { address, weight, state, tunnel: None, next_hop: None, server_id: None }
}

fn desired(specs: &Specs) -> Desired {
    let service = |(n, spec): (&u8, &Spec)| DesiredService {
        id: service_id(*n),
        ring_size: Some(RING),
        backends: spec.backends.iter().map(|(n, (weight, down))| backend(*n, *weight, *down)).collect(),
        quic: None,
        admission: Admission::default(),
        flows: FlowRules {
            algorithm: spec.algorithm,
            affinity: spec.affinity.then_some(Duration::from_secs(600)),
            ..FlowRules::of(Protocol::Tcp)
        },
    };
    Desired { services: specs.iter().map(service).collect(), ..Desired::default() }
}

fn specs() -> impl Strategy<Value = Vec<Specs>> {
    use Algorithm::*;
    let algorithm = prop::sample::select(vec![
        Maglev,
        SourceHash,
        RoundRobin,
        LeastConnections,
        LeastResponseTime,
        LeastBandwidth,
    ]);
    let backends = prop::collection::btree_map(1u8..9, (0u32..5, prop::bool::weighted(0.2)), 1..6);
    let spec = (backends, algorithm, any::<bool>());
    let spec = spec.prop_map(|(backends, algorithm, affinity)| Spec { backends, algorithm, affinity });
    prop::collection::vec(prop::collection::btree_map(1u8..5, spec, 0..4), 1..7)
}

/// Wherever a packet may get its backend from names none that is not there; and no part of the pool is used twice.
fn check_moment(state: &Observed, step: &Step) {
    let mut ranges: Vec<(u32, u32)> = state.scheduled().collect();
    for entry in state.entries().values() {
        ranges.push((entry.ring_start, entry.ring_size));
        if entry.flags & ServiceEntry::POLICY == 0 {
            continue;
        }
        for slot in state.schedules.get(&entry.id).into_iter().flatten() {
            let owner = state.backends.get(&slot.current().get());
            let alive = owner.is_some_and(|entry| BackendState::from_raw(entry.state).keeps_flows());
            assert!(alive, "after «{step}» a turn of {} is {:?}'s: {owner:?}", entry.id, slot.current());
            assert_eq!(owner.map(|owner| owner.service), Some(entry.id), "after «{step}»");
        }
    }
    ranges.sort_unstable();
    let apart = |pair: &[(u32, u32)]| pair[0].0 + pair[0].1 <= pair[1].0;
    assert!(ranges.windows(2).all(apart), "after «{step}»: {ranges:?}");
}

/// Turns by the last byte of the backend's address.
fn turns(state: &Observed, n: u8) -> BTreeMap<u8, u32> {
    let entry = state.services()[&service_id(n)];
    let mut turns = BTreeMap::new();
    for slot in &state.schedules[&entry.id] {
        let IpAddr::V4(address) = narrow(state.backends[&slot.current().get()].address) else { panic!() };
        *turns.entry(address.octets()[3]).or_default() += 1;
    }
    turns
}

fn check_result(state: &Observed, specs: &Specs) {
    for (n, spec) in specs {
        let entry = state.services()[&service_id(*n)];
        let has_policy = spec.affinity || spec.algorithm.needs_state();
        assert_eq!(entry.flags & ServiceEntry::POLICY != 0, has_policy);
        assert!(!has_policy || entry.flags & ServiceEntry::TRACKED != 0, "what a policy places is recorded");
        let Some(policy) = state.policies.get(&entry.id).filter(|_| has_policy) else { continue };
        assert_eq!(policy.affinity_ms, if spec.affinity { 600_000 } else { 0 });
        let kind = PolicyKind::from_raw(policy.kind);
        let wanted: BTreeMap<u8, u32> = spec
            .backends
            .iter()
            .filter(|(_, (w, down))| *w > 0 && !down)
            .map(|(n, (w, _))| (*n, *w))
            .collect();
        let turns = turns(state, *n);
        if kind == PolicyKind::Ring {
            assert!(turns.is_empty() && !spec.algorithm.needs_state());
            continue;
        }
        assert_eq!(turns.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        for (n, weight) in &wanted {
            let (one, first) = (turns[n], *turns.iter().next().unwrap().0);
            assert_eq!(one * wanted[&first], turns[&first] * weight, "{turns:?} for {wanted:?}");
        }
        if kind == PolicyKind::Turns {
            continue;
        }
        let up = BackendState::Up.to_raw();
        let ours = state.backends.iter().filter(|(_, b)| (b.service, b.state) == (entry.id, up));
        for (id, backend) in ours {
            let IpAddr::V4(address) = narrow(backend.address) else { panic!() };
            if let Some(weight) = wanted.get(&address.octets()[3]) {
                assert_eq!(state.weights[id], u64::from(*weight));
            }
        }
    }
    let ids: Vec<u32> = state.entries().into_keys().collect();
    assert!(state.policies.keys().all(|id| ids.contains(id)), "what nobody asks for is forgotten");
}

/// A plane, and what is known of its slots.
struct Bench {
    plane: MemoryPlane,
    history: History,
}

impl Bench {
    fn new() -> Self {
        Self { plane: MemoryPlane::new(SIZE), history: History::default() }
    }

    fn observe(&self) -> Observed {
        self.plane.observe().unwrap()
    }

    fn planned(&self, desired: &Desired) -> Plan {
        plan(&self.observe(), desired, &mut Memo::default(), &self.history).unwrap()
    }

    /// Executes plans until none is due.
    fn apply(&mut self, desired: &Desired) {
        for _ in 0..4 {
            let observed = self.observe();
            let plan = self.planned(desired);
            for step in &plan.steps {
                self.plane.execute(step).unwrap();
                check_moment(&self.observe(), step);
            }
            self.history.note(&observed, &plan);
            let Some(due_ns) = plan.due_ns else { return };
            self.plane.set_clock(due_ns);
        }
        panic!("there is no end to it");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Schedules are what the weights say, planning again gives nothing, and after every step they name only backends
    /// that are there.
    #[test]
    fn schedules_follow_without_a_bad_moment(history in specs()) {
        let mut bench = Bench::new();
        for specs in &history {
            let desired = desired(specs);
            bench.apply(&desired);
            check_result(&bench.observe(), specs);
            prop_assert_eq!(bench.planned(&desired).steps, vec![]);
        }
    }
}

fn one(algorithm: Algorithm, weights: &[u32]) -> Specs {
    let backends = (1..).zip(weights).map(|(n, weight)| (n, (*weight, false))).collect();
    BTreeMap::from([(1, Spec { backends, algorithm, affinity: false })])
}

/// A policy is turned to a schedule that is there whole, elsewhere than the one before.
#[test]
fn a_changed_schedule_is_written_elsewhere_first() {
    let mut bench = Bench::new();
    bench.apply(&desired(&one(Algorithm::RoundRobin, &[1, 1])));
    let before = bench.observe();
    let (id, old) = before.policies.iter().next().unwrap();
    let steps = bench.planned(&desired(&one(Algorithm::RoundRobin, &[1, 3]))).steps;
    let written = steps.iter().position(|step| matches!(step, Step::WriteSchedule { .. })).unwrap();
    let turned = steps.iter().position(|step| matches!(step, Step::PutPolicy(..))).unwrap();
    assert!(written < turned);
    let (Step::WriteSchedule { start, turns }, Step::PutPolicy(turned_id, new)) =
        (&steps[written], &steps[turned])
    else {
        panic!()
    };
    assert_eq!((new.schedule_start, new.schedule_size as usize, turned_id), (*start, turns.len(), id));
    assert!(new.schedule_start >= old.schedule_start + old.schedule_size);
}

/// Loads of another meaning are no loads.
#[test]
fn loads_begin_at_nothing_with_their_policy() {
    let mut bench = Bench::new();
    let loads = |steps: &[Step]| steps.iter().filter(|step| matches!(step, Step::PutLoad(..))).count();
    let weights = |steps: &[Step]| steps.iter().filter(|step| matches!(step, Step::PutWeight(..))).count();
    for (algorithm, shares, wanted) in [
        (Algorithm::RoundRobin, [1, 1], (0, 0)),
        (Algorithm::LeastConnections, [1, 1], (2, 0)),
        (Algorithm::LeastConnections, [1, 2], (0, 1)),
        (Algorithm::LeastBandwidth, [1, 2], (2, 0)),
        (Algorithm::Maglev, [1, 2], (0, 0)),
        (Algorithm::LeastBandwidth, [1, 2], (2, 0)),
    ] {
        let desired = desired(&one(algorithm, &shares));
        let steps = bench.planned(&desired).steps;
        assert_eq!((loads(&steps), weights(&steps)), wanted, "{algorithm:?} {shares:?}: {steps:?}");
        bench.apply(&desired);
    }
}

/// A bench whose pool has so many slots.
fn with_pool(ring_slots: u32) -> Bench {
    Bench { plane: MemoryPlane::new(Size { ring_slots, ..SIZE }), history: History::default() }
}

impl Bench {
    /// Follows until nothing is due; what services went without in the last plan.
    fn follow(&mut self, desired: &Desired) -> Vec<PlanError> {
        for _ in 0..4 {
            let observed = self.observe();
            let plan = follow(&observed, desired, &mut Memo::default(), &self.history).unwrap();
            for step in &plan.steps {
                self.plane.execute(step).unwrap();
                check_moment(&self.observe(), step);
            }
            self.history.note(&observed, &plan);
            let Some(due_ns) = plan.due_ns else { return plan.lacking };
            self.plane.set_clock(due_ns);
        }
        panic!("there is no end to it");
    }
}

/// Services may leave a schedule no gap beside the one before; once that one is gone there is one.
#[test]
fn a_schedule_that_has_no_room_beside_the_one_before_takes_its_place() {
    let mut bench = with_pool(RING + 2 * 4099);
    bench.apply(&desired(&one(Algorithm::RoundRobin, &[1000, 999, 1])));
    bench.apply(&desired(&one(Algorithm::RoundRobin, &[2003, 1999, 94])));
    let mut specs = one(Algorithm::RoundRobin, &[2003, 1999, 94]);
    specs.get_mut(&1).unwrap().backends.insert(3, (94, true));
    assert_eq!(bench.follow(&desired(&specs)), []);
    assert_eq!(turns(&bench.observe(), 1), BTreeMap::from([(1, 2003), (2, 1999)]));
}

/// One that has none at all is done without: no turn is a dead backend's, and the other services follow.
#[test]
fn a_service_without_room_for_its_schedule_keeps_nobody_waiting() {
    let mut bench = with_pool(2 * RING + 30);
    let mut specs = one(Algorithm::RoundRobin, &[5, 3, 2]);
    specs.insert(2, specs[&1].clone());
    specs.get_mut(&2).unwrap().algorithm = Algorithm::Maglev;
    bench.apply(&desired(&specs));
    specs.insert(1, one(Algorithm::RoundRobin, &[500, 301, 2])[&1].clone());
    let refused = plan(&bench.observe(), &desired(&specs), &mut Memo::default(), &bench.history);
    assert!(matches!(&refused.unwrap_err()[..], [PlanError::RingPoolFull { what: "schedule", .. }]));
    for n in [1, 2] {
        specs.get_mut(&n).unwrap().backends.get_mut(&2).unwrap().1 = true;
    }
    let lacking = bench.follow(&desired(&specs));
    assert!(
        matches!(&lacking[..], [PlanError::RingPoolFull { what: "schedule", size: 251, .. }]),
        "{lacking:?}"
    );
    let state = bench.observe();
    for (n, entry) in state.entries() {
        assert_eq!(state.policies.get(&n).map_or(0, |policy| policy.schedule_size), 0);
        let owners: Vec<_> = state.rings[&entry.id].iter().map(|slot| slot.current().get()).collect();
        let up = |id: &u32| BackendState::from_raw(state.backends[id].state) == BackendState::Up;
        assert!(owners.iter().all(up), "service {n}");
    }
    specs.insert(1, one(Algorithm::RoundRobin, &[5, 3, 2])[&1].clone());
    assert_eq!(bench.follow(&desired(&specs)), []);
    assert_eq!(turns(&bench.observe(), 1), BTreeMap::from([(1, 5), (2, 3), (3, 2)]));
}

/// A backend that comes up may be one too many for the ring's slots.
#[test]
fn a_backend_without_a_slot_keeps_nobody_waiting() {
    let mut bench = with_pool(2000);
    let mut specs = one(Algorithm::Maglev, &[1; RING as usize + 1]);
    specs.insert(2, one(Algorithm::Maglev, &[1, 1])[&1].clone());
    specs.get_mut(&1).unwrap().backends.get_mut(&1).unwrap().1 = true;
    bench.apply(&desired(&specs));
    specs.get_mut(&1).unwrap().backends.get_mut(&1).unwrap().1 = false;
    specs.get_mut(&2).unwrap().backends.get_mut(&2).unwrap().1 = true;
    let lacking = bench.follow(&desired(&specs));
    assert!(matches!(&lacking[..], [PlanError::NoSlot { size: RING, .. }]), "{lacking:?}");
    let state = bench.observe();
    let down = state.backends.values().filter(|b| BackendState::from_raw(b.state) == BackendState::Down);
    assert_eq!(down.count(), 1, "the other service has followed");
}

/// Weights are in hundredths, times what an agent says: they may be larger than what programs compare.
#[test]
fn weights_that_are_too_large_shrink_together() {
    const MOST: u32 = 65_535 * 25_600;
    for algorithm in [Algorithm::LeastConnections, Algorithm::LeastBandwidth] {
        let mut bench = with_pool(10_000);
        bench.apply(&desired(&one(algorithm, &[MOST, MOST / 2, 1, 0])));
        let weights: Vec<u64> = bench.observe().weights.values().copied().collect();
        assert_eq!(weights[0], LoadEntry::MOST_WEIGHT);
        assert_eq!((weights[1], &weights[2..]), (LoadEntry::MOST_WEIGHT / 2, &[1, 0][..]));
        bench.apply(&desired(&one(algorithm, &[1 << 20, 3, 1, 0])));
        let weights: Vec<u64> = bench.observe().weights.values().copied().collect();
        assert_eq!(weights, [1 << 20, 3, 1, 0], "those that fit are what they are");
    }
}
