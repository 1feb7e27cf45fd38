//! ARP for IPv4 over Ethernet (RFC 826) as a whole frame: bytes ↔ meaning, nothing else.

use std::net::Ipv4Addr;

use super::super::{BROADCAST, Mac};

/// Length of an ARP frame with its Ethernet header, in bytes, without padding.
pub const FRAME_LEN: usize = 42;

const ETHERTYPE: [u8; 2] = [0x08, 0x06];
/// Ethernet (1), IPv4 (0x0800), address lengths 6 and 4.
const FORMAT: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// What an ARP packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Asks who has the target address.
    Request,
    /// Says who has the sender address.
    Reply,
}

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpPacket {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's Ethernet address.
    pub sender_mac: Mac,
    /// The sender's address; unspecified in a probe (RFC 5227 section 1.1).
    pub sender: Ipv4Addr,
    /// The target's Ethernet address; zero in a request.
    pub target_mac: Mac,
    /// The address asked for, or answered to.
    pub target: Ipv4Addr,
}

/// Why a frame is no ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter than [`FRAME_LEN`].
    #[error("ARP frame cut off after {0} bytes")]
    Truncated(usize),
    /// Another EtherType.
    #[error("not an ARP frame")]
    NotArp,
    /// Other hardware or protocol addresses.
    #[error("ARP, but not for IPv4 over Ethernet")]
    OtherFormat,
    /// Neither request nor reply.
    #[error("unknown ARP operation {0}")]
    UnknownOperation(u16),
}

impl ArpPacket {
    /// Asks `target` for its Ethernet address.
    pub fn request(sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self { operation: Operation::Request, sender_mac, sender, target_mac: [0; 6], target }
    }

    /// Both forms of saying unasked that `address` is at `mac`: the request RFC 5227 section 3 recommends,
    /// and the reply some stations listen to only.
    pub fn announcements(mac: Mac, address: Ipv4Addr) -> [Self; 2] {
        let request = Self::request(mac, address, address);
        [request, Self { operation: Operation::Reply, target_mac: BROADCAST, ..request }]
    }

    /// Reads a frame as it came from the wire, untagged.
    pub fn parse(frame: &[u8]) -> Result<Self, ParseError> {
        let frame: &[u8; FRAME_LEN] = frame.first_chunk().ok_or(ParseError::Truncated(frame.len()))?;
        if field(frame, 12) != ETHERTYPE {
            return Err(ParseError::NotArp);
        }
        if field(frame, 14) != FORMAT {
            return Err(ParseError::OtherFormat);
        }
        let operation = match u16::from_be_bytes(field(frame, 20)) {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => return Err(ParseError::UnknownOperation(other)),
        };
        Ok(Self {
            operation,
            sender_mac: field(frame, 22),
            sender: field::<4>(frame, 28).into(),
            target_mac: field(frame, 32),
            target: field::<4>(frame, 38).into(),
        })
    }

    /// The frame that carries it to `destination`.
    pub fn emit(&self, destination: Mac) -> [u8; FRAME_LEN] {
        let mut frame = [0; FRAME_LEN];
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let parts: [(usize, &[u8]); 9] = [
            (0, &destination),
            (6, &self.sender_mac),
            (12, &ETHERTYPE),
            (14, &FORMAT),
            (20, &operation.to_be_bytes()),
            (22, &self.sender_mac),
            (28, &self.sender.octets()),
            (32, &self.target_mac),
            (38, &self.target.octets()),
        ];
        for (at, bytes) in parts {
            frame[at..at + bytes.len()].copy_from_slice(bytes);
        }
        frame
    }
}

fn field<const N: usize>(frame: &[u8; FRAME_LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|i| frame[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: ArpPacket = ArpPacket {
        operation: Operation::Reply,
        sender_mac: [2, 0, 0, 0, 0, 1],
        sender: Ipv4Addr::new(192, 0, 2, 21),
        target_mac: [2, 0, 0, 0, 0, 2],
        target: Ipv4Addr::new(192, 0, 2, 1),
    };

    #[test]
    fn bytes_of_a_request() {
        let request = ArpPacket::request([2, 0, 0, 0, 0, 2], REPLY.target, REPLY.sender);
        #[rustfmt::skip]
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 8, 6,
            0, 1, 8, 0, 6, 4, 0, 1,
            2, 0, 0, 0, 0, 2, 192, 0, 2, 1,
            0, 0, 0, 0, 0, 0, 192, 0, 2, 21,
        ];
        assert_eq!(request.emit(BROADCAST), expected);
    }

    #[test]
    fn round_trip_with_padding() {
        let mut frame = REPLY.emit(REPLY.target_mac).to_vec();
        frame.resize(60, 0);
        assert_eq!(ArpPacket::parse(&frame), Ok(REPLY));
    }

    #[test]
    fn truncated_at_every_byte() {
        let frame = REPLY.emit(REPLY.target_mac);
        for len in 0..FRAME_LEN {
            assert_eq!(ArpPacket::parse(&frame[..len]), Err(ParseError::Truncated(len)));
        }
    }

    #[test]
    fn one_byte_changed() {
        let cases = [
            (12, 0x86, ParseError::NotArp),
            (13, 0x00, ParseError::NotArp),
            (15, 6, ParseError::OtherFormat),
            (16, 0x86, ParseError::OtherFormat),
            (18, 8, ParseError::OtherFormat),
            (19, 16, ParseError::OtherFormat),
            (21, 3, ParseError::UnknownOperation(3)),
            (20, 1, ParseError::UnknownOperation(0x102)),
        ];
        for (at, value, error) in cases {
            let mut frame = REPLY.emit(REPLY.target_mac);
            frame[at] = value;
            assert_eq!(ArpPacket::parse(&frame), Err(error), "byte {at}");
        }
    }

    #[test]
    fn announcements_name_the_address_twice() {
        let [request, reply] = ArpPacket::announcements(REPLY.sender_mac, REPLY.sender);
        for (packet, operation) in [(request, Operation::Request), (reply, Operation::Reply)] {
            assert_eq!((packet.sender, packet.target), (REPLY.sender, REPLY.sender));
            assert_eq!((packet.operation, packet.sender_mac), (operation, REPLY.sender_mac));
        }
    }
}
