//! QUIC: which packets begin a connection, and which backend a connection ID names.

use super::*;

const V1: [u8; 4] = [0, 0, 0, 1];
const V2: [u8; 4] = [0x6b, 0x33, 0x43, 0xcf];

/// Packet types of a long header, by their bits in version 1 and 2 (RFC 9000 section 17.2, RFC 9369 section 3.2).
const INITIAL: (u8, u8) = (0, 1);
const ZERO_RTT: (u8, u8) = (1, 2);
const HANDSHAKE: (u8, u8) = (2, 3);

/// A draft-ietf-quic-load-balancers connection ID: configuration 2, a server id of two bytes, and a nonce.
fn draft(server: u16) -> Vec<u8> {
    [&[2 << 5 | 7][..], &server.to_be_bytes(), &[1, 2, 3, 4, 5]].concat()
}

fn datagram(is_v6: bool, payload: &[u8]) -> Vec<u8> {
    Build { payload: payload.to_vec(), ..of(is_v6, Body::Udp, 53) }.bytes()
}

fn long(version: [u8; 4], kind: u8, id: &[u8]) -> Vec<u8> {
    [&[0xc0 | kind << 4][..], &version, &[id.len() as u8], id, &[0], &[0x55; 40]].concat()
}

fn short(id: &[u8]) -> Vec<u8> {
    [&[0x40][..], id, &[0x55; 24]].concat()
}

/// The ring leads to backend 1; server id 0x1234 is backend 2, 0x99 one that is down, 0x88 another service's, 0x77
/// nobody's.
fn quic_tables(format: QuicFormat) -> HostTables {
    let mut tables = tables(Slot::settled(id(1)));
    for service in tables.services.values_mut() {
        (service.flags, service.quic) = (ServiceEntry::QUIC, format.to_raw());
    }
    tables.backends.insert(3, BackendEntry { state: BackendState::Down.to_raw(), ..backend(3) });
    tables.backends.insert(4, BackendEntry { service: SERVICE + 1, ..backend(4) });
    for (server, backend) in [(0x1234, 2), (0x99, 3), (0x88, 4), (0x77, 9)] {
        tables.quic.insert(QuicKey { server, service: SERVICE, reserved: 0 }, backend);
    }
    tables.quic.insert(QuicKey { server: 0x1235, service: SERVICE + 1, reserved: 0 }, 2);
    tables
}

const DRAFT: QuicFormat = QuicFormat::Draft { config_id: 2, length: 2 };

#[test]
fn only_ids_that_a_server_chose_are_decoded() {
    let id = draft(0x1234);
    let cases = [
        ("short header", short(&id), 2, 0),
        ("handshake, version 1", long(V1, HANDSHAKE.0, &id), 2, 0),
        ("handshake, version 2", long(V2, HANDSHAKE.1, &id), 2, 0),
        ("initial, version 1", long(V1, INITIAL.0, &id), 1, 1),
        ("initial, version 2", long(V2, INITIAL.1, &id), 1, 1),
        ("0-RTT, version 1", long(V1, ZERO_RTT.0, &id), 1, 1),
        ("0-RTT, version 2", long(V2, ZERO_RTT.1, &id), 1, 1),
        ("what is handshake in version 2 is retry in version 1", long(V1, HANDSHAKE.1, &id), 1, 1),
        ("what is handshake in version 1 is 0-RTT in version 2", long(V2, HANDSHAKE.0, &id), 1, 1),
        ("unknown version", long([0xff, 0, 0, 29], HANDSHAKE.0, &id), 1, 1),
        ("version negotiation", long([0; 4], HANDSHAKE.0, &id), 1, 1),
        ("an id too short for a server id", long(V1, HANDSHAKE.0, &id[..2]), 1, 0),
        ("an id with room for nothing else", long(V1, HANDSHAKE.0, &id[..3]), 2, 0),
        ("no id", long(V1, HANDSHAKE.0, &[]), 1, 0),
        ("an empty datagram", Vec::new(), 1, 0),
        ("a long header cut short", vec![0xc0, 0, 0], 1, 0),
        ("a short header cut short", short(&id)[..7].to_vec(), 1, 0),
    ];
    for is_v6 in [false, true] {
        for (what, payload, expected, flows) in cases.clone() {
            let input = datagram(is_v6, &payload);
            let seen = see(&quic_tables(DRAFT), &input);
            seen.is(what, Verdict::Transmit, forwarded(expected, input.len() - 14, flows));
            assert_eq!(seen.to(), Some(expected as u8), "{what}");
        }
    }
}

