//! The laws of `reconcile`, over random histories of configurations on the in-memory data plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use lb_common::abi::{
    BackendId, BackendState, FlowEntry, FlowKey, ServiceEntry, Slot, SlotState, VipEntry, mapped,
};
use lb_userspace::dataplane::{DataPlane, MemoryPlane};
use lb_userspace::model::{Admission, Encap, Protocol, ServiceId};
use lb_userspace::reconcile::{
    Changes, Desired, DesiredBackend, DesiredHop, DesiredPort, DesiredService, DesiredTunnel, Memo, Observed,
    PlanError, Size, Step, plan, sweep,
};
use proptest::prelude::*;

const SIZE: Size =
    Size { services: 64, keys: 1024, vips: 64, ring_slots: 1000, backends: 256, ports: 4, flows: 100 };
const RING: u32 = 101;

fn service_id(n: u8) -> ServiceId {
    ServiceId::single([203, 0, 113, n], Protocol::Tcp, 80)
}

/// The service's id and place in the pool.
fn entry(state: &Observed, id: ServiceId) -> ServiceEntry {
    state.services()[&id]
}

fn ring(state: &Observed, n: u8) -> Vec<Slot> {
    state.rings[&entry(state, service_id(n)).id].clone()
}

fn hop(mac: [u8; 6]) -> Option<DesiredHop> {
    Some(DesiredHop { ifindex: 7, mac, mtu: 1500, vlan: None })
}

fn tunnel() -> DesiredTunnel {
    let source = Ipv4Addr::new(192, 0, 2, 1).into();
    DesiredTunnel { encap: Encap::Ipip, source, source_bits: 0, dscp: None, ttl: 64 }
}

/// A configuration: for each service its backends' numbers, weights and whether they are tunnelled and down.
type Spec = BTreeMap<u8, BTreeMap<u8, (u32, bool, bool)>>;

fn state(weight: u32, down: bool) -> BackendState {
    match (weight, down) {
        (_, true) => BackendState::Down,
        (0, false) => BackendState::Draining,
        (_, false) => BackendState::Up,
    }
}

fn desired(spec: &Spec, generation: u64) -> Desired {
    let services = spec.iter().map(|(service, backends)| DesiredService {
        id: service_id(*service),
        ring_size: Some(RING),
        backends: backends
            .iter()
            .map(|(n, (weight, tunnelled, down))| DesiredBackend {
                address: IpAddr::from([198, 51, 100, *n]),
                weight: *weight,
                state: state(*weight, *down),
                tunnel: tunnelled.then(tunnel),
                next_hop: hop([2, 0, 0, 0, 0, *n]),
                server_id: None,
            })
            .collect(),
        quic: None,
        admission: Admission::default(),
    });
    Desired {
        generation,
        hash_key: [1; 16],
        ports: vec![DesiredPort { ifindex: 7, mtu: 1500, mac: [2; 6] }],
        vips: spec
            .keys()
            .map(|n| (service_id(*n).prefix(), VipEntry { flags: VipEntry::ADVERTISED, reserved: 0 }))
            .collect(),
        services: services.collect(),
    }
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let backends =
        prop::collection::btree_map(1u8..12, (0u32..5, any::<bool>(), prop::bool::weighted(0.3)), 1..6)
            .prop_filter("not all drain", |backends| backends.values().any(|(weight, _, _)| *weight > 0));
    prop::collection::vec(prop::collection::btree_map(1u8..6, backends, 0..5), 1..7)
}

/// No packet of a service may find a slot whose current owner is retired or down; one that nobody owns drops.
fn check_rings(state: &Observed, step: &Step) {
    for (key, slots) in &state.rings {
        assert_eq!(slots.len(), RING as usize, "{key:?} after {step}");
        for slot in slots.iter().filter(|slot| slot.current() != BackendId::NONE) {
            let owner = state.backends.get(&slot.current().get());
            let alive = owner.is_some_and(|entry| BackendState::from_raw(entry.state).keeps_flows());
            assert!(alive, "after «{step}» a slot of {key:?} belongs to {:?}: {owner:?}", slot.current());
            assert_eq!(owner.map(|entry| entry.service), Some(*key), "after «{step}»");
        }
    }
}

/// No two services share a slot of the pool.
fn check_pool(state: &Observed) {
    let mut ranges: Vec<_> =
        state.entries().values().map(|s| (s.ring_start, s.ring_start + s.ring_size)).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:?}");
}

