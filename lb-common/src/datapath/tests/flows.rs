//! The rules of flow choice.

use super::*;
use crate::datapath::TOUCH_INTERVAL_NS;

#[test]
fn a_settled_slot_uses_no_flow_table() {
    let tables = tables(Slot::settled(id(1)));
    for frame in [tcp(1, true), tcp(2, false), udp(3)] {
        assert_eq!(sent_to(&tables, &frame), 1);
    }
    assert!(tables.flows.borrow().is_empty());
}

#[test]
fn in_a_fresh_slot_new_flows_go_to_the_current_owner_and_older_ones_stay() {
    let tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    assert_eq!(sent_to(&tables, &tcp(1, true)), 2, "SYN: new");
    assert_eq!(sent_to(&tables, &tcp(1, false)), 2, "its next packet: recorded");
    assert_eq!(sent_to(&tables, &tcp(2, false)), 1, "unknown, no SYN: older than the change");
    assert_eq!(sent_to(&tables, &tcp(2, true)), 1, "a repeated SYN of a known flow stays");
    assert_eq!(sent_to(&tables, &udp(3)), 1, "UDP cannot tell: previous");
    assert_eq!(tables.flows.borrow().len(), 3);
    let flows = |n| tables.forwarded.borrow().get(&n).map_or(0, |counted: &BackendCounters| counted.flows);
    assert_eq!((flows(1), flows(2)), (1, 1), "new flows: the UDP one, the SYN");
}

#[test]
fn in_a_late_slot_strays_leave_no_record_and_unknown_udp_is_new() {
    let tables = tables(Slot::settled(id(1)).moved_to(id(2)).late());
    assert_eq!(sent_to(&tables, &tcp(1, false)), 1, "stray: previous");
    assert!(tables.flows.borrow().is_empty(), "unrecorded");
    assert_eq!(sent_to(&tables, &tcp(2, true)), 2);
    assert_eq!(sent_to(&tables, &tcp(2, false)), 2, "recorded by its SYN");
    assert_eq!(sent_to(&tables, &udp(3)), 2, "UDP: current");
    assert_eq!(tables.flows.borrow().len(), 2);
}

#[test]
fn a_recorded_flow_survives_later_changes() {
    let mut tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    tables.backends.insert(3, backend(3));
    assert_eq!(sent_to(&tables, &tcp(1, true)), 2);
    tables.rings = vec![tables.rings[0].moved_to(id(3)); RING as usize];
    assert_eq!(sent_to(&tables, &tcp(1, false)), 2, "recorded on the owner in between");
    assert_eq!(sent_to(&tables, &tcp(2, false)), 1, "unknown: oldest previous owner");
    assert_eq!(sent_to(&tables, &tcp(3, true)), 3);
}

#[test]
fn a_backend_that_is_down_receives_nothing_and_its_records_are_corrected() {
    let mut tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    assert_eq!(sent_to(&tables, &tcp(1, false)), 1);
    tables.backends.get_mut(&1).unwrap().state = BackendState::Down.to_raw();
    assert_eq!(sent_to(&tables, &tcp(1, false)), 2, "recorded on a dead backend");
    assert_eq!(sent_to(&tables, &tcp(2, false)), 2, "previous is dead");
    tables.backends.get_mut(&1).unwrap().state = BackendState::Up.to_raw();
    assert_eq!(sent_to(&tables, &tcp(1, false)), 2, "corrected, for good");
}

#[test]
fn a_draining_backend_keeps_its_flows() {
    let mut tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    tables.backends.get_mut(&1).unwrap().state = BackendState::Draining.to_raw();
    assert_eq!(sent_to(&tables, &tcp(1, false)), 1);
    assert_eq!(sent_to(&tables, &tcp(2, true)), 2);
}

#[test]
fn another_services_record_is_a_miss() {
    let tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    assert_eq!(sent_to(&tables, &tcp(1, true)), 2);
    for entry in tables.flows.borrow_mut().values_mut() {
        entry.service = SERVICE + 1;
    }
    assert_eq!(sent_to(&tables, &tcp(1, false)), 1);
}

#[test]
fn time_stamps_are_renewed_once_a_second() {
    let tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    let stamp = || tables.flows.borrow().values().next().unwrap().last_seen_ns;
    tables.now_ns.set(100);
    send(&tables, &tcp(1, true));
    tables.now_ns.set(100 + TOUCH_INTERVAL_NS - 1);
    send(&tables, &tcp(1, false));
    assert_eq!(stamp(), 100);
    tables.now_ns.set(100 + TOUCH_INTERVAL_NS);
    send(&tables, &tcp(1, false));
    assert_eq!(stamp(), 100 + TOUCH_INTERVAL_NS);
}

#[test]
fn an_empty_slot_or_an_absent_backend_is_no_backend() {
    for slot in [Slot::default(), Slot::settled(id(9))] {
        let tables = tables(slot);
        assert_eq!(send(&tables, &tcp(1, true)).0, Verdict::Drop);
        assert_eq!(dropped(&tables, Reason::NoBackend), 1);
    }
}
