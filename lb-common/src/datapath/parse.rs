//! From bytes to a packet the engine can decide about.

use super::Frame;
use crate::abi::{FlowKey, FragmentKey, Protocol, ServiceKey, is_mapped, mapped};
use crate::wire::{ethernet, icmp, ipv4, ipv6};

/// A TCP header without options, in bytes; the flags are its byte 13.
const TCP_LEN: u32 = 20;
const TCP_FLAGS: usize = 13;
const UDP_LEN: u32 = 8;
/// The common header (RFC 9260 section 3).
const SCTP_LEN: u32 = 12;

const FIN_SYN_RST_ACK: u8 = 0x17;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// How many IPv6 extension headers are looked through. One of each kind that RFC 8200 section 4.1 allows, destination
/// options twice, is the most that a sane packet has.
pub(super) const MAX_EXTENSIONS: usize = 5;

/// An IP header and what lies in front of it. One plain struct for good and bad ones: enums around it would be copied
/// on the BPF stack once per way to get here.
#[derive(Clone, Copy)]
pub(super) struct Ip {
    pub(super) source: [u8; 16],
    pub(super) destination: [u8; 16],
    /// Where the IP header begins: 14, and 4 more for each VLAN tag.
    pub(super) start: usize,
    /// Where the payload begins.
    pub(super) payload: usize,
    /// Length of the IP packet in bytes.
    pub(super) total_len: u32,
    /// Identification, common to all fragments of a packet.
    pub(super) id: u32,
    pub(super) tos: u8,
    /// Protocol number of the payload.
    pub(super) protocol: u8,
    pub(super) state: State,
    pub(super) is_v6: bool,
}

/// Whether there is a whole packet.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum State {
    /// There is no IP packet.
    NotIp,
    /// Too short for an IP header: it is for nobody we know.
    Truncated,
    /// Lengths or fields contradict each other.
    Malformed,
    /// With more extension headers than are looked through.
    LongHeaders,
    /// It is.
    Whole,
    /// The beginning of a fragmented one.
    First,
    /// Another part of a fragmented one.
    Later,
}

/// A packet of a transport that has ports.
#[derive(Clone, Copy)]
pub(super) struct Packet {
    pub(super) ip: Ip,
    pub(super) ports: Ports,
}

/// What the transport's header says. In this order, so that ports are written as they are read, in one piece.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Ports {
    pub(super) source: [u8; 2],
    pub(super) destination: [u8; 2],
    pub(super) protocol: Protocol,
    pub(super) kind: Kind,
}

/// What a packet says about its flow's age.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Kind {
    /// TCP SYN without ACK, and what begins a QUIC connection: the flow begins.
    Opening,
    /// Any other TCP or QUIC packet: the flow began before.
    Later,
    /// TCP with FIN: the flow ends, or one direction of it.
    Closing,
    /// TCP with RST: the flow ends, if its sender is who it says.
    Reset,
    /// UDP, SCTP: nobody can tell.
    Unknown,
}

impl Ip {
    pub(super) const NONE: Self = Self {
        source: [0; 16],
        destination: [0; 16],
        start: 0,
        payload: 0,
        total_len: 0,
        id: 0,
        tos: 0,
        protocol: 0,
        state: State::NotIp,
        is_v6: false,
    };

    /// Whether there are no extension headers.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        !self.is_v6 || self.payload.wrapping_sub(self.start) == ipv6::LEN
    }

    /// Bytes of the IP packet behind the IP header.
    #[inline(always)]
    pub(super) fn payload_len(&self) -> u32 {
        self.total_len.wrapping_sub(self.payload.wrapping_sub(self.start) as u32)
    }

    /// What names the whole packet whose fragment this is.
    #[inline(always)]
    pub(super) fn fragment_key(&self) -> FragmentKey {
        FragmentKey {
            source: self.source,
            destination: self.destination,
            id: self.id,
            protocol: if self.is_v6 { 0 } else { u32::from(self.protocol) },
        }
    }
}

impl Packet {
    /// The service that it names, with `address` in place of its destination. Keys are made of whole words: the kernel
    /// hashes them in pieces of four bytes, and a load of what several smaller stores have written waits for them all.
    #[inline(always)]
    pub(super) fn service_key(&self, address: [u8; 16]) -> ServiceKey {
        let [first, second]: [u64; 2] = zerocopy::transmute!(address);
        let [d0, d1] = self.ports.destination;
        let protocol = self.ports.protocol.number();
        ServiceKey::from_words([first, second, u64::from_ne_bytes([d0, d1, protocol, 0, 0, 0, 0, 0])])
    }

    #[inline(always)]
    pub(super) fn flow_key(&self) -> FlowKey {
        let [s0, s1]: [u64; 2] = zerocopy::transmute!(self.ip.source);
        let [d0, d1]: [u64; 2] = zerocopy::transmute!(self.ip.destination);
        let ([p0, p1], [p2, p3]) = (self.ports.source, self.ports.destination);
        let protocol = self.ports.protocol.number();
        zerocopy::transmute!([s0, s1, d0, d1, u64::from_ne_bytes([p0, p1, p2, p3, protocol, 0, 0, 0])])
    }
}

/// Where the header behind the link layer begins, and its EtherType: up to two VLAN tags are looked through.
#[inline(always)]
pub(super) fn untag<F: Frame>(frame: &F, link: &ethernet::Header) -> (usize, u16) {
    if !ethernet::is_tag(link.ether_type) {
        return (ethernet::LEN, link.ether_type);
    }
    let Some([_, _, t0, t1]) = frame.read(ethernet::LEN) else {
        return (ethernet::LEN, link.ether_type);
    };
    let inner = u16::from_be_bytes([t0, t1]);
    let second = ethernet::LEN + ethernet::TAG_LEN;
    if !ethernet::is_tag(inner) {
        return (second, inner);
    }
    match frame.read(second) {
        Some([_, _, t0, t1]) => (second + ethernet::TAG_LEN, u16::from_be_bytes([t0, t1])),
        None => (second, inner),
    }
}

