//! Rewrites or encapsulates a packet and sends it on its way.

use super::encap::{encapsulate, link};
use super::parse::Ip;
use super::{Frame, Tables, Verdict};
use crate::abi::{BackendEntry, Egress, Method, NextHop, Reason};
use crate::wire::ethernet;

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
    // Read once: it may be replaced meanwhile.
    let (next_hop, egress) = (NextHop(backend.next_hop), Egress(backend.egress));
    if next_hop == NextHop::UNKNOWN {
        return Err(Reason::NoNextHop);
    }
    if ip.total_len > backend.fits() {
        return Err(Reason::TooBig);
    }
    match method {
        Method::L2 => link(frame, ip, backend.tag(), 0).map(drop)?,
        _ => encapsulate(frame, ip, backend, method, hash)?,
    }
    frame.write(0, ethernet::addresses(next_hop.mac(), egress.mac())).ok_or(Reason::Malformed)?;
    if next_hop.port() == tables.ingress() {
        Ok(Verdict::Transmit)
    } else {
        Ok(Verdict::Redirect(next_hop.port()))
    }
}
