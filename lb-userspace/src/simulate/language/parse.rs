//! From words to a frame.

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, Ethernet2Header, SingleVlanHeader, VlanId};

use super::Link;
use super::build::{self, Header, Segment, TTL};
use super::icmp::Message;
use super::neighbour::Neighbour;
use super::options::{ABOUT, CARRYING, MAX_BYTES, Options, Place};
use super::payload::{Form, MAX_CID, Quic, pattern};
use super::words::{ParseError, Word, Words};

/// Packets within packets.
const MAX_DEPTH: u8 = 8;
/// What an IPv4 error quotes behind the IP header (RFC 792), in bytes.
pub(super) const QUOTE_V4: usize = 8;
/// What an IPv6 error quotes: as much as fits the smallest MTU (RFC 4443 section 2.4).
pub(super) const QUOTE_V6: usize = 1280 - 40 - 8;
/// IPv4's and IPv6's place in an Ethernet frame or behind GRE.
pub(super) const ETHER_IPV4: u16 = 0x0800;
pub(super) const ETHER_IPV6: u16 = 0x86dd;
const HEADS: &str = "tcp, udp, quic, sctp, icmp, ip, ipip, gre, gue, arp, ndp, ether, raw, mac, vlan";

/// A frame of which only the link may be missing.
pub(super) struct Frame {
    link: Option<Link>,
    vlans: Vec<u16>,
    body: Body,
}

enum Body {
    Packet(Vec<u8>),
    Neighbour(Neighbour),
    Ether { ether_type: u16, payload: Vec<u8> },
    Raw(Vec<u8>),
}

impl Frame {
    pub(super) fn read(words: &mut Words<'_>) -> Result<Self, ParseError> {
        let mut options = Options::default();
        options.read_link(words)?;
        let head = words.want(HEADS)?;
        let body = match head.text {
            "arp" | "ndp" => Body::Neighbour(Neighbour::read(words, head)?),
            "raw" => Body::Raw(words.hex(MAX_BYTES as usize)?),
            "ether" => Body::Ether { ether_type: words.short()?, payload: plain(words)? },
            _ => Body::Packet(packet(words, head, &mut options, 0)?),
        };
        options.read_link(words)?;
        if let Some(word) = words.peek() {
            return Err(words.refuse(word, "mac, vlan or the end"));
        }
        Ok(Self { link: options.link, vlans: options.vlans, body })
    }

    /// The frame, on `default` where the line names no link.
    pub(super) fn bytes(self, words: &Words<'_>, default: &Link) -> Result<Vec<u8>, ParseError> {
        let (ether_type, payload, link) = match self.body {
            Body::Raw(bytes) => return Ok(bytes),
            Body::Ether { ether_type, payload } => (ether_type, payload, self.link.unwrap_or(*default)),
            Body::Packet(bytes) => (ether_type(&bytes), bytes, self.link.unwrap_or(*default)),
            Body::Neighbour(neighbour) => {
                let link = self.link.unwrap_or_else(|| neighbour.link(default));
                let too_long = || words.missing("the packet would be too long", "less");
                let (ether_type, payload) = neighbour.bytes(&link).ok_or_else(too_long)?;
                (ether_type, payload, link)
            }
        };
        Ok(framed(&link, &self.vlans, ether_type, &payload))
    }
}

/// Header, tags, payload.
fn framed(link: &Link, vlans: &[u16], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let id = |vlan: u16| VlanId::try_new(vlan & 0xfff).unwrap_or_default();
    let tag = |vlan: u16, ether_type: u16| SingleVlanHeader {
        vlan_id: id(vlan),
        ether_type: EtherType(ether_type),
        ..SingleVlanHeader::default()
    };
    let (first, tags) = match vlans {
        [] => (EtherType(ether_type), Vec::new()),
        [only] => (EtherType::VLAN_TAGGED_FRAME, tag(*only, ether_type).to_bytes().to_vec()),
        [outer, inner, ..] => {
            let outer = tag(*outer, EtherType::VLAN_TAGGED_FRAME.0);
            let tags = [outer.to_bytes(), tag(*inner, ether_type).to_bytes()].concat();
            (EtherType::PROVIDER_BRIDGING, tags)
        }
    };
    let header =
        Ethernet2Header { source: link.source.0, destination: link.destination.0, ether_type: first };
    [header.to_bytes().as_slice(), &tags, payload].concat()
}

/// EtherType of an IP packet.
pub(super) fn ether_type(packet: &[u8]) -> u16 {
    if packet.first().is_some_and(|byte| byte >> 4 == 6) { ETHER_IPV6 } else { ETHER_IPV4 }
}

