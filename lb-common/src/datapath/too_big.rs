//! "Fragmentation needed" (RFC 1191) and "packet too big" (RFC 4443) for what does not fit the way to its backend, so
//! that a tunnel costs nobody a setting.

use super::admission::take;
use super::icmp::{TTL, back};
use super::parse::Ip;
use super::{Frame, Tables, Work};
use crate::abi::{BucketKey, BucketKind, Rate, Reason, low_half};
use crate::wire::{checksum, icmp, ipv4, ipv6};

/// Messages to one source: ten a second, of which ten may come at once.
const RATE: Rate = Rate { interval_ns: 100_000_000, tolerance_ns: 900_000_000 };

/// Bytes quoted in ICMP: as many as a message of 576 bytes has room for (RFC 1812 section 4.3.2.3); of packets that are
/// shorter what RFC 792 asks for at least.
const QUOTE_V4: usize = 548;
const SHORT_QUOTE_V4: usize = 28;
/// Bytes quoted in ICMPv6: as many as fit the smallest MTU (RFC 4443 section 3.2), or an IPv6 header and the ports.
const QUOTE_V6: usize = 1232;
const SHORT_QUOTE_V6: usize = 48;

/// Turns a packet that is too big for the way to its backend into the message that tells its sender.
#[inline(never)]
pub(super) fn answer<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &Work) -> Result<(), Reason> {
    let ip = &work.packet.ip;
    let mtu = tables.backend(work.order.backend).ok_or(Reason::NoBackend)?.fits();
    let made = match ip.is_v6 {
        true if ip.total_len as usize >= QUOTE_V6 => v6::<_, QUOTE_V6>(frame, ip, mtu, long_v6),
        true => v6::<_, SHORT_QUOTE_V6>(frame, ip, mtu, |frame, at| frame.sum::<SHORT_QUOTE_V6>(at)),
        false if ip.total_len as usize >= QUOTE_V4 => v4::<_, QUOTE_V4>(frame, ip, mtu, long_v4),
        false => v4::<_, SHORT_QUOTE_V4>(frame, ip, mtu, |frame, at| frame.sum::<SHORT_QUOTE_V4>(at)),
    };
    made.and_then(|()| back(frame, work)).ok_or(Reason::TooBig)
}

/// Whether the sender is due a message.
#[inline(never)]
pub(super) fn is_due<T: Tables>(tables: &T, work: &Work) -> bool {
    let address = work.packet.ip.source;
    let key = BucketKey { kind: BucketKind::TooBig as u32, address, ..BucketKey::default() };
    take(tables, &key, RATE, tables.now_ns())
}

/// A sum helper takes 512 bytes at a time.
#[inline(always)]
fn long_v4<F: Frame>(frame: &F, at: usize) -> Option<u16> {
    let parts = u32::from(frame.sum::<512>(at)?) + u32::from(frame.sum::<{ QUOTE_V4 - 512 }>(at + 512)?);
    Some(checksum::fold(parts))
}

#[inline(always)]
fn long_v6<F: Frame>(frame: &F, at: usize) -> Option<u16> {
    let parts = u32::from(frame.sum::<512>(at)?)
        + u32::from(frame.sum::<512>(at + 512)?)
        + u32::from(frame.sum::<{ QUOTE_V6 - 1024 }>(at + 1024)?);
    Some(checksum::fold(parts))
}

#[inline(always)]
fn v4<F: Frame, const QUOTE: usize>(
    frame: &mut F,
    ip: &Ip,
    mtu: u32,
    sum: impl Fn(&F, usize) -> Option<u16>,
) -> Option<()> {
    let quote = sum(frame, ip.start)?;
    let [m0, m1] = (mtu.min(u32::from(u16::MAX)) as u16).to_be_bytes();
    let head = icmp::Head {
        kind: icmp::UNREACHABLE,
        code: icmp::FRAGMENTATION_NEEDED,
        checksum: 0,
        rest: [0, 0, m0, m1],
    };
    let head = with_checksum(head, u32::from(quote));
    let (source, destination) = (low_half(ip.destination), low_half(ip.source));
    let template = ipv4::OuterTemplate { ttl: TTL, protocol: icmp::PROTOCOL, source, destination };
    let total_len = (ipv4::LEN + icmp::LEN + QUOTE) as u16;
    let header = template.complete(0, total_len, 0, template.partial_checksum());
    let start = in_front(frame, ip, QUOTE, ipv4::LEN)?;
    frame.write(start, header)?;
    frame.write(start + ipv4::LEN, head.emit())
}

#[inline(always)]
fn v6<F: Frame, const QUOTE: usize>(
    frame: &mut F,
    ip: &Ip,
    mtu: u32,
    sum: impl Fn(&F, usize) -> Option<u16>,
) -> Option<()> {
    let quote = sum(frame, ip.start)?;
    let head = icmp::Head { kind: icmp::V6_TOO_BIG, code: 0, checksum: 0, rest: mtu.to_be_bytes() };
    let payload_len = (icmp::LEN + QUOTE) as u16;
    let pseudo = checksum::address(ip.source)
        + checksum::address(ip.destination)
        + u32::from(payload_len)
        + u32::from(ipv6::ICMP);
    let head = with_checksum(head, u32::from(quote) + pseudo);
    let fixed = ipv6::Fixed {
        version: 6,
        traffic_class: 0,
        flow_label: 0,
        payload_len,
        next_header: ipv6::ICMP,
        hop_limit: TTL,
    };
    let header = ipv6::Header { fixed, source: ip.destination, destination: ip.source };
    let start = in_front(frame, ip, QUOTE, ipv6::LEN)?;
    frame.write(start, header.emit())?;
    frame.write(start + ipv6::LEN, head.emit())
}

/// The head with its checksum over what else there is to sum.
#[inline(always)]
fn with_checksum(head: icmp::Head, rest: u32) -> icmp::Head {
    let [k, c, _, _, a, b, d, e] = head.emit();
    let own = checksum::halves(u32::from_be_bytes([k, c, 0, 0]))
        + checksum::halves(u32::from_be_bytes([a, b, d, e]));
    icmp::Head { checksum: checksum::finish(own + rest), ..head }
}

/// Cuts the packet to its quote and makes room in front of it, link header and tags moved along; where the new IP header
/// begins.
#[inline(always)]
fn in_front<F: Frame>(frame: &mut F, ip: &Ip, quote: usize, header: usize) -> Option<usize> {
    // Both tags, or what is then written over.
    let [a, b, c, d, e, f, g, h, i, j]: [u8; 10] = frame.read(12)?;
    frame.truncate(ip.start + quote)?;
    frame.grow_front((header + icmp::LEN) as i32)?;
    frame.write(12, [a, b, c, d, e, f, g, h, i, j])?;
    Some(ip.start)
}
