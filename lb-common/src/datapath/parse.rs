//! From bytes to a packet the engine can decide about.

use super::Frame;
use crate::abi::{FlowKey, Protocol, ServiceKey, mapped};
use crate::wire::{ethernet, ipv4};

/// A TCP header without options, in bytes; the flags are its byte 13.
const TCP_LEN: u16 = 20;
const TCP_FLAGS: usize = 13;
const UDP_LEN: u16 = 8;
/// The common header alone (RFC 9260 section 3.1).
const SCTP_LEN: u16 = 12;

const FIN_SYN_RST_ACK: u8 = 0x17;
const SYN: u8 = 0x02;

/// A complete TCP or UDP packet over IPv4.
#[derive(Clone, Copy)]
pub(super) struct Packet {
    pub(super) source: [u8; 4],
    pub(super) destination: [u8; 4],
    pub(super) source_port: [u8; 2],
    pub(super) destination_port: [u8; 2],
    pub(super) protocol: Protocol,
    /// Length of the IP packet in bytes.
    pub(super) total_len: u16,
    pub(super) tos: u8,
    pub(super) kind: Kind,
}

/// What a packet says about its flow's age.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Kind {
    /// TCP SYN without ACK: the flow begins.
    Opening,
    /// Any other TCP packet: the flow began before.
    Later,
    /// UDP: nobody can tell.
    Unknown,
}

/// Why there is no such packet. The addresses in the last two are destinations.
pub(super) enum Unparsed {
    NotIpv4,
    Broadcast,
    /// Too short for an IPv4 header: it is for nobody we know.
    Truncated,
    OtherProtocol,
    Malformed([u8; 4]),
    Fragment([u8; 4]),
}

impl Packet {
    #[inline(always)]
    pub(super) fn service_key(&self) -> ServiceKey {
        ServiceKey {
            address: mapped(self.destination),
            port: self.destination_port,
            protocol: self.protocol.number(),
            reserved: 0,
        }
    }

    #[inline(always)]
    pub(super) fn flow_key(&self) -> FlowKey {
        FlowKey {
            source: mapped(self.source),
            destination: mapped(self.destination),
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol.number(),
            reserved: [0; 3],
        }
    }
}

/// Reads the headers of a frame that is addressed to this interface or to everybody.
#[inline(always)]
pub(super) fn parse<F: Frame>(frame: &F, link: &ethernet::Header) -> Result<Packet, Unparsed> {
    if link.ether_type != ethernet::IPV4 {
        return Err(Unparsed::NotIpv4);
    }
    if link.destination == ethernet::BROADCAST {
        return Err(Unparsed::Broadcast);
    }
    let ip = ipv4::Header::parse(frame.read(ethernet::LEN).ok_or(Unparsed::Truncated)?);
    if !ip.is_consistent() || !frame.holds(ethernet::LEN + ip.total_len as usize) {
        return Err(Unparsed::Malformed(ip.destination));
    }
    let protocol = Protocol::from_number(ip.protocol).ok_or(Unparsed::OtherProtocol)?;
    if ip.is_fragment() {
        return Err(Unparsed::Fragment(ip.destination));
    }
    transport(frame, &ip, protocol).ok_or(Unparsed::Malformed(ip.destination))
}

/// Reads what of TCP, UDP or SCTP decides; `None` if the IP packet is too short for the header.
#[inline(always)]
fn transport<F: Frame>(frame: &F, ip: &ipv4::Header, protocol: Protocol) -> Option<Packet> {
    let payload = ip.total_len.wrapping_sub(u16::from(ip.header_len));
    let start = ethernet::LEN + ip.header_len as usize;
    let [s0, s1, d0, d1] = frame.read(start)?;
    let kind = match protocol {
        Protocol::Tcp => {
            if payload < TCP_LEN {
                return None;
            }
            let [flags] = frame.read(start + TCP_FLAGS)?;
            if flags & FIN_SYN_RST_ACK == SYN { Kind::Opening } else { Kind::Later }
        }
        Protocol::Udp => {
            if payload < UDP_LEN {
                return None;
            }
            Kind::Unknown
        }
        Protocol::Sctp => {
            if payload < SCTP_LEN {
                return None;
            }
            Kind::Unknown
        }
    };
    Some(Packet {
        source: ip.source,
        destination: ip.destination,
        source_port: [s0, s1],
        destination_port: [d0, d1],
        protocol,
        total_len: ip.total_len,
        tos: ip.tos,
        kind,
    })
}
