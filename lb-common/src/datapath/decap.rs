//! The backend's side: strips tunnel headers from packets that are certainly ours.
//!
//! Stateless: lists of sources and destinations are all that it knows.

mod ecn;
#[cfg(test)]
mod tests;

use super::Frame;
use super::parse::{Ip, State, read_ip, untag};
use crate::abi::{DecapReason, Protocol, VerdictKind};
use crate::wire::{
    checksum,
    ethernet::{self, Mac},
    ipv4, ipv6, shim,
};

/// What the decapsulator reads and counts. Addresses are in the 16-byte form.
pub trait DecapTables {
    /// MAC address of the interface it is attached to.
    fn own_mac(&self) -> Mac;
    /// UDP port that GUE comes to; 0 where none does.
    fn gue_port(&self) -> u16;
    /// Whether tunnels may come from this address.
    fn source_allowed(&self, address: [u8; 16]) -> bool;
    /// Whether packets for this address may come out of a tunnel.
    fn destination_allowed(&self, address: [u8; 16]) -> bool;
    /// Counts a packet.
    fn count(&self, reason: DecapReason);
}

/// Strips an outer header (IP in IP, GRE or GUE, of either family) if outer source and inner destination are both on
/// the lists: anything else would let the whole network inject packets behind the backend's filters. A decapsulated
/// packet passes like any other, under the link header and VLAN tags that the tunnel had.
#[inline(always)]
pub fn decapsulate<F: Frame, T: DecapTables>(frame: &mut F, tables: &T) -> VerdictKind {
    let reason = strip(frame, tables).unwrap_or_else(|refused| refused);
    tables.count(reason);
    reason.verdict()
}

#[inline(always)]
fn strip<F: Frame, T: DecapTables>(frame: &mut F, tables: &T) -> Result<DecapReason, DecapReason> {
    let Some(bytes) = frame.read(0) else {
        return Err(DecapReason::NotATunnel);
    };
    let link = ethernet::Header::parse(bytes);
    let (start, ether_type) = untag(frame, &link);
    let mut outer = Ip::NONE;
    read_ip(frame, start, ether_type, &mut outer);
    look_at_fragment_header(frame, &mut outer);
    if !is_tunnel(frame, &outer, tables.gue_port()) {
        return Err(DecapReason::NotATunnel);
    }
    if !ethernet::same(link.destination, tables.own_mac()) {
        return Err(DecapReason::OtherMac);
    }
    check_outer(frame, &outer)?;
    if !tables.source_allowed(outer.source) {
        return Err(DecapReason::ForeignSource);
    }
    let inside = inside(frame, &outer)?;
    let mut inner = Ip::NONE;
    read_ip(frame, inside.start, inside.ether_type, &mut inner);
    if !matches!(inner.state, State::Whole | State::First | State::Later) || inner.total_len > inside.room {
        return Err(DecapReason::Malformed);
    }
    if !tables.destination_allowed(inner.destination) {
        return Err(DecapReason::ForeignDestination);
    }
    let Some(ecn) = ecn::combined(inner.tos & ecn::BITS, outer.tos & ecn::BITS) else {
        return Err(DecapReason::Congested);
    };
    if ecn != inner.tos & ecn::BITS {
        ecn::mark(frame, &inner, ecn).ok_or(DecapReason::Malformed)?;
    }
    uncover(frame, &link, start, &inside).ok_or(DecapReason::Malformed)?;
    Ok(DecapReason::Decapsulated)
}

/// Looks behind an IPv6 fragment header, the only extension header that is: no balancer sends others.
#[inline(always)]
fn look_at_fragment_header<F: Frame>(frame: &F, outer: &mut Ip) {
    if !outer.is_v6 || outer.protocol != ipv6::FRAGMENT {
        return;
    }
    let Some(bytes) = frame.read(outer.payload) else {
        return;
    };
    let header = ipv6::Fragment::parse(bytes);
    outer.protocol = header.next_header;
    outer.payload += ipv6::FRAGMENT_LEN;
    if outer.state == State::Whole {
        outer.state = if header.offset == 0 { State::First } else { State::Later };
    }
}

/// Whether a packet claims to be a tunnel's. UDP is one by its port; what is a later fragment of, nobody can tell, and
/// the host needs its own: it gets nothing out of a tunnel's, whose first one is refused.
#[inline(always)]
fn is_tunnel<F: Frame>(frame: &F, outer: &Ip, gue_port: u16) -> bool {
    const UDP: u8 = Protocol::Udp.number();
    if matches!(outer.state, State::NotIp | State::Truncated) {
        return false;
    }
    match outer.protocol {
        ipv4::IPIP | ipv6::IPV6 | shim::GRE => true,
        UDP if gue_port != 0 && outer.state != State::Later => {
            let Some([_, _, d0, d1]) = frame.read(outer.payload) else {
                return false;
            };
            u16::from_be_bytes([d0, d1]) == gue_port
        }
        _ => false,
    }
}

