//! The packets of flows, whole frames, and which backend a frame that comes out was sent to.

use std::net::Ipv4Addr;

use lb_common::abi::{FlowKey, Protocol, mapped};

use super::Rng;
use crate::frames::{Body, Build, Mac};

/// The services' address.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// MAC address of the balancer.
pub const NEAR: Mac = [0x02, 0, 0, 0, 0x01, 0x01];
const CLIENT: Mac = [0x02, 0, 0, 0, 0, 0xc1];

/// A client's address and port.
pub type From = (Ipv4Addr, u16);

/// MAC address of the backend with this number.
pub const fn mac(number: u8) -> Mac {
    [0x02, 0, 0, 0, 0x02, number]
}

/// The number of the backend that a frame goes to.
pub fn receiver(frame: &[u8]) -> Option<u8> {
    let to: Mac = frame.get(..6)?.try_into().ok()?;
    (mac(to[5]) == to).then_some(to[5])
}

/// What a service speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speech {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// QUIC, known by its headers.
    Quic,
}

impl Speech {
    /// The service's port.
    pub fn port(self) -> u16 {
        match self {
            Self::Tcp => 80,
            Self::Udp => 53,
            Self::Quic => 443,
        }
    }

    /// What carries it.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::Udp | Self::Quic => Protocol::Udp,
        }
    }
}

/// What a packet is to its flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Word {
    /// The first one, also repeated: SYN, Initial.
    Hello,
    /// Any in between.
    Data,
    /// FIN; nothing but data where there is no such thing.
    Fin,
    /// RST; likewise.
    Rst,
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A frame of a flow.
pub fn frame(speech: Speech, from: From, word: Word) -> Vec<u8> {
    let (from, to) = ((from.0.into(), from.1), (VIP.into(), speech.port()));
    let build = |body| Build::new((CLIENT, NEAR), from, to, body);
    match (speech, word) {
        (Speech::Tcp, Word::Hello) => build(Body::Tcp(SYN)),
        (Speech::Tcp, Word::Data) => build(Body::Tcp(ACK)),
        (Speech::Tcp, Word::Fin) => build(Body::Tcp(FIN | ACK)),
        (Speech::Tcp, Word::Rst) => build(Body::Tcp(RST)),
        (Speech::Udp, _) => build(Body::Udp).payload(8),
        (Speech::Quic, word) => {
            let mut build = build(Body::Udp);
            // RFC 9000 section 17: an Initial of version 1, and a short header.
            let initial: &[u8] = &[0xc0, 0, 0, 0, 1, 8, 7, 7, 7, 7, 7, 7, 7, 7];
            let short: &[u8] = &[0x40, 7, 7, 7, 7, 7, 7, 7, 7];
            build.payload = [if word == Word::Hello { initial } else { short }, &[9; 24]].concat();
            build
        }
    }
    .bytes()
}

/// The flow's key, as the program makes it.
pub fn key(speech: Speech, from: From) -> FlowKey {
    FlowKey {
        source: mapped(from.0.octets()),
        destination: mapped(VIP.octets()),
        source_port: from.1.to_be_bytes(),
        destination_port: speech.port().to_be_bytes(),
        protocol: speech.protocol().number(),
        reserved: [0; 3],
    }
}

/// Where the flow with this number comes from.
pub fn client(number: u32) -> From {
    (Ipv4Addr::from_bits(0xc612_0000 + number / 60_000), 1024 + (number % 60_000) as u16)
}

/// Somebody who is nobody's client (RFC 2544's second network).
pub fn stranger(rng: &mut Rng) -> From {
    let word = rng.word();
    (Ipv4Addr::from_bits(0xc613_0000 + (word >> 16 & 0xffff) as u32), word as u16)
}
