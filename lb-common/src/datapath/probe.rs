//! Health probes through the service's own path: from the prober's namespace to the backend that the source port
//! stands for, exactly as a client's packet would travel, and the replies back to the prober.

use super::forward::forward;
use super::parse::{Packet, State, ports, read_ip, untag};
use super::serve::flow_hash;
use super::{Frame, Tables, Verdict, Work};
use crate::abi::{BackendId, PROBER_MAC, ProbeEntry, Protocol, Reason, probe_slot};
use crate::wire::ethernet;

/// Decides about a frame that the prober has sent. Whatever is not a probe ends here: nobody else lives there.
#[inline(always)]
pub fn probe<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &mut Work) -> Verdict {
    match send(frame, tables, work) {
        Ok(verdict) => {
            tables.count(Reason::ProbeSent);
            verdict
        }
        Err(reason) => {
            tables.count(reason);
            Verdict::Drop
        }
    }
}

#[inline(always)]
fn send<F: Frame, T: Tables>(frame: &mut F, tables: &T, work: &mut Work) -> Result<Verdict, Reason> {
    let link = frame.read(0).map(ethernet::Header::parse).ok_or(Reason::StrayProbe)?;
    let (start, ether_type) = untag(frame, &link);
    read_ip(frame, start, ether_type, &mut work.packet.ip);
    let packet = &mut work.written().packet;
    let whole = packet.ip.state == State::Whole;
    let protocol = Protocol::from_number(packet.ip.protocol).filter(|_| whole);
    packet.ports =
        protocol.and_then(|protocol| ports(frame, &packet.ip, protocol)).ok_or(Reason::StrayProbe)?;
    let entry = probe_slot(packet.ports.source).and_then(|slot| tables.probe(slot));
    let entry = entry.filter(|entry| is_probe(entry, packet)).ok_or(Reason::StrayProbe)?;
    let backend = BackendId::new(entry.backend).and_then(|id| tables.backend(id)).ok_or(Reason::NoBackend)?;
    let control = tables.control().ok_or(Reason::NoBackend)?;
    // Up or down: whether it answers is the question.
    forward(frame, tables, &packet.ip, backend, flow_hash(control, packet))
}

/// Brings the reply to a probe back to the prober; `None` if the packet is none.
#[inline(always)]
pub(super) fn reply<F: Frame, T: Tables>(frame: &mut F, tables: &T, packet: &Packet) -> Option<Verdict> {
    let entry = tables.probe(probe_slot(packet.ports.destination)?)?;
    if !is_reply(entry, packet) {
        return None;
    }
    let gate = tables.port(entry.gate).filter(|gate| gate.ifindex != 0)?;
    frame.write(0, ethernet::addresses(PROBER_MAC, gate.mac))?;
    tables.count(Reason::ProbeReply);
    Some(Verdict::Redirect(entry.gate))
}

#[inline(always)]
fn is_probe(entry: &ProbeEntry, packet: &Packet) -> bool {
    entry.protocol == packet.ports.protocol.number()
        && entry.service_port == packet.ports.destination
        && entry.service_address == packet.ip.destination
        && entry.node_address == packet.ip.source
}

#[inline(always)]
fn is_reply(entry: &ProbeEntry, packet: &Packet) -> bool {
    entry.backend != 0
        && entry.protocol == packet.ports.protocol.number()
        && entry.service_port == packet.ports.source
        && entry.service_address == packet.ip.source
        && entry.node_address == packet.ip.destination
}
