//! Which backend a packet's flow belongs to: just enough tracking (DESIGN.md, section 3).
//!
//! A settled slot answers by itself. In an unsettled one the flow tables decide if they know the flow; what they do not
//! know goes by what kind of packet it is. What picks a backend for a new flow is `pick`'s.

use super::Tables;
use super::parse::{Kind, Packet};
use super::pick::{self, pick};
use super::tables::Recorded;
use super::work::{Asked, Wish};
use crate::abi::{
    BackendId, BackendState, FlowEntry, FlowKey, FlowTable, Reason, ServiceEntry, Slot, SlotState,
};

/// A recorded flow's time stamp is renewed at most this often, in nanoseconds: so its cache line stays clean.
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
/// its owner has changed, and where the service wants all flows recorded.
#[inline(always)]
pub(super) fn choose<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    packet: &Packet,
    (kind, slot): (Kind, Slot),
    asked: &mut Asked,
) -> Option<Choice> {
    if is_stateless(service, slot) {
        // Whether it exists is found out when it is read.
        return Some(Choice { id: slot.current(), new_flow: kind == Kind::Opening });
    }
    asked.kind = kind;
    asked.slot = slot;
    // One after the other: each needs much of the stack.
    if let Some(id) = recorded(tables, service, packet, asked) {
        return Some(Choice { id, new_flow: false });
    }
    let id = match asked.older {
        BackendId::NONE => pick(tables, service, packet, asked)?,
        id => id,
    };
    let id = keep(tables, service, asked, id)?;
    Some(Choice { id, new_flow: asked.new_flow })
}

/// Whether a slot's current owner has all live flows in it.
#[inline(always)]
fn is_stateless(service: &ServiceEntry, slot: Slot) -> bool {
    slot.state() == SlotState::Settled && service.flags & ServiceEntry::TRACKED == 0
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
    if is_stateless(service, slot) {
        return Some(slot.current());
    }
    let found = find(tables, &packet.flow_key(), service.id);
    let recorded = found.and_then(|(_, flow)| BackendId::new(flow.backend));
    let keeps = |id: &BackendId| alive(tables, *id);
    let previous = || Some(slot.previous()).filter(keeps);
    Some(recorded.filter(keeps).or_else(previous).unwrap_or(slot.current()))
}

/// The backend of a recorded flow, if it lives. Otherwise `asked` says what is to be done.
#[inline(never)]
fn recorded<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    packet: &Packet,
    asked: &mut Asked,
) -> Option<BackendId> {
    asked.key = packet.flow_key();
    asked.now_ns = tables.now_ns();
    if let Some((table, flow)) = find(tables, &asked.key, service.id) {
        if asked.kind != Kind::Opening || !flow.is_closing() {
            return known(tables, service, packet, asked, (table, flow));
        }
        // The client uses a port again: another flow.
        tables.forget_flow(table, &asked.key);
    }
    unknown(tables, service, asked);
    None
}

/// Half-open first: promotion inserts elsewhere before it deletes there. A record of another service is none.
#[inline(always)]
fn find<T: Tables>(tables: &T, key: &FlowKey, service: u32) -> Option<(FlowTable, FlowEntry)> {
    let ours =
        |table| tables.flow(table, key).filter(|flow| flow.service == service).map(|flow| (table, flow));
    ours(FlowTable::HalfOpen).or_else(|| ours(FlowTable::Established)).or_else(|| ours(FlowTable::Old))
}

/// A recorded flow stays where it is while its backend lives; otherwise it gets another one, and the record is to be
/// corrected. Its second packet makes it established. An RST ends nothing for sure and promotes nothing, because
/// anybody can send one.
#[inline(always)]
fn known<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    packet: &Packet,
    asked: &mut Asked,
    (table, flow): (FlowTable, FlowEntry),
) -> Option<BackendId> {
    let kind = asked.kind;
    let is_stale = asked.now_ns.wrapping_sub(flow.last_seen_ns) >= TOUCH_INTERVAL_NS;
    let marks = match kind {
        Kind::Closing => flow.marks & !FlowEntry::RESET | FlowEntry::CLOSING,
        Kind::Reset => flow.marks | FlowEntry::RESET,
        // So long after a FIN it is not the last acknowledgement: the flow is half closed and lives on, or is another one
        // from the same port, whose SYN came while the slot was settled, or the FIN was forged.
        Kind::Opening | Kind::Later | Kind::Unknown if is_stale => 0,
        Kind::Opening | Kind::Later | Kind::Unknown => flow.marks & !FlowEntry::RESET,
    };
    asked.entry = FlowEntry { last_seen_ns: asked.now_ns, marks, ..flow };
    let Some(id) = BackendId::new(flow.backend).filter(|id| alive(tables, *id)) else {
        asked.table = table;
        asked.older = BackendId::NONE;
        asked.wish = Wish::Correct;
        asked.new_flow = false;
        return None;
    };
    if table == FlowTable::HalfOpen && kind != Kind::Opening && kind != Kind::Reset {
        promote(tables, asked);
    } else if marks != flow.marks {
        tables.correct_flow(table, &asked.key, &asked.entry);
    } else if is_stale {
        tables.touch_flow(table, &asked.key, asked.now_ns);
        pick::remember(tables, service, packet, asked, id);
    }
    if asked.entry.is_closing() != flow.is_closing() {
        pick::add(tables, service, id, if asked.entry.is_closing() { -1 } else { 1 });
    }
    Some(id)
}

