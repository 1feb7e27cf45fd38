//! ICMP errors about a service's flow: they go to the backend that owns the flow, and leave no trace.

use super::*;

/// A router on the way to the client.
const ROUTER: [u8; 4] = [198, 51, 100, 254];
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0xfe);

/// What a backend has sent to the client of [`v4`] or [`v6`].
fn sent(is_v6: bool, body: Body, port: u16) -> Build {
    let packet = of(is_v6, body, port);
    Build { from: packet.to, to: packet.from, ..packet }
}

/// An error about these bytes of a packet, to its sender.
fn error(is_v6: bool, kind: u8, code: u8, quote: &[u8]) -> Build {
    let mut packet = of(is_v6, Body::Icmp(kind, code, [0, 0, 5, 0]), 0);
    packet.from.0 = if is_v6 { ROUTER6.into() } else { Ipv4Addr::from(ROUTER).into() };
    Build { payload: quote.to_vec(), ..packet }
}

fn tcp_error(is_v6: bool) -> Build {
    error(
        is_v6,
        if is_v6 { 2 } else { 3 },
        if is_v6 { 0 } else { 4 },
        &sent(is_v6, Body::Tcp(ACK), 80).payload(64).packet(),
    )
}

#[test]
fn every_kind_of_error_is_forwarded() {
    let kinds4 = [(3, 0), (3, 1), (3, 3), (3, 4), (11, 0), (11, 1), (12, 0)];
    let kinds6 = [(1, 0), (1, 4), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1)];
    for is_v6 in [false, true] {
        for (kind, code) in if is_v6 { kinds6 } else { kinds4 } {
            for (body, port) in [(Body::Tcp(ACK), 80), (Body::Udp, 53), (Body::Sctp, 5060)] {
                let whole = sent(is_v6, body, port).payload(100).packet();
                let header = if is_v6 { 40 } else { 20 };
                for len in [header + 4, header + 8, header + 20, whole.len()] {
                    let packet = error(is_v6, kind, code, &whole[..len]);
                    let input = packet.bytes();
                    let seen = see(&tables(Slot::settled(id(2))), &input);
                    let what = format!("type {kind} code {code}, {len} bytes quoted");
                    seen.is(&what, Verdict::Transmit, reason(Reason::IcmpForwarded));
                    assert_eq!((seen.to(), packet_in(&seen.bytes, 0)), (Some(2), packet_in(&input, 0)));
                }
                let packet = error(is_v6, kind, code, &whole[..header + 3]);
                let seen = see(&tables(Slot::settled(id(2))), &packet.bytes());
                seen.is("no ports", Verdict::Pass, reason(Reason::IcmpElsewhere));
            }
        }
    }
}

#[test]
fn errors_go_where_their_flow_goes() {
    for is_v6 in [false, true] {
        let mut tables = tables(Slot::settled(id(1)));
        tables.rings = (0..RING).map(|n| Slot::settled(id(1 + n % 2))).collect();
        let mut seen = std::collections::BTreeSet::new();
        for port in 4000..4040 {
            let mut packet = of(is_v6, Body::Tcp(ACK), 80);
            packet.from.1 = port;
            let backend = sent_to(&tables, &packet.bytes());
            let back = Build { from: packet.to, to: packet.from, ..packet };
            assert_eq!(sent_to(&tables, &error(is_v6, 3, 3, &back.packet()).bytes()), backend);
            seen.insert(backend);
        }
        assert_eq!(seen.len(), 2);
    }
}

#[test]
fn errors_about_nobodys_packets_pass() {
    for is_v6 in [false, true] {
        let stranger: IpAddr = if is_v6 { ROUTER6.into() } else { Ipv4Addr::from(ROUTER).into() };
        let ours = sent(is_v6, Body::Tcp(ACK), 80);
        let mut from_another = ours.clone();
        from_another.from.0 = stranger;
        let other_port = Build { from: (ours.from.0, 81), ..ours.clone() };
        let mut version = ours.packet();
        version[0] ^= 0x20;
        let cases = [
            ("another port", other_port.packet()),
            ("another address than the error's destination", from_another.packet()),
            ("another protocol", sent(is_v6, Body::Icmp(8, 0, [0; 4]), 0).packet()),
            ("another version", version),
            ("nothing", Vec::new()),
        ];
        for (what, quote) in cases {
            let seen = see(&tables(Slot::settled(id(1))), &error(is_v6, 3, 0, &quote).bytes());
            seen.is(what, Verdict::Pass, reason(Reason::IcmpElsewhere));
        }
        let mut elsewhere = error(is_v6, 3, 0, &ours.packet());
        elsewhere.to.0 = stranger;
        let seen = see(&tables(Slot::settled(id(1))), &elsewhere.bytes());
        seen.is("an error to somebody else", Verdict::Pass, reason(Reason::IcmpElsewhere));
        let kinds = if is_v6 { [0, 5, 100, 127] } else { [4, 5, 13, 17] };
        for kind in kinds {
            let seen = see(&tables(Slot::settled(id(1))), &error(is_v6, kind, 0, &ours.packet()).bytes());
            seen.is("no error", Verdict::Pass, reason(Reason::OtherProtocol));
        }
    }
    let mut options = sent(false, Body::Tcp(ACK), 80);
    options.options = 12;
    let seen = see(&tables(Slot::settled(id(1))), &error(false, 3, 4, &options.packet()).bytes());
    seen.is("inner options", Verdict::Transmit, reason(Reason::IcmpForwarded));
    let [first, later] = sent(false, Body::Udp, 53).payload(64).fragments(32, 7);
    let seen = see(&tables(Slot::settled(id(1))), &error(false, 3, 4, &first.packet()).bytes());
    seen.is("a first fragment", Verdict::Transmit, reason(Reason::IcmpForwarded));
    let seen = see(&tables(Slot::settled(id(1))), &error(false, 3, 4, &later.packet()).bytes());
    seen.is("a later fragment has no ports", Verdict::Pass, reason(Reason::IcmpElsewhere));
}

