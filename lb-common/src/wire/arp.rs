//! ARP for IPv4 over Ethernet (RFC 826).

use super::ethernet::Mac;

/// Length of the packet behind the Ethernet header, in bytes.
pub const LEN: usize = 28;

/// Ethernet, IPv4, 6-byte and 4-byte addresses.
const FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// Who asks for, or tells, which MAC address belongs to an IPv4 address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    /// Whether this is a request; otherwise a reply.
    pub operation: Operation,
    /// Sender's MAC address.
    pub sender_mac: Mac,
    /// Sender's IPv4 address; zero in a probe (RFC 5227).
    pub sender: [u8; 4],
    /// Target's MAC address; meaningless in a request.
    pub target_mac: Mac,
    /// The address asked for.
    pub target: [u8; 4],
}

/// What an ARP packet wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Asks.
    Request,
    /// Answers or announces.
    Reply,
}

impl Packet {
    /// Reads a packet; `None` if it is not ARP for IPv4 over Ethernet, or neither request nor reply.
    #[inline(always)]
    pub fn parse(bytes: [u8; LEN]) -> Option<Self> {
        #[rustfmt::skip]
        let [h0, h1, p0, p1, hl, pl, o0, o1, a0, a1, a2, a3, a4, a5, s0, s1, s2, s3,
             b0, b1, b2, b3, b4, b5, t0, t1, t2, t3] = bytes;
        if [h0, h1, p0, p1, hl, pl] != FIXED {
            return None;
        }
        let operation = match u16::from_be_bytes([o0, o1]) {
            REQUEST => Operation::Request,
            REPLY => Operation::Reply,
            _ => return None,
        };
        Some(Self {
            operation,
            sender_mac: [a0, a1, a2, a3, a4, a5],
            sender: [s0, s1, s2, s3],
            target_mac: [b0, b1, b2, b3, b4, b5],
            target: [t0, t1, t2, t3],
        })
    }

    /// Writes a packet.
    #[inline(always)]
    pub const fn emit(&self) -> [u8; LEN] {
        let [h0, h1, p0, p1, hl, pl] = FIXED;
        let [o0, o1] = match self.operation {
            Operation::Request => REQUEST.to_be_bytes(),
            Operation::Reply => REPLY.to_be_bytes(),
        };
        let [a0, a1, a2, a3, a4, a5] = self.sender_mac;
        let [s0, s1, s2, s3] = self.sender;
        let [b0, b1, b2, b3, b4, b5] = self.target_mac;
        let [t0, t1, t2, t3] = self.target;
        #[rustfmt::skip]
        let bytes = [h0, h1, p0, p1, hl, pl, o0, o1, a0, a1, a2, a3, a4, a5, s0, s1, s2, s3,
                     b0, b1, b2, b3, b4, b5, t0, t1, t2, t3];
        bytes
    }

    /// The answer to a request: its target is at `mac`.
    #[inline(always)]
    pub const fn answer(&self, mac: Mac) -> Self {
        Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST_BYTES: [u8; LEN] =
        [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1];

    #[test]
    fn parse_and_emit_are_inverse() {
        assert_eq!(Packet::parse(REQUEST_BYTES).unwrap().emit(), REQUEST_BYTES);
    }

    #[test]
    fn an_answer_swaps_the_roles() {
        let answer = Packet::parse(REQUEST_BYTES).unwrap().answer([2, 0, 0, 0, 0, 1]);
        let expected: [u8; LEN] =
            [0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 192, 0, 2, 1, 2, 0, 0, 0, 0, 9, 192, 0, 2, 9];
        assert_eq!(answer.emit(), expected);
    }

    #[test]
    fn other_hardware_and_operations_are_refused() {
        for (index, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3)] {
            let mut bytes = REQUEST_BYTES;
            bytes[index] = value;
            assert_eq!(Packet::parse(bytes), None, "byte {index}");
        }
    }
}
