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

/// Where the tables have the flow from this port, with its marks.
fn places(tables: &HostTables, port: u16) -> Vec<(FlowTable, u32)> {
    let flows = tables.flows.borrow();
    let ours = flows.iter().filter(|((_, key), _)| key.source_port == port.to_be_bytes());
    ours.map(|((table, _), entry)| (*table, entry.marks)).collect()
}

fn flagged(port: u16, flags: u8) -> Vec<u8> {
    let mut packet = v4(Body::Tcp(flags), 80).payload(3);
    packet.from.1 = port;
    packet.bytes()
}

const FIN: u8 = 1;
const RST: u8 = 4;

fn fresh() -> HostTables {
    tables(Slot::settled(id(1)).moved_to(id(2)))
}

#[test]
fn a_handshake_is_half_open_until_its_second_packet() {
    let tables = fresh();
    send(&tables, &tcp(1, true));
    send(&tables, &tcp(1, true));
    assert_eq!(places(&tables, 1), [(FlowTable::HalfOpen, 0)], "a repeated SYN promotes nothing");
    send(&tables, &flagged(1, RST));
    assert_eq!(places(&tables, 1), [(FlowTable::HalfOpen, FlowEntry::RESET)], "nor does an RST");
    send(&tables, &tcp(1, false));
    assert_eq!(places(&tables, 1), [(FlowTable::Established, 0)]);
    send(&tables, &tcp(2, false));
    send(&tables, &tcp(2, false));
    assert_eq!(places(&tables, 2), [(FlowTable::Old, 0)], "and stays there");
}

#[test]
fn an_unknown_rst_is_not_recorded() {
    let tables = fresh();
    assert_eq!(sent_to(&tables, &flagged(1, RST | ACK)), 1, "whoever it is for was on the previous owner");
    assert_eq!(places(&tables, 1), []);
    assert_eq!(sent_to(&tables, &flagged(2, FIN | ACK)), 1);
    assert_eq!(places(&tables, 2), [(FlowTable::Old, FlowEntry::CLOSING)]);
}

#[test]
fn a_fin_stays_and_an_rst_goes_with_the_next_packet() {
    let tables = fresh();
    for frame in [tcp(1, true), tcp(1, false), flagged(1, RST)] {
        assert_eq!(sent_to(&tables, &frame), 2);
    }
    assert_eq!(places(&tables, 1), [(FlowTable::Established, FlowEntry::RESET)]);
    send(&tables, &tcp(1, false));
    assert_eq!(places(&tables, 1), [(FlowTable::Established, 0)], "a spoofed RST ends nothing");
    send(&tables, &flagged(1, FIN | ACK));
    send(&tables, &tcp(1, false));
    assert_eq!(places(&tables, 1), [(FlowTable::Established, FlowEntry::CLOSING)], "half closed, and alive");
    send(&tables, &flagged(1, RST));
    send(&tables, &tcp(1, false));
    assert_eq!(places(&tables, 1), [(FlowTable::Established, FlowEntry::CLOSING)]);
}

#[test]
fn what_speaks_again_a_second_after_its_fin_lives_on() {
    let tables = fresh();
    tables.now_ns.set(100);
    for frame in [tcp(1, true), tcp(1, false), flagged(1, FIN | ACK)] {
        send(&tables, &frame);
    }
    tables.now_ns.set(100 + TOUCH_INTERVAL_NS - 1);
    send(&tables, &tcp(1, false));
    assert_eq!(
        places(&tables, 1),
        [(FlowTable::Established, FlowEntry::CLOSING)],
        "the last acknowledgement"
    );
    tables.now_ns.set(100 + TOUCH_INTERVAL_NS);
    send(&tables, &tcp(1, false));
    assert_eq!(places(&tables, 1), [(FlowTable::Established, 0)]);
}

