//! Fragments: the first one's record leads the others to the same backend.

use super::*;
use crate::datapath::FRAGMENT_LIFE_NS;

/// Slots of all kinds, and both families.
fn slots() -> [Slot; 3] {
    let moved = Slot::settled(id(1)).moved_to(id(2));
    [Slot::settled(id(1)), moved, moved.late()]
}

fn parts(is_v6: bool, body: Body, port: u16, client_port: u16) -> [Build; 2] {
    let mut packet = of(is_v6, body, port).payload(200);
    packet.from.1 = client_port;
    packet.fragments(80, 0x0007_1234)
}

#[test]
fn all_fragments_go_where_the_flow_goes() {
    for is_v6 in [false, true] {
        for slot in slots() {
            for (body, port) in [(Body::Tcp(ACK), 80), (Body::Udp, 53), (Body::Sctp, 5060)] {
                let tables = tables(slot);
                let whole = of(is_v6, body.clone(), port).bytes();
                let backend = sent_to(&tables, &whole);
                let [first, later] = parts(is_v6, body, port, 4000);
                for (part, is_first) in [(&first, true), (&later, false), (&later, false)] {
                    let seen = see(&tables, &part.bytes());
                    let len = part.packet().len();
                    let mut counts = forwarded(backend.into(), len, 0);
                    // The first one is a stray in a slot that is about to settle.
                    let at_risk = slot.state() == SlotState::Late && port == 80 && is_first;
                    counts.extend(at_risk.then(|| (format!("service {SERVICE} flow_at_risk"), 1)));
                    seen.is("part", Verdict::Transmit, counts);
                    assert_eq!(packet_in(&seen.bytes, 0), part.packet(), "untouched");
                    assert_eq!(seen.to(), Some(backend));
                }
            }
        }
    }
}

#[test]
fn a_later_fragment_keeps_its_outer_headers_entropy() {
    for is_v6 in [false, true] {
        let tables = tables_with(tunnel_from(Method::GueDirect, false, is_v6, 8));
        let outer = |packet: &Build| {
            let layers = see(&tables, &packet.bytes()).layers();
            match &layers[1..3] {
                [Layer::V4(ip), Layer::Udp(udp)] => (ip.source, udp.source_port),
                other => panic!("{other:?}"),
            }
        };
        let [first, later] = parts(is_v6, Body::Udp, 53, 4000);
        let whole = outer(&of(is_v6, Body::Udp, 53));
        assert_eq!([outer(&first), outer(&later)], [whole, whole]);
    }
}

#[test]
fn over_ipv6_no_part_has_a_udp_checksum() {
    for is_v6 in [false, true] {
        let tables = tables_with(tunnel(Method::GueDirect, true, is_v6));
        for part in parts(is_v6, Body::Udp, 53, 4000) {
            let layers = see(&tables, &part.bytes()).layers();
            assert!(matches!(&layers[2], Layer::Udp(udp) if udp.checksum == 0), "{layers:?}");
        }
    }
}

#[test]
fn later_fragments_without_a_first_one_are_dropped_for_a_service_only() {
    for is_v6 in [false, true] {
        let mut tables = tables(Slot::settled(id(1)));
        let [first, later] = parts(is_v6, Body::Udp, 53, 4000);
        see(&tables, &later.bytes()).is("before", Verdict::Drop, reason(Reason::Fragment));
        assert!(tables.fragments.borrow().is_empty());
        sent_to(&tables, &first.bytes());
        assert_eq!(sent_to(&tables, &later.bytes()), 1);
        let mut another = later.clone();
        if is_v6 {
            another.extensions[0].1[6] ^= 1;
        } else {
            another.id ^= 1;
        }
        see(&tables, &another.bytes()).is("another id", Verdict::Drop, reason(Reason::Fragment));
        let mut another = later.clone();
        another.from.0 = another.to.0;
        see(&tables, &another.bytes()).is("another source", Verdict::Drop, reason(Reason::Fragment));
        let elsewhere = Build { to: (later.from.0, 0), ..later.clone() };
        see(&tables, &elsewhere.bytes()).is("elsewhere", Verdict::Pass, reason(Reason::NotAService));
        tables.control.flags = 0;
        tables.fragments.borrow_mut().clear();
        see(&tables, &later.bytes()).is("other ports pass", Verdict::Pass, reason(Reason::NotAService));
    }
}

