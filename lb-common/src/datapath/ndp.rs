//! Answers neighbour solicitations (RFC 4861) for service addresses, as [`arp`](super::arp) answers requests.

use super::lookup::vip_flags;
use super::{Frame, Tables, Work};
use crate::abi::{Control, Reason, VipEntry};
use crate::wire::{checksum, ethernet, ipv6};

/// ICMPv6 type of neighbour solicitations.
pub(super) const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Length of a solicitation without options, in bytes.
const SOLICITATION_LEN: usize = 24;
/// Length of an advertisement with its option.
const ADVERTISEMENT_LEN: usize = 32;
/// Of the flags in the first byte: solicited, override.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Option type and length in units of 8 bytes.
const TARGET_LINK_LAYER: [u8; 2] = [2, 1];
/// What no router lets through, so that it comes from this link (section 7.1.1).
const HOP_LIMIT: u8 = 255;

/// All nodes of the link.
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ALL_NODES_MAC: ethernet::Mac = [0x33, 0x33, 0, 0, 0, 1];

/// Turns a solicitation of an advertised address into the advertisement that answers it.
#[inline(never)]
pub(super) fn answer<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    control: &Control,
    work: &Work,
) -> Reason {
    advertise(frame, tables, control, work).unwrap_or(Reason::NotIp)
}

#[inline(always)]
fn advertise<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    control: &Control,
    work: &Work,
) -> Option<Reason> {
    let ip = &work.packet.ip;
    let [_, hop_limit] = frame.read(ip.start + 6)?;
    // Extension headers are never in front of a solicitation.
    if hop_limit != HOP_LIMIT || !ip.is_plain() || (ip.payload_len() as usize) < SOLICITATION_LEN {
        return None;
    }
    let target: [u8; 16] = frame.read(ip.payload + 8)?;
    if vip_flags(tables, control, &target) & VipEntry::ADVERTISED == 0 {
        return None;
    }
    // Who is about to take the address for itself has none yet: everybody is told (section 7.2.4).
    let anonymous = ip.source == [0; 16];
    let destination = if anonymous { ALL_NODES } else { ip.source };
    let mac = if anonymous { ALL_NODES_MAC } else { work.link.source };
    let header = ipv6::Header {
        version: 6,
        traffic_class: 0,
        flow_label: 0,
        payload_len: ADVERTISEMENT_LEN as u16,
        next_header: ipv6::ICMP,
        hop_limit: HOP_LIMIT,
        source: target,
        destination,
    };
    let flags = if anonymous { OVERRIDE } else { OVERRIDE | SOLICITED };
    let message = message(work.own, target, destination, flags);
    // The frame gets exactly as long as its packet: an option that is missing is made room for in front.
    let wanted = ip.payload + ADVERTISEMENT_LEN;
    let short = !frame.holds(wanted);
    let tags: [u8; 10] = frame.read(12)?;
    if short {
        frame.grow_front(8)?;
        frame.write(12, tags)?;
    }
    frame.truncate(wanted)?;
    frame.write(ip.start, header.emit())?;
    frame.write(ip.payload, message)?;
    let [d0, d1, d2, d3, d4, d5] = mac;
    let [s0, s1, s2, s3, s4, s5] = work.own;
    frame.write(0, [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5])?;
    Some(Reason::NdpAnswered)
}

/// The advertisement's bytes behind the IPv6 header.
#[inline(always)]
fn message(
    mac: ethernet::Mac,
    target: [u8; 16],
    destination: [u8; 16],
    flags: u8,
) -> [u8; ADVERTISEMENT_LEN] {
    let [m0, m1, m2, m3, m4, m5] = mac;
    let [o0, o1] = TARGET_LINK_LAYER;
    let words = |a: u8, b: u8| u32::from(u16::from_be_bytes([a, b]));
    // The target is the message's and the pseudo-header's.
    let sum = words(ADVERTISEMENT, 0)
        + words(flags, 0)
        + 2 * checksum::address(target)
        + checksum::address(destination)
        + words(o0, o1)
        + words(m0, m1)
        + words(m2, m3)
        + words(m4, m5)
        + ADVERTISEMENT_LEN as u32
        + u32::from(ipv6::ICMP);
    let [c0, c1] = checksum::finish(sum).to_be_bytes();
    let [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, ta, tb, tc, td, te, tf] = target;
    #[rustfmt::skip]
    let bytes = [ADVERTISEMENT, 0, c0, c1, flags, 0, 0, 0,
        t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, ta, tb, tc, td, te, tf,
        o0, o1, m0, m1, m2, m3, m4, m5];
    bytes
}
