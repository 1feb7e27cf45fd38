//! ICMP for service addresses: echo requests are answered, errors go to the backend whose flow they are about.

use super::admission::take;
use super::lookup::{service, vip_flags};
use super::parse::{Ip, Kind, Packet, Ports, State};
use super::process::{refused, settle};
use super::serve::find;
use super::work::Sending;
use super::{Frame, Tables, Work};
use crate::abi::{BucketKey, BucketKind, Control, Protocol, Rate, Reason, VerdictKind, VipEntry, mapped};
use crate::wire::{checksum, ethernet, icmp, ipv4, ipv6};

/// TTL and hop limit of what is answered.
pub(super) const TTL: u8 = 64;

/// Echo replies of one service address: 1,000 a second, of which 100 may come at once.
const ECHO_RATE: Rate = Rate { interval_ns: 1_000_000, tolerance_ns: 99_000_000 };

/// Bytes of an inner packet's transport header that an error has at least (RFC 792): the ports.
const PORTS_LEN: usize = 4;

/// Turns an echo request to a service address into its reply, in place.
#[inline(never)]
pub(super) fn echo<F: Frame, T: Tables>(frame: &mut F, tables: &T, control: &Control, work: &Work) -> Reason {
    let ip = &work.packet.ip;
    if vip_flags(tables, control, &ip.destination) & VipEntry::ECHO == 0 {
        return Reason::OtherProtocol;
    }
    let key = BucketKey { kind: BucketKind::Echo as u32, address: ip.destination, ..BucketKey::default() };
    if !take(tables, &key, ECHO_RATE, tables.now_ns()) {
        return Reason::EchoLimited;
    }
    reply(frame, work).unwrap_or(Reason::NotIp)
}

#[inline(always)]
fn reply<F: Frame>(frame: &mut F, work: &Work) -> Option<Reason> {
    let ip = &work.packet.ip;
    let head = icmp::Head::parse(frame.read(ip.payload)?);
    let kind = if ip.is_v6 { icmp::V6_ECHO_REPLY } else { icmp::ECHO_REPLY };
    let words = |kind: u8| u32::from(u16::from_be_bytes([kind, head.code]));
    let check = checksum::update(head.checksum, words(head.kind), words(kind));
    frame.write(ip.payload, icmp::Head { kind, checksum: check, ..head }.emit())?;
    if ip.is_v6 {
        let header = ipv6::Header::parse(frame.read(ip.start)?);
        let fixed = ipv6::Fixed { hop_limit: TTL, ..header.fixed };
        let answer = ipv6::Header { fixed, source: header.destination, destination: header.source };
        frame.write(ip.start, answer.emit())?;
    } else {
        // Addresses that change places leave the sum as it is.
        let [ttl, protocol, c0, c1, s0, s1, s2, s3, d0, d1, d2, d3] = frame.read(ip.start + 8)?;
        let words = |ttl: u8| u32::from(u16::from_be_bytes([ttl, protocol]));
        let check = checksum::update(u16::from_be_bytes([c0, c1]), words(ttl), words(TTL));
        let [c0, c1] = check.to_be_bytes();
        frame.write(ip.start + 8, [TTL, protocol, c0, c1, d0, d1, d2, d3, s0, s1, s2, s3])?;
    }
    back(frame, work)?;
    Some(Reason::EchoAnswered)
}

/// Addresses a frame to the station that it came from.
#[inline(always)]
pub(super) fn back<F: Frame>(frame: &mut F, work: &Work) -> Option<()> {
    frame.write(0, ethernet::addresses(work.link.source, work.own))
}

/// Sends an error to the backend that owns the flow of the packet that the error quotes, so that path MTU discovery
/// works through the balancer. The quoted packet is the backend's own: service address and port are its source.
#[inline(never)]
pub(super) fn error<F: Frame, T: Tables>(
    frame: &F,
    tables: &T,
    control: &Control,
    work: &mut Work,
) -> Option<VerdictKind> {
    let quote = quoted(frame, &work.packet.ip, &mut work.quoted);
    let work = work.written();
    let inner = &work.quoted;
    // Who asks about one address is not told about another.
    let ours = quote.is_some() && inner.ip.destination == work.packet.ip.destination;
    let Some(service) = (if ours { service(tables, control, inner) } else { None }) else {
        return Some(settle(tables, Reason::IcmpElsewhere));
    };
    let Some((backend, hash)) = find(tables, control, inner, service) else {
        return Some(refused(tables, service.id, Reason::NoBackend));
    };
    work.order.hash = hash;
    work.order.service = service.id;
    work.order.backend = backend;
    work.order.sending = Sending::Error;
    None
}

/// Reads the quoted packet into `to`, as its flow's other direction: from the client to the service.
#[inline(always)]
fn quoted<F: Frame>(frame: &F, ip: &Ip, to: &mut Packet) -> Option<()> {
    let start = ip.payload + icmp::LEN;
    if ip.is_v6 {
        quoted_v6(frame, start, to)?
    } else {
        quoted_v4(frame, start, to)?
    };
    let protocol = Protocol::from_number(to.ip.protocol)?;
    let quoted_len = (to.ip.payload + PORTS_LEN).wrapping_sub(ip.start);
    if quoted_len > ip.total_len as usize {
        return None;
    }
    let [s0, s1, d0, d1] = frame.read(to.ip.payload)?;
    to.ip.state = State::Whole;
    to.ip.is_v6 = ip.is_v6;
    to.ports = Ports { source: [d0, d1], destination: [s0, s1], protocol, kind: Kind::Later };
    Some(())
}

#[inline(always)]
fn quoted_v4<F: Frame>(frame: &F, start: usize, to: &mut Packet) -> Option<()> {
    let header = ipv4::Header::parse(frame.read(start)?);
    if header.version != 4 || (header.header_len as usize) < ipv4::LEN || header.is_later_fragment() {
        return None;
    }
    to.ip.source = mapped(header.destination);
    to.ip.destination = mapped(header.source);
    to.ip.protocol = header.protocol;
    to.ip.payload = start + header.header_len as usize;
    Some(())
}

#[inline(always)]
fn quoted_v6<F: Frame>(frame: &F, start: usize, to: &mut Packet) -> Option<()> {
    to.ip.source = frame.read(start + 24)?;
    to.ip.destination = frame.read(start + 8)?;
    let fixed = ipv6::Fixed::parse(frame.read(start)?);
    if fixed.version != 6 {
        return None;
    }
    to.ip.protocol = fixed.next_header;
    to.ip.payload = start + ipv6::LEN;
    if fixed.next_header == ipv6::FRAGMENT {
        let fragment = ipv6::Fragment::parse(frame.read(to.ip.payload)?);
        if fragment.offset != 0 {
            return None;
        }
        to.ip.protocol = fragment.next_header;
        to.ip.payload += ipv6::FRAGMENT_LEN;
    }
    Some(())
}