#[test]
fn a_record_ends_with_its_time_its_backend_and_its_service() {
    for is_v6 in [false, true] {
        let mut tables = tables(Slot::settled(id(1)));
        tables.now_ns.set(50);
        let [first, later] = parts(is_v6, Body::Udp, 53, 4000);
        sent_to(&tables, &first.bytes());
        let later = later.bytes();
        tables.now_ns.set(50 + FRAGMENT_LIFE_NS - 1);
        assert_eq!(sent_to(&tables, &later), 1);
        tables.now_ns.set(50 + FRAGMENT_LIFE_NS);
        see(&tables, &later).is("expired", Verdict::Drop, reason(Reason::Fragment));
        assert_eq!(sent_to(&tables, &first.bytes()), 1, "the same id anew");
        assert_eq!(sent_to(&tables, &later), 1);
        for state in [BackendState::Down, BackendState::Retired, BackendState::Absent] {
            tables.backends.get_mut(&1).unwrap().state = state.to_raw();
            see(&tables, &later).is("gone", Verdict::Drop, reason(Reason::Fragment));
        }
        tables.backends.get_mut(&1).unwrap().state = BackendState::Draining.to_raw();
        assert_eq!(sent_to(&tables, &later), 1, "draining");
        tables.backends.get_mut(&1).unwrap().service = SERVICE + 1;
        see(&tables, &later).is("an id used again", Verdict::Drop, reason(Reason::Fragment));
    }
}

#[test]
fn a_first_fragment_without_ports_is_malformed_and_of_no_service_nobodys() {
    for is_v6 in [false, true] {
        let tables = tables(Slot::settled(id(1)));
        let [tiny, _] = of(is_v6, Body::Tcp(SYN), 80).payload(64).fragments(16, 1);
        see(&tables, &tiny.bytes()).is("tiny", Verdict::Drop, reason(Reason::Malformed));
        let [first, later] = of(is_v6, Body::Udp, 54).payload(64).fragments(32, 2);
        see(&tables, &first.bytes()).is("other port", Verdict::Drop, reason(Reason::OtherPort));
        see(&tables, &later.bytes()).is("its others", Verdict::Drop, reason(Reason::Fragment));
        let ping = of(is_v6, Body::Icmp(if is_v6 { 128 } else { 8 }, 0, [0; 4]), 0).payload(64);
        for part in ping.fragments(32, 3) {
            see(&tables, &part.bytes()).is("ping", Verdict::Drop, reason(Reason::Fragment));
        }
        assert!(tables.fragments.borrow().is_empty());
    }
}

#[test]
fn ipv4_ids_are_told_apart_by_protocol() {
    let tables = tables(Slot::settled(id(1)));
    let [first, _] = parts(false, Body::Udp, 53, 4000);
    sent_to(&tables, &first.bytes());
    let [_, later] = parts(false, Body::Tcp(ACK), 80, 4000);
    see(&tables, &later.bytes()).is("TCP", Verdict::Drop, reason(Reason::Fragment));
}

#[test]
fn ipv6_headers_in_front_of_the_fragment_header_are_looked_through() {
    let tables = tables(Slot::settled(id(1)));
    for mut part in parts(true, Body::Udp, 53, 4000) {
        part.extensions.insert(0, (60, vec![0, 1, 4, 0, 0, 0, 0]));
        assert_eq!(sent_to(&tables, &part.bytes()), 1);
    }
}
