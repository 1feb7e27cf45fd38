//! Questions for MAC addresses and their answers, in both families.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{ArpEthIpv4Packet, ArpOperation, ArpPacket, EtherType};

use super::build::{self, Header, Segment};
use super::options::Options;
use super::parse::{ETHER_IPV6, header};
use super::words::{ParseError, Word, Words};
use super::{Link, Mac};

/// Neighbour discovery's hop limit (RFC 4861 section 7.1).
const NDP_TTL: u8 = 255;

/// A question or an answer.
pub(super) struct Neighbour {
    family: Family,
    says: Says,
}

enum Family {
    Arp { about: Ipv4Addr, tell: Ipv4Addr },
    Ndp { about: Ipv6Addr, tell: Ipv6Addr },
}

/// What a neighbour says of an address.
#[derive(Clone, Copy)]
enum Says {
    WhoHas,
    IsAt(Mac),
}

impl Neighbour {
    /// Reads `who-has ADDRESS tell ADDRESS` or `ADDRESS is-at MAC tell ADDRESS`.
    pub(super) fn read(words: &mut Words<'_>, head: Word<'_>) -> Result<Self, ParseError> {
        let what = if head.text == "arp" { "an IPv4 address" } else { "an IPv6 address" };
        let asks = words.accept("who-has");
        let about = words.want(if asks { what } else { "who-has ADDRESS, or ADDRESS is-at MAC" })?;
        let says = if asks {
            Says::WhoHas
        } else {
            words.expect("is-at")?;
            Says::IsAt(words.value("a MAC address such as 02:00:00:00:00:01")?)
        };
        words.expect("tell")?;
        let tell = words.want(what)?;
        let family = if head.text == "arp" {
            let address = |word: Word<'_>| word.text.parse().map_err(|_| words.refuse(word, what));
            Family::Arp { about: address(about)?, tell: address(tell)? }
        } else {
            let address = |word: Word<'_>| word.text.parse().map_err(|_| words.refuse(word, what));
            Family::Ndp { about: address(about)?, tell: address(tell)? }
        };
        Ok(Self { family, says })
    }

    /// The ends that follow from what is said.
    pub(super) fn link(&self, default: &Link) -> Link {
        match (self.says, &self.family) {
            (Says::IsAt(mac), _) => Link { source: mac, destination: default.source },
            (Says::WhoHas, Family::Arp { .. }) => Link { destination: Mac([0xff; 6]), ..*default },
            (Says::WhoHas, Family::Ndp { about, .. }) => {
                let [.., a, b, c] = about.octets();
                Link { destination: Mac([0x33, 0x33, 0xff, a, b, c]), ..*default }
            }
        }
    }

    /// EtherType and payload.
    pub(super) fn bytes(&self, link: &Link) -> Option<(u16, Vec<u8>)> {
        match &self.family {
            Family::Arp { about, tell } => {
                let (operation, sender, target) = match self.says {
                    Says::WhoHas => (ArpOperation::REQUEST, (link.source, tell), (Mac([0; 6]), about)),
                    Says::IsAt(mac) => (ArpOperation::REPLY, (mac, about), (link.destination, tell)),
                };
                let packet = ArpEthIpv4Packet {
                    operation,
                    sender_mac: sender.0.0,
                    sender_ipv4: sender.1.octets(),
                    target_mac: target.0.0,
                    target_ipv4: target.1.octets(),
                };
                Some((EtherType::ARP.0, ArpPacket::from(packet).to_bytes().to_vec()))
            }
            Family::Ndp { about, tell } => Some((ETHER_IPV6, discovery(*about, *tell, self.says, link)?)),
        }
    }
}

/// A neighbour solicitation or its answer (RFC 4861 sections 4.3, 4.4).
fn discovery(about: Ipv6Addr, tell: Ipv6Addr, says: Says, link: &Link) -> Option<Vec<u8>> {
    let (kind, flags, option, mac, ends) = match says {
        Says::WhoHas => {
            let [.., a, b, c] = about.octets();
            let group =
                Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
            (135, 0, 1, link.source, (tell, group))
        }
        Says::IsAt(mac) => (136, 0x60, 2, mac, (about, tell)),
    };
    let header = Header { ttl: NDP_TTL, ..header(ends.0.into(), ends.1.into(), &Options::default()) };
    let payload = [about.octets().as_slice(), &[option, 1], &mac.0].concat();
    build::packet(&header, &Segment::Icmp { kind, code: 0, rest: [flags, 0, 0, 0] }, &payload)
}
