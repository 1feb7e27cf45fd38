//! The balancer's decision about one frame, from first byte to verdict.

use super::choose::choose;
use super::forward::forward;
use super::parse::{Packet, Unparsed, parse};
use super::{Frame, Tables, arp, hash, probe};
use crate::abi::{Control, Reason, ServiceEntry, VerdictKind, VipEntry, VipKey};
use crate::wire::ethernet;

/// What happens to a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The host's network stack gets it, untouched.
    Pass,
    /// Gone, and counted.
    Drop,
    /// Out where it came in.
    Transmit,
    /// Out through the port with this number.
    Redirect(u16),
}

/// Decides about one frame, rewrites it if it is to be sent, and counts what it did.
#[inline(always)]
pub fn process<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let Some(own) = tables.port(tables.ingress()) else {
        return settle(tables, Reason::NotIpv4); // nothing is configured yet
    };
    let Some(link) = frame.read(0).map(ethernet::Header::parse) else {
        return settle(tables, Reason::NotIpv4);
    };
    // Flooded: another balancer's ARP traffic is not ours to answer.
    if link.destination != own.mac && link.destination != ethernet::BROADCAST {
        return settle(tables, Reason::OtherMac);
    }
    if link.ether_type == ethernet::ARP {
        return settle(tables, arp::answer(frame, tables, own.mac));
    }
    match parse(frame, &link) {
        Ok(packet) => balance(frame, tables, &packet),
        Err(unparsed) => settle(tables, refuse(tables, unparsed)),
    }
}

#[inline(always)]
fn balance<F: Frame, T: Tables>(frame: &mut F, tables: &T, packet: &Packet) -> Verdict {
    let Some(service) = tables.service(&packet.service_key()) else {
        return probe::reply(frame, tables, packet)
            .unwrap_or_else(|| settle(tables, not_a_service(tables, packet)));
    };
    match serve(frame, tables, packet, &service) {
        Ok(verdict) => verdict,
        Err(reason) => {
            tables.count_drop(service.id, reason);
            Verdict::Drop
        }
    }
}

#[inline(always)]
fn serve<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
    service: &ServiceEntry,
) -> Result<Verdict, Reason> {
    let control = tables.control().ok_or(Reason::NoBackend)?;
    let hash = flow_hash(&control, packet);
    let index = service.ring_start.wrapping_add(hash::slot(hash, service.ring_size));
    let slot = tables.slot(index).ok_or(Reason::NoBackend)?;
    let choice = choose(tables, service, packet, slot).ok_or(Reason::NoBackend)?;
    let backend = tables.backend(choice.id).ok_or(Reason::NoBackend)?;
    let verdict = forward(frame, tables, packet, &backend, hash)?;
    tables.count_forward(choice.id, packet.total_len, u64::from(choice.new_flow));
    Ok(verdict)
}

/// The hash that places a packet's flow.
#[inline(always)]
pub(super) fn flow_hash(control: &Control, packet: &Packet) -> u64 {
    hash::flow_v4(
        control.hash_key,
        packet.source,
        packet.destination,
        packet.source_port,
        packet.destination_port,
        packet.protocol.number(),
    )
}

/// Counts a frame that belongs to no service, and does what its reason says.
#[inline(always)]
fn settle<T: Tables>(tables: &T, reason: Reason) -> Verdict {
    tables.count(reason);
    match reason.verdict() {
        VerdictKind::Pass => Verdict::Pass,
        VerdictKind::Drop => Verdict::Drop,
        VerdictKind::Transmit => Verdict::Transmit,
    }
}

/// A whole TCP or UDP packet that no service wants.
#[inline(always)]
fn not_a_service<T: Tables>(tables: &T, packet: &Packet) -> Reason {
    if tables.control().is_none_or(|control| control.flags & Control::VIP_POLICY == 0) {
        return Reason::NotAService;
    }
    if drops_others(tables, packet.destination) { Reason::OtherPort } else { Reason::NotAService }
}

/// Whether an address is a service's alone: what no service wants is dropped, not the host's.
#[inline(always)]
fn drops_others<T: Tables>(tables: &T, address: [u8; 4]) -> bool {
    tables.vip(&VipKey::v4(address)).is_some_and(|vip| vip.flags & VipEntry::DROP_OTHER_PORTS != 0)
}

/// What is not a whole TCP or UDP packet passes, unless it is addressed to a service and could only do harm there.
#[inline(always)]
fn refuse<T: Tables>(tables: &T, unparsed: Unparsed) -> Reason {
    let (destination, ours, elsewhere) = match unparsed {
        Unparsed::NotIpv4 => return Reason::NotIpv4,
        Unparsed::Broadcast => return Reason::OtherMac,
        Unparsed::OtherProtocol => return Reason::OtherProtocol,
        Unparsed::Truncated => return Reason::MalformedElsewhere,
        Unparsed::Malformed(destination) => (destination, Reason::Malformed, Reason::MalformedElsewhere),
        Unparsed::Fragment(destination) => (destination, Reason::Fragment, Reason::NotAService),
    };
    if drops_others(tables, destination) { ours } else { elsewhere }
}
