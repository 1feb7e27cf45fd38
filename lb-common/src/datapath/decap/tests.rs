//! The decapsulator on the host: every pair of families in every encapsulation behind every depth of VLAN tags.

use etherparse::{IpNumber, Ipv4Header, Ipv6Header};

use super::*;
use crate::abi::mapped;
use crate::datapath::host::{HostDecapTables, HostFrame};

const OWN: Mac = [2, 0, 0, 0, 0, 42];
const ROUTER: Mac = [2, 0, 0, 0, 0, 1];
const BALANCER: [u8; 4] = [192, 0, 2, 5];
const BALANCER_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
const VIP: [u8; 4] = [203, 0, 113, 10];
const VIP_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const PORT: u16 = 6080;
const CHECKSUM_AT: usize = 10;

/// Takes tunnels from 192.0.2.0/24 but its last address, and 2001:db8:2::/48, for the two service addresses.
fn tables() -> HostDecapTables {
    let host = |address| (address, 128, true);
    let network = |address, length| (address, length, true);
    HostDecapTables {
        mac: OWN,
        gue_port: PORT,
        sources: vec![
            network(mapped([192, 0, 2, 0]), 120),
            (mapped([192, 0, 2, 255]), 128, false),
            network([0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 48),
        ],
        vips: vec![host(mapped(VIP)), host(VIP_V6)],
        ..HostDecapTables::default()
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    V4,
    V6,
}
use Family::{V4, V6};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Encap {
    Ipip,
    Gre,
    /// GUE variant 0 with this many words of optional fields.
    Gue(u8),
    Direct,
}

const ENCAPS: [Encap; 6] =
    [Encap::Ipip, Encap::Gre, Encap::Gue(0), Encap::Gue(3), Encap::Gue(31), Encap::Direct];
const TAGS: [&[u8]; 3] = [&[], &[0x81, 0, 0x20, 7], &[0x88, 0xa8, 0, 5, 0x81, 0, 0x20, 7]];

fn header_v4(tos: u8, protocol: u8, ends: ([u8; 4], [u8; 4]), payload: &[u8]) -> Vec<u8> {
    let mut header = Ipv4Header::new(payload.len() as u16, 64, IpNumber(protocol), ends.0, ends.1).unwrap();
    header.dscp = (tos >> 2).try_into().unwrap();
    header.ecn = (tos & 3).try_into().unwrap();
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

fn header_v6(tos: u8, protocol: u8, ends: ([u8; 16], [u8; 16]), payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        traffic_class: tos,
        flow_label: 0x5_4321.try_into().unwrap(),
        payload_length: payload.len() as u16,
        next_header: IpNumber(protocol),
        hop_limit: 64,
        source: ends.0,
        destination: ends.1,
    };
    [&header.to_bytes()[..], payload].concat()
}

/// A client's packet for a service address.
fn inner(family: Family, tos: u8) -> Vec<u8> {
    match family {
        V4 => header_v4(tos, 6, ([198, 51, 100, 7], VIP), b"not quite a TCP segment"),
        V6 => header_v6(tos, 6, ([9; 16], VIP_V6), b"not quite a TCP segment"),
    }
}

/// What lies between the IP headers, with the outer protocol's number.
fn shimmed(encap: Encap, family: Family, packet: &[u8]) -> (u8, Vec<u8>) {
    let (number, ether_type) = match family {
        V4 => (4, ethernet::IPV4),
        V6 => (41, ethernet::IPV6),
    };
    let udp = |payload: Vec<u8>| {
        let len = (8 + payload.len()) as u16;
        (17, [&shim::udp(0xc123, PORT.to_be_bytes(), len, 0)[..], &payload].concat())
    };
    match encap {
        Encap::Ipip => (number, packet.to_vec()),
        Encap::Gre => (47, [&shim::gre(ether_type)[..], packet].concat()),
        Encap::Gue(words) => {
            let fields = vec![0xab; usize::from(words) * 4];
            udp([&[words, number, 0x80, 0][..], &fields, packet].concat())
        }
        Encap::Direct => udp(packet.to_vec()),
    }
}

fn outer(family: Family, tos: u8, (protocol, payload): (u8, Vec<u8>)) -> Vec<u8> {
    match family {
        V4 => header_v4(tos, protocol, (BALANCER, [192, 0, 2, 42]), &payload),
        V6 => header_v6(tos, protocol, (BALANCER_V6, [8; 16]), &payload),
    }
}

fn frame(tags: &[u8], family: Family, packet: &[u8]) -> Vec<u8> {
    let ether_type = if family == V4 { ethernet::IPV4 } else { ethernet::IPV6 };
    [&OWN[..], &ROUTER, tags, &ether_type.to_be_bytes(), packet].concat()
}

/// A whole tunnel packet.
fn tunnel(families: (Family, Family), encap: Encap, tags: &[u8], tos: (u8, u8)) -> Vec<u8> {
    let (out, within) = families;
    frame(tags, out, &outer(out, tos.0, shimmed(encap, within, &inner(within, tos.1))))
}

/// Runs a frame; the reason that was counted, and what became of it.
fn run(frame: &[u8]) -> (DecapReason, Vec<u8>) {
    let tables = tables();
    let mut frame = HostFrame::new(frame);
    let verdict = decapsulate(&mut frame, &tables);
    let counted = tables.reasons.borrow();
    assert_eq!(counted.values().sum::<u64>(), 1, "one packet, one count");
    let reason = *DecapReason::ALL.iter().find(|r| counted.contains_key(&(**r as u32))).unwrap();
    assert_eq!(verdict, reason.verdict());
    (reason, frame.bytes().to_vec())
}

#[track_caller]
fn leaves(what: &str, frame: &[u8], reason: DecapReason) {
    let (counted, bytes) = run(frame);
    assert_eq!((counted, bytes == frame), (reason, true), "{what}");
}

/// Every kind of tunnel, with a name.
fn all() -> impl Iterator<Item = (String, (Family, Family), Encap, &'static [u8])> {
    let families = [(V4, V4), (V4, V6), (V6, V4), (V6, V6)];
    families.into_iter().flat_map(|families| {
        ENCAPS.into_iter().flat_map(move |encap| {
            TAGS.into_iter().map(move |tags| {
                (format!("{families:?} {encap:?} behind {} bytes of tags", tags.len()), families, encap, tags)
            })
        })
    })
}

#[test]
fn every_tunnel_gives_the_inner_packet_under_the_same_link_header() {
    for (what, families, encap, tags) in all() {
        let expected = frame(tags, families.1, &inner(families.1, 0xb8));
        assert_eq!(
            run(&tunnel(families, encap, tags, (0, 0xb8))),
            (DecapReason::Decapsulated, expected),
            "{what}"
        );
    }
}

#[test]
fn a_tunnel_cut_short_anywhere_is_never_decapsulated() {
    for (what, families, encap, tags) in all() {
        let whole = tunnel(families, encap, tags, (0, 0));
        for len in 0..whole.len() {
            let (reason, bytes) = run(&whole[..len]);
            let is_refused = matches!(reason, DecapReason::NotATunnel | DecapReason::Malformed);
            assert!(is_refused && bytes == whole[..len], "{what}, {len} bytes: {}", reason.name());
        }
        let padded = [&whole[..], &[0; 9]].concat();
        assert_eq!(run(&padded).0, DecapReason::Decapsulated, "{what}, padded");
    }
}

#[test]
fn congestion_marks_go_to_the_inner_packet_with_a_right_checksum() {
    for (what, families, encap, tags) in all() {
        for (out, within) in (0..4).flat_map(|out| (0..4).map(move |within| (out, within))) {
            let (out_tos, within_tos) = (0x28 | out, 0xb8 | within);
            let input = tunnel(families, encap, tags, (out_tos, within_tos));
            let (reason, bytes) = run(&input);
            match ecn::combined(within, out) {
                None => assert_eq!((reason, bytes), (DecapReason::Congested, input), "{what}"),
                Some(ecn) => {
                    // Built anew, with a checksum of the other library's.
                    let expected = frame(tags, families.1, &inner(families.1, 0xb8 | ecn));
                    assert_eq!(
                        (reason, bytes),
                        (DecapReason::Decapsulated, expected),
                        "{what} {out} {within}"
                    );
                }
            }
        }
    }
}

#[test]
fn foreign_sources_and_destinations_are_refused() {
    use DecapReason::{ForeignDestination, ForeignSource};
    for encap in ENCAPS {
        for source in [[192, 0, 3, 5], [192, 0, 2, 255], [0; 4]] {
            let payload = shimmed(encap, V4, &inner(V4, 0));
            let packet = header_v4(0, payload.0, (source, [192, 0, 2, 42]), &payload.1);
            leaves("IPv4 source", &frame(&[], V4, &packet), ForeignSource);
        }
        let payload = shimmed(encap, V4, &inner(V4, 0));
        let packet = header_v6(0, payload.0, ([0x20; 16], [8; 16]), &payload.1);
        leaves("IPv6 source", &frame(&[], V6, &packet), ForeignSource);
        let stranger = header_v4(0, 6, ([198, 51, 100, 7], [203, 0, 113, 11]), b"x");
        leaves("IPv4", &frame(&[], V4, &outer(V4, 0, shimmed(encap, V4, &stranger))), ForeignDestination);
        let stranger = header_v6(0, 6, ([9; 16], BALANCER_V6), b"x");
        leaves("IPv6", &frame(&[], V4, &outer(V4, 0, shimmed(encap, V6, &stranger))), ForeignDestination);
    }
    // IPv6 addresses that only look like listed IPv4 ones.
    let disguised = header_v6(0, 6, ([9; 16], mapped(VIP)), b"x");
    let packet = outer(V4, 0, shimmed(Encap::Ipip, V6, &disguised));
    leaves("a mapped destination", &frame(&[], V4, &packet), DecapReason::Malformed);
    let packet = header_v6(0, 4, (mapped(BALANCER), [8; 16]), &inner(V4, 0));
    leaves("a mapped source", &frame(&[], V6, &packet), DecapReason::NotATunnel);
}

#[test]
fn other_gre_and_gue_is_refused() {
    let cases: [(&str, u8, Vec<u8>); 10] = [
        ("GRE with a checksum", 47, vec![0x80, 0, 8, 0]),
        ("GRE with a key", 47, vec![0x20, 0, 8, 0]),
        ("GRE with a sequence number", 47, vec![0x10, 0, 8, 0]),
        ("GRE version 1 (PPTP)", 47, vec![0, 1, 8, 0]),
        ("Ethernet in GRE", 47, vec![0, 0, 0x65, 0x58]),
        ("a GUE control message", 17, vec![0x20, 4, 0, 0]),
        ("GUE variant 2", 17, vec![0x80, 4, 0, 0]),
        ("GUE variant 3", 17, vec![0xc0, 4, 0, 0]),
        ("UDP in GUE", 17, vec![0, 17, 0, 0]),
        ("variant 1, IP version 5", 17, vec![0x50, 0, 0, 0]),
    ];
    for (what, protocol, header) in cases {
        let behind = [&header[..], &inner(V4, 0)].concat();
        let payload = match protocol {
            17 => [&shim::udp(9, PORT.to_be_bytes(), 8 + behind.len() as u16, 0)[..], &behind].concat(),
            _ => behind,
        };
        leaves(what, &frame(&[], V4, &outer(V4, 0, (protocol, payload.clone()))), DecapReason::OtherHeader);
        leaves(what, &frame(&[], V6, &outer(V6, 0, (protocol, payload))), DecapReason::OtherHeader);
    }
}

/// A frame with some bytes of the outer IPv4 header replaced, and its checksum made right.
fn with(mut frame: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame[14 + CHECKSUM_AT..][..2].fill(0);
    let check = checksum::finish(checksum::sum(&frame[14..34]));
    frame[14 + CHECKSUM_AT..][..2].copy_from_slice(&check.to_be_bytes());
    frame
}

#[test]
fn fragments_of_tunnels_are_refused_and_other_fragments_pass() {
    use DecapReason::{NotATunnel, OuterFragment};
    for encap in ENCAPS {
        let whole = tunnel((V4, V4), encap, &[], (0, 0));
        let is_udp = matches!(encap, Encap::Gue(_) | Encap::Direct);
        let later = if is_udp { NotATunnel } else { OuterFragment };
        leaves("first", &with(whole.clone(), 20, &[0x20, 0]), OuterFragment);
        leaves("later", &with(whole.clone(), 20, &[0x20, 9]), later);
        leaves("last", &with(whole, 20, &[0, 9]), later);
        for (offset, reason) in [(1, OuterFragment), (0, OuterFragment), (0x48, later)] {
            let (protocol, payload) = shimmed(encap, V4, &inner(V4, 0));
            let payload = [&[protocol, 0, 0, offset, 1, 2, 3, 4][..], &payload].concat();
            leaves("IPv6", &frame(&[], V6, &outer(V6, 0, (44, payload))), reason);
        }
    }
}

#[test]
fn contradictory_headers_are_refused() {
    use DecapReason::{Malformed, OuterChecksum};
    let whole = tunnel((V4, V4), Encap::Ipip, &[], (0, 0));
    let mut broken = whole.clone();
    broken[22] ^= 1;
    leaves("a flipped bit", &broken, OuterChecksum);
    leaves(
        "options",
        &with([&whole[..34], &[0; 4], &whole[34..]].concat(), 14, &[0x46, 0, 0, 67]),
        Malformed,
    );
    leaves("ihl 4", &with(whole.clone(), 14, &[0x44]), Malformed);
    leaves("a length beyond the frame", &with(whole.clone(), 16, &[0, 64]), Malformed);
    leaves("a length within the inner packet", &with(whole.clone(), 16, &[0, 62]), Malformed);
    leaves("a length without inner header", &with(whole, 16, &[0, 39]), Malformed);
    for encap in [Encap::Gue(0), Encap::Direct] {
        let whole = tunnel((V4, V6), encap, &[], (0, 0));
        for len in [0u16, 7, 8, 11, 60, 0xffff] {
            let mut frame = whole.clone();
            frame[38..40].copy_from_slice(&len.to_be_bytes());
            leaves("UDP's length", &frame, Malformed);
        }
    }
    let mut swapped = tunnel((V4, V4), Encap::Gre, &[], (0, 0));
    swapped[36..38].copy_from_slice(&ethernet::IPV6.to_be_bytes());
    leaves("IPv4 that GRE calls IPv6", &swapped, Malformed);
}

#[test]
fn everything_else_passes_untouched() {
    use DecapReason::{NotATunnel, OtherMac};
    let mut elsewhere = tunnel((V4, V4), Encap::Ipip, &[], (0, 0));
    elsewhere[5] ^= 1;
    leaves("another MAC address", &elsewhere, OtherMac);
    let mut frame_to_dns = tunnel((V4, V4), Encap::Direct, &[], (0, 0));
    frame_to_dns[36..38].copy_from_slice(&53u16.to_be_bytes());
    leaves("another UDP port", &frame_to_dns, NotATunnel);
    for protocol in [0, 1, 6, 17, 43, 50, 60, 94] {
        leaves("IPv4", &frame(&[], V4, &outer(V4, 0, (protocol, vec![1; 64]))), NotATunnel);
        leaves("IPv6", &frame(&[], V6, &outer(V6, 0, (protocol, vec![1; 64]))), NotATunnel);
    }
    leaves(
        "three tags",
        &tunnel((V4, V4), Encap::Ipip, &[0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3], (0, 0)),
        NotATunnel,
    );
    let off = HostDecapTables { gue_port: 0, ..tables() };
    let mut to_none = tunnel((V4, V4), Encap::Direct, &[], (0, 0));
    to_none[36..38].fill(0);
    for bytes in [to_none, tunnel((V4, V4), Encap::Direct, &[], (0, 0))] {
        decapsulate(&mut HostFrame::new(&bytes), &off);
    }
    assert_eq!(*off.reasons.borrow(), [(NotATunnel as u32, 2)].into(), "GUE is off");
}
