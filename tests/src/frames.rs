//! Frames of every kind the engine tells apart, with correct lengths and checksums by etherparse's own arithmetic.
//!
//! Knows nothing of ours: the engine's host tests include this file too.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{
    EtherType, Ethernet2Header, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options,
    Ipv6FlowLabel, Ipv6Header, TcpHeader,
};

/// A MAC address.
pub type Mac = [u8; 6];

/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an outer tag.
pub const SERVICE_VLAN: u16 = 0x88a8;
/// Number of the IPv6 fragment header.
const FRAGMENT: u8 = 44;

/// What is behind the IP header.
#[derive(Clone, Debug)]
pub enum Body {
    /// With these flags: FIN 1, SYN 2, RST 4, ACK 16.
    Tcp(u8),
    /// With a checksum.
    Udp,
    /// Without one.
    UdpUnsummed,
    /// A common header; its checksum (CRC32c) is zero, nobody here looks at it.
    Sctp,
    /// Type, code, and the rest of the head.
    Icmp(u8, u8, [u8; 4]),
    /// A protocol number; everything is payload.
    Raw(u8),
}

/// A packet in a frame, to be varied and then turned into [`Build::bytes`].
#[derive(Clone, Debug)]
pub struct Build {
    /// Source and destination.
    pub link: (Mac, Mac),
    /// VLAN tags, outermost first: EtherType and id.
    pub tags: Vec<(u16, u16)>,
    /// Source address and port.
    pub from: (IpAddr, u16),
    /// Destination address and port.
    pub to: (IpAddr, u16),
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification.
    pub id: u16,
    /// IPv4 DF.
    pub dont_fragment: bool,
    /// IPv4 fragment offset in units of 8 bytes, and whether more follow.
    pub fragment: (u16, bool),
    /// Bytes of IPv4 options: NOPs and an end.
    pub options: usize,
    /// IPv6 extension headers: number, and what is behind the "next header" byte.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Behind the IP header.
    pub body: Body,
    /// Behind the transport header.
    pub payload: Vec<u8>,
    /// The frame is padded to at least this many bytes.
    pub shortest: usize,
}

impl Build {
    /// A packet without payload.
    pub fn new(link: (Mac, Mac), from: (IpAddr, u16), to: (IpAddr, u16), body: Body) -> Self {
        Self {
            link,
            tags: Vec::new(),
            from,
            to,
            tos: 0,
            ttl: 63,
            id: 0x1234,
            dont_fragment: false,
            fragment: (0, false),
            options: 0,
            extensions: Vec::new(),
            body,
            payload: Vec::new(),
            shortest: 0,
        }
    }

    /// With this many bytes behind the transport header.
    pub fn payload(mut self, len: usize) -> Self {
        self.payload = (0..len).map(|i| (i * 7 + 1) as u8).collect();
        self
    }

    /// With an IP packet of exactly `len` bytes, which must hold the headers.
    pub fn ip_len(self, len: usize) -> Self {
        let headers = self.clone().payload(0).packet().len();
        self.payload(len - headers)
    }

