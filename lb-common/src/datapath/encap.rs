//! What goes in front of a packet: VLAN tags and outer headers.

use super::Frame;
use super::parse::{Ip, State};
use crate::abi::{BackendEntry, Method, Protocol, Reason, Tag, from_words, low_half, words};
use crate::wire::{checksum, ethernet, ipv4, ipv6, shim};

/// First of the ports from which UDP encapsulations come (RFC 8085 section 5.1.1 wants them to vary with the flow):
/// the upper quarter, which services seldom use.
const ENTROPY_PORTS: u16 = 0xc000;

/// Length of the link header with two tags.
const DOUBLY_TAGGED: usize = ethernet::LEN + 2 * ethernet::TAG_LEN;

/// Makes room for `more` bytes between link header and packet, with the tags that the way out wants; where the link
/// header ends. MAC addresses are left undefined, and the EtherType is the packet's own.
#[inline(always)]
pub(super) fn link<F: Frame>(frame: &mut F, ip: &Ip, tag: Tag, more: usize) -> Result<usize, Reason> {
    let ether_type = if ip.is_v6 { ethernet::IPV6 } else { ethernet::IPV4 };
    match tag {
        Tag::Kept if ip.start == ethernet::LEN => {
            grow(frame, more as i32)?;
            Ok(ethernet::LEN)
        }
        Tag::Kept => {
            // Two tags, or one and the beginning of the packet that is then written over.
            let tags: [u8; 8] = frame.read(ethernet::LEN - 2).ok_or(Reason::Malformed)?;
            grow(frame, more as i32)?;
            // Where it ends is said in constants: Linux 6.1 forgets the bounds of a number that it once had on the
            // stack.
            if ip.start == DOUBLY_TAGGED {
                frame.write(ethernet::LEN - 2, tags).ok_or(Reason::Malformed)?;
                Ok(DOUBLY_TAGGED)
            } else {
                let [a, b, c, d, ..] = tags;
                frame.write(ethernet::LEN - 2, [a, b, c, d]).ok_or(Reason::Malformed)?;
                Ok(ethernet::LEN + ethernet::TAG_LEN)
            }
        }
        Tag::Vlan(id) => {
            let end = ethernet::LEN + ethernet::TAG_LEN;
            grow(frame, end as i32 + more as i32 - ip.start as i32)?;
            let [t0, t1] = ethernet::VLAN.to_be_bytes();
            let [v0, v1] = id.to_be_bytes();
            let [e0, e1] = ether_type.to_be_bytes();
            frame.write(ethernet::LEN - 2, [t0, t1, v0, v1, e0, e1]).ok_or(Reason::Malformed)?;
            Ok(end)
        }
    }
}

#[inline(always)]
fn grow<F: Frame>(frame: &mut F, by: i32) -> Result<(), Reason> {
    if by == 0 { Ok(()) } else { frame.grow_front(by).ok_or(Reason::NoHeadroom) }
}

/// Puts a packet that fits into an outer one from the backend's entry: IP in IP, GRE or GUE, of either family. ECN is
/// the inner packet's (RFC 6040 section 4.1, normal mode), DSCP its own or the configured one.
#[inline(always)]
pub(super) fn encapsulate<F: Frame>(
    frame: &mut F,
    ip: &Ip,
    backend: &BackendEntry,
    method: Method,
    hash: u64,
) -> Result<(), Reason> {
    let outer_v6 = backend.flags & BackendEntry::OUTER_V6 != 0;
    let overhead = method.overhead(outer_v6);
    let total_len = ip.total_len + overhead;
    if total_len > u32::from(u16::MAX) {
        return Err(Reason::TooBig);
    }
    // Read before the frame grows: a sum needs the inner checksum field.
    let udp_checksum = if outer_v6 && is_gue(method) { inner_sum(frame, ip) } else { None };
    let end = link(frame, ip, backend.tag(), overhead as usize)?;
    let tos = match backend.dscp {
        BackendEntry::COPY_DSCP => ip.tos,
        dscp => dscp & 0xfc | ip.tos & 3,
    };
    let entropy = (hash as u32) & ((1u32 << (backend.source_bits & 31)) - 1);
    let protocol = match method {
        Method::L2 | Method::Ipip => inner_protocol(ip),
        Method::Gre => shim::GRE,
        Method::GueDirect | Method::GueHeader => Protocol::Udp.number(),
    };
    let outer = Outer { backend, protocol, tos, total_len: total_len as u16, hash, entropy };
    let behind = match outer_v6 {
        true => outer_header_v6(frame, end, &outer),
        false => outer_header_v4(frame, end, &outer),
    };
    let behind = behind.ok_or(Reason::Malformed)?;
    match method {
        Method::L2 | Method::Ipip => Ok(()),
        Method::Gre => {
            let ether_type = if ip.is_v6 { ethernet::IPV6 } else { ethernet::IPV4 };
            frame.write(behind, shim::gre(ether_type)).ok_or(Reason::Malformed)
        }
        Method::GueDirect | Method::GueHeader => {
            let head =
                Udp { method, backend, entropy, source: ENTROPY_PORTS | hash as u16, len: ip.total_len };
            udp(frame, behind, ip, &head, udp_checksum)
        }
    }
}

/// What an outer IP header is made of.
struct Outer<'a> {
    backend: &'a BackendEntry,
    protocol: u8,
    tos: u8,
    total_len: u16,
    hash: u64,
    /// Hashed bits of the source address.
    entropy: u32,
}

