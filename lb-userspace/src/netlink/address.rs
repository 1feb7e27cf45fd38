//! The addresses of an interface as values, and which of them suits whom. Must not know how they were asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

/// One address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The host's own address.
    pub address: IpAddr,
    /// The address whose prefix is on link: the own one, or the other end's on a point-to-point interface.
    pub peer: IpAddr,
    /// Length of the on-link prefix, in bits, 0 to 32 or 128.
    pub prefix_len: u8,
}

impl InterfaceAddress {
    /// Whether `other` lies in the on-link prefix.
    pub fn contains(&self, other: IpAddr) -> bool {
        let same_bits = match (self.peer, other) {
            (IpAddr::V4(peer), IpAddr::V4(other)) => (peer.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(peer), IpAddr::V6(other)) => (peer.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        same_bits >= u32::from(self.prefix_len)
    }

    /// The address in a message; `None` for one that the host does not use: its uniqueness is not established yet, or
    /// it is somebody else's (RFC 4862 section 5.4).
    pub(super) fn from_message(message: &AddressMessage) -> Option<Self> {
        let (mut local, mut peer) = (None, None);
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => peer = Some(*address),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        if flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) {
            return None;
        }
        let address = local.or(peer)?;
        Some(Self { address, peer: peer.unwrap_or(address), prefix_len: message.header.prefix_len })
    }
}

/// The address to send to `target` from: of its family and fit for it, one in its subnet if there is one. IPv6 addresses
/// of one link are of no use beyond it.
pub(super) fn source_for(own: &[InterfaceAddress], target: IpAddr) -> Option<IpAddr> {
    let fit = |a: &&InterfaceAddress| suits(a.address, target);
    let in_subnet = own.iter().filter(fit).find(|a| a.contains(target));
    in_subnet.or_else(|| own.iter().find(fit)).map(|a| a.address)
}

/// The address to ask for the neighbour `via` from; any of the interface's will do (RFC 4861 section 7.2.2). `None` where
/// there is none and the question cannot be asked without: an IPv6 station takes that for the search for a free address.
pub(super) fn asking_for(own: &[InterfaceAddress], via: IpAddr) -> Option<IpAddr> {
    let any = || own.iter().map(|a| a.address).find(|address| address.is_ipv4() == via.is_ipv4());
    // RFC 5227 calls such a request a probe, and it is answered like any other.
    let nobody = || via.is_ipv4().then(|| unspecified(via));
    source_for(own, via).or_else(any).or_else(nobody)
}

/// The unspecified address of the same family.
pub(super) fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Whether two addresses can talk to each other: both are of one family, and none or both are link-local.
pub(super) fn suits(own: IpAddr, target: IpAddr) -> bool {
    own.is_ipv4() == target.is_ipv4() && is_link_local(own) == is_link_local(target)
}

/// Whether it is an IPv6 address of one link. IPv4 makes no such difference: routes decide.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::address::AddressHeaderFlags;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn own(text: &str, prefix_len: u8) -> InterfaceAddress {
        InterfaceAddress { address: ip(text), peer: ip(text), prefix_len }
    }

    fn message(address: &str, flags: AddressHeaderFlags) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 64;
        message.header.flags = flags;
        message.attributes.push(AddressAttribute::Address(ip(address)));
        message
    }

    #[test]
    fn prefix_lengths_at_both_ends() {
        let contains = |prefix_len, text| own("192.0.2.1", prefix_len).contains(ip(text));
        assert!(contains(0, "203.0.113.9"));
        assert!(contains(32, "192.0.2.1") && !contains(32, "192.0.2.0"));
        assert!(!contains(0, "2001:db8::1"), "the other family");
        let contains = |prefix_len, text| own("2001:db8::1", prefix_len).contains(ip(text));
        assert!(contains(0, "fe80::1"));
        assert!(contains(64, "2001:db8::ffff:0:0:9") && !contains(64, "2001:db8:0:1::1"));
        assert!(contains(128, "2001:db8::1") && !contains(128, "2001:db8::"));
        assert!(!contains(0, "192.0.2.1"), "the other family");
    }

    #[test]
    fn addresses_that_the_host_does_not_use_yet_are_none() {
        let found = |flags| InterfaceAddress::from_message(&message("2001:db8::1", flags));
        assert_eq!(found(AddressHeaderFlags::Permanent), Some(own("2001:db8::1", 64)));
        assert_eq!(found(AddressHeaderFlags::Tentative | AddressHeaderFlags::Permanent), None);
        assert_eq!(found(AddressHeaderFlags::Dadfailed), None);
        let mut message = message("2001:db8::1", AddressHeaderFlags::Permanent);
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Permanent | AddressFlags::Tentative));
        assert_eq!(InterfaceAddress::from_message(&message), None, "the attribute says more than the header");
    }

    #[test]
    fn who_sends_to_whom() {
        let all =
            [own("192.0.2.1", 24), own("fe80::1", 64), own("2001:db8::1", 64), own("2001:db8:1::1", 64)];
        let source = |target| source_for(&all, ip(target)).map(|a| a.to_string());
        assert_eq!(source("192.0.2.9").as_deref(), Some("192.0.2.1"));
        assert_eq!(source("2001:db8:1::9").as_deref(), Some("2001:db8:1::1"), "the same subnet");
        assert_eq!(source("2001:db8:2::9").as_deref(), Some("2001:db8::1"), "not the link-local one");
        assert_eq!(source("fe80::9").as_deref(), Some("fe80::1"));
        assert_eq!(source_for(&all[..2], ip("2001:db8::9")), None, "nobody beyond the link could answer");
        assert_eq!(source_for(&all[2..], ip("192.0.2.9")), None, "the other family");
    }

    #[test]
    fn who_asks_whom() {
        let link_local = [own("192.0.2.1", 24), own("fe80::1", 64)];
        assert_eq!(asking_for(&link_local, ip("2001:db8::9")), Some(ip("fe80::1")));
        assert_eq!(asking_for(&[own("2001:db8::1", 64)], ip("fe80::9")), Some(ip("2001:db8::1")));
        assert_eq!(asking_for(&link_local[..1], ip("fe80::9")), None);
        assert_eq!(asking_for(&link_local[1..], ip("192.0.2.9")), Some(ip("0.0.0.0")));
    }
}
