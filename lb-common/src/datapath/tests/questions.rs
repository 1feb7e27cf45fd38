//! What is answered in place: ARP requests, neighbour solicitations, echo requests.

use super::frames::{SERVICE_VLAN, VLAN, segment_sum};
use super::*;
use crate::wire::{arp, ndp};

const TAGGED: [&[(u16, u16)]; 3] = [&[], &[(VLAN, 5)], &[(SERVICE_VLAN, 7), (VLAN, 5)]];

/// Another host's address, in no table.
const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x99);

fn with_tags(link: [[u8; 6]; 2], tags: &[(u16, u16)], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = link.concat();
    for (tag, id) in tags {
        frame.extend([tag.to_be_bytes(), id.to_be_bytes()].concat());
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &CLIENT_MAC, &sender, &[0; 6], &target, &[0; 18]].concat()
}

#[test]
fn arp_is_answered_under_the_same_tags() {
    let tables = tables(Slot::settled(id(1)));
    for tags in TAGGED {
        for mac in [[0xff; 6], OWN] {
            let input = with_tags([mac, CLIENT_MAC], tags, 0x0806, &arp(1, CLIENT, VIP));
            let seen = see(&tables, &input);
            seen.is("answered", Verdict::Transmit, reason(Reason::ArpAnswered));
            let body = [&[0, 1, 8, 0, 6, 4, 0, 2][..], &OWN, &VIP, &CLIENT_MAC, &CLIENT, &[0; 18]].concat();
            assert_eq!(seen.bytes, with_tags([CLIENT_MAC, OWN], tags, 0x0806, &body));
            assert!(arp::Packet::parse(body[..28].try_into().unwrap()).is_some());
        }
        let cases = [
            ("an answer", arp(2, CLIENT, VIP), [0xff; 6], Reason::NotIp),
            ("an announcement", arp(1, VIP, VIP), [0xff; 6], Reason::NotIp),
            ("another address", arp(1, CLIENT, CLIENT), [0xff; 6], Reason::NotIp),
            ("cut short", arp(1, CLIENT, VIP)[..27].to_vec(), [0xff; 6], Reason::NotIp),
            ("another station is asked", arp(1, CLIENT, VIP), CLIENT_MAC, Reason::OtherMac),
        ];
        for (what, body, mac, expected) in cases {
            let input = with_tags([mac, CLIENT_MAC], tags, 0x0806, &body);
            see(&tables, &input).is(what, Verdict::Pass, reason(expected));
        }
    }
    let probe = with_tags([[0xff; 6], CLIENT_MAC], &[], 0x0806, &arp(1, [0; 4], VIP));
    see(&tables, &probe).is("is it free?", Verdict::Transmit, reason(Reason::ArpAnswered));
}

#[test]
fn addresses_that_are_not_advertised_are_not_answered_for() {
    let mut tables = tables(Slot::settled(id(1)));
    for vip in tables.vips.values_mut() {
        vip.flags &= !VipEntry::ADVERTISED;
    }
    let input = with_tags([[0xff; 6], CLIENT_MAC], &[], 0x0806, &arp(1, CLIENT, VIP));
    see(&tables, &input).is("ARP", Verdict::Pass, reason(Reason::NotIp));
    see(&tables, &solicitation(CLIENT6, VIP6, true).bytes()).is("NDP", Verdict::Pass, reason(Reason::NotIp));
    let flags = VipEntry::ADVERTISED;
    tables.vips.clear();
    for (address, bits) in [(mapped(VIP), 120), (VIP6.octets(), 64)] {
        tables.prefixes.push((address, bits, PrefixEntry { number: 1, flags }));
    }
    tables.control.flags |= Control::PREFIXES;
    see(&tables, &input).is("ARP, prefix", Verdict::Transmit, reason(Reason::ArpAnswered));
    let input = solicitation(CLIENT6, STRANGER6, true).bytes();
    see(&tables, &input).is("NDP, prefix", Verdict::Transmit, reason(Reason::NdpAnswered));
}

/// A solicitation as a host sends it, with or without its MAC address as an option.
fn solicitation(from: Ipv6Addr, target: Ipv6Addr, option: bool) -> Build {
    let group = ndp::solicited_node(target.octets());
    let mut payload = target.octets().to_vec();
    if option {
        payload.extend([&[1, 1][..], &CLIENT_MAC].concat());
    }
    let mut packet = v6(Body::Icmp(135, 0, [0; 4]), 0);
    packet.link.1 = ndp::multicast_mac(group);
    (packet.from.0, packet.to.0) = (from.into(), Ipv6Addr::from(group).into());
    Build { payload, ttl: 255, ..packet }
}