    /// Behind these tags.
    pub fn tags(mut self, tags: &[(u16, u16)]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    /// With one more IPv6 extension header.
    pub fn extension(mut self, number: u8, rest: &[u8]) -> Self {
        self.extensions.push((number, rest.to_vec()));
        self
    }

    /// With an IPv6 extension header of options: `units` of 8 bytes behind the first 8.
    pub fn padding_extension(self, number: u8, units: u8) -> Self {
        let len = 7 + usize::from(units) * 8;
        let mut rest = vec![0; len];
        // PadN over all of it; its length would not fit one byte where there are many units, and nobody looks.
        rest[0] = units;
        rest[1] = 1;
        rest[2] = (len - 3).min(255) as u8;
        self.extension(number, &rest)
    }

    /// With an IPv6 fragment header; the offset is in units of 8 bytes.
    pub fn fragment_header(self, offset: u16, more: bool, id: u32) -> Self {
        let [o0, o1] = (offset << 3 | u16::from(more)).to_be_bytes();
        let [i0, i1, i2, i3] = id.to_be_bytes();
        self.extension(FRAGMENT, &[0, o0, o1, i0, i1, i2, i3])
    }

    /// The fragments of the packet, the first with `first` (a multiple of 8) bytes behind the headers.
    pub fn fragments(&self, first: usize, id: u32) -> [Self; 2] {
        let segment = self.segment();
        let (head, tail) = segment.split_at(first);
        [(head, 0, true), (tail, (first / 8) as u16, false)].map(|(bytes, offset, more)| {
            let mut part = Self { body: Body::Raw(self.protocol()), payload: bytes.to_vec(), ..self.clone() };
            if self.to.0.is_ipv4() {
                (part.fragment, part.id) = ((offset, more), id as u16);
                part
            } else {
                part.fragment_header(offset, more, id)
            }
        })
    }

    /// Protocol number of the body.
    pub fn protocol(&self) -> u8 {
        match self.body {
            Body::Tcp(_) => 6,
            Body::Udp | Body::UdpUnsummed => 17,
            Body::Sctp => 132,
            Body::Icmp(..) => icmp(self.to.0),
            Body::Raw(number) => number,
        }
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let ip_type = if self.to.0.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let ether_type = self.tags.first().map_or(ip_type, |(kind, _)| EtherType(*kind));
        let (source, destination) = self.link;
        let mut frame = Ethernet2Header { source, destination, ether_type }.to_bytes().to_vec();
        for (n, (_, id)) in self.tags.iter().enumerate() {
            let next = self.tags.get(n + 1).map_or(ip_type.0, |(kind, _)| *kind);
            frame.extend([id.to_be_bytes(), next.to_be_bytes()].concat());
        }
        frame.extend(self.packet());
        frame.resize(frame.len().max(self.shortest), 0);
        frame
    }

    /// The IP packet.
    pub fn packet(&self) -> Vec<u8> {
        let segment = self.segment();
        match (self.from.0, self.to.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut options = vec![1; self.options];
                if let Some(last) = options.last_mut() {
                    *last = 0;
                }
                let mut ip = Ipv4Header {
                    dscp: IpDscp::try_new(self.tos >> 2).expect("6 bits"),
                    ecn: IpEcn::try_new(self.tos & 3).expect("2 bits"),
                    identification: self.id,
                    dont_fragment: self.dont_fragment,
                    more_fragments: self.fragment.1,
                    fragment_offset: IpFragOffset::try_new(self.fragment.0).expect("13 bits"),
                    time_to_live: self.ttl,
                    protocol: IpNumber(self.protocol()),
                    source: source.octets(),
                    destination: destination.octets(),
                    options: Ipv4Options::try_from(options.as_slice()).expect("a length options can have"),
                    ..Ipv4Header::default()
                };
                ip.set_payload_len(segment.len()).expect("at most 64 KiB");
                ip.header_checksum = ip.calc_header_checksum();
                [ip.to_bytes().as_slice(), &segment].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let extensions = self.extension_bytes();
                let ip = Ipv6Header {
                    traffic_class: self.tos,
                    flow_label: Ipv6FlowLabel::try_new(0x54321).expect("20 bits"),
                    payload_length: (extensions.len() + segment.len()) as u16,
                    next_header: IpNumber(self.extensions.first().map_or(self.protocol(), |(kind, _)| *kind)),
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                [ip.to_bytes().as_slice(), &extensions, &segment].concat()
            }
            _ => panic!("one family"),
        }
    }

    fn extension_bytes(&self) -> Vec<u8> {
        let numbers = self.extensions.iter().skip(1).map(|(number, _)| *number);
        let next = numbers.chain([self.protocol()]);
        self.extensions
            .iter()
            .zip(next)
            .flat_map(|((_, rest), next)| [&[next], rest.as_slice()].concat())
            .collect()
    }

    /// Transport header and payload.
    fn segment(&self) -> Vec<u8> {
        let ports = [self.from.1.to_be_bytes(), self.to.1.to_be_bytes()].concat();
        let (mut segment, check) = match &self.body {
            Body::Tcp(flags) => {
                let mut tcp = TcpHeader::new(self.from.1, self.to.1, 0x0102_0304, 1024);
                (tcp.fin, tcp.syn) = (flags & 1 != 0, flags & 2 != 0);
                (tcp.rst, tcp.ack) = (flags & 4 != 0, flags & 16 != 0);
                (tcp.to_bytes().to_vec(), Some(16))
            }
            Body::Udp | Body::UdpUnsummed => {
                let len = (8 + self.payload.len()) as u16;
                let check = matches!(self.body, Body::Udp).then_some(6);
                ([ports.as_slice(), &len.to_be_bytes(), &[0, 0]].concat(), check)
            }
            Body::Sctp => ([ports.as_slice(), &[0, 0, 0, 7, 0, 0, 0, 0]].concat(), None),
            Body::Icmp(kind, code, rest) => ([&[*kind, *code, 0, 0], rest.as_slice()].concat(), Some(2)),
            Body::Raw(_) => (Vec::new(), None),
        };
        segment.extend(&self.payload);
        if let Some(at) = check {
            let sum = segment_sum(self.from.0, self.to.0, self.protocol(), &segment);
            let sum = match self.body {
                Body::Udp => sum.to_ones_complement_with_no_zero(),
                _ => sum.ones_complement(),
            };
            // etherparse sums words as they lie in memory.
            segment[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
        }
        segment
    }
}

/// Number of the ICMP of an address' family.
pub fn icmp(address: IpAddr) -> u8 {
    if address.is_ipv4() { 1 } else { 58 }
}

/// Sum of a segment and its pseudo header (ICMP for IPv4 has none).
pub fn segment_sum(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> Sum16BitWords {
    let sum = Sum16BitWords::new().add_slice(segment);
    let tail = [[0, protocol], (segment.len() as u16).to_be_bytes()].concat();
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) if protocol == 1 => sum,
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            sum.add_slice(&from.octets()).add_slice(&to.octets()).add_slice(&tail)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            sum.add_slice(&from.octets()).add_slice(&to.octets()).add_slice(&tail)
        }
        _ => panic!("one family"),
    }
}
