//! What time does to slots: planned changes in two steps, settling, ids that become free, bigger changes. One rule each.

mod reconciled;

use std::collections::BTreeSet;
use std::time::Duration;

use lb_common::abi::{FlowEntry, FlowTable, ServiceEntry, Slot, SlotState};
use lb_userspace::dataplane::DataPlane;
use lb_userspace::model::{Algorithm, FlowRules, Tracking};
use lb_userspace::reconcile::{Desired, Flow, STEP_WAIT, Step};
use reconciled::*;

const STEP_NS: u64 = STEP_WAIT.as_nanos() as u64;

/// Ports of flows enough to be in nearly every slot.
const PORTS: std::ops::Range<u16> = 1000..1600;

fn owners(world: &World) -> Vec<u32> {
    ring(&world.state(), 1).iter().map(|slot| slot.current().get()).collect()
}

fn with_rules(desired: Desired, rules: FlowRules) -> Desired {
    let mut desired = desired;
    desired.services[0].flows = rules;
    desired
}

fn record_all(world: &mut World, backend: u32) {
    for port in PORTS {
        world.record(port, backend);
    }
}

#[test]
fn a_planned_change_is_marked_first_and_done_a_second_later() {
    let mut world = World::with(&desired(&two_services(), 1));
    let before = owners(&world);
    let heavier = desired(&weighted(4), 2);
    let begun_ns = world.now_ns;
    let due_ns = world.part(&heavier, |_, _| ()).due_ns;
    assert_eq!(due_ns, Some(begun_ns + STEP_NS));
    assert_eq!(owners(&world), before, "marked only");
    let [_, marked, _] = world.states();
    assert!(marked > 10, "{marked}");

    world.wait(STEP_NS - 1);
    let early = world.part(&heavier, |_, _| ());
    assert_eq!((early.steps.len(), early.due_ns), (0, due_ns));
    world.wait(1);
    assert_eq!(world.part(&heavier, |_, _| ()).due_ns, None);
    let changed = owners(&world).iter().zip(&before).filter(|(new, old)| new != old).count();
    assert_eq!(changed, marked, "those that were marked, and no others");
}

#[test]
fn what_has_been_unsettled_for_a_second_changes_at_once() {
    let mut world = World::with(&desired(&two_services(), 1));
    world.apply(&desired(&weighted(4), 2));
    world.wait(STEP_NS);
    let back = world.plan(&desired(&two_services(), 3));
    assert_eq!(back.due_ns, None);
    world.restart();
    let back = world.plan(&desired(&two_services(), 3));
    assert_eq!(back.due_ns, Some(world.now_ns + STEP_NS), "for all that a new process knows they are new");
}

#[test]
fn a_failure_waits_for_nothing_and_what_is_planned_stays_pending() {
    let mut spec = two_services();
    spec.get_mut(&1).unwrap().insert(3, (1, false, false));
    let mut world = World::with(&desired(&spec, 1));
    // A weight changes and another backend fails, both in one plan.
    spec.get_mut(&1).unwrap().insert(1, (4, false, false));
    spec.get_mut(&1).unwrap().insert(3, (1, false, true));
    let failed = world.backend(3);
    let before = ring(&world.state(), 1);
    let due_ns = world.part(&desired(&spec, 2), |_, _| ()).due_ns;
    assert_eq!(due_ns, Some(world.now_ns + STEP_NS));
    let after = ring(&world.state(), 1);
    assert!(after.iter().all(|slot| slot.current().get() != failed), "nobody waits for the dead");
    let pending = before.iter().zip(&after).filter(|(old, new)| **new == old.marked() && new != old).count();
    assert!(pending > 5, "{pending}");
}