#[test]
fn a_port_that_is_used_again_is_a_new_flow_once_the_old_one_closes() {
    for end in [FIN | ACK, RST | ACK] {
        let tables = fresh();
        assert_eq!(sent_to(&tables, &tcp(1, false)), 1);
        assert_eq!(sent_to(&tables, &tcp(1, true)), 1, "not closing: the same flow");
        assert_eq!(sent_to(&tables, &flagged(1, end)), 1);
        assert_eq!(sent_to(&tables, &tcp(1, true)), 2, "another flow");
        assert_eq!(places(&tables, 1), [(FlowTable::HalfOpen, 0)], "and nothing is left of the old one");
        assert_eq!(sent_to(&tables, &tcp(1, false)), 2);
        assert_eq!(places(&tables, 1), [(FlowTable::Established, 0)]);
    }
}

#[test]
fn a_stray_in_a_late_slot_counts_as_a_flow_at_risk() {
    let tables = tables(Slot::settled(id(1)).moved_to(id(2)).late());
    send(&tables, &tcp(1, false));
    assert_eq!(dropped(&tables, Reason::FlowAtRisk), 1);
    send(&tables, &tcp(2, true));
    send(&tables, &tcp(2, false));
    send(&tables, &udp(3));
    assert_eq!(dropped(&tables, Reason::FlowAtRisk), 1);
}

#[test]
fn udp_is_promoted_by_its_second_packet_away_from_what_a_flood_fills() {
    let tables = fresh();
    assert_eq!(sent_to(&tables, &udp(3)), 1);
    assert_eq!(places(&tables, 3), [(FlowTable::HalfOpen, 0)]);
    assert_eq!(sent_to(&tables, &udp(3)), 1);
    assert_eq!(places(&tables, 3), [(FlowTable::Old, 0)], "on the previous owner");
    let late = self::tables(Slot::settled(id(1)).moved_to(id(2)).late());
    for _ in 0..2 {
        assert_eq!(sent_to(&late, &udp(3)), 2);
    }
    assert_eq!(places(&late, 3), [(FlowTable::Established, 0)], "on the current one");
}

#[test]
fn a_marked_slot_records_flows_that_then_stay() {
    let mut tables = tables(Slot::settled(id(1)));
    // Marked: the owner is to change, and has not yet.
    tables.rings = vec![Slot(Slot::settled(id(1)).0 | 1 << 56); RING as usize];
    for frame in [tcp(1, true), tcp(2, false)] {
        assert_eq!(sent_to(&tables, &frame), 1);
    }
    tables.rings = vec![tables.rings[0].moved_to(id(2)); RING as usize];
    assert_eq!(sent_to(&tables, &tcp(1, true)), 1, "a SYN that is repeated across the change");
    assert_eq!(sent_to(&tables, &tcp(2, false)), 1);
    assert_eq!(sent_to(&tables, &tcp(3, true)), 2);
}

#[test]
fn a_tracked_service_records_in_settled_slots_too() {
    let mut tables = tables(Slot::settled(id(1)));
    for service in tables.services.values_mut() {
        service.flags = ServiceEntry::TRACKED;
    }
    for frame in [tcp(1, true), tcp(2, false), udp(3)] {
        assert_eq!(sent_to(&tables, &frame), 1);
    }
    assert_eq!(places(&tables, 1), [(FlowTable::HalfOpen, 0)]);
    assert_eq!(places(&tables, 2), [(FlowTable::Old, 0)]);
    assert_eq!(places(&tables, 3), [(FlowTable::HalfOpen, 0)]);
    assert_eq!(dropped(&tables, Reason::FlowAtRisk), 1, "one that should have been known");
    tables.rings = vec![Slot::settled(id(2)); RING as usize];
    assert_eq!(sent_to(&tables, &tcp(1, false)), 1, "whatever the slot says");
}

#[test]
fn time_stamps_are_renewed_once_a_second() {
    let tables = fresh();
    let stamp = || tables.flows.borrow().values().next().unwrap().last_seen_ns;
    tables.now_ns.set(100);
    send(&tables, &tcp(1, false));
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
