//! Packets, built and rebuilt with etherparse: an implementation that shares nothing with ours, so that what it
//! expects and what we send can be compared byte for byte.

use std::net::Ipv4Addr;

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacket, EtherType, Ethernet2Header, IpDscp, IpEcn, IpFragOffset,
    IpNumber, Ipv4Header, Ipv4Options, TcpHeader, UdpHeader,
};

/// A MAC address.
pub type Mac = [u8; 6];

/// Length of an Ethernet header in bytes.
pub const ETHERNET: usize = Ethernet2Header::LEN;
/// The shortest frame on a wire, without its checksum, in bytes.
pub const SHORTEST: usize = 60;

/// A client's TCP or UDP connection to somebody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow {
    /// Client's address and port.
    pub from: (Ipv4Addr, u16),
    /// Where it goes.
    pub to: (Ipv4Addr, u16),
}

impl Flow {
    /// The `n`th of many clients' flows to a service.
    pub fn nth(n: u32, to: (Ipv4Addr, u16)) -> Self {
        let port = 1024 + (n % 60_000) as u16;
        Self { from: (Ipv4Addr::from(0xc633_6401 + n / 60_000), port), to }
    }
}

/// TCP flags of interest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Segment {
    /// SYN: a connection begins.
    Syn,
    /// ACK, as in any segment of an open connection.
    Ack,
    /// FIN and ACK.
    Fin,
    /// RST.
    Rst,
    /// SYN and ACK, which no client sends.
    SynAck,
}

#[derive(Clone, Debug)]
enum Transport {
    Tcp(Segment),
    Udp,
    Raw,
}

/// An IPv4 packet in an Ethernet frame, to be varied and then turned into bytes with correct lengths and checksums.
#[derive(Clone, Debug)]
pub struct Packet {
    link: Ethernet2Header,
    ip: Ipv4Header,
    flow: Flow,
    transport: Transport,
    payload: Vec<u8>,
    shortest: usize,
}

impl Packet {
    fn new(link: (Mac, Mac), flow: Flow, protocol: IpNumber, transport: Transport) -> Self {
        let (source, destination) = link;
        let mut ip = Ipv4Header {
            source: flow.from.0.octets(),
            destination: flow.to.0.octets(),
            ..Default::default()
        };
        (ip.time_to_live, ip.protocol, ip.identification) = (63, protocol, 0x1234);
        Self {
            link: Ethernet2Header { source, destination, ether_type: EtherType::IPV4 },
            ip,
            flow,
            transport,
            payload: Vec::new(),
            shortest: 0,
        }
    }

    /// A TCP segment without payload; `link` is (source, destination).
    pub fn tcp(link: (Mac, Mac), flow: Flow, segment: Segment) -> Self {
        Self::new(link, flow, IpNumber::TCP, Transport::Tcp(segment))
    }

    /// A UDP datagram without payload.
    pub fn udp(link: (Mac, Mac), flow: Flow) -> Self {
        Self::new(link, flow, IpNumber::UDP, Transport::Udp)
    }

    /// A packet of another protocol; the flow's ports mean nothing.
    pub fn raw(link: (Mac, Mac), flow: Flow, protocol: u8) -> Self {
        Self::new(link, flow, IpNumber(protocol), Transport::Raw)
    }

    /// With this many bytes behind the transport header.
    pub fn payload(mut self, len: usize) -> Self {
        self.payload = (0..len).map(|i| (i * 7 + 1) as u8).collect();
        self
    }

    /// With exactly these bytes behind the transport header.
    pub fn payload_bytes(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }

    /// With an IP packet of exactly `len` bytes, which must hold the headers.
    pub fn ip_len(self, len: usize) -> Self {
        let headers = self.clone().payload(0).bytes().len() - ETHERNET;
        self.payload(len - headers)
    }

    /// With `len` (a multiple of 4, at most 40) bytes of IP options: NOPs and an end.
    pub fn options(mut self, len: usize) -> Self {
        let mut options = vec![1; len];
        if let Some(last) = options.last_mut() {
            *last = 0;
        }
        self.ip.options = Ipv4Options::try_from(options.as_slice()).expect("a length that options can have");
        self
    }

    /// With these DSCP and ECN bits.
    pub fn tos(mut self, tos: u8) -> Self {
        (self.ip.dscp, self.ip.ecn) = tos_fields(tos);
        self
    }

    /// With DF set.
    pub fn dont_fragment(mut self) -> Self {
        self.ip.dont_fragment = true;
        self
    }