#[test]
fn without_tracking_slots_are_written_settled() {
    let never = FlowRules { tracking: Tracking::Never, ..rules() };
    let mut world = World::with(&with_rules(desired(&two_services(), 1), never));
    let before = owners(&world);
    let plan = world.part(&with_rules(desired(&weighted(4), 2), never), |_, _| ());
    assert_eq!((plan.due_ns, world.states()), (None, [RING as usize, 0, 0]));
    assert_ne!(owners(&world), before);
    // Also those that were not, when tracking is switched off.
    world.apply(&desired(&two_services(), 3));
    assert_ne!(world.states(), [RING as usize, 0, 0]);
    world.apply(&with_rules(desired(&two_services(), 4), never));
    assert_eq!(world.states(), [RING as usize, 0, 0]);
}

/// A slot becomes late an idle time after its own last change, and settles in the sweep after that.
#[test]
fn slots_settle_when_their_change_is_over() {
    let mut world = World::with(&desired(&two_services(), 1));
    world.apply(&desired(&weighted(4), 2));
    let [_, first, _] = world.states();
    world.wait(IDLE_NS / 2);
    world.apply(&desired(&weighted(9), 3));
    let [_, both, _] = world.states();
    assert!(both > first);

    world.wait(IDLE_NS / 2 - 1_100_000_000 - 1);
    world.sweep();
    assert_eq!(world.states()[2], 0, "no change is over");
    world.wait(200_000_000);
    world.sweep();
    let [_, _, late] = world.states();
    assert!(late > 0 && late < both, "{late} of {both}: those that changed only once");
    world.sweep();
    assert_eq!(world.states()[0], RING as usize - both + late, "and they settle");
    world.wait(IDLE_NS);
    world.sweep();
    world.sweep();
    assert_eq!(world.states(), [RING as usize, 0, 0]);
    assert_eq!(world.sweep().0, [], "nothing is left to do");
}

#[test]
fn a_live_flow_elsewhere_keeps_its_slot_from_settling() {
    let mut world = World::with(&desired(&two_services(), 1));
    world.apply(&desired(&weighted(4), 2));
    let [_, changed, _] = world.states();
    let second = world.backend(2);
    world.wait(IDLE_NS);
    // Backend 2 lost slots to backend 1; its flows go on.
    record_all(&mut world, second);
    world.sweep();
    let (_, census) = world.sweep();
    assert_eq!(world.states(), [RING as usize - changed, 0, changed]);
    assert_eq!(census.flows[&second], PORTS.len() as u64);
    assert_eq!(census.tables[&FlowTable::Established], PORTS.len() as u64);
    assert_eq!(census.unsettled.values().sum::<u64>(), changed as u64);
    assert!(!census.is_done(second) && census.previous_late.contains(&second));

    world.wait(IDLE_NS + SECOND_NS);
    world.sweep();
    assert_eq!(world.states()[2], changed, "silent for an idle time, as far as stamps tell");
    world.wait(1);
    let (steps, census) = world.sweep();
    let deleted = steps.iter().filter(|step| matches!(step, Step::DeleteFlow(..))).count();
    assert_eq!((deleted, census.entries()), (PORTS.len(), 0));
    assert_eq!(world.states()[2], changed, "one may have come back to life before it was deleted");
    world.sweep();
    assert_eq!(world.states(), [RING as usize, 0, 0]);
}

/// The flow's port is used again between the sweep's look at its record and the record's end.
#[test]
fn a_record_that_comes_back_to_life_keeps_its_slot_from_settling() {
    let mut world = World::with(&desired(&two_services(), 1));
    world.apply(&desired(&weighted(4), 2));
    let second = world.backend(2);
    record_all(&mut world, second);
    world.wait(IDLE_NS + SECOND_NS + 1);
    world.sweep();
    record_all(&mut world, second);
    world.wait(IDLE_NS + SECOND_NS + 1);
    let [_, _, late] = world.states();
    let mut sweep = world.begin();
    let flows = world.plane.flows().unwrap().unwrap();
    let steps: Vec<Step> = flows.iter().filter_map(|flow| sweep.take(flow)).collect();
    assert_eq!(steps.len(), PORTS.len());
    record_all(&mut world, second);
    steps.iter().for_each(|step| world.plane.execute(step).unwrap());
    world.finish(sweep);
    assert_eq!(world.states()[2], late);
}

