//! The laws of `reconcile`, over random histories of configurations on the in-memory data plane.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod reconciled;

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendId, BackendState, Slot, SlotState, mapped};
use lb_userspace::model::ServiceId;
use lb_userspace::reconcile::{History, Memo, Observed, PlanError, Size, Step, plan};
use proptest::prelude::*;
use reconciled::*;

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

fn look(state: &Observed, step: &Step) {
    check_rings(state, step);
    check_pool(state);
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

    /// Executing plans until none is due makes the desired state, planning again gives nothing, and after every step
    /// each ring names only backends that are there.
    #[test]
    fn plans_lead_to_the_desired_state_without_a_bad_moment(history in specs(), pause in 0u64..3) {
        let mut world = World::new();
        for (generation, spec) in (1..).zip(&history) {
            let desired = desired(spec, generation);
            world.wait(pause * IDLE_NS);
            for step in world.sweep().0 {
                check_rings(&world.state(), &step);
            }
            world.apply_looking(&desired, look);
            let state = world.state();
            check_result(&state, spec);
            let again = world.plan(&desired);
            prop_assert_eq!((again.steps, again.due_ns), (vec![], None));
        }
    }

    /// The same where whoever writes is killed after any step, and begins anew without its memory.
    #[test]
    fn a_plan_that_was_cut_off_is_gone_on_with(history in specs(), kills in prop::collection::vec(0usize..30, 6)) {
        let mut world = World::new();
        for ((generation, spec), kill) in (1..).zip(&history).zip(kills) {
            let desired = desired(spec, generation);
            for step in world.plan(&desired).steps.iter().take(kill) {
                lb_userspace::dataplane::DataPlane::execute(&mut world.plane, step).unwrap();
            }
            world.restart();
            world.apply_looking(&desired, look);
            check_result(&world.state(), spec);
            prop_assert_eq!(world.plan(&desired).steps, vec![]);
        }
    }

    /// However often a plan fails at the same step, no more ids are taken than it needs.
    #[test]
    fn a_plan_that_fails_again_and_again_takes_nothing_more(history in specs(), kill in 0usize..30) {
        let mut world = World::new();
        let (first, second) = (desired(&history[0], 1), desired(history.last().unwrap(), 2));
        world.apply(&first);
        let ids = |world: &World| -> BTreeSet<u32> { world.state().backends.into_keys().collect() };
        let mut after_first = None;
        for _ in 0..3 {
            for step in world.plan(&second).steps.iter().take(kill) {
                lb_userspace::dataplane::DataPlane::execute(&mut world.plane, step).unwrap();
            }
            let before = after_first.get_or_insert_with(|| ids(&world)).clone();
            // As far as it gets each time.
            if before.len() < ids(&world).len() {
                let wanted: usize = second.services.iter().map(|service| service.backends.len()).sum();
                let was: usize = first.services.iter().map(|service| service.backends.len()).sum();
                prop_assert!(ids(&world).len() <= wanted + was, "{:?} after {before:?}", ids(&world));
            }
        }
    }

    /// A slot whose owner changed remembers its oldest owner, and nothing that was unsettled settles.
    #[test]
    fn changed_slots_remember(history in specs()) {
        let mut world = World::new();
        for (generation, spec) in (1..).zip(&history) {
            let before = world.state();
            world.apply(&desired(spec, generation));
            let after = world.state();
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

#[test]
fn every_obstacle_is_told_at_once() {
    let errors = |size: Size| {
        let empty = Observed { size, ..Observed::default() };
        plan(&empty, &desired(&two_services(), 1), &mut Memo::default(), &History::default()).unwrap_err()
    };
    let narrow = Size { services: 1, keys: 8, vips: 1, ring_slots: 150, backends: 3, ..SIZE };
    let errors_in_narrow = errors(narrow);
    let errors_of_ids = errors(Size { services: 1, backends: 3, ..SIZE });
    let errors = errors_in_narrow;
    let kinds: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(kinds.iter().any(|e| e.contains("no room for a ring of 101 slots")), "{kinds:?}");
    assert!(kinds.iter().any(|e| e.starts_with("service addresses: 2 needed, room for 1")), "{kinds:?}");

    let kinds: Vec<String> = errors_of_ids.iter().map(ToString::to_string).collect();
    assert!(kinds.iter().any(|e| e.starts_with("services: 2 needed, room for 1")), "{kinds:?}");
    assert!(
        kinds.iter().any(|e| e.starts_with("(service, backend) pairs: 4 needed, room for 3")),
        "{kinds:?}"
    );
}

#[test]
fn what_would_move_every_flow_is_refused() {
    let world = World::with(&desired(&two_services(), 1));
    let mut other_key = desired(&two_services(), 2);
    other_key.hash_key = [2; 16];
    let refused = plan(&world.state(), &other_key, &mut Memo::default(), &world.history);
    assert_eq!(refused, Err(vec![PlanError::HashKeyChanged]));
}

#[test]
fn a_backend_keeps_its_id_whatever_the_way_to_it_becomes() {
    let world = World::with(&desired(&two_services(), 1));
    let mut moved = desired(&two_services(), 2);
    moved.services[0].backends[0].next_hop = hop([2, 9, 9, 9, 9, 9]);
    let steps = world.plan(&moved).steps;
    assert!(matches!(&steps[..], [Step::PutBackend { fresh: false, .. }, Step::PutControl(_)]), "{steps:?}");

    let mut tunnelled = two_services();
    tunnelled.get_mut(&1).unwrap().insert(1, (1, true, false));
    let steps = world.plan(&desired(&tunnelled, 2)).steps;
    assert!(matches!(&steps[..], [Step::PutBackend { fresh: false, .. }, Step::PutControl(_)]), "{steps:?}");
}

/// A backend that fails its checks keeps its id, so that flows recorded on it find it when it comes back; what it owned
/// is not settled then.
#[test]
fn a_backend_that_fails_and_recovers_keeps_its_id() {
    let mut world = World::with(&desired(&two_services(), 1));
    let before = world.state();
    let mut failing = two_services();
    failing.get_mut(&1).unwrap().insert(1, (1, false, true));
    world.apply(&desired(&failing, 2));
    world.wait(IDLE_NS);
    let freed = |step: &Step| matches!(step, Step::ForgetBackend(_));
    assert!(!world.sweep().0.iter().any(freed), "an id that is wanted is never freed");
    world.apply(&desired(&two_services(), 3));
    let after = world.state();
    assert_eq!(before.backends, after.backends);
    let (old, new) = (ring(&before, 1), ring(&after, 1));
    let same_owners = old.iter().zip(&new).all(|(old, new)| old.current() == new.current());
    assert!(same_owners, "the ring is what it was");
    assert!(new.iter().any(|slot| slot.state() == SlotState::Fresh));
}

/// Without anybody who may receive, slots have no owner: packets are dropped, not sent to the dead.
#[test]
fn a_service_whose_backends_are_all_down_sends_to_nobody() {
    let mut world = World::with(&desired(&two_services(), 1));
    let mut failing = two_services();
    failing.insert(1, BTreeMap::from([(1, (1, false, true)), (2, (1, false, true))]));
    world.apply(&desired(&failing, 2));
    let state = world.state();
    assert!(ring(&state, 1).iter().all(|slot| slot.current() == BackendId::NONE));
    assert!(ring(&state, 2).iter().all(|slot| slot.current() != BackendId::NONE));
}
