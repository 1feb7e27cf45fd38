//! What does not fit the way to its backend: its sender is told what would.

use super::frames::{SERVICE_VLAN, VLAN};
use super::*;

/// Checks the message that a packet was answered with: the MTU it tells, and how much it quotes.
#[track_caller]
fn told(seen: &Seen, packet: &Build, mtu: u32, quoted: usize) {
    seen.is("told", Verdict::Transmit, reason(Reason::TooBigAnswered));
    let layers = seen.layers();
    let tags = packet.tags.len();
    let ids: Vec<u16> =
        layers[1..=tags].iter().map(|tag| if let Layer::Tag(id) = tag { *id } else { 0 }).collect();
    assert_eq!(ids, packet.tags.iter().map(|(_, id)| *id).collect::<Vec<_>>());
    assert_eq!(seen.bytes[..12], [CLIENT_MAC, OWN].concat());
    let quote = packet.packet()[..quoted].to_vec();
    let (ends, expected, len) = match &layers[1 + tags] {
        Layer::V4(ip) => {
            assert_eq!((ip.time_to_live, ip.protocol.0), (64, 1));
            let ends: [IpAddr; 2] = [Ipv4Addr::from(ip.source).into(), Ipv4Addr::from(ip.destination).into()];
            let [_, _, m0, m1] = mtu.to_be_bytes();
            (ends, Layer::Icmp(3, 4, [0, 0, m0, m1], quote), 20 + usize::from(ip.payload_len().unwrap()))
        }
        Layer::V6(ip) => {
            assert_eq!((ip.hop_limit, ip.next_header.0), (64, 58));
            let ends: [IpAddr; 2] = [Ipv6Addr::from(ip.source).into(), Ipv6Addr::from(ip.destination).into()];
            (ends, Layer::Icmp(2, 0, mtu.to_be_bytes(), quote), 40 + usize::from(ip.payload_length))
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(ends, [packet.to.0, packet.from.0], "from the service address");
    assert_eq!(layers[2 + tags], expected);
    assert_eq!(seen.bytes.len(), 14 + 4 * tags + len, "nothing behind it");
}

const TAGGED: [&[(u16, u16)]; 3] = [&[], &[(VLAN, 5)], &[(SERVICE_VLAN, 7), (VLAN, 5)]];

#[test]
fn the_mtu_is_what_is_left_beside_the_outer_headers() {
    for tags in TAGGED {
        for method in [Method::L2].into_iter().chain(TUNNELS) {
            for (outer_v6, inner_v6) in FAMILIES {
                let entry =
                    if method == Method::L2 { backend(1) } else { tunnel(method, outer_v6, inner_v6) };
                let fits = 1500 - method.overhead(outer_v6);
                let quoted = if inner_v6 { 1232 } else { 548 };
                let what = format!("{method:?} {outer_v6} {inner_v6}");
                for body in [Body::Tcp(ACK), Body::Udp, Body::Sctp] {
                    let port = match body {
                        Body::Tcp(_) => 80,
                        Body::Udp => 53,
                        _ => 5060,
                    };
                    let packet = of(inner_v6, body, port).tags(tags);
                    let fitting = packet.clone().ip_len(fits as usize);
                    let seen = see(&tables_with(entry), &fitting.bytes());
                    seen.is(&what, Verdict::Transmit, forwarded(1, fits as usize, 0));
                    seen.layers();
                    for more in [1, 2, 3, 500] {
                        let packet = packet.clone().ip_len(fits as usize + more);
                        for packet in [packet.clone(), Build { dont_fragment: true, ..packet }] {
                            told(&see(&tables_with(entry), &packet.bytes()), &packet, fits, quoted);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_way_back_is_not_the_way_to_the_backend() {
    // Behind another port, in another VLAN: the message goes where the packet came from, under its own tags.
    for is_v6 in [false, true] {
        let mut entry = tunnel(Method::GueHeader, true, is_v6);
        entry.egress = Egress::new(FAR, 1400).0;
        entry.flags |= Tag::Vlan(9).flags();
        entry.next_hop = NextHop::new([2, 0, 0, 0, 1, 1], 2).0;
        let packet = of(is_v6, Body::Tcp(ACK), 80).tags(&[(VLAN, 5)]).ip_len(1400);
        told(&see(&tables_with(entry), &packet.bytes()), &packet, 1400 - 52, if is_v6 { 1232 } else { 548 });
    }
}

#[test]
fn of_short_packets_less_is_quoted() {
    for (is_v6, len, quoted) in [
        (false, 547, 28),
        (false, 548, 548),
        (false, 61, 28),
        (true, 1231, 48),
        (true, 1232, 1232),
        (true, 61, 48),
    ] {
        let mut entry = backend(1);
        entry.egress = Egress::new(OWN, 60).0;
        let packet = of(is_v6, Body::Tcp(ACK), 80).ip_len(len);
        told(&see(&tables_with(entry), &packet.bytes()), &packet, 60, quoted);
    }
}

#[test]
fn options_extension_headers_and_fragments_are_told_too() {
    let with_options = Build { options: 40, ..v4(Body::Tcp(ACK), 80) }.ip_len(1490);
    let [first, later] = v4(Body::Udp, 53).payload(2976).fragments(1488, 77);
    let [first6, later6] = v6(Body::Udp, 53).payload(2880).fragments(1440, 77);
    for (packet, quoted) in [
        (with_options, 548),
        (first, 548),
        (later, 548),
        (v6(Body::Tcp(ACK), 80).padding_extension(60, 3).ip_len(1490), 1232),
        (first6, 1232),
        (later6, 1232),
    ] {
        let is_v6 = packet.to.0.is_ipv6();
        let tables = tables_with(tunnel(Method::Ipip, false, is_v6));
        // A later fragment is the service's only by the first one's record.
        let fragment = packet.fragment.0 > 0
            || packet.extensions.first().is_some_and(|(kind, rest)| *kind == 44 && rest[1] > 0);
        if fragment {
            let id = 77;
            let protocol = if is_v6 { 0 } else { 17 };
            let (source, destination) =
                if is_v6 { (CLIENT6.octets(), VIP6.octets()) } else { (mapped(CLIENT), mapped(VIP)) };
            let entry = FragmentEntry { service: SERVICE, backend: 1, hash: 5, seen_ns: 0 };
            tables.fragments.borrow_mut().insert(FragmentKey { source, destination, id, protocol }, entry);
        }
        told(&see(&tables, &packet.bytes()), &packet, 1480, quoted);
    }
}

#[test]
fn ten_messages_a_second_and_source() {
    for is_v6 in [false, true] {
        let tables = tables_with(tunnel(Method::Ipip, false, is_v6));
        tables.now_ns.set(7_000_000_000);
        let mut packet = of(is_v6, Body::Tcp(ACK), 80).ip_len(1481);
        let told = || reason(Reason::TooBigAnswered);
        for port in 0..10 {
            packet.from.1 = 4000 + port;
            see(&tables, &packet.bytes()).is("a burst", Verdict::Transmit, told());
        }
        see(&tables, &packet.bytes()).is("beyond it", Verdict::Drop, drop_of(Reason::TooBig));
        let mut other = packet.clone();
        other.from.0 = if is_v6 { FAR_END6.into() } else { Ipv4Addr::from(FAR_END).into() };
        see(&tables, &other.bytes()).is("another source", Verdict::Transmit, told());
        tables.now_ns.set(7_100_000_000);
        see(&tables, &packet.bytes()).is("later", Verdict::Transmit, told());
        see(&tables, &packet.bytes()).is("one", Verdict::Drop, drop_of(Reason::TooBig));
    }
}

#[test]
fn without_headroom_nobody_can_be_told() {
    let tables = tables_with(backend(1));
    let mut frame = HostFrame::without_headroom(&v4(Body::Tcp(ACK), 80).ip_len(1501).bytes());
    assert_eq!(run(&mut frame, &tables), Verdict::Drop);
    assert_eq!(counts(&tables), drop_of(Reason::TooBig));
}

#[test]
fn a_flow_that_is_told_is_counted_once_it_goes_on() {
    let tables = tables_with(tunnel(Method::Ipip, false, false));
    let mut unsettled = tables.clone();
    unsettled.rings.fill(Slot::settled(id(1)).moved_to(id(2)));
    unsettled.backends.insert(2, BackendEntry { service: SERVICE, ..tunnel(Method::Ipip, false, false) });
    let syn = v4(Body::Tcp(SYN), 80).ip_len(1490);
    told(&see(&unsettled, &syn.bytes()), &syn, 1480, 548);
    let recorded: Vec<u32> = unsettled.flows.borrow().values().map(|flow| flow.backend).collect();
    assert_eq!(recorded, [2], "recorded where its next packets will go");
}