/// Inserts before it deletes: there is no moment without a record. What has no handshake and is not on the slot's
/// current owner was taken for an older flow, and so were others that a flood sends: they push out each other.
#[inline(always)]
fn promote<T: Tables>(tables: &T, asked: &Asked) {
    let elsewhere = asked.entry.backend != asked.slot.current().get();
    let table = if asked.key.is_tcp() || !elsewhere { FlowTable::Established } else { FlowTable::Old };
    match tables.record_flow(table, &asked.key, &asked.entry) {
        Recorded::New => {}
        Recorded::Present => tables.correct_flow(table, &asked.key, &asked.entry),
        // It stays half open.
        Recorded::Failed => return tables.touch_flow(FlowTable::HalfOpen, &asked.key, asked.now_ns),
    }
    tables.forget_flow(FlowTable::HalfOpen, &asked.key);
}

/// A flow that nobody has recorded. One that begins now is new. What did not begin now is older than the slot's first
/// change, and on its previous owner; where there is no telling (UDP) so it is while the slot is fresh. In a late slot
/// every live older flow has been recorded by now: what cannot tell is new, and a stray goes to the previous owner but
/// leaves no record that would keep the slot from settling.
#[inline(always)]
fn unknown<T: Tables>(tables: &T, service: &ServiceEntry, asked: &mut Asked) {
    let slot = asked.slot;
    let previous = || Some(slot.previous()).filter(|id| alive(tables, *id)).unwrap_or(BackendId::NONE);
    let (older, table, wish) = match (asked.kind, slot.state()) {
        (Kind::Opening, _) => (BackendId::NONE, FlowTable::HalfOpen, Wish::Record),
        (Kind::Unknown, SlotState::Fresh) => (previous(), FlowTable::HalfOpen, Wish::Record),
        // Where all flows are recorded and nothing has changed, an unknown one is new.
        (Kind::Unknown, _) => (BackendId::NONE, FlowTable::HalfOpen, Wish::Record),
        (_, SlotState::Late) => (previous(), FlowTable::Old, Wish::Nothing),
        // Where it comes from nowhere, an RST is no reason to remember a flow that it says is over.
        (Kind::Reset, _) => (previous(), FlowTable::Old, Wish::Nothing),
        (Kind::Later | Kind::Closing, _) => (previous(), FlowTable::Old, Wish::Record),
    };
    // All live flows should be known by now, or always are.
    if table == FlowTable::Old && slot.state() != SlotState::Fresh {
        tables.count_note(service.id, Reason::FlowAtRisk);
    }
    asked.older = older;
    asked.table = table;
    asked.wish = wish;
    asked.new_flow = table == FlowTable::HalfOpen;
    let marks = if asked.kind == Kind::Closing { FlowEntry::CLOSING } else { 0 };
    asked.entry =
        FlowEntry { service: service.id, backend: 0, last_seen_ns: asked.now_ns, marks, reserved: 0 };
}

/// Does what is wished with the backend that was found; the one that counts, which is another CPU's choice where that
/// was faster.
#[inline(never)]
fn keep<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    asked: &mut Asked,
    id: BackendId,
) -> Option<BackendId> {
    asked.entry.backend = id.get();
    match asked.wish {
        Wish::Nothing => return Some(id),
        Wish::Correct => tables.correct_flow(asked.table, &asked.key, &asked.entry),
        Wish::Record => match tables.record_flow(asked.table, &asked.key, &asked.entry) {
            Recorded::New => {}
            // Nor counted: its next packet tries again.
            Recorded::Failed => {
                tables.count_note(service.id, Reason::FlowNotRecorded);
                return Some(id);
            }
            Recorded::Present => match tables.flow(asked.table, &asked.key) {
                Some(flow) if flow.service == service.id => {
                    return BackendId::new(flow.backend).filter(|id| alive(tables, *id)).or(Some(id));
                }
                // Of a service that is gone.
                _ => tables.correct_flow(asked.table, &asked.key, &asked.entry),
            },
        },
    }
    if !asked.entry.is_closing() {
        pick::add(tables, service, id, 1);
    }
    Some(id)
}

/// The current owner, if there is one. It is trusted to be up: userspace takes its slots away before it marks it down.
#[inline(always)]
pub(super) fn current<T: Tables>(tables: &T, slot: Slot) -> Option<BackendId> {
    let id = slot.current();
    (state(tables, id)? != BackendState::Absent).then_some(id)
}

/// Whether a backend may receive packets of flows that are already there.
#[inline(always)]
fn alive<T: Tables>(tables: &T, id: BackendId) -> bool {
    state(tables, id).is_some_and(BackendState::keeps_flows)
}

#[inline(always)]
pub(super) fn state<T: Tables>(tables: &T, id: BackendId) -> Option<BackendState> {
    tables.backend(id).map(|entry| BackendState::from_raw(entry.state))
}