#[test]
fn entries_die_of_their_own_times() {
    let mut world = World::with(&desired(&two_services(), 1));
    let backend = world.backend(1);
    let mut record = |port, table, marks| {
        let flow = world.record(port, backend);
        world.plane.execute(&Step::DeleteFlow(flow.table, flow.key, flow.entry.last_seen_ns)).unwrap();
        world.plane.record_flow(Flow { table, entry: FlowEntry { marks, ..flow.entry }, ..flow });
    };
    record(1, FlowTable::HalfOpen, 0);
    record(2, FlowTable::Established, FlowEntry::CLOSING);
    record(3, FlowTable::Old, FlowEntry::RESET);
    record(4, FlowTable::Established, 0);
    record(5, FlowTable::Old, 0);
    let mut left = |seconds: u64| {
        world.wait(seconds * SECOND_NS);
        world.sweep();
        let mut ports: Vec<u8> =
            world.plane.flows().unwrap().unwrap().iter().map(|flow| flow.key.source_port[1]).collect();
        ports.sort_unstable();
        ports
    };
    // Each a second later than its time, because stamps are exact to a second.
    assert_eq!(left(11), [1, 2, 3, 4, 5]);
    assert_eq!(left(1), [2, 3, 4, 5]);
    assert_eq!(left(9), [2, 3, 4, 5]);
    // An RST may be somebody else's.
    assert_eq!(left(1), [3, 4, 5]);
    assert_eq!(left(39), [3, 4, 5]);
    assert!(left(1).is_empty());
}

#[test]
fn a_slot_that_changes_during_a_sweep_is_left_alone() {
    let mut world = World::with(&desired(&two_services(), 1));
    world.apply(&desired(&weighted(4), 2));
    world.wait(IDLE_NS);
    world.sweep();
    let [_, _, late] = world.states();
    let mut sweep = world.begin();
    world.read(&mut sweep);
    // Back again: some flow may have been recorded on backend 1 behind the sweep's back.
    world.apply(&desired(&two_services(), 3));
    let (steps, _) = world.finish(sweep);
    assert_eq!((steps.len(), world.states()), (0, [RING as usize - late, late, 0]));
}

#[test]
fn what_takes_too_long_is_forced_and_counted() {
    let rules = FlowRules { max_unsettled: Duration::from_secs(180), ..rules() };
    let mut world = World::with(&with_rules(desired(&two_services(), 1), rules));
    world.apply(&with_rules(desired(&weighted(4), 2), rules));
    let [_, changed, _] = world.states();
    let second = world.backend(2);
    let mut announced = BTreeSet::new();
    let mut stay = |world: &mut World, times: u64| {
        let mut forced = 0;
        for _ in 0..times {
            record_all(world, second);
            world.wait(IDLE_NS / 2);
            let census = world.sweep().1;
            assert_eq!(census.forced_of.values().sum::<u64>(), census.forced);
            announced.extend(census.forced_at_ns);
            forced += census.forced;
        }
        forced
    };
    let begun_ns = world.now_ns;
    assert_eq!((stay(&mut world, 5), world.states()[2]), (0, changed));
    assert_eq!(stay(&mut world, 1), changed as u64);
    assert_eq!(world.states(), [RING as usize, 0, 0]);
    // All the time it was known whom it would concern, and when.
    let [(backend, at_ns)] = announced.into_iter().collect::<Vec<_>>()[..] else { panic!("other times") };
    assert_eq!(backend, second);
    assert!(at_ns.abs_diff(begun_ns + 180 * SECOND_NS) < 2 * SECOND_NS, "{at_ns} of {begun_ns}");
}