    /// As a fragment; the offset is in units of 8 bytes.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.ip.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
        self.ip.more_fragments = more;
        self
    }

    /// From another address.
    pub fn client(mut self, address: Ipv4Addr) -> Self {
        (self.ip.source, self.flow.from.0) = (address.octets(), address);
        self
    }

    /// For another station.
    pub fn to_mac(mut self, mac: Mac) -> Self {
        self.link.destination = mac;
        self
    }

    /// Padded to at least this many bytes, as network cards do.
    pub fn padded(mut self, shortest: usize) -> Self {
        self.shortest = shortest;
        self
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut ip = self.ip.clone();
        let transport = self.transport_header(&ip);
        ip.set_payload_len(transport.len() + self.payload.len()).expect("at most 64 KiB");
        ip.header_checksum = ip.calc_header_checksum();
        let mut frame = self.link.to_bytes().to_vec();
        frame.extend(ip.to_bytes());
        frame.extend(transport);
        frame.extend(&self.payload);
        frame.resize(frame.len().max(self.shortest), 0);
        frame
    }

    fn transport_header(&self, ip: &Ipv4Header) -> Vec<u8> {
        let (from, to) = (self.flow.from.1, self.flow.to.1);
        match self.transport {
            Transport::Raw => Vec::new(),
            Transport::Udp => {
                let header =
                    UdpHeader::with_ipv4_checksum(from, to, ip, &self.payload).expect("at most 64 KiB");
                header.to_bytes().to_vec()
            }
            Transport::Tcp(segment) => {
                let mut tcp = TcpHeader::new(from, to, 0x0102_0304, 1024);
                tcp.syn = matches!(segment, Segment::Syn | Segment::SynAck);
                tcp.ack = !matches!(segment, Segment::Syn | Segment::Rst);
                tcp.fin = segment == Segment::Fin;
                tcp.rst = segment == Segment::Rst;
                tcp.checksum = tcp.calc_checksum_ipv4(ip, &self.payload).expect("at most 64 KiB");
                tcp.to_bytes().to_vec()
            }
        }
    }
}

fn tos_fields(tos: u8) -> (IpDscp, IpEcn) {
    (IpDscp::try_new(tos >> 2).expect("6 bits"), IpEcn::try_new(tos & 3).expect("2 bits"))
}

/// What `frame` is once its Ethernet header has been replaced; `link` is (source, destination).
pub fn relinked(frame: &[u8], link: (Mac, Mac)) -> Vec<u8> {
    let (header, rest) = Ethernet2Header::from_slice(frame).expect("an Ethernet header");
    let (source, destination) = link;
    let header = Ethernet2Header { source, destination, ether_type: header.ether_type };
    [header.to_bytes().as_slice(), rest].concat()
}

/// What `frame` is inside a tunnel (RFC 2003) with these ends: DF, identification 0, TTL 64, the inner packet's TOS.
pub fn tunnelled(frame: &[u8], link: (Mac, Mac), source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let (_, inner) = Ethernet2Header::from_slice(frame).expect("an Ethernet header");
    let (ip, _) = Ipv4Header::from_slice(inner).expect("an IPv4 header");
    let mut outer = Ipv4Header {
        dscp: ip.dscp,
        ecn: ip.ecn,
        identification: 0,
        dont_fragment: true,
        time_to_live: 64,
        protocol: IpNumber::IPV4,
        source: source.octets(),
        destination: destination.octets(),
        ..Ipv4Header::default()
    };
    outer.set_payload_len(ip.total_len.into()).expect("at most 64 KiB");
    outer.header_checksum = outer.calc_header_checksum();
    let (source, destination) = link;
    let header = Ethernet2Header { source, destination, ether_type: EtherType::IPV4 };
    [header.to_bytes().as_slice(), &outer.to_bytes(), inner].concat()
}

/// Outer source address of a frame with a tunnel's header.
pub fn outer_source(frame: &[u8]) -> Ipv4Addr {
    let (ip, _) = Ipv4Header::from_slice(&frame[ETHERNET..]).expect("an IPv4 header");
    assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "outer checksum");
    ip.source.into()
}

/// An ARP packet in a frame padded to the shortest length; `link` is (source, destination), each party (MAC, address).
pub fn arp(link: (Mac, Mac), request: bool, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let operation = if request { ArpOperation::REQUEST } else { ArpOperation::REPLY };
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: sender.0,
        sender_ipv4: sender.1.octets(),
        target_mac: target.0,
        target_ipv4: target.1.octets(),
    };
    let (source, destination) = link;
    let mut frame = Ethernet2Header { source, destination, ether_type: EtherType::ARP }.to_bytes().to_vec();
    frame.extend(ArpPacket::from(packet).to_bytes());
    frame.resize(SHORTEST, 0);
    frame
}

/// A frame with another EtherType.
pub fn ethernet(link: (Mac, Mac), ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = link;
    let header = Ethernet2Header { source, destination, ether_type: EtherType(ether_type) };
    [header.to_bytes().as_slice(), payload].concat()
}
