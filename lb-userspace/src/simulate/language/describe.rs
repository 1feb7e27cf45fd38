//! From a frame to a line. What the language has no words for is left out; nothing is refused.

use std::net::IpAddr;

use etherparse::{
    ArpOperation, ArpPacket, EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FragmentHeader,
    Ipv6Header, Ipv6RawExtHeader, SingleVlanHeader, TcpHeader, TcpOptionElement, UdpHeader,
};

use super::build::{EXTENSION_BYTES, Extension, Fragment, SCTP_BYTES, TTL};
use super::icmp::Message;
use super::options::{FLAGS, NO_FLAGS};
use super::parse::{ETHER_IPV4, ETHER_IPV6, QUOTE_V4, QUOTE_V6, ether_type};
use super::payload::{self, Form, Quic, hex};
use super::{Link, Mac, parse_on};

/// Packets within packets that are looked at.
const MAX_DEPTH: u8 = 7;
/// Bytes shown of what cannot be read.
const RAW_BYTES: usize = 64;

/// What a frame is, in one line.
pub fn describe(frame: &[u8]) -> String {
    describe_on(frame, &Link::default())
}

/// What a frame is, in one line, without the link where that is this one.
pub fn describe_on(frame: &[u8], link: &Link) -> String {
    let known = framed(frame, link);
    known.unwrap_or_else(|| match frame.get(..RAW_BYTES) {
        Some(start) if frame.len() > RAW_BYTES => format!("raw {}… ({} bytes)", hex(start), frame.len()),
        _ if frame.is_empty() => "raw 0x".to_owned(),
        _ => format!("raw {}", hex(frame)),
    })
}

fn framed(frame: &[u8], default: &Link) -> Option<String> {
    let (header, mut rest) = Ethernet2Header::from_slice(frame).ok()?;
    let link = Link { source: Mac(header.source), destination: Mac(header.destination) };
    let (mut kind, mut tags, mut count) = (header.ether_type, String::new(), 0);
    while count < 2 && matches!(kind, EtherType::VLAN_TAGGED_FRAME | EtherType::PROVIDER_BRIDGING) {
        let (tag, behind) = SingleVlanHeader::from_slice(rest).ok()?;
        tags += &format!("vlan {} ", tag.vlan_id.value());
        (kind, rest, count) = (tag.ether_type, behind, count + 1);
    }
    let tagged = |body: &str, named: Option<&Link>| match named {
        Some(link) => format!("mac {} > {} {tags}{body}", link.source, link.destination),
        None => format!("{tags}{body}"),
    };
    if let Some(body) = neighbour(kind, rest) {
        // Their ends follow from what they say, mostly.
        let bare = tagged(&body, None);
        let same = |line: &str| parse_on(line, default).is_ok_and(|bytes| frame.starts_with(&bytes));
        let named = tagged(&body, Some(&link));
        if same(&bare) {
            return Some(bare);
        }
        if kind == EtherType::ARP || same(&named) {
            return Some(named);
        }
    }
    let body = match kind.0 {
        ETHER_IPV4 | ETHER_IPV6 => packet(rest, 0).filter(|_| ether_type(rest) == kind.0),
        _ => None,
    };
    let body = body.unwrap_or_else(|| format!("ether {:#06x}{}", kind.0, payload::words(rest)));
    Some(tagged(&body, (link != *default).then_some(&link)))
}

/// Address resolution of either family.
fn neighbour(kind: EtherType, bytes: &[u8]) -> Option<String> {
    if kind == EtherType::ARP {
        let arp = ArpPacket::from_slice(bytes).ok()?.try_eth_ipv4().ok()?;
        let (sender, target) = (arp.sender_ipv4_addr(), arp.target_ipv4_addr());
        return match arp.operation {
            ArpOperation::REQUEST => Some(format!("arp who-has {target} tell {sender}")),
            ArpOperation::REPLY => Some(format!("arp {sender} is-at {} tell {target}", Mac(arp.sender_mac))),
            _ => None,
        };
    }
    let (ip, message) = Ipv6Header::from_slice(bytes).ok().filter(|_| kind == EtherType::IPV6)?;
    let (kind, about) = (message.first()?, message.get(8..24)?.first_chunk::<16>()?);
    if ip.next_header != IpNumber::IPV6_ICMP {
        return None;
    }
    let about = std::net::Ipv6Addr::from(*about);
    let mac = message.get(26..32).and_then(|mac| mac.first_chunk()).copied().map(Mac);
    match (kind, mac) {
        (135, _) => Some(format!("ndp who-has {about} tell {}", ip.source_addr())),
        (136, Some(mac)) => Some(format!("ndp {about} is-at {mac} tell {}", ip.destination_addr())),
        _ => None,
    }
}