#[test]
fn an_id_must_name_a_live_backend_of_the_service() {
    let cases = [
        ("known", draft(0x1234), 2),
        ("unknown", draft(0x4321), 1),
        ("another service's key", draft(0x1235), 1),
        ("down", draft(0x99), 1),
        ("another service's backend", draft(0x88), 1),
        ("nobody's", draft(0x77), 1),
        ("another configuration", [&[3 << 5][..], &draft(0x1234)[1..]].concat(), 1),
        ("configuration 7: unroutable", [&[7 << 5][..], &draft(0x1234)[1..]].concat(), 1),
    ];
    for (what, id, expected) in cases {
        assert_eq!(sent_to(&quic_tables(DRAFT), &datagram(false, &short(&id))), expected, "{what}");
    }
    let mut tables = quic_tables(DRAFT);
    tables.backends.get_mut(&3).unwrap().state = BackendState::Draining.to_raw();
    assert_eq!(sent_to(&tables, &datagram(false, &short(&draft(0x99)))), 3, "draining keeps its connections");
}

#[test]
fn server_ids_of_one_to_eight_bytes() {
    for length in 1..=8u8 {
        let server: u64 = 0x0102_0304_0506_0708 >> (64 - 8 * u32::from(length));
        let mut tables = quic_tables(QuicFormat::Draft { config_id: 0, length });
        tables.quic.insert(QuicKey { server, service: SERVICE, reserved: 0 }, 2);
        let id = [&[0][..], &[1, 2, 3, 4, 5, 6, 7, 8], &[9; 4]].concat();
        assert_eq!(sent_to(&tables, &datagram(false, &short(&id))), 2, "{length} bytes");
        let handshake = long(V1, HANDSHAKE.0, &id[..=usize::from(length)]);
        assert_eq!(sent_to(&tables, &datagram(false, &handshake)), 2, "{length} bytes");
        let handshake = long(V1, HANDSHAKE.0, &id[..usize::from(length)]);
        assert_eq!(sent_to(&tables, &datagram(false, &handshake)), 1, "{length} bytes");
    }
}

#[test]
fn katrans_layouts() {
    // Katran's quic.h: version 1 has 16 bits behind the version's two, version 2 24 bits from the second byte on.
    let cases: [(&str, [u8; 8], u64); 4] = [
        ("version 1", [0x40 | 0x12, 0x34, 0x40, 0, 0, 0, 0, 0], 0x12 << 10 | 0x34 << 2 | 1),
        ("version 1, lowest and highest", [0x7f, 0xff, 0xff, 0, 0, 0, 0, 0], 0xffff),
        ("version 2", [0x80, 0x12, 0x34, 0x56, 0, 0, 0, 0], 0x12_3456),
        ("version 2, bits behind the version", [0xbf, 0xff, 0xff, 0xff, 0, 0, 0, 0], 0xff_ffff),
    ];
    for (what, id, server) in cases {
        let mut tables = quic_tables(QuicFormat::Katran);
        tables.quic.insert(QuicKey { server, service: SERVICE, reserved: 0 }, 2);
        assert_eq!(sent_to(&tables, &datagram(false, &short(&id))), 2, "{what}");
        assert_eq!(sent_to(&tables, &datagram(true, &long(V1, HANDSHAKE.0, &id))), 2, "{what}");
        assert_eq!(sent_to(&tables, &datagram(true, &long(V1, HANDSHAKE.0, &id[..3]))), 1, "{what}");
        for version in [0x00, 0xc0] {
            let other = [&[version | id[0] & 0x3f][..], &id[1..]].concat();
            assert_eq!(sent_to(&tables, &datagram(false, &short(&other))), 1, "{what}, version {version}");
        }
    }
}

#[test]
fn without_a_format_or_the_flag_ids_mean_nothing() {
    let mut tables = quic_tables(DRAFT);
    for service in tables.services.values_mut() {
        service.quic = 0;
    }
    let input = datagram(false, &short(&draft(0x1234)));
    see(&tables, &input).is("no format", Verdict::Transmit, forwarded(1, input.len() - 14, 0));
    for service in tables.services.values_mut() {
        (service.flags, service.quic) = (0, DRAFT.to_raw());
    }
    see(&tables, &input).is("no QUIC", Verdict::Transmit, forwarded(1, input.len() - 14, 0));
}

#[test]
fn in_unsettled_slots_connections_begin_at_the_current_owner_and_older_ones_stay() {
    for slot in [Slot::settled(id(1)).moved_to(id(2)), Slot::settled(id(1)).moved_to(id(2)).late()] {
        let mut tables = quic_tables(DRAFT);
        tables.rings.fill(slot);
        let mut packet = Build { payload: short(&draft(0x4321)), ..v4(Body::Udp, 53) };
        assert_eq!(sent_to(&tables, &packet.bytes()), 1, "an older connection");
        packet.from.1 = 5000;
        packet.payload = long(V1, INITIAL.0, &draft(0x4321));
        assert_eq!(sent_to(&tables, &packet.bytes()), 2, "a new one");
        packet.payload = short(&draft(0x4321));
        assert_eq!(sent_to(&tables, &packet.bytes()), 2, "recorded");
        packet.payload = short(&draft(0x1234));
        packet.from = (Ipv4Addr::new(192, 0, 2, 200).into(), 1);
        assert_eq!(sent_to(&tables, &packet.bytes()), 2, "named, from another address");
        let recorded = tables.flows.borrow().len();
        assert_eq!(recorded, if slot.state() == SlotState::Fresh { 2 } else { 1 });
    }
}
