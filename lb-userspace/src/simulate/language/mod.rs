//! Packets in a line of words: [`parse`] makes a frame of one, [`describe`] says in one what a frame is.
//!
//! ```text
//! [mac SRC > DST] [vlan N [vlan M]] WHAT OPTIONS…
//! tcp 198.51.100.7:4000 > 203.0.113.10:80 syn
//! udp [2001:db8::7]:4000 > [2001:db8::10]:53 ext hbh len 1200
//! udp 198.51.100.7 > 203.0.113.10 frag 7 1480 last len 500
//! icmp 198.51.100.1 > 203.0.113.10 unreachable frag-needed mtu 1400 about tcp 203.0.113.10:80 > 198.51.100.7:4000
//! gue 192.0.2.1:50000 > 192.0.2.21:6080 carrying tcp 198.51.100.7:4000 > 203.0.113.10:80 syn
//! arp who-has 203.0.113.10 tell 203.0.113.1
//! ```
//!
//! Lengths and checksums are right; `len` is the payload behind the transport header. Knows frames, and nothing of what
//! a balancer does with them.

mod build;
mod describe;
mod glance;
mod icmp;
mod neighbour;
mod options;
mod parse;
mod payload;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;
use std::str::FromStr;

pub use describe::{describe, describe_on};
pub use glance::{addressed, ip_bytes};
pub use words::ParseError;

use parse::Frame;
use words::Words;

/// A MAC address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is no MAC address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a MAC address is six bytes in hex digits with colons between them")]
pub struct NoMac;

impl FromStr for Mac {
    type Err = NoMac;

    fn from_str(text: &str) -> Result<Self, NoMac> {
        let byte = |part: &str| match part.len() {
            1 | 2 if part.chars().all(|c| c.is_ascii_hexdigit()) => u8::from_str_radix(part, 16).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(NoMac)
    }
}

/// The two ends of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// Who sends.
    pub source: Mac,
    /// Who is to receive.
    pub destination: Mac,
}

impl Default for Link {
    /// What is meant where a description says nothing: locally administered addresses that nobody has.
    fn default() -> Self {
        let end = |last| Mac([0x02, 0x6c, 0x62, 0, 0, last]);
        Self { source: end(0xc1), destination: end(0x01) }
    }
}

/// The frame that a line describes, between the ends of [`Link::default`] unless it names others.
pub fn parse(line: &str) -> Result<Vec<u8>, ParseError> {
    parse_on(line, &Link::default())
}

/// The frame that a line describes, on this link unless it names another.
pub fn parse_on(line: &str, link: &Link) -> Result<Vec<u8>, ParseError> {
    let mut words = Words::new(line)?;
    Frame::read(&mut words)?.bytes(&words, link)
}
