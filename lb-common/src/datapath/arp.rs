//! Answers ARP requests for service addresses, so that no host needs to own them.

use super::{Frame, Tables};
use crate::abi::{Reason, VipEntry, VipKey};
use crate::wire::{
    arp::{Operation, Packet},
    ethernet::{self, Mac},
};

/// Turns a request for an advertised address into its answer. Announcements (sender and target the same) pass: the
/// host's own neighbour table wants them, and nobody waits for an answer.
#[inline(always)]
pub(super) fn answer<F: Frame, T: Tables>(frame: &mut F, tables: &T, own: Mac) -> Reason {
    let Some(request) = frame.read(ethernet::LEN).and_then(Packet::parse) else {
        return Reason::NotIpv4;
    };
    if request.operation != Operation::Request || request.sender == request.target {
        return Reason::NotIpv4;
    }
    match tables.vip(&VipKey::v4(request.target)) {
        Some(vip) if vip.flags & VipEntry::ANSWER_ARP != 0 => {}
        Some(_) | None => return Reason::NotIpv4,
    }
    let link =
        ethernet::Header { destination: request.sender_mac, source: own, ether_type: ethernet::ARP }.emit();
    let written = frame.write(ethernet::LEN, request.answer(own).emit()).and_then(|()| frame.write(0, link));
    match written {
        Some(()) => Reason::ArpAnswered,
        None => Reason::NotIpv4,
    }
}
