//! Reads back what was sent, with etherparse: every length, checksum and family must be right, down to the innermost
//! header. Knows nothing of ours: the engine's host tests include this file too.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, Ipv4Header, Ipv6Header, SingleVlanHeader, TcpHeader, UdpHeader,
};

use super::frames::segment_sum;

/// Port of the UDP encapsulations that are looked into.
pub const GUE_PORT: u16 = 6080;

/// One header of a frame, outermost first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Layer {
    /// The frame's own.
    Ethernet(Ethernet2Header),
    /// A VLAN tag: its id.
    Tag(u16),
    /// An IPv4 header.
    V4(Ipv4Header),
    /// An IPv6 header.
    V6(Ipv6Header),
    /// An IPv6 extension header: its number.
    Extension(u8),
    /// A part of a packet behind its beginning, or the beginning of one that is not whole.
    Fragment,
    /// Between two IP headers.
    Gre,
    /// Between UDP and an IP header.
    Gue,
    /// A UDP header.
    Udp(UdpHeader),
    /// A TCP header.
    Tcp(TcpHeader),
    /// ICMP of either family: type, code, rest of the head, and what is behind.
    Icmp(u8, u8, [u8; 4], Vec<u8>),
    /// Anything else: protocol number and bytes.
    Other(u8, Vec<u8>),
    /// No IP packet: EtherType and bytes.
    NotIp(u16, Vec<u8>),
}

/// How much of a frame must be right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Depth {
    /// All of it: what came in was well-formed.
    Whole,
    /// The first IP header, and a tunnel's own; what came in may have been anything.
    Outermost,
}

/// Reads a frame that must be right in every respect.
#[track_caller]
pub fn layers(frame: &[u8]) -> Vec<Layer> {
    read(frame, Depth::Whole)
}

/// Reads a frame that must be right as far as this.
#[track_caller]
pub fn read(frame: &[u8], depth: Depth) -> Vec<Layer> {
    let (ethernet, mut rest) = Ethernet2Header::from_slice(frame).expect("an Ethernet header");
    let mut kind = ethernet.ether_type;
    let mut layers = vec![Layer::Ethernet(ethernet)];
    while [0x8100, 0x88a8].contains(&kind.0) {
        let (tag, behind) = SingleVlanHeader::from_slice(rest).expect("a VLAN tag");
        layers.push(Layer::Tag(tag.vlan_id.value()));
        (kind, rest) = (tag.ether_type, behind);
    }
    packet(kind, rest, depth, &mut layers);
    layers
}

#[track_caller]
fn packet(kind: EtherType, bytes: &[u8], depth: Depth, layers: &mut Vec<Layer>) {
    match kind {
        EtherType::IPV4 => v4(bytes, depth, layers),
        EtherType::IPV6 => v6(bytes, depth, layers),
        EtherType(kind) => layers.push(Layer::NotIp(kind, bytes.to_vec())),
    }
}

#[track_caller]
fn v4(bytes: &[u8], depth: Depth, layers: &mut Vec<Layer>) {
    let (ip, rest) = Ipv4Header::from_slice(bytes).expect("an IPv4 header");
    assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "IPv4 header checksum of {bytes:02x?}");
    let len = usize::from(ip.payload_len().expect("a total length that has room for its header"));
    let padding = rest.len().checked_sub(len).unwrap_or_else(|| panic!("total length in {bytes:02x?}"));
    // Only frames shorter than Ethernet's shortest are padded.
    assert!(padding <= 46 || depth == Depth::Outermost, "{padding} bytes behind the packet");
    let addresses = (IpAddr::from(ip.source), IpAddr::from(ip.destination));
    let (number, fragment) = (ip.protocol.0, ip.is_fragmenting_payload());
    layers.push(Layer::V4(ip));
    if fragment {
        layers.push(Layer::Fragment);
    } else {
        transport(addresses, number, &rest[..len], depth, layers);
    }
}

