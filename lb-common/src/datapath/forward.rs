//! Rewrites or encapsulates a packet and sends it on its way.

use super::parse::Packet;
use super::{Frame, Tables, Verdict};
use crate::abi::{BackendEntry, Method, NextHop, PortEntry, Reason, low_half};
use crate::wire::{ethernet, ipv4};

/// Sends `packet`, whose flow hashes to `hash`, to `backend`; the reason if it cannot be sent.
#[inline(always)]
pub(super) fn forward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    packet: &Packet,
    backend: &BackendEntry,
    hash: u64,
) -> Result<Verdict, Reason> {
    // An entry that is not there has no method.
    let method = Method::from_raw(backend.method).ok_or(Reason::NoBackend)?;
    let next_hop = NextHop(backend.next_hop);
    if next_hop == NextHop::UNKNOWN {
        return Err(Reason::NoNextHop);
    }
    let port = tables.port(next_hop.port()).filter(|port| port.ifindex != 0).ok_or(Reason::NoNextHop)?;
    match method {
        Method::L2 => rewrite(frame, packet, next_hop, &port)?,
        Method::Ipip => encapsulate(frame, packet, backend, next_hop, &port, hash)?,
    }
    if next_hop.port() == tables.ingress() {
        Ok(Verdict::Transmit)
    } else {
        Ok(Verdict::Redirect(next_hop.port()))
    }
}

/// L2 direct server return: only the MAC addresses change.
#[inline(always)]
fn rewrite<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    next_hop: NextHop,
    port: &PortEntry,
) -> Result<(), Reason> {
    if u32::from(packet.total_len) > port.mtu {
        return Err(Reason::TooBig);
    }
    let [d0, d1, d2, d3, d4, d5] = next_hop.mac();
    let [s0, s1, s2, s3, s4, s5] = port.mac;
    frame.write(0, [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5]).ok_or(Reason::Malformed)
}

/// IPv4 in IPv4 (RFC 2003): an outer header from the backend's template goes in front. DSCP and ECN are the inner
/// packet's (RFC 6040 section 4.1, normal mode).
#[inline(always)]
fn encapsulate<F: Frame>(
    frame: &mut F,
    packet: &Packet,
    backend: &BackendEntry,
    next_hop: NextHop,
    port: &PortEntry,
    hash: u64,
) -> Result<(), Reason> {
    let total_len = u32::from(packet.total_len) + ipv4::LEN as u32;
    if total_len > port.mtu || total_len > u32::from(u16::MAX) {
        return Err(Reason::TooBig);
    }
    // Userspace makes such entries for IPv4 only.
    let (source, destination) = (low_half(backend.outer_source), low_half(backend.address));
    frame.grow_front::<{ ipv4::LEN }>().ok_or(Reason::NoHeadroom)?;
    let link =
        ethernet::Header { destination: next_hop.mac(), source: port.mac, ether_type: ethernet::IPV4 }.emit();
    let template = ipv4::OuterTemplate { ttl: backend.ttl, protocol: ipv4::IPIP, source, destination };
    let source_bits = (hash as u32) & ((1u32 << (backend.source_bits & 31)) - 1);
    let outer = template.complete(packet.tos, total_len as u16, source_bits, backend.checksum);
    frame.write(0, link).ok_or(Reason::Malformed)?;
    frame.write(ethernet::LEN, outer).ok_or(Reason::Malformed)
}
