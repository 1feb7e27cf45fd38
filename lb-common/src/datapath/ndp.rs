//! Answers neighbour solicitations (RFC 4861) for service addresses, as [`arp`](super::arp) answers requests.

use super::lookup::vip_flags;
use super::{Frame, Tables, Work};
use crate::abi::{Control, Reason, VipEntry};
use crate::wire::{
    ethernet, ipv6,
    ndp::{self, Solicitation},
};

/// Length of an advertisement with its option.
const ADVERTISEMENT_LEN: usize = ndp::LEN + ndp::OPTION_LEN;

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
    if hop_limit != ndp::HOP_LIMIT || !ip.is_plain() || (ip.payload_len() as usize) < ndp::LEN {
        return None;
    }
    // Who asks is known from the Ethernet header.
    let question = Solicitation::parse(frame.read(ip.payload)?, None)?;
    if vip_flags(tables, control, &question.target) & VipEntry::ADVERTISED == 0 {
        return None;
    }
    let anonymous = ip.source == [0; 16];
    let (destination, mac) = match anonymous {
        true => (ndp::ALL_NODES, ndp::multicast_mac(ndp::ALL_NODES)),
        false => (ip.source, work.link.source),
    };
    let header = ipv6::Header {
        fixed: ipv6::Fixed {
            version: 6,
            traffic_class: 0,
            flow_label: 0,
            payload_len: ADVERTISEMENT_LEN as u16,
            next_header: ipv6::ICMP,
            hop_limit: ndp::HOP_LIMIT,
        },
        source: question.target,
        destination,
    };
    let (fixed, option) = question.answer(ip.source, work.own).emit(question.target, destination);
    fit(frame, ip.payload + ADVERTISEMENT_LEN)?;
    frame.write(ip.start, header.emit())?;
    frame.write(ip.payload, fixed)?;
    frame.write(ip.payload + ndp::LEN, option?)?;
    frame.write(0, ethernet::addresses(mac, work.own))?;
    Some(Reason::NdpAnswered)
}

/// Makes the frame `len` bytes long: an option that the question lacks is made room for in front.
#[inline(always)]
fn fit<F: Frame>(frame: &mut F, len: usize) -> Option<()> {
    if !frame.holds(len) {
        // EtherType and tags, and at most a few bytes that are then written over.
        let tags: [u8; 10] = frame.read(ethernet::LEN - 2)?;
        frame.grow_front(ndp::OPTION_LEN as i32)?;
        frame.write(ethernet::LEN - 2, tags)?;
    }
    frame.truncate(len)
}