/// An IP header, read.
struct Seen<'a> {
    source: IpAddr,
    destination: IpAddr,
    /// The options that say what it says.
    words: String,
    protocol: u8,
    fragment: Option<Fragment>,
    /// What of the payload is there.
    payload: &'a [u8],
    /// How long it is by its header, in bytes.
    claimed: usize,
}

/// Length of an IP header without extension headers, in bytes.
pub(super) fn header_bytes(packet: &[u8]) -> usize {
    let first = packet.first().copied().unwrap_or(0);
    if first >> 4 == 6 { Ipv6Header::LEN } else { usize::from(first & 15) * 4 }
}

fn seen(packet: &[u8]) -> Option<Seen<'_>> {
    if ether_type(packet) == ETHER_IPV6 { seen_v6(packet) } else { seen_v4(packet) }
}

fn common(ttl: u8, tos: u8) -> String {
    let ttl = if ttl == TTL { String::new() } else { format!(" ttl {ttl}") };
    if tos == 0 { ttl } else { format!("{ttl} tos {tos}") }
}

fn place(fragment: Option<Fragment>) -> String {
    fragment.map_or_else(String::new, |Fragment { id, offset, more }| {
        format!(" frag {id} {offset} {}", if more { "more" } else { "last" })
    })
}

fn seen_v4(packet: &[u8]) -> Option<Seen<'_>> {
    let (ip, rest) = Ipv4Header::from_slice(packet).ok()?;
    let claimed = usize::from(ip.total_len).checked_sub(ip.header_len())?;
    let (offset, more) = (ip.fragment_offset.byte_offset(), ip.more_fragments);
    let fragment = (offset > 0 || more).then_some(Fragment { id: ip.identification.into(), offset, more });
    let mut words = common(ip.time_to_live, ip.dscp.value() << 2 | ip.ecn.value());
    if ip.dont_fragment {
        words += " df";
    }
    if ip.identification != 0 && fragment.is_none() {
        words += &format!(" id {}", ip.identification);
    }
    if !ip.options.is_empty() {
        words += &format!(" options {}", ip.options.len());
    }
    words += &place(fragment);
    Some(Seen {
        source: IpAddr::from(ip.source),
        destination: IpAddr::from(ip.destination),
        words,
        protocol: ip.protocol.0,
        fragment,
        payload: rest.get(..claimed).unwrap_or(rest),
        claimed,
    })
}

fn seen_v6(packet: &[u8]) -> Option<Seen<'_>> {
    let (ip, rest) = Ipv6Header::from_slice(packet).ok()?;
    let mut claimed = usize::from(ip.payload_length);
    let mut payload = rest.get(..claimed).unwrap_or(rest);
    let mut words = common(ip.hop_limit, ip.traffic_class);
    if ip.flow_label.value() != 0 {
        words += &format!(" label {}", ip.flow_label.value());
    }
    let mut protocol = ip.next_header.0;
    while let Some(extension) = Extension::ALL.into_iter().find(|known| known.number() == protocol) {
        let Ok((header, behind)) = Ipv6RawExtHeader::from_slice(payload) else { break };
        claimed = claimed.saturating_sub(header.header_len().max(EXTENSION_BYTES));
        words += &format!(" ext {}", extension.name());
        (protocol, payload) = (header.next_header.0, behind);
    }
    let mut fragment = None;
    if protocol == IpNumber::IPV6_FRAGMENTATION_HEADER.0
        && let Ok((header, behind)) = Ipv6FragmentHeader::from_slice(payload)
    {
        claimed = claimed.saturating_sub(Ipv6FragmentHeader::LEN);
        (protocol, payload) = (header.next_header.0, behind);
        let (offset, more) = (header.fragment_offset.byte_offset(), header.more_fragments);
        fragment = Some(Fragment { id: header.identification, offset, more });
    }
    words += &place(fragment);
    let (source, destination) = (IpAddr::from(ip.source), IpAddr::from(ip.destination));
    Some(Seen { source, destination, words, protocol, fragment, payload, claimed })
}