#[test]
fn where_all_flows_are_recorded_slots_settle_by_time() {
    let always = FlowRules { tracking: Tracking::Always, ..rules() };
    let mut world = World::with(&with_rules(desired(&two_services(), 1), always));
    world.apply(&with_rules(desired(&weighted(4), 2), always));
    let second = world.backend(2);
    world.wait(IDLE_NS);
    record_all(&mut world, second);
    world.sweep();
    let (_, census) = world.sweep();
    assert_eq!((world.states(), census.entries()), ([RING as usize, 0, 0], PORTS.len() as u64));
}

#[test]
fn a_restarted_daemon_waits_a_whole_idle_time() {
    let mut world = World::with(&desired(&two_services(), 1));
    world.apply(&desired(&weighted(4), 2));
    let [_, changed, _] = world.states();
    world.wait(IDLE_NS - 1);
    world.restart();
    world.sweep();
    world.wait(IDLE_NS - 1);
    world.sweep();
    assert_eq!(world.states()[1], changed);
    world.wait(1);
    world.sweep();
    assert_eq!(world.states()[2], changed);
}

#[test]
fn an_id_is_free_again_only_when_nothing_names_it() {
    let mut world = World::with(&desired(&two_services(), 1));
    let mut smaller = two_services();
    smaller.get_mut(&1).unwrap().remove(&1);
    let gone = world.backend(1);
    world.apply(&desired(&smaller, 2));
    assert_eq!(world.retired(), [gone]);
    let flow = world.record(1, gone);

    world.wait(34 * SECOND_NS);
    world.sweep();
    let state = world.state();
    assert!(state.rings.values().flatten().all(|slot| slot.previous().get() != gone), "no slot names it");
    world.plane.execute(&Step::DeleteFlow(flow.table, flow.key, flow.entry.last_seen_ns)).unwrap();
    world.sweep();
    assert_eq!(world.retired(), [gone], "but a fragment may");
    world.record(1, gone);
    world.wait(SECOND_NS);
    world.sweep();
    assert_eq!(world.retired(), [gone], "a live flow does");
    world.wait(IDLE_NS + SECOND_NS);
    let (steps, _) = world.sweep();
    assert!(steps.contains(&Step::ForgetBackend(id(gone))), "{steps:?}");
    assert!(world.retired().is_empty());
}

#[test]
fn a_drained_backend_is_done_when_no_flow_of_its_can_be_left() {
    let mut world = World::with(&desired(&two_services(), 1));
    world.apply(&desired(&weighted(0), 2));
    let drained = world.backend(1);
    let (_, census) = world.sweep();
    assert!(!census.is_done(drained), "flows that nobody has recorded may live");
    world.wait(IDLE_NS);
    let flow = world.record(1, drained);
    assert!(!world.sweep().1.is_done(drained), "one does");
    world.plane.execute(&Step::DeleteFlow(flow.table, flow.key, flow.entry.last_seen_ns)).unwrap();
    assert!(world.sweep().1.is_done(drained));
}

fn resized(generation: u64) -> Desired {
    let mut desired = desired(&two_services(), generation);
    desired.services[0].ring_size = Some(211);
    desired
}

#[test]
fn a_new_ring_size_waits_until_all_flows_are_recorded() {
    let mut world = World::with(&desired(&two_services(), 1));
    let begun_ns = world.now_ns;
    let due_ns = world.part(&resized(2), |_, _| ()).due_ns;
    assert_eq!(due_ns, Some(begun_ns + IDLE_NS));
    assert_eq!(world.states(), [0, RING as usize, 0], "every slot is marked");
    // Sweeps do not undo it, whenever they come.
    for _ in 0..3 {
        world.wait(IDLE_NS / 4);
        world.sweep();
    }
    world.wait(IDLE_NS / 4 - 1);
    world.sweep();
    assert_eq!(world.part(&resized(2), |_, _| ()).steps, []);
    world.wait(1);
    world.sweep();
    world.sweep();
    assert_eq!(world.states()[0], 0);
    let plan = world.part(&resized(2), |state, step| {
        let ring = ring(state, 1);
        assert!(ring.iter().all(|slot| slot.state() != SlotState::Settled), "after «{step}»");
    });
    assert_eq!((plan.due_ns, world.states()), (None, [0, 211, 0]));
    assert!(ring(&world.state(), 1).iter().all(|slot| *slot == Slot::unsettled(slot.current())));
    world.sweep_for(2);
    assert_eq!(world.states(), [211, 0, 0]);
    assert_eq!(world.plan(&resized(2)).steps, []);
}