fn apply(plane: &mut MemoryPlane, desired: &Desired) {
    let observed = plane.observe().unwrap();
    let planned = plan(&observed, desired, &mut Memo::default()).unwrap();
    for step in &planned.steps {
        plane.execute(step).unwrap();
        let state = plane.observe().unwrap();
        check_rings(&state, step);
        check_pool(&state);
    }
}

fn check_result(state: &Observed, spec: &Spec) {
    let wanted: BTreeSet<ServiceId> = spec.keys().map(|n| service_id(*n)).collect();
    assert_eq!(state.services().into_keys().collect::<BTreeSet<_>>(), wanted);
    assert_eq!(state.vips.len(), spec.len());
    for (service, backends) in spec {
        let ring = ring(state, *service);
        let owned = ring.iter().map(|slot| slot.current()).filter(|id| *id != BackendId::NONE);
        let owners: BTreeSet<[u8; 16]> = owned.map(|id| state.backends[&id.get()].address).collect();
        let up: BTreeSet<[u8; 16]> = backends
            .iter()
            .filter(|(_, (weight, _, down))| *weight > 0 && !down)
            .map(|(n, _)| mapped([198, 51, 100, *n]))
            .collect();
        // Where nobody takes new flows, those who drain keep the slots they have.
        assert!(up.is_empty() || owners == up, "{owners:?} instead of {up:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Executing a plan makes the desired state, planning again gives nothing, and after every step each ring names
    /// only backends that are there.
    #[test]
    fn plans_lead_to_the_desired_state_without_a_bad_moment(history in specs()) {
        let mut plane = MemoryPlane::new(SIZE);
        for (generation, spec) in (1..).zip(&history) {
            let desired = desired(spec, generation);
            let freed = sweep(&plane.observe().unwrap(), &mut Changes::default());
            for step in &freed.steps {
                plane.execute(step).unwrap();
                check_rings(&plane.observe().unwrap(), step);
            }
            apply(&mut plane, &desired);
            let state = plane.observe().unwrap();
            check_result(&state, spec);
            prop_assert_eq!(plan(&state, &desired, &mut Memo::default()).unwrap().steps, vec![]);
        }
    }

    /// A slot whose owner changed remembers its oldest owner, and nothing that was unsettled settles.
    #[test]
    fn changed_slots_remember(history in specs()) {
        let mut plane = MemoryPlane::new(SIZE);
        for (generation, spec) in (1..).zip(&history) {
            let before = plane.observe().unwrap();
            apply(&mut plane, &desired(spec, generation));
            let after = plane.observe().unwrap();
            let (old, new) = (before.services(), after.services());
            let same = |id: u32| old.iter().any(|(service, entry)| entry.id == id && new.get(service) == Some(entry));
            for (key, slots) in &after.rings {
                let Some(old) = before.rings.get(key).filter(|_| same(*key)) else {
                    continue;
                };
                for (old, new) in old.iter().zip(slots) {
                    match old.state() {
                        _ if *old == Slot::default() => prop_assert_eq!(new.state(), SlotState::Settled),
                        SlotState::Settled if old.current() == new.current() => prop_assert_eq!(old, new),
                        SlotState::Settled => prop_assert_eq!((new.previous(), new.state()), (old.current(), SlotState::Fresh)),
                        SlotState::Fresh | SlotState::Late => {
                            prop_assert_ne!(new.state(), SlotState::Settled);
                            prop_assert_eq!(new.previous(), old.previous());
                        }
                    }
                }
            }
        }
    }
}

fn two_services() -> Spec {
    let backends = BTreeMap::from([(1, (1, false, false)), (2, (1, false, false))]);
    BTreeMap::from([(1, backends.clone()), (2, backends)])
}

fn swept(plane: &mut MemoryPlane, changes: &mut Changes) -> Vec<Step> {
    let plan = sweep(&plane.observe().unwrap(), changes);
    plane.run(&plan).unwrap();
    plan.steps
}

fn flow(port: u16, backend: u32, last_seen_ns: u64, state: &Observed) -> (FlowKey, FlowEntry) {
    let key = FlowKey {
        source: mapped([192, 0, 2, 9]),
        destination: mapped([203, 0, 113, 1]),
        source_port: port.to_be_bytes(),
        destination_port: 80u16.to_be_bytes(),
        protocol: 6,
        reserved: [0; 3],
    };
    let service = entry(state, service_id(1)).id;
    (key, FlowEntry { service, backend, last_seen_ns, ..FlowEntry::default() })
}

fn down(plane: &MemoryPlane) -> Vec<u32> {
    let state = plane.observe().unwrap();
    state
        .backends
        .iter()
        .filter(|(_, b)| b.state == BackendState::Retired.to_raw())
        .map(|(id, _)| *id)
        .collect()
}

const IDLE_NS: u64 = 15 * 60 * 1_000_000_000;

#[test]
fn an_id_is_free_again_only_when_no_slot_and_no_live_flow_names_it() {
    let mut plane = MemoryPlane::new(SIZE);
    let mut changes = Changes::default();
    apply(&mut plane, &desired(&two_services(), 1));
    let mut smaller = two_services();
    smaller.get_mut(&1).unwrap().remove(&1);
    apply(&mut plane, &desired(&smaller, 2));
    let [gone] = down(&plane)[..] else { panic!("one backend is down") };

    let (key, entry) = flow(1, gone, 0, &plane.observe().unwrap());
    plane.record_flow(key, entry);
    plane.set_clock(IDLE_NS);
    swept(&mut plane, &mut changes);
    assert_eq!(down(&plane), [gone], "a live flow names it");
    let state = plane.observe().unwrap();
    assert!(state.rings.values().flatten().all(|slot| slot.previous().get() != gone), "but no slot does");

    plane.set_clock(IDLE_NS + 1);
    let steps = swept(&mut plane, &mut changes);
    assert!(steps.contains(&Step::DeleteFlow(key, 0)), "{steps:?}");
    assert!(steps.contains(&Step::ForgetBackend(BackendId::new(gone).unwrap())), "{steps:?}");
    assert!(down(&plane).is_empty());
}

/// Slots settle an idle time after their service's last change, but not while a live flow in them is elsewhere.
#[test]
fn slots_settle_when_their_change_is_over() {
    let mut plane = MemoryPlane::new(SIZE);
    let mut changes = Changes::default();
    apply(&mut plane, &desired(&two_services(), 1));
    let mut heavier = two_services();
    heavier.get_mut(&1).unwrap().insert(1, (4, false, false));
    let planned = plan(&plane.observe().unwrap(), &desired(&heavier, 2), &mut Memo::default()).unwrap();
    plane.run(&planned).unwrap();
    changes.note(&plane.observe().unwrap(), &planned);
    let unsettled = |plane: &MemoryPlane| {
        let state = plane.observe().unwrap();
        state.rings.values().flatten().filter(|slot| slot.state() != SlotState::Settled).count()
    };
    let changed = unsettled(&plane);
    assert!(changed > 10, "{changed}");

    plane.set_clock(IDLE_NS - 1);
    swept(&mut plane, &mut changes);
    assert_eq!(unsettled(&plane), changed, "the change is not over");

    // Backend 2 lost slots to backend 1; a thousand of its flows go on, enough to be in every one of them.
    let state = plane.observe().unwrap();
    let second = state
        .backends
        .iter()
        .find(|(_, b)| b.address == mapped([198, 51, 100, 2]))
        .map(|(id, _)| *id)
        .unwrap();
    for port in 1000..3000 {
        let (key, entry) = flow(port, second, IDLE_NS, &state);
        plane.record_flow(key, entry);
    }
    plane.set_clock(IDLE_NS);
    swept(&mut plane, &mut changes);
    assert_eq!(unsettled(&plane), changed, "live flows are elsewhere");
    let late =
        plane.observe().unwrap().rings.values().flatten().filter(|s| s.state() == SlotState::Late).count();
    assert_eq!(late, changed, "but nothing older is unknown any more");

    plane.set_clock(2 * IDLE_NS + 1);
    swept(&mut plane, &mut changes);
    assert_eq!(unsettled(&plane), 0);
    assert!(plane.observe().unwrap().flows.is_empty());
    assert_eq!(swept(&mut plane, &mut changes), [], "nothing is left to do");
}

#[test]
fn every_obstacle_is_told_at_once() {
    let plane = MemoryPlane::new(Size {
        services: 1,
        keys: 8,
        vips: 1,
        ring_slots: 150,
        backends: 3,
        ports: 4,
        flows: 1,
    });
    let errors =
        plan(&plane.observe().unwrap(), &desired(&two_services(), 1), &mut Memo::default()).unwrap_err();
    let kinds: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(kinds.iter().any(|e| e.contains("no room for a ring of 101 slots")), "{kinds:?}");
    assert!(kinds.iter().any(|e| e.starts_with("service addresses: 2 needed, room for 1")), "{kinds:?}");

    let narrow = MemoryPlane::new(Size { services: 1, backends: 3, ..SIZE });
    let errors =
        plan(&narrow.observe().unwrap(), &desired(&two_services(), 1), &mut Memo::default()).unwrap_err();
    let kinds: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(kinds.iter().any(|e| e.starts_with("services: 2 needed, room for 1")), "{kinds:?}");
    assert!(
        kinds.iter().any(|e| e.starts_with("(service, backend) pairs: 4 needed, room for 3")),
        "{kinds:?}"
    );
}

#[test]
fn what_would_move_every_flow_is_refused() {
    let mut plane = MemoryPlane::new(SIZE);
    apply(&mut plane, &desired(&two_services(), 1));
    let mut other_key = desired(&two_services(), 2);
    other_key.hash_key = [2; 16];
    assert_eq!(
        plan(&plane.observe().unwrap(), &other_key, &mut Memo::default()),
        Err(vec![PlanError::HashKeyChanged])
    );
    let mut resized = desired(&two_services(), 2);
    resized.services[0].ring_size = Some(103);
    let refused = PlanError::RingResized { service: service_id(1), current: 101, wanted: 103 };
    assert_eq!(plan(&plane.observe().unwrap(), &resized, &mut Memo::default()), Err(vec![refused]));
}

#[test]
fn a_new_next_hop_keeps_the_id_and_a_new_method_takes_another() {
    let mut plane = MemoryPlane::new(SIZE);
    apply(&mut plane, &desired(&two_services(), 1));
    let mut moved = desired(&two_services(), 2);
    moved.services[0].backends[0].next_hop = hop([2, 9, 9, 9, 9, 9]);
    let steps = plan(&plane.observe().unwrap(), &moved, &mut Memo::default()).unwrap().steps;
    assert!(matches!(&steps[..], [Step::PutBackend { fresh: false, .. }, Step::PutControl(_)]), "{steps:?}");

    let mut tunnelled = two_services();
    tunnelled.get_mut(&1).unwrap().insert(1, (1, true, false));
    let steps = plan(&plane.observe().unwrap(), &desired(&tunnelled, 2), &mut Memo::default()).unwrap().steps;
    let fresh = steps.iter().filter(|step| matches!(step, Step::PutBackend { fresh: true, .. })).count();
    let retired = steps.iter().filter(|step| matches!(step, Step::RetireBackend(_))).count();
    assert_eq!((fresh, retired), (1, 1), "{steps:?}");
}

/// A backend that fails its checks keeps its id, so that flows recorded on it find it when it comes back; what it owned
/// is not settled then.
#[test]
fn a_backend_that_fails_and_recovers_keeps_its_id() {
    let mut plane = MemoryPlane::new(SIZE);
    apply(&mut plane, &desired(&two_services(), 1));
    let before = plane.observe().unwrap();
    let mut failing = two_services();
    failing.get_mut(&1).unwrap().insert(1, (1, false, true));
    apply(&mut plane, &desired(&failing, 2));
    assert_eq!(swept(&mut plane, &mut Changes::default()), vec![], "an id that is wanted is never freed");
    apply(&mut plane, &desired(&two_services(), 3));
    let after = plane.observe().unwrap();
    assert_eq!(before.backends, after.backends);
    let (old, new) = (ring(&before, 1), ring(&after, 1));
    let same_owners = old.iter().zip(&new).all(|(old, new)| old.current() == new.current());
    assert!(same_owners, "the ring is what it was");
    assert!(new.iter().any(|slot| slot.state() == SlotState::Fresh));
}

/// Without anybody who may receive, slots have no owner: packets are dropped, not sent to the dead.
#[test]
fn a_service_whose_backends_are_all_down_sends_to_nobody() {
    let mut plane = MemoryPlane::new(SIZE);
    apply(&mut plane, &desired(&two_services(), 1));
    let mut failing = two_services();
    failing.insert(1, BTreeMap::from([(1, (1, false, true)), (2, (1, false, true))]));
    apply(&mut plane, &desired(&failing, 2));
    let state = plane.observe().unwrap();
    assert!(ring(&state, 1).iter().all(|slot| slot.current() == BackendId::NONE));
    assert!(ring(&state, 2).iter().all(|slot| slot.current() != BackendId::NONE));
}