/// Checks the advertisement that a solicitation was answered with.
#[track_caller]
fn advertised(seen: &Seen, to: Ipv6Addr, mac: [u8; 6], solicited: bool, tags: usize) {
    let layers = seen.layers();
    let Layer::Ethernet(link) = &layers[0] else { panic!() };
    assert_eq!((link.destination, link.source), (mac, OWN));
    let Layer::V6(ip) = &layers[1 + tags] else { panic!("{layers:?}") };
    assert_eq!((Ipv6Addr::from(ip.source), Ipv6Addr::from(ip.destination)), (VIP6, to));
    assert_eq!((ip.hop_limit, ip.payload_length), (255, 32));
    let flags = if solicited { 0x60 } else { 0x20 };
    let body = [&VIP6.octets()[..], &[2, 1], &OWN].concat();
    assert_eq!(layers[2 + tags..], [Layer::Icmp(136, 0, [flags, 0, 0, 0], body)]);
    assert_eq!(seen.bytes.len(), 14 + 4 * tags + 40 + 32);
}

#[test]
fn neighbour_solicitations_are_answered() {
    let tables = tables(Slot::settled(id(1)));
    for tags in TAGGED {
        for option in [true, false] {
            for padding in [0, 100] {
                let multicast = solicitation(CLIENT6, VIP6, option).tags(tags);
                let mut unicast = multicast.clone();
                (unicast.link.1, unicast.to.0) = (OWN, VIP6.into());
                for packet in [multicast, unicast] {
                    let seen = see(&tables, &Build { shortest: padding, ..packet }.bytes());
                    seen.is("answered", Verdict::Transmit, reason(Reason::NdpAnswered));
                    advertised(&seen, CLIENT6, CLIENT_MAC, true, tags.len());
                }
            }
        }
        let seen = see(&tables, &solicitation(Ipv6Addr::UNSPECIFIED, VIP6, false).tags(tags).bytes());
        seen.is("is it free?", Verdict::Transmit, reason(Reason::NdpAnswered));
        let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        advertised(&seen, everybody, [0x33, 0x33, 0, 0, 0, 1], false, tags.len());
    }
}

#[test]
fn other_solicitations_pass() {
    let tables = tables(Slot::settled(id(1)));
    let good = solicitation(CLIENT6, VIP6, true);
    let code = Build { body: Body::Icmp(135, 1, [0; 4]), ..good.clone() };
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x10);
    let other_mac = Build { link: (CLIENT_MAC, [0x33, 0x33, 0, 0, 0, 1]), ..good.clone() };
    let unspecific = Build { payload: vec![0; 15], ..good.clone() };
    let cases = [
        ("from behind a router", Build { ttl: 254, ..good.clone() }, Reason::NotIp),
        ("code", code, Reason::NotIp),
        ("another address", solicitation(CLIENT6, STRANGER6, true), Reason::NotIp),
        ("a multicast address", solicitation(CLIENT6, group, true), Reason::NotIp),
        ("without a whole target", unspecific, Reason::NotIp),
        ("behind options", good.clone().padding_extension(60, 0), Reason::NotIp),
        ("all nodes", other_mac, Reason::OtherMac),
    ];
    for (what, packet, expected) in cases {
        see(&tables, &packet.bytes()).is(what, Verdict::Pass, reason(expected));
    }
    for kind in [133, 134, 136, 137, 143] {
        let packet = Build { body: Body::Icmp(kind, 0, [0; 4]), link: (CLIENT_MAC, OWN), ..good.clone() };
        see(&tables, &packet.bytes()).is("not a question", Verdict::Pass, reason(Reason::OtherProtocol));
    }
}

fn ping(is_v6: bool, len: usize) -> Build {
    of(is_v6, Body::Icmp(if is_v6 { 128 } else { 8 }, 0, [0xab, 0xcd, 0, 9]), 0).payload(len)
}

