//! Backends for new flows other than by the ring: schedules, loads, clients that are remembered.

use super::*;

/// Where the schedule lies in the pool.
const SCHEDULE: u32 = RING;

/// Settled slots of backend 1, and a policy with this schedule for every service.
fn policy(kind: PolicyKind, schedule: &[u32], affinity_ms: u32) -> HostTables {
    let mut tables = tables(Slot::settled(id(1)));
    for service in tables.services.values_mut() {
        service.flags = ServiceEntry::TRACKED | ServiceEntry::POLICY;
    }
    tables.rings.extend(schedule.iter().map(|backend: &u32| Slot::settled(id(*backend))));
    let schedule_size = schedule.len() as u32;
    let entry = PolicyEntry { schedule_start: SCHEDULE, schedule_size, kind: kind.to_raw(), affinity_ms };
    tables.policies.insert(SERVICE, entry);
    tables.backends.insert(3, backend(3));
    tables
}

fn from(client: u8, port: u16) -> Vec<u8> {
    let mut packet = v4(Body::Tcp(SYN), 80);
    packet.from = (Ipv4Addr::new(198, 51, 100, client).into(), port);
    packet.bytes()
}

#[test]
fn turns_are_given_in_order_and_flows_keep_theirs() {
    let tables = policy(PolicyKind::Turns, &[1, 2, 1, 3], 0);
    let given: Vec<u8> = (0..8).map(|port| sent_to(&tables, &tcp(port, true))).collect();
    assert_eq!(given, [1, 2, 1, 3, 1, 2, 1, 3]);
    for (port, expected) in (0..8).zip(given) {
        assert_eq!(sent_to(&tables, &tcp(port, false)), expected);
        assert_eq!(sent_to(&tables, &tcp(port, true)), expected, "a repeated SYN takes no turn");
    }
}

#[test]
fn udp_has_no_syn_and_takes_turns_too() {
    let tables = policy(PolicyKind::Turns, &[2, 3], 0);
    assert_eq!([1, 2, 1, 3].map(|port| sent_to(&tables, &udp(port))), [2, 3, 2, 2]);
}

#[test]
fn the_ring_has_what_nobody_has_recorded_and_where_there_is_no_schedule() {
    let tables = policy(PolicyKind::Turns, &[2, 3], 0);
    assert_eq!(sent_to(&tables, &tcp(1, false)), 1, "a stray");
    for kind in [PolicyKind::Turns, PolicyKind::LessLoad, PolicyKind::Ring] {
        assert_eq!(sent_to(&policy(kind, &[], 0), &tcp(1, true)), 1);
    }
}

#[test]
fn a_flow_that_loses_its_backend_takes_a_turn() {
    let mut tables = policy(PolicyKind::Turns, &[2, 3], 0);
    assert_eq!(sent_to(&tables, &tcp(1, true)), 2);
    tables.backends.get_mut(&2).unwrap().state = BackendState::Down.to_raw();
    assert_eq!(sent_to(&tables, &tcp(1, false)), 3);
    assert_eq!(sent_to(&tables, &tcp(1, false)), 3, "for good");
}

#[test]
fn of_two_the_less_loaded_one_for_its_weight_is_taken() {
    let tables = policy(PolicyKind::LessLoad, &[2, 3], 0);
    let load = |backend, load, weight| tables.loads.borrow_mut().insert(backend, LoadEntry { load, weight });
    let counts = |expected| (0..64).all(|port| sent_to(&tables, &tcp(port, true)) == expected);
    load(2, 10, 1);
    load(3, 9, 1);
    assert!(counts(3));
    tables.flows.borrow_mut().clear();
    load(2, 26, 3);
    assert!(counts(2), "27 / 3 < 10 / 1");
    tables.flows.borrow_mut().clear();
    load(3, -5i64 as u64, 1);
    assert!(counts(3), "less than nothing is nothing");
}