#[test]
fn a_quoted_ipv6_fragment_is_found_by_its_ports() {
    let [first, later] = sent(true, Body::Udp, 53).payload(64).fragments(32, 7);
    let seen = see(&tables(Slot::settled(id(1))), &error(true, 2, 0, &first.packet()).bytes());
    seen.is("a first fragment", Verdict::Transmit, reason(Reason::IcmpForwarded));
    let atomic = sent(true, Body::Udp, 53).payload(64).fragment_header(0, false, 9);
    let seen = see(&tables(Slot::settled(id(1))), &error(true, 2, 0, &atomic.packet()).bytes());
    seen.is("an atomic one", Verdict::Transmit, reason(Reason::IcmpForwarded));
    let seen = see(&tables(Slot::settled(id(1))), &error(true, 2, 0, &first.packet()[..47]).bytes());
    seen.is("cut short", Verdict::Pass, reason(Reason::IcmpElsewhere));
    let seen = see(&tables(Slot::settled(id(1))), &error(true, 2, 0, &later.packet()).bytes());
    seen.is("a later fragment has no ports", Verdict::Pass, reason(Reason::IcmpElsewhere));
}

#[test]
fn in_unsettled_slots_the_recorded_flow_decides_and_nothing_is_recorded() {
    for is_v6 in [false, true] {
        let mut tables = tables(Slot::settled(id(1)).moved_to(id(2)));
        let input = tcp_error(is_v6).bytes();
        assert_eq!(sent_to(&tables, &input), 1, "unknown: the previous owner");
        assert!(tables.flows.borrow().is_empty(), "nothing recorded");
        tables.now_ns.set(100);
        let flow = of(is_v6, Body::Tcp(SYN), 80).bytes();
        assert_eq!(sent_to(&tables, &flow), 2, "recorded on the current owner");
        tables.now_ns.set(10_000_000_000);
        let seen = see(&tables, &input);
        assert_eq!(seen.to(), Some(2), "known");
        seen.is("known", Verdict::Transmit, reason(Reason::IcmpForwarded));
        assert_eq!(tables.flows.borrow().values().next().unwrap().last_seen_ns, 100, "nothing renewed");
        tables.backends.get_mut(&2).unwrap().state = BackendState::Down.to_raw();
        assert_eq!(sent_to(&tables, &input), 1, "the recorded one is down: the previous owner");
        tables.backends.get_mut(&1).unwrap().state = BackendState::Retired.to_raw();
        assert_eq!(sent_to(&tables, &input), 2, "both are: the current owner is trusted");
        assert_eq!(tables.flows.borrow().values().next().unwrap().backend, 2, "nothing corrected");
    }
}

#[test]
fn an_error_that_cannot_be_sent_is_dropped_and_nobody_is_told() {
    for is_v6 in [false, true] {
        let entry = BackendEntry { egress: Egress::new(OWN, 100).0, ..backend(1) };
        let seen = see(&tables_with(entry), &tcp_error(is_v6).bytes());
        seen.is("too big", Verdict::Drop, drop_of(Reason::TooBig));
        let seen = see(&tables_with(BackendEntry { next_hop: 0, ..backend(1) }), &tcp_error(is_v6).bytes());
        seen.is("no next hop", Verdict::Drop, drop_of(Reason::NoNextHop));
        let seen = see(&tables(Slot::default()), &tcp_error(is_v6).bytes());
        seen.is("no owner", Verdict::Drop, drop_of(Reason::NoBackend));
        let mut entry = tunnel(Method::GueHeader, true, is_v6);
        entry.next_hop = NextHop::new([2, 0, 0, 0, 1, 1], 2).0;
        let packet = tcp_error(is_v6);
        let seen = see(&tables_with(entry), &packet.bytes());
        seen.is("through a tunnel", Verdict::Redirect(2), reason(Reason::IcmpForwarded));
        assert!(seen.bytes.ends_with(&packet.packet()));
    }
}
