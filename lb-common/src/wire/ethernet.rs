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
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = bytes;
        Self {
            destination: [d0, d1, d2, d3, d4, d5],
            source: [s0, s1, s2, s3, s4, s5],
            ether_type: u16::from_be_bytes([t0, t1]),
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

/// Whether two addresses are the same; as numbers, because byte by byte costs six comparisons.
#[inline(always)]
pub const fn same(one: Mac, other: Mac) -> bool {
    number(one) == number(other)
}

#[inline(always)]
const fn number([a, b, c, d, e, f]: Mac) -> u64 {
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
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
