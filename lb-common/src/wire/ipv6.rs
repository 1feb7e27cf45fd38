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

/// Length of what is in front of the addresses, in bytes.
pub const FIXED_LEN: usize = 8;

/// What is in front of the addresses; lengths are not checked against anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fixed {
    /// Version, 4 bits.
    pub version: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Bytes behind the header.
    pub payload_len: u16,
    /// Protocol number of what is behind the header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
}

impl Fixed {
    /// Reads it.
    #[inline(always)]
    pub const fn parse(bytes: [u8; FIXED_LEN]) -> Self {
        let word = u64::from_be_bytes(bytes);
        Self {
            version: (word >> 60) as u8,
            traffic_class: (word >> 52) as u8,
            flow_label: (word >> 32) as u32 & 0xf_ffff,
            payload_len: (word >> 16) as u16,
            next_header: (word >> 8) as u8,
            hop_limit: word as u8,
        }
    }

    /// Writes it.
    #[inline(always)]
    pub const fn emit(&self) -> [u8; FIXED_LEN] {
        let first = 6 << 28 | (self.traffic_class as u32) << 20 | self.flow_label & 0xf_ffff;
        let second = (self.payload_len as u32) << 16 | (self.next_header as u32) << 8 | self.hop_limit as u32;
        ((first as u64) << 32 | second as u64).to_be_bytes()
    }

    /// Length of the whole packet in bytes.
    #[inline(always)]
    pub const fn total_len(&self) -> u32 {
        LEN as u32 + self.payload_len as u32
    }
}

/// A parsed header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// What is in front of the addresses.
    pub fixed: Fixed,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Header {
    /// Reads a header.
    #[inline(always)]
    pub const fn parse(bytes: [u8; LEN]) -> Self {
        let [fixed, s0, s1, d0, d1]: [[u8; 8]; 5] = zerocopy::transmute!(bytes);
        Self {
            fixed: Fixed::parse(fixed),
            source: zerocopy::transmute!([s0, s1]),
            destination: zerocopy::transmute!([d0, d1]),
        }
    }

    /// Writes a header.
    #[inline(always)]
    pub const fn emit(&self) -> [u8; LEN] {
        let [s0, s1]: [[u8; 8]; 2] = zerocopy::transmute!(self.source);
        let [d0, d1]: [[u8; 8]; 2] = zerocopy::transmute!(self.destination);
        zerocopy::transmute!([self.fixed.emit(), s0, s1, d0, d1])
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
        let fixed = header.fixed;
        assert_eq!((fixed.version, fixed.traffic_class, fixed.flow_label), (6, 0xab, 0xc_def1));
        assert_eq!((fixed.payload_len, fixed.next_header, fixed.hop_limit), (1500, 17, 63));
        assert_eq!((header.source[0], header.destination[15], fixed.total_len()), (0x20, 0x10, 1540));
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
            let fixed =
                Fixed { version: 6, traffic_class, flow_label: label, payload_len, next_header, hop_limit };
            let header = Header { fixed, source, destination };
            prop_assert_eq!(Header::parse(header.emit()), header);
            let oracle = etherparse::Ipv6Header::from_slice(&header.emit()).unwrap().0;
            prop_assert_eq!(oracle.traffic_class, traffic_class);
            prop_assert_eq!(oracle.flow_label.value(), label);
            prop_assert_eq!((oracle.payload_length, oracle.hop_limit), (payload_len, hop_limit));
            prop_assert_eq!((oracle.source, oracle.destination), (source, destination));
        }
    }
}
