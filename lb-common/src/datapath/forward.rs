//! Rewrites or encapsulates a packet and sends it on its way.

use super::encap::{encapsulate, link};
use super::parse::Ip;
use super::{Frame, Tables, Verdict};
use crate::abi::{BackendEntry, Egress, Method, NextHop, PortEntry, Reason};
use crate::wire::ethernet;

/// Largest packet for a backend that fits the way there, in bytes, its own IP header included and outer headers not.
#[inline(always)]
pub(super) fn fitting(backend: &BackendEntry) -> u32 {
    let overhead = match Method::from_raw(backend.method) {
        Some(method) => method.overhead(backend.flags & BackendEntry::OUTER_V6 != 0),
        None => 0,
    };
    Egress(backend.egress).mtu().saturating_sub(overhead)
}

/// Sends a packet, whose flow hashes to `hash`, to `backend`; the reason if it cannot be sent. A packet that is
/// [`Reason::TooBig`] is as it was.
#[inline(always)]
pub(super) fn forward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    ip: &Ip,
    backend: &BackendEntry,
    hash: u64,
) -> Result<Verdict, Reason> {
    // An entry that is not there has no method.
    let method = Method::from_raw(backend.method).ok_or(Reason::NoBackend)?;
    let next_hop = NextHop(backend.next_hop);
    let way = way_out(tables, next_hop)?;
    if ip.total_len > fitting(backend) {
        return Err(Reason::TooBig);
    }
    match method {
        Method::L2 => link(frame, ip, Egress(backend.egress).tag(), 0).map(drop)?,
        _ => encapsulate(frame, ip, backend, method, hash)?,
    }
    send(frame, tables, next_hop, way)
}

/// The port behind which a next hop is.
#[inline(always)]
fn way_out<T: Tables>(tables: &T, next_hop: NextHop) -> Result<&PortEntry, Reason> {
    if next_hop == NextHop::UNKNOWN {
        return Err(Reason::NoNextHop);
    }
    tables.port(next_hop.port()).filter(|port| port.ifindex != 0).ok_or(Reason::NoNextHop)
}

/// Writes the MAC addresses; the verdict that sends the frame there.
#[inline(always)]
fn send<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    next_hop: NextHop,
    way: &PortEntry,
) -> Result<Verdict, Reason> {
    frame.write(0, ethernet::addresses(next_hop.mac(), way.mac)).ok_or(Reason::Malformed)?;
    if next_hop.port() == tables.ingress() {
        Ok(Verdict::Transmit)
    } else {
        Ok(Verdict::Redirect(next_hop.port()))
    }
}
