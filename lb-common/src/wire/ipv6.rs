//! IPv6 header (RFC 8200) and its extension headers.

use network_types::ip::{IpProto, Ipv6Hdr};

/// Length of the fixed header in bytes.
pub const LEN: usize = Ipv6Hdr::LEN;

/// Next header: hop-by-hop options (RFC 8200 section 4.3).
pub const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
/// Next header: routing (section 4.4).
pub const ROUTING: u8 = IpProto::Ipv6Route as u8;
/// Next header: fragment (section 4.5).
pub const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
/// Next header: destination options (section 4.6).
pub const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
/// Next header: ICMPv6 (RFC 4443).
pub const ICMP: u8 = IpProto::Ipv6Icmp as u8;
/// Next header: an IPv6 packet (RFC 2473).
pub const IPV6: u8 = IpProto::Ipv6 as u8;

/// Length of a fragment header in bytes.
pub const FRAGMENT_LEN: usize = 8;

/// A parsed header; lengths are not checked against anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Version, 4 bits.
    pub version: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Bytes behind the fixed header.
    pub payload_len: u16,
    /// Protocol number of what is behind the fixed header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Header {
    /// Reads a header.
    #[inline(always)]
    pub const fn parse(bytes: [u8; LEN]) -> Self {
        #[rustfmt::skip]
        let [w0, w1, w2, w3, l0, l1, next_header, hop_limit,
             s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf,
             d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, da, db, dc, dd, de, df] = bytes;
        let word = u32::from_be_bytes([w0, w1, w2, w3]);
        Self {
            version: (word >> 28) as u8,
            traffic_class: (word >> 20) as u8,
            flow_label: word & 0xf_ffff,
            payload_len: u16::from_be_bytes([l0, l1]),
            next_header,
            hop_limit,
            source: [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf],
            destination: [d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, da, db, dc, dd, de, df],
        }
    }

    /// Writes a header.
    #[inline(always)]
    pub const fn emit(&self) -> [u8; LEN] {
        let word = 6 << 28 | (self.traffic_class as u32) << 20 | self.flow_label & 0xf_ffff;
        let [w0, w1, w2, w3] = word.to_be_bytes();
        let [l0, l1] = self.payload_len.to_be_bytes();
        let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf] = self.source;
        let [d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, da, db, dc, dd, de, df] = self.destination;
        #[rustfmt::skip]
        let bytes = [w0, w1, w2, w3, l0, l1, self.next_header, self.hop_limit,
             s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, sa, sb, sc, sd, se, sf,
             d0, d1, d2, d3, d4, d5, d6, d7, d8, d9, da, db, dc, dd, de, df];
        bytes
    }

    /// Length of the whole packet in bytes.
    #[inline(always)]
    pub const fn total_len(&self) -> u32 {
        LEN as u32 + self.payload_len as u32
    }
}

/// A fragment header (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fragment {
    /// Protocol number of what is behind it in the first fragment.
    pub next_header: u8,
    /// Offset of the fragment in the packet, in bytes.
    pub offset: u16,
    /// Whether others follow.
    pub more: bool,
    /// Identification.
    pub id: u32,
}

impl Fragment {
    /// Reads a fragment header.
    #[inline(always)]
    pub const fn parse(bytes: [u8; FRAGMENT_LEN]) -> Self {
        let [next_header, _, o0, o1, i0, i1, i2, i3] = bytes;
        let offset = u16::from_be_bytes([o0, o1]);
        Self {
            next_header,
            offset: offset & !7,
            more: offset & 1 != 0,
            id: u32::from_be_bytes([i0, i1, i2, i3]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_where_rfc_8200_puts_them() {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&[0x6a, 0xbc, 0xde, 0xf1, 0x05, 0xdc, 17, 63]);
        bytes[8] = 0x20;
        bytes[39] = 0x10;
        let header = Header::parse(bytes);
        assert_eq!((header.version, header.traffic_class, header.flow_label), (6, 0xab, 0xc_def1));
        assert_eq!((header.payload_len, header.next_header, header.hop_limit), (1500, 17, 63));
        assert_eq!((header.source[0], header.destination[15], header.total_len()), (0x20, 0x10, 1540));
    }

    #[test]
    fn a_fragment_header_counts_in_bytes() {
        let fragment = Fragment::parse([17, 0, 0x05, 0xa9, 1, 2, 3, 4]);
        assert_eq!(fragment, Fragment { next_header: 17, offset: 1448, more: true, id: 0x0102_0304 });
        assert!(!Fragment::parse([17, 0, 0x05, 0xa8, 0, 0, 0, 0]).more);
    }

    proptest! {
        #[test]
        fn emit_agrees_with_an_independent_library(
            traffic_class: u8, label in 0u32..1 << 20, payload_len: u16, next_header: u8, hop_limit: u8,
            source: [u8; 16], destination: [u8; 16],
        ) {
            let header = Header {
                version: 6, traffic_class, flow_label: label, payload_len, next_header, hop_limit, source, destination,
            };
            prop_assert_eq!(Header::parse(header.emit()), header);
            let oracle = etherparse::Ipv6Header::from_slice(&header.emit()).unwrap().0;
            prop_assert_eq!(oracle.traffic_class, traffic_class);
            prop_assert_eq!(oracle.flow_label.value(), label);
            prop_assert_eq!((oracle.payload_length, oracle.hop_limit), (payload_len, hop_limit));
            prop_assert_eq!((oracle.source, oracle.destination), (source, destination));
        }
    }
}