/// Options, which no balancer sends, are refused: so the header's length is a constant. The checksum of IPv4 is
/// checked because nobody has done it before XDP, and a source that a bad bit has put on the list is none; it is ten
/// words that have been read anyway.
#[inline(always)]
fn check_outer<F: Frame>(frame: &F, outer: &Ip) -> Result<(), DecapReason> {
    match outer.state {
        State::Whole => {}
        State::First | State::Later => return Err(DecapReason::OuterFragment),
        _ => return Err(DecapReason::Malformed),
    }
    if outer.is_v6 {
        return Ok(());
    }
    if outer.payload.wrapping_sub(outer.start) != ipv4::LEN {
        return Err(DecapReason::Malformed);
    }
    let Some(words) = frame.read::<{ ipv4::LEN }>(outer.start) else {
        return Err(DecapReason::Malformed);
    };
    if checksum::fold(sum(words)) != u16::MAX { Err(DecapReason::OuterChecksum) } else { Ok(()) }
}

#[inline(always)]
fn sum(bytes: [u8; ipv4::LEN]) -> u32 {
    let [a, b, c, d, e]: [[u8; 4]; 5] = zerocopy::transmute!(bytes);
    let halves = |word| checksum::halves(u32::from_be_bytes(word));
    halves(a) + halves(b) + halves(c) + halves(d) + halves(e)
}

/// Where the packet in a tunnel is.
#[derive(Clone, Copy)]
struct Inside {
    start: usize,
    ether_type: u16,
    /// Bytes of the outer packet from there on.
    room: u32,
}

/// Looks behind GRE and GUE headers.
#[inline(always)]
fn inside<F: Frame>(frame: &F, outer: &Ip) -> Result<Inside, DecapReason> {
    let (start, room) = (outer.payload, outer.payload_len());
    match outer.protocol {
        ipv4::IPIP => Ok(Inside { start, ether_type: ethernet::IPV4, room }),
        ipv6::IPV6 => Ok(Inside { start, ether_type: ethernet::IPV6, room }),
        shim::GRE => {
            let Some(bytes) = frame.read(start) else {
                return Err(DecapReason::Malformed);
            };
            let Some(room) = room.checked_sub(shim::GRE_LEN as u32) else {
                return Err(DecapReason::Malformed);
            };
            match shim::gre_payload(bytes) {
                Some(ether_type @ (ethernet::IPV4 | ethernet::IPV6)) => {
                    Ok(Inside { start: start + shim::GRE_LEN, ether_type, room })
                }
                _ => Err(DecapReason::OtherHeader),
            }
        }
        _ => inside_udp(frame, start, room),
    }
}

/// Behind UDP, whose checksum is not verified: XDP cannot add up a whole packet, most balancers send none (RFC 6935
/// section 5 allows that for tunnels, RFC 768 for IPv4), and what it protects has checksums of its own (RFC 6936
/// section 3).
#[inline(always)]
fn inside_udp<F: Frame>(frame: &F, start: usize, room: u32) -> Result<Inside, DecapReason> {
    let Some([_, _, _, _, l0, l1, _, _]) = frame.read(start) else {
        return Err(DecapReason::Malformed);
    };
    let len = u32::from(u16::from_be_bytes([l0, l1]));
    if len > room {
        return Err(DecapReason::Malformed);
    }
    let start = start + shim::UDP_LEN;
    let Some(room) = len.checked_sub(shim::UDP_LEN as u32) else {
        return Err(DecapReason::Malformed);
    };
    let Some(bytes) = frame.read(start) else {
        return Err(DecapReason::Malformed);
    };
    let (header_len, ether_type) = match shim::gue_payload(bytes) {
        Some(shim::Gue::Direct) => (0, version(bytes)),
        Some(shim::Gue::Header { len, protocol }) => (u32::from(len), shim::ether_type(protocol)),
        None => return Err(DecapReason::OtherHeader),
    };
    let Some(ether_type) = ether_type else {
        return Err(DecapReason::OtherHeader);
    };
    let Some(room) = room.checked_sub(header_len) else {
        return Err(DecapReason::Malformed);
    };
    Ok(Inside { start: start + header_len as usize, ether_type, room })
}

/// The EtherType of an IP packet that begins with these bytes.
#[inline(always)]
fn version([first, _]: [u8; 2]) -> Option<u16> {
    match first >> 4 {
        4 => Some(ethernet::IPV4),
        6 => Some(ethernet::IPV6),
        _ => None,
    }
}

/// Removes what lies between the link header, which ends at `start`, and the inner packet.
#[inline(always)]
fn uncover<F: Frame>(frame: &mut F, link: &ethernet::Header, start: usize, inside: &Inside) -> Option<()> {
    const ONCE_TAGGED: usize = ethernet::LEN + ethernet::TAG_LEN;
    let by = -(inside.start.wrapping_sub(start) as i32);
    let ether_type = inside.ether_type;
    if start == ethernet::LEN {
        frame.grow_front(by)?;
        return frame.write(0, ethernet::Header { ether_type, ..*link }.emit());
    }
    // Two tags and the EtherType, or one and the beginning of what is removed.
    let [_, _, a, b, t0, t1, c, d] = frame.read(ethernet::LEN - 2)?;
    frame.grow_front(by)?;
    frame.write(0, link.emit())?;
    let [e0, e1] = ether_type.to_be_bytes();
    if start == ONCE_TAGGED {
        return frame.write(ethernet::LEN, [a, b, e0, e1]);
    }
    frame.write(ethernet::LEN, [a, b, t0, t1, c, d, e0, e1])
}