/// Reads an IP header into `to`; of IPv6 extension headers nothing.
#[inline(always)]
pub(super) fn read_ip<F: Frame>(frame: &F, start: usize, ether_type: u16, to: &mut Ip) {
    to.start = start;
    to.state = match ether_type {
        ethernet::IPV4 => v4(frame, start, to),
        ethernet::IPV6 => v6(frame, start, to),
        _ => State::NotIp,
    };
}

/// Whether there is more to say about a whole packet's protocol than that it has no ports.
#[inline(always)]
pub(super) fn is_known(ip: &Ip) -> bool {
    match ip.is_v6 {
        true => ip.protocol == ipv6::ICMP || is_extension(ip.protocol),
        false => ip.protocol == icmp::PROTOCOL,
    }
}

#[inline(always)]
fn v4<F: Frame>(frame: &F, start: usize, to: &mut Ip) -> State {
    let Some(bytes) = frame.read(start) else {
        return State::Truncated;
    };
    let header = ipv4::Header::parse(bytes);
    to.source = mapped(header.source);
    to.destination = mapped(header.destination);
    to.payload = start + header.header_len as usize;
    to.total_len = u32::from(header.total_len);
    to.id = u32::from(header.id);
    to.tos = header.tos;
    to.protocol = header.protocol;
    to.is_v6 = false;
    if !header.is_consistent() || !frame.holds(start + header.total_len as usize) {
        return State::Malformed;
    }
    match (header.is_fragment(), header.is_later_fragment()) {
        (false, _) => State::Whole,
        (true, false) => State::First,
        (true, true) => State::Later,
    }
}

/// In three parts, so that addresses are copied word by word.
#[inline(always)]
fn v6<F: Frame>(frame: &F, start: usize, to: &mut Ip) -> State {
    // The last one first: it says whether the others are there.
    let Some(destination) = frame.read(start + 24) else {
        return State::Truncated;
    };
    let Some(source) = frame.read(start + 8) else {
        return State::Truncated;
    };
    let Some(bytes) = frame.read(start) else {
        return State::Truncated;
    };
    let fixed = ipv6::Fixed::parse(bytes);
    to.source = source;
    to.destination = destination;
    to.payload = start + ipv6::LEN;
    to.total_len = fixed.total_len();
    to.id = 0;
    to.tos = fixed.traffic_class;
    to.protocol = fixed.next_header;
    to.is_v6 = true;
    // An address that only stands for an IPv4 one is not for the wire (RFC 4291 section 2.5.5.2), and would name an
    // IPv4 service here.
    if is_mapped(destination) || is_mapped(source) {
        return State::NotIp;
    }
    let whole = fixed.version == 6 && frame.holds(start + fixed.total_len() as usize);
    if whole { State::Whole } else { State::Malformed }
}

/// Walks over extension headers. What follows in a later fragment is data, so the walk ends there.
#[inline(always)]
pub(super) fn skip_extensions<F: Frame>(frame: &F, ip: &mut Ip) {
    for _ in 0..MAX_EXTENSIONS {
        match ip.protocol {
            ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::DESTINATION_OPTIONS => {
                let Some([next, length]) = frame.read(ip.payload) else {
                    ip.state = State::Malformed;
                    return;
                };
                ip.protocol = next;
                // RFC 8200 section 4.2 and following: in units of 8 bytes, not counting the first 8.
                ip.payload += 8 + usize::from(length) * 8;
            }
            ipv6::FRAGMENT => {
                let Some(bytes) = frame.read(ip.payload) else {
                    ip.state = State::Malformed;
                    return;
                };
                let header = ipv6::Fragment::parse(bytes);
                ip.protocol = header.next_header;
                ip.payload += ipv6::FRAGMENT_LEN;
                ip.id = header.id;
                if header.offset != 0 {
                    ip.state = State::Later;
                    break;
                }
                if header.more {
                    ip.state = State::First;
                }
            }
            _ => break,
        }
    }
    if ip.payload.wrapping_sub(ip.start) > ip.total_len as usize {
        ip.state = State::Malformed;
    } else if ip.state != State::Later && is_extension(ip.protocol) {
        ip.state = State::LongHeaders;
    }
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    use ipv6::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// Reads what decides of the transport's header; `None` if it does not lie whole in the packet.
#[inline(always)]
pub(super) fn ports<F: Frame>(frame: &F, ip: &Ip, protocol: Protocol) -> Option<Ports> {
    let least = match protocol {
        Protocol::Tcp => TCP_LEN,
        Protocol::Udp => UDP_LEN,
        Protocol::Sctp => SCTP_LEN,
    };
    if ip.payload_len() < least {
        return None;
    }
    let [s0, s1, d0, d1] = frame.read(ip.payload)?;
    let kind = match protocol {
        Protocol::Tcp => {
            let [flags] = frame.read(ip.payload + TCP_FLAGS)?;
            match flags & FIN_SYN_RST_ACK {
                SYN => Kind::Opening,
                flags if flags & (FIN | RST) == 0 => Kind::Later,
                flags if flags & RST != 0 => Kind::Reset,
                _ => Kind::Closing,
            }
        }
        Protocol::Udp | Protocol::Sctp => Kind::Unknown,
    };
    Some(Ports { source: [s0, s1], destination: [d0, d1], protocol, kind })
}
