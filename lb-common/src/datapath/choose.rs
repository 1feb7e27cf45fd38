//! Which backend a packet's flow belongs to.

use super::Tables;
use super::parse::{Kind, Packet};
use crate::abi::{BackendId, BackendState, FlowEntry, ServiceEntry, Slot, SlotState};

/// A recorded flow's time stamp is renewed at most this often, in nanoseconds.
pub const TOUCH_INTERVAL_NS: u64 = 1_000_000_000;

/// A backend, chosen. Only its id: entries copied here, one per way to get here, would fill the BPF stack.
///
/// What tells `None` from `Some` lies in the bool, which is first: debug information of an `Option` whose tag is further
/// back is refused by the kernel (`btf_struct_check_member`: members of a union begin at 0), and with it all the rest.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Choice {
    /// Whether the packet begins a flow, as far as anybody can tell.
    pub(super) new_flow: bool,
    pub(super) id: BackendId,
}

/// Chooses by the slot alone where it is settled, which reads and writes no flow table; by the recorded flows where
/// its owner has changed.
#[inline(always)]
pub(super) fn choose<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    packet: &Packet,
    kind: Kind,
    slot: Slot,
) -> Option<Choice> {
    match slot.state() {
        // Whether it exists is found out when it is read.
        SlotState::Settled => Some(Choice { id: slot.current(), new_flow: kind == Kind::Opening }),
        SlotState::Fresh | SlotState::Late => unsettled(tables, service, packet, kind, slot),
    }
}

/// The backend of a flow of which somebody else tells, in an ICMP error: nothing is recorded, renewed or counted, as
/// anybody can forge one.
#[inline(always)]
pub(super) fn owner<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    packet: &Packet,
    slot: Slot,
) -> Option<BackendId> {
    if slot.state() == SlotState::Settled {
        return Some(slot.current());
    }
    let recorded = tables.flow(&packet.flow_key()).filter(|flow| flow.service == service.id);
    let recorded = recorded.and_then(|flow| BackendId::new(flow.backend));
    let keeps = |id: &BackendId| state(tables, *id).is_some_and(BackendState::keeps_flows);
    let previous = || Some(slot.previous()).filter(keeps);
    Some(recorded.filter(keeps).or_else(previous).unwrap_or(slot.current()))
}

/// In an unsettled slot a recorded flow stays where it is while its backend lives, and an unknown one that begins now
/// goes to the current owner. An unknown one that may have begun earlier goes to the previous owner: TCP that does not
/// begin, and UDP, which cannot tell, while the slot is fresh. In a late slot every live older flow has been recorded by
/// now: unknown UDP is new, and stray TCP still goes to the previous owner, but leaves no record that would keep the
/// slot from settling.
#[inline(never)]
fn unsettled<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    packet: &Packet,
    kind: Kind,
    slot: Slot,
) -> Option<Choice> {
    let key = packet.flow_key();
    let now_ns = tables.now_ns();
    let present = tables.flow(&key);
    let known = present.filter(|flow| flow.service == service.id);
    if let Some(flow) = known {
        let recorded = BackendId::new(flow.backend).and_then(|id| alive(tables, id, false));
        if let Some(choice) = recorded {
            if now_ns.wrapping_sub(flow.last_seen_ns) >= TOUCH_INTERVAL_NS {
                tables.touch_flow(&key, now_ns);
            }
            return Some(choice);
        }
    }
    let choice = match kind {
        Kind::Opening => None,
        Kind::Later => alive(tables, slot.previous(), false),
        Kind::Unknown if slot.state() == SlotState::Fresh => alive(tables, slot.previous(), known.is_none()),
        Kind::Unknown => None,
    };
    let stray = kind == Kind::Later && known.is_none() && slot.state() == SlotState::Late;
    if let Some(choice) = choice.filter(|_| stray) {
        return Some(choice);
    }
    let choice = match choice {
        Some(choice) => choice,
        None => current(tables, slot, kind != Kind::Later && known.is_none())?,
    };
    let entry = FlowEntry {
        service: service.id,
        backend: choice.id.get(),
        last_seen_ns: now_ns,
        ..FlowEntry::default()
    };
    // Also where a service that is gone has left the entry: recording would leave it as it is.
    if present.is_some() {
        tables.correct_flow(&key, &entry);
    } else {
        tables.record_flow(&key, &entry);
    }
    Some(choice)
}

/// The current owner, if there is one. It is trusted to be up: userspace takes its slots away before it marks it down.
#[inline(always)]
fn current<T: Tables>(tables: &T, slot: Slot, new_flow: bool) -> Option<Choice> {
    let id = slot.current();
    (state(tables, id)? != BackendState::Absent).then_some(Choice { id, new_flow })
}

/// The backend, if it may receive packets of flows that are already there.
#[inline(always)]
fn alive<T: Tables>(tables: &T, id: BackendId, new_flow: bool) -> Option<Choice> {
    state(tables, id)?.keeps_flows().then_some(Choice { id, new_flow })
}

#[inline(always)]
fn state<T: Tables>(tables: &T, id: BackendId) -> Option<BackendState> {
    tables.backend(id).map(|entry| BackendState::from_raw(entry.state))
}
