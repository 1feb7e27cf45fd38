//! Whole ARP frames, out of the wire formats that the data plane uses too. Must not know sockets.

use std::net::Ipv4Addr;

use lb_common::wire::{
    arp::{self, Operation, Packet},
    ethernet,
};

use super::{BROADCAST, Mac};

/// Length of an ARP frame with its Ethernet header, in bytes, without padding.
pub const FRAME_LEN: usize = ethernet::LEN + arp::LEN;

/// Asks `target` for its Ethernet address.
pub fn request(sender_mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Packet {
    Packet {
        operation: Operation::Request,
        sender_mac,
        sender: sender.octets(),
        target_mac: [0; 6],
        target: target.octets(),
    }
}

/// Both forms of saying unasked that `address` is at `mac`: the request RFC 5227 section 3 recommends, and the reply
/// some stations listen to only.
pub fn announcements(mac: Mac, address: Ipv4Addr) -> [Packet; 2] {
    let request = request(mac, address, address);
    [request, Packet { operation: Operation::Reply, target_mac: BROADCAST, ..request }]
}

/// The frame that carries a packet to `destination`.
pub fn frame(packet: &Packet, destination: Mac) -> [u8; FRAME_LEN] {
    let header =
        ethernet::Header { destination, source: packet.sender_mac, ether_type: ethernet::ARP }.emit();
    let packet = packet.emit();
    std::array::from_fn(|at| match at.checked_sub(ethernet::LEN) {
        None => header[at],
        Some(at) => packet[at],
    })
}

/// The packet in a frame as it came from the wire, untagged; `None` if that is no request or reply for IPv4.
pub fn parse(frame: &[u8]) -> Option<Packet> {
    let (header, rest) = frame.split_first_chunk()?;
    let packet = rest.first_chunk()?;
    let is_arp = ethernet::Header::parse(*header).ether_type == ethernet::ARP;
    is_arp.then(|| Packet::parse(*packet)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 2];
    const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 21);

    #[test]
    fn bytes_of_a_request() {
        #[rustfmt::skip]
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 8, 6,
            0, 1, 8, 0, 6, 4, 0, 1,
            2, 0, 0, 0, 0, 2, 192, 0, 2, 1,
            0, 0, 0, 0, 0, 0, 192, 0, 2, 21,
        ];
        assert_eq!(frame(&request(MAC, OWN, OTHER), BROADCAST), expected);
    }

    #[test]
    fn round_trip_with_padding_and_cut_anywhere() {
        let packet = request(MAC, OWN, OTHER);
        let mut bytes = frame(&packet, BROADCAST).to_vec();
        for len in 0..FRAME_LEN {
            assert_eq!(parse(&bytes[..len]), None, "{len} bytes");
        }
        bytes.resize(60, 0);
        assert_eq!(parse(&bytes), Some(packet));
        bytes[12] = 0x86;
        assert_eq!(parse(&bytes), None, "another EtherType");
    }

    #[test]
    fn announcements_name_the_address_twice() {
        for (packet, operation) in
            announcements(MAC, OTHER).into_iter().zip([Operation::Request, Operation::Reply])
        {
            assert_eq!((packet.sender, packet.target), (OTHER.octets(), OTHER.octets()));
            assert_eq!((packet.operation, packet.sender_mac), (operation, MAC));
        }
    }
}
