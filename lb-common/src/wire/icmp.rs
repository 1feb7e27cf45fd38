//! ICMP (RFC 792) and ICMPv6 (RFC 4443): the types that a balancer has to do with, and the head of every message.

/// Length of the head of a message: type, code, checksum and four bytes of the type's own.
pub const LEN: usize = 8;

/// Protocol number of ICMP in IPv4.
pub const PROTOCOL: u8 = network_types::ip::IpProto::Icmp as u8;

/// ICMP echo reply.
pub const ECHO_REPLY: u8 = 0;
/// ICMP destination unreachable; code 4 is "fragmentation needed".
pub const UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`] with the next hop's MTU in the last two bytes of the head (RFC 1191).
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// ICMP echo request.
pub const ECHO: u8 = 8;
/// ICMP time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// ICMP parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// ICMPv6 packet too big, with the MTU in the last four bytes of the head. Errors are 1–4.
pub const V6_TOO_BIG: u8 = 2;
/// ICMPv6 parameter problem, the highest of the errors that are defined.
pub const V6_PARAMETER_PROBLEM: u8 = 4;
/// ICMPv6 echo request.
pub const V6_ECHO: u8 = 128;
/// ICMPv6 echo reply.
pub const V6_ECHO_REPLY: u8 = 129;

/// The head of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub checksum: u16,
    /// Four bytes that the type defines.
    pub rest: [u8; 4],
}

impl Head {
    /// Reads a head.
    #[inline(always)]
    pub const fn parse(bytes: [u8; LEN]) -> Self {
        let [kind, code, c0, c1, r0, r1, r2, r3] = bytes;
        Self { kind, code, checksum: u16::from_be_bytes([c0, c1]), rest: [r0, r1, r2, r3] }
    }

    /// Writes a head.
    #[inline(always)]
    pub const fn emit(&self) -> [u8; LEN] {
        let [c0, c1] = self.checksum.to_be_bytes();
        let [r0, r1, r2, r3] = self.rest;
        [self.kind, self.code, c0, c1, r0, r1, r2, r3]
    }

    /// Whether it is an error of ICMP for IPv4 that quotes the packet it is about.
    #[inline(always)]
    pub const fn is_error(&self) -> bool {
        matches!(self.kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    /// Whether it is an error of ICMPv6 that quotes the packet it is about.
    #[inline(always)]
    pub const fn is_error_v6(&self) -> bool {
        self.kind >= 1 && self.kind <= V6_PARAMETER_PROBLEM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_emit_are_inverse() {
        let bytes = [3, 4, 0x12, 0x34, 0, 0, 0x05, 0xdc];
        let head = Head::parse(bytes);
        assert_eq!((head.kind, head.code, head.checksum, head.rest), (3, 4, 0x1234, [0, 0, 5, 0xdc]));
        assert_eq!(head.emit(), bytes);
    }

    #[test]
    fn errors_are_told_from_questions() {
        let head = |kind| Head { kind, code: 0, checksum: 0, rest: [0; 4] };
        let v4: Vec<u8> = (0..=255).filter(|kind| head(*kind).is_error()).collect();
        let v6: Vec<u8> = (0..=255).filter(|kind| head(*kind).is_error_v6()).collect();
        assert_eq!((v4, v6), (vec![3, 11, 12], vec![1, 2, 3, 4]));
    }
}
