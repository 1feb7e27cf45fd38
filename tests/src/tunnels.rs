//! Tunnel packets of every kind, put together with etherparse.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4Header, Ipv6Header, UdpHeader};

use crate::packets::{ETHERNET, Mac};

/// What lies between outer and inner IP header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encap {
    /// Nothing.
    Ipip,
    /// GRE without optional fields.
    Gre,
    /// UDP and a GUE header with this many words of optional fields, at most 31.
    Gue(u8),
    /// UDP.
    Direct,
}

/// Every kind, GUE with none, some and all of its optional fields.
pub const ENCAPS: [Encap; 6] =
    [Encap::Ipip, Encap::Gre, Encap::Gue(0), Encap::Gue(3), Encap::Gue(31), Encap::Direct];

/// No VLAN tag, one (802.1Q), and two (802.1ad).
pub const TAGS: [&[u8]; 3] = [&[], &[0x81, 0, 0x20, 7], &[0x88, 0xa8, 0, 5, 0x81, 0, 0x20, 7]];

/// A tunnel from one address to another.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    /// MAC addresses, source first.
    pub link: (Mac, Mac),
    /// VLAN tags as they lie in the frame.
    pub tags: &'static [u8],
    /// Outer addresses, source first, of the same family.
    pub ends: (IpAddr, IpAddr),
    /// The encapsulation.
    pub encap: Encap,
    /// UDP port that GUE goes to.
    pub port: u16,
    /// Outer DSCP and ECN.
    pub tos: u8,
}

impl Tunnel {
    /// The frame around an IP packet.
    pub fn around(&self, packet: &[u8]) -> Vec<u8> {
        let (protocol, payload) = self.payload(packet);
        framed(self.link, self.tags, &ip(self.tos, self.ends, protocol, &payload))
    }

    fn payload(&self, packet: &[u8]) -> (u8, Vec<u8>) {
        let (number, ether_type) = if is_v6(packet) { (41, [0x86, 0xdd]) } else { (4, [8, 0]) };
        let udp = |payload: Vec<u8>| {
            let header =
                UdpHeader::without_ipv4_checksum(0xc123, self.port, payload.len()).expect("at most 64 KiB");
            (17, [&header.to_bytes()[..], &payload].concat())
        };
        match self.encap {
            Encap::Ipip => (number, packet.to_vec()),
            Encap::Gre => (47, [&[0, 0], &ether_type[..], packet].concat()),
            Encap::Direct => udp(packet.to_vec()),
            Encap::Gue(words) => {
                let fields = vec![0xab; usize::from(words) * 4];
                udp([&[words, number, 0x80, 0][..], &fields, packet].concat())
            }
        }
    }
}

/// An IP packet between two addresses, source first, of the same family.
pub fn ip(tos: u8, ends: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Vec<u8> {
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4Header {
                dscp: (tos >> 2).try_into().expect("6 bits"),
                ecn: (tos & 3).try_into().expect("2 bits"),
                protocol: IpNumber(protocol),
                time_to_live: 64,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv4Header::default()
            };
            header.set_payload_len(payload.len()).expect("at most 64 KiB");
            header.header_checksum = header.calc_header_checksum();
            [&header.to_bytes()[..], payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                traffic_class: tos,
                flow_label: 0x5_4321.try_into().expect("20 bits"),
                payload_length: payload.len().try_into().expect("at most 64 KiB"),
                next_header: IpNumber(protocol),
                hop_limit: 64,
                source: source.octets(),
                destination: destination.octets(),
            };
            [&header.to_bytes()[..], payload].concat()
        }
        _ => panic!("{ends:?} are of two families"),
    }
}

/// A frame around an IP packet.
pub fn framed(link: (Mac, Mac), tags: &[u8], packet: &[u8]) -> Vec<u8> {
    let (source, destination) = link;
    let ether_type: [u8; 2] = if is_v6(packet) { [0x86, 0xdd] } else { [8, 0] };
    [&destination[..], &source, tags, &ether_type, packet].concat()
}

/// Makes the checksum of a frame's outer IPv4 header right again, if it is one without options.
pub fn mend(frame: &mut [u8], tags: usize) {
    let start = ETHERNET + tags;
    let Some(header) = frame.get_mut(start..start + Ipv4Header::MIN_LEN) else { return };
    if header[0] != 0x45 {
        return;
    }
    if let Ok((parsed, _)) = Ipv4Header::from_slice(header) {
        header[10..12].copy_from_slice(&parsed.calc_header_checksum().to_be_bytes());
    }
}

fn is_v6(packet: &[u8]) -> bool {
    packet[0] >> 4 == 6
}