#[test]
fn a_bigger_change_survives_restarts_and_failures_and_can_be_taken_back() {
    let mut world = World::with(&desired(&two_services(), 1));
    world.part(&resized(2), |_, _| ());
    world.wait(IDLE_NS - 1);
    world.restart();
    let due_ns = world.part(&resized(2), |_, _| ()).due_ns;
    assert_eq!(due_ns, Some(world.now_ns + IDLE_NS), "it waits anew");

    let mut failing = resized(3);
    failing.services[0].backends[0].state = lb_common::abi::BackendState::Down;
    let failed = world.backend(1);
    world.part(&failing, |_, _| ());
    assert!(owners(&world).iter().all(|owner| *owner != failed), "a failure does not wait for it");

    world.apply(&desired(&two_services(), 4));
    world.sweep_for(2);
    assert_eq!(world.states(), [RING as usize, 0, 0]);
}

#[test]
fn killed_after_any_step_of_a_bigger_change_it_is_gone_on_with() {
    let swap = |rules: FlowRules| with_rules(resized(2), rules);
    let source = FlowRules { algorithm: Algorithm::SourceHash, ..rules() };
    let always = FlowRules { tracking: Tracking::Always, ..rules() };
    for wanted in [swap(rules()), swap(source), with_rules(desired(&two_services(), 2), always)] {
        let mut ready = World::with(&desired(&two_services(), 1));
        ready.part(&wanted, |_, _| ());
        ready.wait(IDLE_NS);
        for kill in 0..=ready.plan(&wanted).steps.len() {
            let mut world = ready.clone();
            for step in world.plan(&wanted).steps.iter().take(kill) {
                world.plane.execute(step).unwrap();
            }
            world.restart();
            world.apply(&wanted);
            assert_eq!(world.plan(&wanted).steps, [], "killed after {kill} steps");
            world.sweep_for(2);
            assert_eq!(world.states()[1..], [0, 0], "killed after {kill} steps");
        }
    }
}

#[test]
fn entries_say_what_the_rules_are() {
    let placing = |world: &World| {
        let entry = entry(&world.state(), service_id(1));
        (entry.idle_ms, entry.half_open_ds, entry.closing_ds, entry.flags)
    };
    let mut world = World::with(&desired(&two_services(), 1));
    assert_eq!(placing(&world), (60_000, 100, 200, 0));

    // Who records all flows is a matter of a second, where flows fall of an idle time.
    let always = with_rules(desired(&two_services(), 2), FlowRules { tracking: Tracking::Always, ..rules() });
    assert_eq!(world.part(&always, |_, _| ()).due_ns, Some(world.now_ns + STEP_NS));
    assert_eq!(placing(&world).3, 0);
    world.wait(STEP_NS);
    world.part(&always, |_, _| ());
    assert_eq!((placing(&world).3, world.states()[0]), (ServiceEntry::TRACKED, 0));
    world.sweep_for(2);

    let source = FlowRules { algorithm: Algorithm::SourceHash, ..rules() };
    let source = with_rules(desired(&two_services(), 3), source);
    assert_eq!(world.part(&source, |_, _| ()).due_ns, Some(world.now_ns + IDLE_NS));
    assert_eq!(placing(&world).3, ServiceEntry::TRACKED);
    // The history knows times to a tenth of a second, and rounds them up.
    world.wait(IDLE_NS + SECOND_NS / 10);
    world.part(&source, |_, _| ());
    assert_eq!((placing(&world).3, world.states()[0]), (ServiceEntry::BY_SOURCE, 0));
}
