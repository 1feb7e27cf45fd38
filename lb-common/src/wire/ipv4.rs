//! IPv4 header (RFC 791).

use network_types::ip::{IpProto, Ipv4Hdr};

use super::checksum;

/// Length of a header without options, in bytes.
pub const LEN: usize = Ipv4Hdr::LEN;

/// Protocol number of IPv4 in IPv4 (RFC 2003): 4. What IANA lists as IPIP, 94, is another protocol.
pub const IPIP: u8 = IpProto::Ipv4 as u8;

/// "Don't fragment" in the word of flags and offset.
pub const DONT_FRAGMENT: u16 = 0x4000;

/// "More fragments" and the fragment offset: any of these bits makes a packet a fragment.
const FRAGMENT_BITS: u16 = 0x3fff;

/// The fragment offset.
const OFFSET_BITS: u16 = 0x1fff;

/// A parsed header; lengths are not checked against anything.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Version, 4 bits.
    pub version: u8,
    /// Header length in bytes, 0–60.
    pub header_len: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Length of header and payload in bytes.
    pub total_len: u16,
    /// Identification, common to all fragments of a packet.
    pub id: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number.
    pub protocol: u8,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Header {
    /// Reads the fixed part of a header.
    #[inline(always)]
    pub const fn parse(bytes: [u8; LEN]) -> Self {
        // In words, which cost one load each.
        let [w0, w1, w2, source, destination]: [[u8; 4]; LEN / 4] = zerocopy::transmute!(bytes);
        let (w0, w1, w2) = (u32::from_be_bytes(w0), u32::from_be_bytes(w1), u32::from_be_bytes(w2));
        Self {
            version: (w0 >> 28) as u8,
            header_len: (w0 >> 22) as u8 & 0x3c,
            tos: (w0 >> 16) as u8,
            total_len: w0 as u16,
            id: (w1 >> 16) as u16,
            fragment: w1 as u16,
            ttl: (w2 >> 24) as u8,
            protocol: (w2 >> 16) as u8,
            source,
            destination,
        }
    }

    /// Whether this is part of a larger packet.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        self.fragment & FRAGMENT_BITS != 0
    }

    /// Whether this is a fragment without the beginning of its packet.
    #[inline(always)]
    pub const fn is_later_fragment(&self) -> bool {
        self.fragment & OFFSET_BITS != 0
    }

    /// Whether version, header length and total length can be true at once.
    #[inline(always)]
    pub const fn is_consistent(&self) -> bool {
        self.version == 4 && self.header_len as usize >= LEN && self.total_len >= self.header_len as u16
    }
}

/// What is the same in every outer header to one destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OuterTemplate {
    /// Time to live.
    pub ttl: u8,
    /// Payload's protocol number.
    pub protocol: u8,
    /// Source address, in host order; bits that vary per packet are zero.
    pub source: u32,
    /// Destination address, in host order.
    pub destination: u32,
}

impl OuterTemplate {
    /// One's-complement sum of the header with TOS, length and checksum zero, not inverted.
    #[inline(always)]
    pub const fn partial_checksum(&self) -> u16 {
        let fixed = 0x4500 + DONT_FRAGMENT as u32 + ((self.ttl as u32) << 8) + self.protocol as u32;
        checksum::fold(fixed + checksum::halves(self.source) + checksum::halves(self.destination))
    }

    /// The header of a packet of `total_len` bytes whose source has `source_bits` added, where `partial` is
    /// [`Self::partial_checksum`] computed before. Identification is 0 with DF set: an atomic datagram (RFC 6864).
    #[inline(always)]
    pub const fn complete(&self, tos: u8, total_len: u16, source_bits: u32, partial: u16) -> [u8; LEN] {
        let sum = partial as u32 + tos as u32 + total_len as u32 + checksum::halves(source_bits);
        self.emit(tos, total_len, source_bits, checksum::finish(sum))
    }

    #[inline(always)]
    const fn emit(&self, tos: u8, total_len: u16, source_bits: u32, check: u16) -> [u8; LEN] {
        let [l0, l1] = total_len.to_be_bytes();
        let [f0, f1] = DONT_FRAGMENT.to_be_bytes();
        let [c0, c1] = check.to_be_bytes();
        let [s0, s1, s2, s3] = (self.source | source_bits).to_be_bytes();
        let [d0, d1, d2, d3] = self.destination.to_be_bytes();
        [0x45, tos, l0, l1, 0, 0, f0, f1, self.ttl, self.protocol, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_where_rfc_791_puts_them() {
        let header = Header::parse([
            0x46, 0xb9, 0x01, 0x02, 0xab, 0xcd, 0x60, 0x07, 63, 6, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2,
        ]);
        let expected = Header {
            version: 4,
            header_len: 24,
            tos: 0xb9,
            total_len: 0x0102,
            id: 0xabcd,
            fragment: 0x6007,
            ttl: 63,
            protocol: 6,
            source: [192, 0, 2, 1],
            destination: [198, 51, 100, 2],
        };
        assert_eq!(header, expected);
        assert!(header.is_fragment());
    }

    #[test]
    fn dont_fragment_alone_is_no_fragment() {
        let mut bytes = [0; LEN];
        bytes[6] = 0x40;
        assert!(!Header::parse(bytes).is_fragment());
        bytes[6] = 0x20;
        assert!(Header::parse(bytes).is_fragment(), "more fragments");
        bytes[6] = 0;
        bytes[7] = 1;
        assert!(Header::parse(bytes).is_fragment(), "offset");
    }

    proptest! {
        #[test]
        fn the_completed_checksum_equals_a_full_computation(
            tos: u8, ttl: u8, source: [u8; 4], destination: [u8; 4], total_len: u16, hash: u32, bits in 0u32..=24,
        ) {
            let low = (1u32 << bits) - 1;
            let source = u32::from_be_bytes(source) & !low;
            let destination = u32::from_be_bytes(destination);
            let template = OuterTemplate { ttl, protocol: IPIP, source, destination };
            let header = template.complete(tos, total_len, hash & low, template.partial_checksum());
            let oracle = etherparse::Ipv4Header::from_slice(&header).unwrap().0;
            prop_assert_eq!(oracle.header_checksum, oracle.calc_header_checksum());
            prop_assert_eq!(u32::from_be_bytes(oracle.source), source | (hash & low));
            prop_assert_eq!(u32::from_be_bytes(oracle.destination), destination);
            prop_assert_eq!(oracle.total_len, total_len);
            prop_assert!(oracle.dont_fragment);
            prop_assert_eq!(oracle.dscp.value() << 2 | oracle.ecn.value(), tos);
        }
    }
}