/// An IP packet, which a quotation may have cut short.
fn packet(bytes: &[u8], depth: u8) -> Option<String> {
    if depth > MAX_DEPTH {
        return None;
    }
    let seen = seen(bytes)?;
    let later = seen.fragment.is_some_and(|fragment| fragment.offset > 0);
    let known = if later { seen.later() } else { seen.transport(depth) };
    Some(known.unwrap_or_else(|| {
        let Seen { source, destination, protocol, words, .. } = &seen;
        format!("ip {source} > {destination} proto {protocol}{words}{}", seen.rest(0))
    }))
}

impl Seen<'_> {
    /// The words for what follows `headers` bytes of the payload.
    fn rest(&self, headers: usize) -> String {
        if self.payload.len() < self.claimed {
            let len = self.claimed.saturating_sub(headers);
            return if len == 0 { String::new() } else { format!(" len {len}") };
        }
        payload::words(self.payload.get(headers..).unwrap_or_default())
    }

    /// Both ends with the ports that the payload starts with.
    fn ends(&self) -> Option<String> {
        let [a, b, c, d] = *self.payload.first_chunk::<4>()?;
        let end = |address, port| std::net::SocketAddr::new(address, u16::from_be_bytes(port));
        Some(format!("{} > {}", end(self.source, [a, b]), end(self.destination, [c, d])))
    }

    /// A fragment other than the first.
    fn later(&self) -> Option<String> {
        let name = match IpNumber(self.protocol) {
            IpNumber::TCP => "tcp",
            IpNumber::UDP => "udp",
            IpNumber::SCTP => "sctp",
            _ => return None,
        };
        Some(format!("{name} {} > {}{}{}", self.source, self.destination, self.words, self.rest(0)))
    }

    fn transport(&self, depth: u8) -> Option<String> {
        match (IpNumber(self.protocol), self.source.is_ipv6()) {
            (IpNumber::TCP, _) => self.tcp(),
            (IpNumber::UDP, _) => self.udp(depth),
            (IpNumber::SCTP, _) if self.payload.len() >= SCTP_BYTES || self.payload.len() < self.claimed => {
                Some(format!("sctp {}{}{}", self.ends()?, self.words, self.rest(SCTP_BYTES)))
            }
            (IpNumber::ICMP, false) | (IpNumber::IPV6_ICMP, true) => self.icmp(depth),
            (IpNumber::IPV4 | IpNumber::IPV6, _) => {
                self.carries("ipip", &format!("{} > {}", self.source, self.destination), self.payload, depth)
            }
            (IpNumber::GRE, _) => {
                let [0, 0, high, low] = *self.payload.first_chunk::<4>()? else { return None };
                let inner = self
                    .payload
                    .get(4..)
                    .filter(|inner| ether_type(inner) == u16::from_be_bytes([high, low]));
                self.carries("gre", &format!("{} > {}", self.source, self.destination), inner?, depth)
            }
            _ => None,
        }
    }

    fn carries(&self, head: &str, ends: &str, inner: &[u8], depth: u8) -> Option<String> {
        Some(format!("{head} {ends}{} carrying {}", self.words, packet(inner, depth + 1)?))
    }

    fn tcp(&self) -> Option<String> {
        let bytes = self.payload;
        let headers = bytes.get(12).map_or(TcpHeader::MIN_LEN, |byte| usize::from(byte >> 4) * 4);
        let quoted = bytes.len() < self.claimed;
        if headers < TcpHeader::MIN_LEN || (!quoted && bytes.len() < headers) {
            return None;
        }
        let mut flags = String::new();
        if let Some(set) = bytes.get(13) {
            let set: Vec<&str> =
                FLAGS.iter().filter(|(_, bit)| set & bit != 0).map(|(name, _)| *name).collect();
            flags = format!(" {}", if set.is_empty() { NO_FLAGS.to_owned() } else { set.join(" ") });
        }
        if let Ok((tcp, _)) = TcpHeader::from_slice(bytes) {
            let mss = tcp.options_iterator().find_map(|option| match option {
                Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
                _ => None,
            });
            flags += &mss.map_or_else(String::new, |mss| format!(" mss {mss}"));
        }
        Some(format!("tcp {}{flags}{}{}", self.ends()?, self.words, self.rest(headers)))
    }

    fn udp(&self, depth: u8) -> Option<String> {
        let (ends, payload) = (self.ends()?, self.payload.get(UdpHeader::LEN..)?);
        let no_sum = self.payload.get(6..8) == Some(&[0, 0]);
        let words = format!("{}{}", self.words, if no_sum { " nosum" } else { "" });
        let whole = |inner: &[u8]| {
            seen(inner).is_some_and(|seen| seen.payload.len() == seen.claimed) && inner.len() == total(inner)
        };
        let direct = Some(payload).filter(|inner| whole(inner));
        let header = match *payload {
            [0, protocol @ (4 | 41), 0, 0, ref inner @ ..]
                if whole(inner) && (protocol == 41) == (ether_type(inner) == ETHER_IPV6) =>
            {
                Some(inner)
            }
            _ => None,
        };
        let inner = |inner: &[u8]| packet(inner, depth + 1);
        if let Some(inner) = direct.and_then(inner) {
            return Some(format!("gue {ends}{words} carrying {inner}"));
        }
        if let Some(inner) = header.and_then(inner) {
            return Some(format!("gue {ends} variant 0{words} carrying {inner}"));
        }
        match Quic::recognise(payload) {
            Some((quic, rest)) if self.payload.len() == self.claimed => {
                let rest = if rest.is_empty() { " len 0".to_owned() } else { payload::words(rest) };
                Some(format!("quic {ends}{}{words}{rest}", quic_words(&quic)))
            }
            _ => Some(format!("udp {ends}{words}{}", self.rest(UdpHeader::LEN))),
        }
    }

    fn icmp(&self, depth: u8) -> Option<String> {
        let [kind, code, _, _, rest @ ..] = *self.payload.first_chunk::<8>()?;
        let v6 = self.source.is_ipv6();
        let (message, error) = Message { kind, code, rest }.words(v6);
        let ends = format!("icmp {} > {} {message}{}", self.source, self.destination, self.words);
        let quoted = self.payload.get(8..).unwrap_or_default();
        let Some(inner) = packet(quoted, depth + 1).filter(|_| error) else {
            return Some(format!("{ends}{}", self.rest(8)));
        };
        let usual = if v6 { QUOTE_V6 } else { header_bytes(quoted) + QUOTE_V4 };
        let quote = if quoted.len() == usual.min(total(quoted)) {
            String::new()
        } else {
            format!(" quote {}", quoted.len())
        };
        Some(format!("{ends}{quote} about {inner}"))
    }
}

fn quic_words(quic: &Quic) -> String {
    let cid = |cid: &[u8]| if cid.is_empty() { "0x".to_owned() } else { hex(cid) };
    let source = match quic.form {
        Form::Short => String::new(),
        _ if quic.source_cid.is_empty() => String::new(),
        _ => format!(" scid {}", cid(&quic.source_cid)),
    };
    format!(" {} cid {}{source}", quic.form.name(), cid(&quic.cid))
}

/// How long an IP packet says it is, in bytes.
pub(super) fn total(packet: &[u8]) -> usize {
    let length =
        |at| packet.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |two| u16::from_be_bytes(*two));
    if ether_type(packet) == ETHER_IPV6 { Ipv6Header::LEN + usize::from(length(4)) } else { length(2).into() }
}