fn plain(words: &mut Words<'_>) -> Result<Vec<u8>, ParseError> {
    if words.accept("data") {
        return words.hex(MAX_BYTES as usize);
    }
    if words.accept("len") { Ok(pattern(words.number(MAX_BYTES)? as usize)) } else { Ok(Vec::new()) }
}

/// What an IP header says, with the usual values.
pub(super) fn header(source: IpAddr, destination: IpAddr, options: &Options) -> Header {
    Header {
        source,
        destination,
        ttl: options.ttl.unwrap_or(TTL),
        tos: options.tos,
        df: options.df,
        id: options.id,
        label: options.label,
        options: options.options,
        extensions: options.extensions.clone(),
        fragment: options.fragment,
    }
}

/// One end of a packet.
struct End<'a> {
    address: IpAddr,
    port: Option<u16>,
    word: Word<'a>,
}

fn end<'a>(words: &mut Words<'a>) -> Result<End<'a>, ParseError> {
    let what = "an address such as 198.51.100.7:4000 or [2001:db8::7]:4000";
    let word = words.want(what)?;
    if let Ok(socket) = word.text.parse::<SocketAddr>() {
        return Ok(End { address: socket.ip(), port: Some(socket.port()), word });
    }
    let bare = word.text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(word.text);
    let address = bare.parse().map_err(|_| words.refuse(word, what))?;
    Ok(End { address, port: None, word })
}

fn ends<'a>(words: &mut Words<'a>) -> Result<(End<'a>, End<'a>), ParseError> {
    let from = end(words)?;
    words.expect(">")?;
    let to = end(words)?;
    if from.address.is_ipv4() != to.address.is_ipv4() {
        let message = "both ends must be of the same family".to_owned();
        return Err(words.object(to.word, message, format!("the other end is {}", from.address)));
    }
    Ok((from, to))
}

fn ports(words: &Words<'_>, from: &End<'_>, to: &End<'_>) -> Result<(u16, u16), ParseError> {
    let port = |end: &End<'_>| {
        let help = "write it as 198.51.100.7:4000 or [2001:db8::7]:4000".to_owned();
        end.port.ok_or_else(|| words.object(end.word, "a port is missing".to_owned(), help))
    };
    Ok((port(from)?, port(to)?))
}

/// An IP packet whose first word was `head`.
fn packet(
    words: &mut Words<'_>,
    head: Word<'_>,
    options: &mut Options,
    depth: u8,
) -> Result<Vec<u8>, ParseError> {
    if depth == MAX_DEPTH {
        let message = "too many packets within packets".to_owned();
        return Err(words.object(head, message, format!("at most {MAX_DEPTH}")));
    }
    if !matches!(head.text, "tcp" | "udp" | "quic" | "sctp" | "icmp" | "ip" | "ipip" | "gre" | "gue") {
        return Err(words.refuse(head, HEADS));
    }
    let (from, to) = ends(words)?;
    let v6 = from.address.is_ipv6();
    let mut place = Place {
        v6,
        tcp: head.text == "tcp",
        udp: matches!(head.text, "udp" | "quic" | "gue"),
        error: false,
        tunnel: matches!(head.text, "ipip" | "gre" | "gue"),
        outermost: depth == 0,
    };
    let kind = Kind::read(words, head, v6)?;
    place.error = matches!(kind, Kind::Icmp(message) if message.is_error(v6));
    options.read(words, place)?;
    let later = options.fragment.is_some_and(|fragment| fragment.offset > 0);
    if later && !matches!(kind, Kind::Transport(_) | Kind::Plain(_)) {
        let message = "a later fragment has no headers of its own".to_owned();
        return Err(words.object(head, message, "allowed: tcp, udp, sctp, ip".to_owned()));
    }
    let (segment, payload) = match kind {
        Kind::Icmp(Message { kind, code, rest }) => {
            (Segment::Icmp { kind, code, rest }, quoted(words, options, v6, depth)?)
        }
        Kind::Quic(quic) => {
            let ports = ports(words, &from, &to)?;
            (Segment::Udp { ports, checksum: options.sum() }, quic.bytes(options.payload.take()))
        }
        Kind::Tunnel(tunnel) => tunnel.wrap(words, options, (&from, &to), depth)?,
        Kind::Plain(protocol) => (Segment::Plain { protocol }, options.payload.take().unwrap_or_default()),
        Kind::Transport(transport) if later => {
            (Segment::Plain { protocol: transport.number() }, options.payload.take().unwrap_or_default())
        }
        Kind::Transport(transport) => {
            let ports = ports(words, &from, &to)?;
            (transport.segment(ports, options), options.payload.take().unwrap_or_default())
        }
    };
    let built = build::packet(&header(from.address, to.address, options), &segment, &payload);
    let too_long = || {
        let message = "the packet would be longer than an IP packet can be".to_owned();
        words.object(head, message, format!("at most {MAX_BYTES} bytes with all headers"))
    };
    built.ok_or_else(too_long)
}

