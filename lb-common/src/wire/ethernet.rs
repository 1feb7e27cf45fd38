//! Ethernet II header.

use network_types::eth::{EthHdr, EtherType};

/// Length of the header in bytes.
pub const LEN: usize = EthHdr::LEN;

/// A MAC address.
pub type Mac = [u8; 6];

/// Every station of the segment.
pub const BROADCAST: Mac = [0xff; 6];

/// EtherType of IPv4.
pub const IPV4: u16 = u16::from_be(EtherType::Ipv4 as u16);
/// EtherType of IPv6.
pub const IPV6: u16 = u16::from_be(EtherType::Ipv6 as u16);
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = u16::from_be(EtherType::Ieee8021q as u16);
/// EtherType of an outer tag (802.1ad, "QinQ").
pub const SERVICE_VLAN: u16 = 0x88a8;
/// Length of a VLAN tag in bytes.
pub const TAG_LEN: usize = 4;

/// EtherType of ARP.
pub const ARP: u16 = u16::from_be(EtherType::Arp as u16);

/// Length of both addresses at the beginning of a frame, in bytes.
pub const ADDRESSES_LEN: usize = 12;

/// The beginning of a frame from `source` to `destination`.
#[inline(always)]
pub const fn addresses(destination: Mac, source: Mac) -> [u8; ADDRESSES_LEN] {
    zerocopy::transmute!([copied(destination), copied(source)])
}

/// The same address, copied in words: as a whole the compiler copies six bytes one by one, or calls a function for it.
#[inline(always)]
pub const fn copied(address: Mac) -> Mac {
    let [a, b, c] = words(address);
    zerocopy::transmute!([a.to_be_bytes(), b.to_be_bytes(), c.to_be_bytes()])
}

/// A parsed header. Aligned, because the kernel refuses unaligned access to a BPF program's stack, where this is
/// written word by word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C, align(8))]
pub struct Header {
    /// Destination.
    pub destination: Mac,
    /// Source.
    pub source: Mac,
    /// EtherType in host order.
    pub ether_type: u16,
}

impl Header {
    /// Reads a header.
    #[inline(always)]
    pub const fn parse(bytes: [u8; LEN]) -> Self {
        // In words of two bytes, as packets are aligned: byte by byte would cost three times as much.
        let [d0, d1, d2, s0, s1, s2, ether_type]: [[u8; 2]; LEN / 2] = zerocopy::transmute!(bytes);
        Self {
            destination: zerocopy::transmute!([d0, d1, d2]),
            source: zerocopy::transmute!([s0, s1, s2]),
            ether_type: u16::from_be_bytes(ether_type),
        }
    }

    /// Writes a header.
    #[inline(always)]
    pub const fn emit(&self) -> [u8; LEN] {
        let [d0, d1, d2, d3, d4, d5] = self.destination;
        let [s0, s1, s2, s3, s4, s5] = self.source;
        let [t0, t1] = self.ether_type.to_be_bytes();
        [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1]
    }
}

/// Whether two addresses are the same.
#[inline(always)]
pub const fn same(one: Mac, other: Mac) -> bool {
    let [a, b, c] = words(one);
    let [d, e, f] = words(other);
    a == d && b == e && c == f
}

/// Whether this is where neighbour solicitations go (RFC 2464 section 7, for `ff02::1:ff00:0/104`).
#[inline(always)]
pub const fn is_solicited_node(address: Mac) -> bool {
    let [a, b, _] = words(address);
    a == 0x3333 && b >> 8 == 0xff
}

#[inline(always)]
const fn words(address: Mac) -> [u16; 3] {
    let [a, b, c]: [[u8; 2]; 3] = zerocopy::transmute!(address);
    [u16::from_be_bytes(a), u16::from_be_bytes(b), u16::from_be_bytes(c)]
}

/// Whether an EtherType announces a VLAN tag.
#[inline(always)]
pub const fn is_tag(ether_type: u16) -> bool {
    ether_type == VLAN || ether_type == SERVICE_VLAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_emit_are_inverse() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x00];
        let header = Header::parse(bytes);
        assert_eq!(header.ether_type, IPV4);
        assert_eq!(header.emit(), bytes);
    }
}
