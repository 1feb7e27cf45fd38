//! Changes of a running service after which its flows fall into other slots, or are found in other ways: a new ring
//! size, another hash, all flows recorded or not any more, a policy.
//!
//! First every slot is marked, so that what the flow tables do not know yet gets recorded; then the service's entry is
//! swapped, with all slots unsettled.

use lb_common::abi::{ServiceEntry, Slot, SlotState};

use super::STEP_WAIT_NS;
use super::rings::Before;

/// Flags that decide how flows are placed and found.
const PLACING: u32 = ServiceEntry::TRACKED | ServiceEntry::BY_SOURCE | ServiceEntry::POLICY;

/// What a change of a service's entry asks of its slots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bigger {
    /// Nothing.
    Not,
    /// A record of all live flows: they fall into other slots, whose owners before are unknowable.
    Rehash,
    /// A mark on all slots. Unknown packets that do not begin a flow still go by the ring and what it remembers; only
    /// new flows are placed or found in other ways.
    Repolicy,
}

impl Bigger {
    /// Between the entry in force and the wanted one.
    pub(super) fn between(present: &ServiceEntry, wanted: &ServiceEntry) -> Self {
        let differ = (present.flags ^ wanted.flags) & PLACING;
        if present.ring_size != wanted.ring_size || differ & ServiceEntry::BY_SOURCE != 0 {
            Self::Rehash
        } else if differ != 0 {
            Self::Repolicy
        } else {
            Self::Not
        }
    }

    /// From when on the slots allow it, in nanoseconds: each has been unsettled for long enough then.
    pub(super) fn due_ns(self, before: &Before<'_>, wanted: &ServiceEntry) -> u64 {
        let wait_ns = match self {
            Self::Not => return before.now_ns,
            Self::Rehash => super::idle_ns(wanted),
            Self::Repolicy => STEP_WAIT_NS,
        };
        let marked_ns = |(index, slot): (usize, &Slot)| match slot.state() {
            SlotState::Settled => before.lacks_mark(*slot).then_some(before.now_ns),
            SlotState::Fresh | SlotState::Late => Some(before.known.first_ns(index).unwrap_or(before.now_ns)),
        };
        let last_ns = before.slots.iter().enumerate().filter_map(marked_ns).max();
        last_ns.map_or(before.now_ns, |last_ns| last_ns.saturating_add(wait_ns))
    }
}

/// The wanted entry with everything that decides how flows are placed as it is in force.
pub(super) fn held(present: &ServiceEntry, wanted: ServiceEntry) -> ServiceEntry {
    ServiceEntry {
        ring_start: present.ring_start,
        ring_size: present.ring_size,
        flags: wanted.flags & !PLACING | present.flags & PLACING,
        ..wanted
    }
}