#[test]
fn echo_requests_are_answered_with_what_they_brought() {
    for is_v6 in [false, true] {
        for tags in TAGGED {
            for (len, options) in [(0, 0), (1, 0), (56, 0), (57, 40), (1400, 4)] {
                let options = if is_v6 { 0 } else { options };
                let packet = Build { options, tos: 0x28, ..ping(is_v6, len).tags(tags) };
                let input = packet.bytes();
                let seen = see(&tables(Slot::settled(id(1))), &input);
                seen.is("echo", Verdict::Transmit, reason(Reason::EchoAnswered));
                assert_eq!(seen.bytes.len(), input.len());
                let layers = seen.layers();
                let kind = if is_v6 { 129 } else { 0 };
                assert_eq!(
                    layers[2 + tags.len()],
                    Layer::Icmp(kind, 0, [0xab, 0xcd, 0, 9], packet.payload.clone())
                );
                let ends = match &layers[1 + tags.len()] {
                    Layer::V4(ip) => (
                        Ipv4Addr::from(ip.source).into(),
                        Ipv4Addr::from(ip.destination).into(),
                        ip.time_to_live,
                    ),
                    Layer::V6(ip) => (
                        Ipv6Addr::from(ip.source).into(),
                        Ipv6Addr::from(ip.destination).into(),
                        ip.hop_limit,
                    ),
                    other => panic!("{other:?}"),
                };
                assert_eq!(ends, (packet.to.0, packet.from.0, 64));
                assert_eq!(seen.bytes[..12], [CLIENT_MAC, OWN].concat());
            }
        }
        let behind = ping(true, 8).padding_extension(60, 0).fragment_header(0, false, 3);
        let seen = see(&tables(Slot::settled(id(1))), &behind.bytes());
        seen.is("behind extension headers", Verdict::Transmit, reason(Reason::EchoAnswered));
        assert_eq!(seen.layers().len(), 5);
    }
}

#[test]
fn echo_checksums_are_right_for_every_sum() {
    // The incremental update meets every value of the checksum.
    for is_v6 in [false, true] {
        let tables = tables(Slot::settled(id(1)));
        for n in (0..=u16::MAX).step_by(if is_v6 { 7 } else { 5 }) {
            tables.now_ns.set(u64::from(n) * 1_000_000_000);
            let packet = Build { payload: n.to_be_bytes().to_vec(), ..ping(is_v6, 0) };
            let seen = see(&tables, &packet.bytes());
            assert_eq!(seen.verdict, Verdict::Transmit);
            let at = if is_v6 { 54 } else { 34 };
            let protocol = packet.protocol();
            let sum = segment_sum(packet.to.0, packet.from.0, protocol, &seen.bytes[at..]).ones_complement();
            assert_eq!(sum, 0, "{n:#x}");
        }
    }
}

#[test]
fn echo_is_answered_only_where_switched_on_and_for_our_addresses() {
    for is_v6 in [false, true] {
        let mut tables = tables(Slot::settled(id(1)));
        let passes = || reason(Reason::OtherProtocol);
        let mut elsewhere = ping(is_v6, 8);
        elsewhere.to.0 = elsewhere.from.0;
        see(&tables, &elsewhere.bytes()).is("elsewhere", Verdict::Pass, passes());
        let reply = of(is_v6, Body::Icmp(if is_v6 { 129 } else { 0 }, 0, [0; 4]), 0);
        see(&tables, &reply.bytes()).is("a reply", Verdict::Pass, passes());
        let short = of(is_v6, Body::Raw(if is_v6 { 58 } else { 1 }), 0).payload(7);
        see(&tables, &short.bytes()).is("too short", Verdict::Pass, passes());
        let multicast = Build { link: (CLIENT_MAC, [0x33, 0x33, 0xff, 0, 0, 0x10]), ..ping(true, 8) };
        see(&tables, &multicast.bytes()).is("to a group", Verdict::Pass, reason(Reason::OtherMac));
        for vip in tables.vips.values_mut() {
            vip.flags &= !VipEntry::ECHO;
        }
        see(&tables, &ping(is_v6, 8).bytes()).is("off", Verdict::Pass, passes());
    }
}

#[test]
fn echo_is_limited_per_address() {
    let tables = tables(Slot::settled(id(1)));
    tables.now_ns.set(5_000_000_000);
    for is_v6 in [false, true] {
        for n in 0..100 {
            let mut packet = ping(is_v6, 8);
            packet.from.1 = n;
            see(&tables, &packet.bytes()).is("a burst", Verdict::Transmit, reason(Reason::EchoAnswered));
        }
        for _ in 0..3 {
            let seen = see(&tables, &ping(is_v6, 8).bytes());
            seen.is("beyond it", Verdict::Drop, reason(Reason::EchoLimited));
        }
    }
    tables.now_ns.set(5_001_000_000);
    see(&tables, &ping(true, 8).bytes()).is("later", Verdict::Transmit, reason(Reason::EchoAnswered));
    see(&tables, &ping(true, 8).bytes()).is("one", Verdict::Drop, reason(Reason::EchoLimited));
}
