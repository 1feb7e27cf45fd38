//! Answers ARP requests for service addresses, so that no host needs to own them.

use super::lookup::vip_flags;
use super::{Frame, Tables, Work};
use crate::abi::{Control, Reason, VipEntry, mapped};
use crate::wire::{
    arp::{Operation, Packet},
    ethernet,
};

/// Turns a request (at `start`) for an advertised address into its answer. Announcements (sender and target the same)
/// pass: the host's own neighbour table wants them, and nobody waits for an answer.
#[inline(always)]
pub(super) fn answer<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    control: &Control,
    work: &Work,
    start: usize,
) -> Reason {
    let Some(request) = frame.read(start).and_then(Packet::parse) else {
        return Reason::NotIp;
    };
    if request.operation != Operation::Request || request.sender == request.target {
        return Reason::NotIp;
    }
    if vip_flags(tables, control, &mapped(request.target)) & VipEntry::ADVERTISED == 0 {
        return Reason::NotIp;
    }
    let link = ethernet::addresses(request.sender_mac, work.own);
    let written = frame.write(start, request.answer(work.own).emit()).and_then(|()| frame.write(0, link));
    match written {
        Some(()) => Reason::ArpAnswered,
        None => Reason::NotIp,
    }
}