enum Kind {
    Transport(Transport),
    Quic(Quic),
    Icmp(Message),
    Tunnel(Tunnel),
    Plain(u8),
}

impl Kind {
    /// What the head and the words right behind the two ends say.
    fn read(words: &mut Words<'_>, head: Word<'_>, v6: bool) -> Result<Self, ParseError> {
        Ok(match head.text {
            "tcp" => Self::Transport(Transport::Tcp),
            "udp" => Self::Transport(Transport::Udp),
            "sctp" => Self::Transport(Transport::Sctp),
            "icmp" => Self::Icmp(Message::read(words, v6)?),
            "quic" => Self::Quic(quic(words)?),
            "ipip" => Self::Tunnel(Tunnel::Ipip),
            "gre" => Self::Tunnel(Tunnel::Gre),
            "gue" if words.accept("variant") => match words.number(1)? {
                0 => Self::Tunnel(Tunnel::GueHeader),
                _ => Self::Tunnel(Tunnel::GueDirect),
            },
            "gue" => Self::Tunnel(Tunnel::GueDirect),
            _ => {
                words.expect("proto")?;
                Self::Plain(words.byte()?)
            }
        })
    }
}

fn quic(words: &mut Words<'_>) -> Result<Quic, ParseError> {
    let allowed = "initial, 0rtt, handshake or short";
    let word = words.want(allowed)?;
    let form = Form::named(word.text).ok_or_else(|| words.refuse(word, allowed))?;
    words.expect("cid")?;
    let cid = words.hex(MAX_CID)?;
    let source_cid =
        if form != Form::Short && words.accept("scid") { words.hex(MAX_CID)? } else { Vec::new() };
    Ok(Quic { form, cid, source_cid })
}

#[derive(Clone, Copy)]
enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    fn segment(self, ports: (u16, u16), options: &Options) -> Segment {
        const ACK: u8 = 0x10;
        match self {
            Self::Tcp => Segment::Tcp { ports, flags: options.flags.unwrap_or(ACK), mss: options.mss },
            Self::Udp => Segment::Udp { ports, checksum: options.sum() },
            Self::Sctp => Segment::Sctp { ports },
        }
    }
}

#[derive(Clone, Copy)]
enum Tunnel {
    Ipip,
    Gre,
    GueHeader,
    GueDirect,
}

impl Tunnel {
    fn wrap(
        self,
        words: &mut Words<'_>,
        options: &Options,
        (from, to): (&End<'_>, &End<'_>),
        depth: u8,
    ) -> Result<(Segment, Vec<u8>), ParseError> {
        let ports = match self {
            Self::GueHeader | Self::GueDirect => ports(words, from, to)?,
            Self::Ipip | Self::Gre => (0, 0),
        };
        let udp = Segment::Udp { ports, checksum: options.sum() };
        words.expect(CARRYING)?;
        let head = words.want(HEADS)?;
        let inner = packet(words, head, &mut Options::default(), depth + 1)?;
        let protocol = if ether_type(&inner) == ETHER_IPV6 { 41 } else { 4 };
        Ok(match self {
            Self::Ipip => (Segment::Plain { protocol }, inner),
            Self::Gre => {
                let [high, low] = ether_type(&inner).to_be_bytes();
                (Segment::Plain { protocol: 47 }, [&[0, 0, high, low], inner.as_slice()].concat())
            }
            Self::GueHeader => (udp, [&[0, protocol, 0, 0], inner.as_slice()].concat()),
            Self::GueDirect => (udp, inner),
        })
    }
}

/// What an ICMP message has behind its first 8 bytes.
fn quoted(words: &mut Words<'_>, options: &mut Options, v6: bool, depth: u8) -> Result<Vec<u8>, ParseError> {
    if !words.accept(ABOUT) {
        return Ok(options.payload.take().unwrap_or_default());
    }
    let head = words.want(HEADS)?;
    let mut inner = packet(words, head, &mut Options::default(), depth + 1)?;
    let usual = if v6 { QUOTE_V6 } else { super::describe::header_bytes(&inner) + QUOTE_V4 };
    inner.truncate(options.quote.map_or(usual, usize::from));
    Ok(inner)
}