/// Writes the EtherType and the header at `end`; where the header ends.
#[inline(always)]
fn outer_header_v6<F: Frame>(frame: &mut F, end: usize, outer: &Outer<'_>) -> Option<usize> {
    let fixed = ipv6::Fixed {
        version: 6,
        traffic_class: outer.tos,
        flow_label: outer.hash as u32 & 0xf_ffff,
        payload_len: outer.total_len - ipv6::LEN as u16,
        next_header: outer.protocol,
        hop_limit: outer.backend.ttl,
    };
    let [high, low] = words(outer.backend.outer_source);
    frame.write(end - 2, ethernet::IPV6.to_be_bytes())?;
    frame.write(end, fixed.emit())?;
    frame.write(end + 8, from_words([high, low | u64::from(outer.entropy)]))?;
    frame.write(end + 24, outer.backend.address)?;
    Some(end + ipv6::LEN)
}

/// As [`outer_header_v6`].
#[inline(always)]
fn outer_header_v4<F: Frame>(frame: &mut F, end: usize, outer: &Outer<'_>) -> Option<usize> {
    let (source, destination) = (low_half(outer.backend.outer_source), low_half(outer.backend.address));
    let template =
        ipv4::OuterTemplate { ttl: outer.backend.ttl, protocol: outer.protocol, source, destination };
    let header = template.complete(outer.tos, outer.total_len, outer.entropy, outer.backend.checksum);
    frame.write(end - 2, ethernet::IPV4.to_be_bytes())?;
    frame.write(end, header)?;
    Some(end + ipv4::LEN)
}

struct Udp<'a> {
    method: Method,
    backend: &'a BackendEntry,
    /// Hashed bits of the outer source address.
    entropy: u32,
    source: u16,
    /// Length of the inner packet.
    len: u32,
}

/// Writes the UDP header of GUE and, in variant 0, GUE's own. The checksum is zero over IPv4, and over IPv6 where the
/// inner packet's sum is not known (RFC 6935 allows that for tunnels).
#[inline(always)]
fn udp<F: Frame>(
    frame: &mut F,
    at: usize,
    ip: &Ip,
    head: &Udp<'_>,
    inner: Option<u32>,
) -> Result<(), Reason> {
    let gue = shim::gue(inner_protocol(ip));
    let shim_len =
        if head.method == Method::GueHeader { shim::UDP_LEN + shim::GUE_LEN } else { shim::UDP_LEN };
    let len = (head.len + shim_len as u32) as u16;
    let check = match inner {
        None => 0,
        Some(inner) => {
            let [g0, g1, g2, g3] = gue;
            let gue = match head.method {
                Method::GueHeader => checksum::halves(u32::from_be_bytes([g0, g1, g2, g3])),
                _ => 0,
            };
            let ports = u32::from(head.source) + u32::from(u16::from_be_bytes(head.backend.encap_port));
            let pseudo = u32::from(head.backend.checksum)
                + checksum::halves(head.entropy)
                + u32::from(len)
                + u32::from(Protocol::Udp.number());
            // Zero would say that there is none.
            match checksum::finish(inner + gue + ports + u32::from(len) + pseudo) {
                0 => u16::MAX,
                check => check,
            }
        }
    };
    let header = shim::udp(head.source, head.backend.encap_port, len, check);
    frame.write(at, header).ok_or(Reason::Malformed)?;
    match head.method {
        Method::GueHeader => frame.write(at + shim::UDP_LEN, gue).ok_or(Reason::Malformed),
        _ => Ok(()),
    }
}

#[inline(always)]
fn is_gue(method: Method) -> bool {
    matches!(method, Method::GueDirect | Method::GueHeader)
}

#[inline(always)]
fn inner_protocol(ip: &Ip) -> u8 {
    if ip.is_v6 { ipv6::IPV6 } else { ipv4::IPIP }
}

/// Sum of all words of a packet, without reading its data: a header of IPv4 and a segment with its pseudo-header both
/// sum to zero by their own checksums ("local checksum offload", Documentation/networking/checksum-offloads.rst).
/// `None` where there is no such checksum over the whole packet.
#[inline(always)]
fn inner_sum<F: Frame>(frame: &F, ip: &Ip) -> Option<u32> {
    let has_checksum = match Protocol::from_number(ip.protocol) {
        Some(Protocol::Tcp) => true,
        Some(Protocol::Udp) => {
            let [l0, l1, c0, c1] = frame.read(ip.payload + 4)?;
            // What may lie behind the datagram (RFC 9868) is under no checksum.
            [c0, c1] != [0, 0] && u32::from(u16::from_be_bytes([l0, l1])) == ip.payload_len()
        }
        Some(Protocol::Sctp) | None => false,
    };
    if !has_checksum || ip.state != State::Whole {
        return None;
    }
    let addresses = checksum::address(ip.source) + checksum::address(ip.destination);
    let pseudo = addresses + u32::from(ip.protocol) + ip.payload_len();
    let segment = u32::from(!checksum::fold(pseudo));
    if !ip.is_v6 {
        return Some(segment);
    }
    // Extension headers are under no checksum.
    if !ip.is_plain() {
        return None;
    }
    let [w0, w1, w2, w3, l0, l1, next, hops] = frame.read(ip.start)?;
    let fixed = checksum::halves(u32::from_be_bytes([w0, w1, w2, w3]))
        + checksum::halves(u32::from_be_bytes([l0, l1, next, hops]));
    Some(segment + fixed + addresses)
}