#[track_caller]
fn v6(bytes: &[u8], depth: Depth, layers: &mut Vec<Layer>) {
    let (ip, rest) = Ipv6Header::from_slice(bytes).expect("an IPv6 header");
    let len = usize::from(ip.payload_length);
    assert!(len <= rest.len(), "payload length {len} in {bytes:02x?}");
    let (mut number, mut rest) = (ip.next_header.0, &rest[..len]);
    let addresses = (IpAddr::from(ip.source), IpAddr::from(ip.destination));
    layers.push(Layer::V6(ip));
    while [0, 43, 44, 60].contains(&number) {
        layers.push(Layer::Extension(number));
        let (fragment, length) = (number == 44, if number == 44 { 0 } else { usize::from(rest[1]) });
        if fragment && [rest[2], rest[3] & 0xf9] != [0, 0] {
            return layers.push(Layer::Fragment);
        }
        (number, rest) = (rest[0], &rest[8 + length * 8..]);
    }
    transport(addresses, number, rest, depth, layers);
}

#[track_caller]
fn transport(ends: (IpAddr, IpAddr), number: u8, bytes: &[u8], depth: Depth, layers: &mut Vec<Layer>) {
    let summed = |what: &str| {
        let sum = segment_sum(ends.0, ends.1, number, bytes).ones_complement();
        assert_eq!(sum, 0, "{what} checksum of {bytes:02x?}");
    };
    match number {
        4 => inner(EtherType::IPV4, bytes, depth, layers),
        41 => inner(EtherType::IPV6, bytes, depth, layers),
        47 => {
            assert_eq!(bytes[..2], [0, 0], "no optional fields of GRE");
            layers.push(Layer::Gre);
            inner(EtherType(u16::from_be_bytes([bytes[2], bytes[3]])), &bytes[4..], depth, layers);
        }
        17 => {
            let (udp, rest) = UdpHeader::from_slice(bytes).expect("a UDP header");
            let (to, sent) = (udp.destination_port, udp.checksum != 0);
            if to == GUE_PORT || depth == Depth::Whole {
                assert_eq!(usize::from(udp.length), bytes.len(), "UDP length");
            }
            if sent && depth == Depth::Whole {
                summed("UDP");
            }
            layers.push(Layer::Udp(udp));
            if to == GUE_PORT {
                gue(rest, depth, layers);
            }
        }
        6 if depth == Depth::Whole => {
            summed("TCP");
            layers.push(Layer::Tcp(TcpHeader::from_slice(bytes).expect("a TCP header").0));
        }
        1 | 58 if bytes.len() >= 8 => {
            summed("ICMP");
            let rest = [bytes[4], bytes[5], bytes[6], bytes[7]];
            layers.push(Layer::Icmp(bytes[0], bytes[1], rest, bytes[8..].to_vec()));
        }
        other => layers.push(Layer::Other(other, bytes.to_vec())),
    }
}

/// What a tunnel carries. Only in front of it is everything known to be ours.
#[track_caller]
fn inner(kind: EtherType, bytes: &[u8], depth: Depth, layers: &mut Vec<Layer>) {
    match depth {
        Depth::Whole => packet(kind, bytes, depth, layers),
        Depth::Outermost => layers.push(Layer::NotIp(kind.0, bytes.to_vec())),
    }
}

#[track_caller]
fn gue(bytes: &[u8], depth: Depth, layers: &mut Vec<Layer>) {
    match (bytes.first().map(|first| first >> 4), bytes.get(..4)) {
        (Some(4), _) => inner(EtherType::IPV4, bytes, depth, layers),
        (Some(6), _) => inner(EtherType::IPV6, bytes, depth, layers),
        (Some(0), Some([0, number, 0, 0])) => {
            layers.push(Layer::Gue);
            let kind = match number {
                4 => EtherType::IPV4,
                41 => EtherType::IPV6,
                other => panic!("GUE carries protocol {other}"),
            };
            inner(kind, &bytes[4..], depth, layers);
        }
        _ => panic!("no GUE payload of ours: {bytes:02x?}"),
    }
}
