//! What a frame says of itself without being taken apart: its station, its destination, its length.

use std::net::IpAddr;

use etherparse::{EtherType, Ethernet2Header, Ipv4Header, Ipv6Header, SingleVlanHeader};

use super::Mac;

/// The station that a frame is for, and what it carries behind its tags.
fn opened(frame: &[u8]) -> Option<(Mac, EtherType, &[u8])> {
    let (header, mut rest) = Ethernet2Header::from_slice(frame).ok()?;
    let mut kind = header.ether_type;
    for _ in 0..2 {
        if matches!(kind, EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING) {
            let (tag, behind) = SingleVlanHeader::from_slice(rest).ok()?;
            (kind, rest) = (tag.ether_type, behind);
        }
    }
    Some((Mac(header.destination), kind, rest))
}

/// The station and the address that an IP packet is for.
pub fn addressed(frame: &[u8]) -> Option<(Mac, IpAddr)> {
    match opened(frame)? {
        (mac, EtherType::IPV4, packet) => {
            Some((mac, Ipv4Header::from_slice(packet).ok()?.0.destination.into()))
        }
        (mac, EtherType::IPV6, packet) => {
            Some((mac, Ipv6Header::from_slice(packet).ok()?.0.destination.into()))
        }
        _ => None,
    }
}

/// How long the IP packet in a frame says it is, in bytes.
pub fn ip_bytes(frame: &[u8]) -> Option<usize> {
    match opened(frame)? {
        (_, EtherType::IPV4 | EtherType::IPV6, packet) => Some(super::describe::total(packet)),
        _ => None,
    }
}