#[test]
fn counts_follow_flows_as_they_begin_close_and_come_back() {
    let mut tables = policy(PolicyKind::FewerFlows, &[2], 0);
    let load =
        |tables: &HostTables, id: u32| tables.loads.borrow().get(&id).map_or(0, |entry| entry.load as i64);
    for port in 1..=3 {
        send(&tables, &tcp(port, true));
        send(&tables, &tcp(port, false));
    }
    assert_eq!(load(&tables, 2), 3);
    let flags = |port: u16, flags| {
        let mut packet = v4(Body::Tcp(flags), 80);
        packet.from.1 = port;
        packet.bytes()
    };
    const FIN_ACK: u8 = 0x11;
    const RST: u8 = 4;
    for _ in 0..2 {
        send(&tables, &flags(1, FIN_ACK));
        send(&tables, &flags(2, RST));
        assert_eq!(load(&tables, 2), 1, "once, however often it says so");
    }
    send(&tables, &tcp(2, false));
    assert_eq!(load(&tables, 2), 2, "the RST was spoofed");
    send(&tables, &tcp(1, true));
    assert_eq!(load(&tables, 2), 3, "the port is used again");
    tables.rings[SCHEDULE as usize] = Slot::settled(id(1));
    tables.backends.get_mut(&2).unwrap().state = BackendState::Down.to_raw();
    send(&tables, &tcp(3, false));
    assert_eq!(load(&tables, 1), 1, "moved");
}

#[test]
fn a_client_is_remembered_until_it_has_been_silent() {
    let tables = policy(PolicyKind::Turns, &[2, 3], 1000);
    let at = |ms: u64| tables.now_ns.set(ms * 1_000_000);
    at(0);
    assert_eq!([(1, 1), (1, 2), (2, 1), (1, 3)].map(|(c, p)| sent_to(&tables, &from(c, p))), [2, 2, 3, 2]);
    at(1000);
    assert_eq!(sent_to(&tables, &from(1, 4)), 2, "just so");
    at(2000);
    assert_eq!(sent_to(&tables, &from(1, 5)), 2, "each new flow renews it");
    at(3001);
    assert_eq!([(1, 6), (2, 6), (1, 7)].map(|(c, p)| sent_to(&tables, &from(c, p))), [2, 3, 2]);
    at(10_000);
    assert_eq!([(2, 8), (1, 8)].map(|(c, p)| sent_to(&tables, &from(c, p))), [2, 3], "in turn again");
}

#[test]
fn packets_of_a_flow_keep_its_client_remembered() {
    let tables = policy(PolicyKind::Turns, &[2, 3], 1500);
    for second in 0..10 {
        tables.now_ns.set(second * 1_000_000_000);
        send(&tables, &tcp(1, second == 0));
    }
    assert_eq!(sent_to(&tables, &tcp(2, true)), 2);
}

#[test]
fn who_drains_or_is_another_services_is_not_remembered() {
    let mut tables = policy(PolicyKind::Turns, &[2, 3], 1000);
    assert_eq!(sent_to(&tables, &from(1, 1)), 2);
    tables.backends.get_mut(&2).unwrap().state = BackendState::Draining.to_raw();
    assert_eq!(sent_to(&tables, &from(1, 2)), 3);
    assert_eq!(sent_to(&tables, &from(1, 3)), 3, "remembered anew");
    tables.backends.get_mut(&3).unwrap().service = SERVICE + 1;
    assert_eq!(sent_to(&tables, &from(1, 4)), 2, "the number is somebody else's now");
}

#[test]
fn a_source_has_one_slot_whatever_its_ports() {
    let mut tables = tables(Slot::settled(id(1)));
    tables.rings = (0..RING).map(|slot| Slot::settled(id(1 + slot % 3))).collect();
    tables.backends.insert(3, backend(3));
    for service in tables.services.values_mut() {
        service.flags = ServiceEntry::BY_SOURCE;
    }
    let mut seen = std::collections::BTreeSet::new();
    for client in 0..64 {
        let first = sent_to(&tables, &from(client, 1));
        assert!((2..32).all(|port| sent_to(&tables, &from(client, port)) == first));
        seen.insert(first);
    }
    assert_eq!(seen.len(), 3, "and clients spread");
    assert!(tables.flows.borrow().is_empty());
}
