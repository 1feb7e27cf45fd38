//! The backend's side: strips tunnel headers from packets that are certainly ours.

use super::Frame;
use crate::abi::{DecapReason, VerdictKind, VipKey, mapped};
use crate::wire::{
    ethernet::{self, Mac},
    ipv4,
};

/// What the decapsulator reads and counts.
pub trait DecapTables {
    /// MAC address of the interface it is attached to.
    fn own_mac(&self) -> Mac;
    /// Whether tunnels may come from this address (16-byte form).
    fn source_allowed(&self, address: [u8; 16]) -> bool;
    /// Whether packets for this address may come out of a tunnel.
    fn destination_allowed(&self, key: &VipKey) -> bool;
    /// Counts a packet.
    fn count(&self, reason: DecapReason);
}

/// Strips an IPIP header if outer source and inner destination are both on the lists: anything else would let the
/// whole network inject packets behind the backend's filters. A decapsulated packet passes like any other.
#[inline(always)]
pub fn decapsulate<F: Frame, T: DecapTables>(frame: &mut F, tables: &T) -> VerdictKind {
    let reason = strip(frame, tables).unwrap_or_else(|refused| refused);
    tables.count(reason);
    reason.verdict()
}

#[inline(always)]
fn strip<F: Frame, T: DecapTables>(frame: &mut F, tables: &T) -> Result<DecapReason, DecapReason> {
    let link = frame.read(0).map(ethernet::Header::parse).ok_or(DecapReason::NotATunnel)?;
    if link.ether_type != ethernet::IPV4 {
        return Err(DecapReason::NotATunnel);
    }
    let outer = ipv4::Header::parse(frame.read(ethernet::LEN).ok_or(DecapReason::NotATunnel)?);
    if outer.version != 4 || outer.protocol != ipv4::IPIP {
        return Err(DecapReason::NotATunnel);
    }
    if link.destination != tables.own_mac() {
        return Err(DecapReason::OtherMac);
    }
    if !outer.is_consistent() || !frame.holds(ethernet::LEN + outer.total_len as usize) {
        return Err(DecapReason::Malformed);
    }
    if outer.is_fragment() {
        return Err(DecapReason::OuterFragment);
    }
    if !tables.source_allowed(mapped(outer.source)) {
        return Err(DecapReason::ForeignSource);
    }
    // Outer options are never sent by a balancer: refusing them keeps the header's length a constant.
    if outer.header_len as usize != ipv4::LEN {
        return Err(DecapReason::Malformed);
    }
    let inner = ipv4::Header::parse(frame.read(ethernet::LEN + ipv4::LEN).ok_or(DecapReason::Malformed)?);
    let room = outer.total_len.wrapping_sub(ipv4::LEN as u16);
    if !inner.is_consistent() || inner.total_len > room {
        return Err(DecapReason::Malformed);
    }
    if !tables.destination_allowed(&VipKey::v4(inner.destination)) {
        return Err(DecapReason::ForeignDestination);
    }
    frame.grow_front(-(ipv4::LEN as i32)).ok_or(DecapReason::Malformed)?;
    frame.write(0, link.emit()).ok_or(DecapReason::Malformed)?;
    Ok(DecapReason::Decapsulated)
}
