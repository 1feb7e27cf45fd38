//! What may stand between two IP headers: GRE (RFC 2784), and UDP with or without a GUE header
//! (draft-ietf-intarea-gue).

use network_types::ip::IpProto;

use super::ethernet;

/// Protocol number of GRE.
pub const GRE: u8 = IpProto::Gre as u8;
/// Length of a GRE header without optional fields, in bytes.
pub const GRE_LEN: usize = 4;
/// Length of a UDP header in bytes.
pub const UDP_LEN: usize = 8;
/// Length of a GUE header (variant 0) without optional fields, in bytes.
pub const GUE_LEN: usize = 4;
/// UDP port of GUE (IANA).
pub const GUE_PORT: u16 = 6080;

/// A GRE header without optional fields in front of a packet of this EtherType.
#[inline(always)]
pub const fn gre(ether_type: u16) -> [u8; GRE_LEN] {
    let [t0, t1] = ether_type.to_be_bytes();
    [0, 0, t0, t1]
}

/// The EtherType behind a GRE header, if it has no optional fields and is version 0.
#[inline(always)]
pub const fn gre_payload(bytes: [u8; GRE_LEN]) -> Option<u16> {
    match bytes {
        [0, 0, t0, t1] => Some(u16::from_be_bytes([t0, t1])),
        _ => None,
    }
}

/// A GUE header (variant 0, data message, no flags) in front of a packet of this IP protocol number.
#[inline(always)]
pub const fn gue(protocol: u8) -> [u8; GUE_LEN] {
    [0, protocol, 0, 0]
}

/// What a GUE payload (behind the UDP header) begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Gue {
    /// Variant 1: the IP packet itself.
    Direct,
    /// Variant 0: a header of this many bytes in front of a packet of this IP protocol number.
    Header {
        /// Bytes of the header with its optional fields, 4–128.
        len: u8,
        /// IP protocol number.
        protocol: u8,
    },
}

/// Reads the first two bytes of a GUE payload; `None` for control messages and unknown variants. The first two bits are
/// the variant; in variant 1 they are those of IP's version.
#[inline(always)]
pub const fn gue_payload(bytes: [u8; 2]) -> Option<Gue> {
    let [first, protocol] = bytes;
    match first >> 6 {
        0 if first & 0x20 == 0 => Some(Gue::Header { len: GUE_LEN as u8 + (first & 0x1f) * 4, protocol }),
        1 => Some(Gue::Direct),
        _ => None,
    }
}

/// A UDP header.
#[inline(always)]
pub const fn udp(source: u16, destination: [u8; 2], len: u16, checksum: u16) -> [u8; UDP_LEN] {
    let [s0, s1] = source.to_be_bytes();
    let [d0, d1] = destination;
    let [l0, l1] = len.to_be_bytes();
    let [c0, c1] = checksum.to_be_bytes();
    [s0, s1, d0, d1, l0, l1, c0, c1]
}

/// The EtherType of an IP protocol number that stands for an IP packet.
#[inline(always)]
pub const fn ether_type(protocol: u8) -> Option<u16> {
    match protocol {
        super::ipv4::IPIP => Some(ethernet::IPV4),
        super::ipv6::IPV6 => Some(ethernet::IPV6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gre_with_optional_fields_or_another_version_is_refused() {
        assert_eq!(gre_payload(gre(ethernet::IPV6)), Some(0x86dd));
        for (byte, value) in [(0, 0x80), (0, 0x20), (0, 0x10), (1, 1)] {
            let mut bytes = gre(ethernet::IPV4);
            bytes[byte] = value;
            assert_eq!(gre_payload(bytes), None);
        }
    }

    #[test]
    fn gue_variants_are_told_apart() {
        let [first, second, _, _] = gue(4);
        assert_eq!(gue_payload([first, second]), Some(Gue::Header { len: 4, protocol: 4 }));
        assert_eq!(gue_payload([0x1f, 41]), Some(Gue::Header { len: 128, protocol: 41 }));
        assert_eq!(gue_payload([0x45, 0]), Some(Gue::Direct));
        assert_eq!(gue_payload([0x60, 0]), Some(Gue::Direct));
        assert_eq!(gue_payload([0x20, 0]), None, "control message");
        assert_eq!(gue_payload([0x80, 0]), None, "variant 2");
    }
}
