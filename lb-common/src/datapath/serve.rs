//! What a service does with a packet: admits it, finds its flow's backend, sends it there.

use super::admission::admit;
use super::choose::{Choice, choose, owner};
use super::forward::forward;
use super::parse::{Packet, State};
use super::work::Asked;
use super::{Frame, Tables, Verdict, hash, quic};
use crate::abi::{
    BackendId, BackendState, Control, FragmentEntry, QuicFormat, QuicKey, Reason, ServiceEntry, Slot,
};

/// A backend for a packet, and its flow's hash.
pub(super) struct Placed {
    pub(super) choice: Choice,
    pub(super) hash: u64,
}

/// Sends a packet to its flow's backend and counts it there; the reason if that is not possible.
/// [`Reason::TooBig`]: nothing was changed but what is known of the flow.
#[inline(always)]
pub(super) fn serve<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    control: &Control,
    (packet, asked): (&Packet, &mut Asked),
    service: &ServiceEntry,
) -> Result<Verdict, Reason> {
    let seen = look(frame, packet, service);
    if service.guarded() {
        admit(tables, service, packet, seen.kind)?;
    }
    let placed = place(tables, control, (packet, asked), service, seen)?;
    let backend = tables.backend(placed.choice.id).ok_or(Reason::NoBackend)?;
    let verdict = forward(frame, tables, &packet.ip, backend, placed.hash)?;
    tables.count_forward(placed.choice.id, packet.ip.total_len, u64::from(placed.choice.new_flow));
    Ok(verdict)
}

/// What the packet says of its flow.
#[inline(always)]
pub(super) fn look<F: Frame>(frame: &F, packet: &Packet, service: &ServiceEntry) -> quic::Seen {
    if service.flags & ServiceEntry::QUIC != 0 {
        return quic::look(frame, packet, QuicFormat::from_raw(service.quic));
    }
    quic::Seen { kind: packet.ports.kind, server: None }
}

/// The backend that gets a packet. The first fragment of one is noted for the others.
#[inline(always)]
pub(super) fn place<T: Tables>(
    tables: &T,
    control: &Control,
    (packet, asked): (&Packet, &mut Asked),
    service: &ServiceEntry,
    seen: quic::Seen,
) -> Result<Placed, Reason> {
    let hash = flow_hash(control, packet);
    let choice = match seen.server.and_then(|server| named(tables, service, server)) {
        Some(choice) => choice,
        None => {
            let slot = slot(tables, control, packet, service, hash).ok_or(Reason::NoBackend)?;
            choose(tables, service, packet, (seen.kind, slot), asked).ok_or(Reason::NoBackend)?
        }
    };
    if packet.ip.state == State::First {
        let seen_ns = tables.now_ns();
        let entry = FragmentEntry { service: service.id, backend: choice.id.get(), hash, seen_ns };
        tables.record_fragment(&packet.ip.fragment_key(), &entry);
    }
    Ok(Placed { choice, hash })
}

/// The backend that a connection ID names, if it may receive.
#[inline(always)]
fn named<T: Tables>(tables: &T, service: &ServiceEntry, server: u64) -> Option<Choice> {
    let id = tables.quic_backend(&QuicKey { server, service: service.id, reserved: 0 })?;
    let entry = tables.backend(id)?;
    let may = entry.service == service.id && BackendState::from_raw(entry.state).keeps_flows();
    may.then_some(Choice { id, new_flow: false })
}

/// The backend that has a flow, as somebody tells who quotes a packet of it; nothing is changed.
#[inline(always)]
pub(super) fn find<T: Tables>(
    tables: &T,
    control: &Control,
    packet: &Packet,
    service: &ServiceEntry,
) -> Option<(BackendId, u64)> {
    let hash = flow_hash(control, packet);
    let slot = slot(tables, control, packet, service, hash)?;
    Some((owner(tables, service, packet, slot)?, hash))
}

/// The slot of a flow with this hash; or of its source, where the service goes by that.
#[inline(always)]
fn slot<T: Tables>(
    tables: &T,
    control: &Control,
    packet: &Packet,
    service: &ServiceEntry,
    hash: u64,
) -> Option<Slot> {
    let hash = match service.flags & ServiceEntry::BY_SOURCE {
        0 => hash,
        _ => hash::source(control.hash_key, packet.ip.source),
    };
    tables.slot(service.ring_start.wrapping_add(hash::slot(hash, service.ring_size)))
}

/// The hash of a packet's flow.
#[inline(always)]
pub(super) fn flow_hash(control: &Control, packet: &Packet) -> u64 {
    hash::flow(
        control.hash_key,
        packet.ip.source,
        packet.ip.destination,
        packet.ports.source,
        packet.ports.destination,
        packet.ports.protocol.number(),
    )
}
