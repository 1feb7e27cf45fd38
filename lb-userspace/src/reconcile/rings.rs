//! A service's slots, before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::{BackendId, Slot, SlotState};

use super::history::Known;
use super::lists::Digests;
use super::policies::Schedules;
use super::{DesiredService, PlanError, STEP_WAIT_NS};
use crate::model::ServiceId;
use crate::model::ring::{self, Member, Seed};

/// The rings that were built last. A ring depends on nothing but what is compared here, so that only services whose
/// backends or weights have changed cost the milliseconds of building one.
#[derive(Clone, Debug, Default)]
pub struct Memo {
    /// By service and size: of one that is about to change there are two.
    rings: BTreeMap<(ServiceId, u32), Built>,
    pub(super) digests: Digests,
    pub(super) schedules: Schedules,
}

#[derive(Clone, Debug, Default)]
struct Built {
    key: [u8; 16],
    members: Vec<Member>,
    owners: Arc<[u32]>,
    unserved: Option<IpAddr>,
}

impl Built {
    fn new(seed: Seed, members: Vec<Member>, size: u32) -> Self {
        let owners: Arc<[u32]> = ring::build(&seed, &members, size).into();
        let mut served = vec![false; members.len()];
        for owner in owners.iter() {
            if let Some(served) = served.get_mut(*owner as usize) {
                *served = true;
            }
        }
        let unserved = members.iter().zip(&served).find(|(member, served)| member.weight > 0 && !**served);
        let unserved = unserved.map(|(member, _)| member.address);
        Self { key: seed.key, members, owners, unserved }
    }
}

impl Memo {
    /// The ring a service shall have, as indexes into its backends; the error names the first backend that gets no slot.
    pub(super) fn owners(
        &mut self,
        service: &DesiredService,
        key: [u8; 16],
        size: u32,
    ) -> Result<Arc<[u32]>, PlanError> {
        let built = self.ring(service, key, size);
        match built.unserved {
            Some(backend) => Err(PlanError::NoSlot { service: service.id, backend, size }),
            None => Ok(Arc::clone(&built.owners)),
        }
    }

    /// The same for the time until the service has another size: there may be backends without slots.
    pub(super) fn owners_for_now(
        &mut self,
        service: &DesiredService,
        key: [u8; 16],
        size: u32,
    ) -> Arc<[u32]> {
        Arc::clone(&self.ring(service, key, size).owners)
    }

    fn ring(&mut self, service: &DesiredService, key: [u8; 16], size: u32) -> &Built {
        let member = |b: &super::DesiredBackend| Member { address: b.address, weight: b.ring_weight() };
        let members: Vec<Member> = service.backends.iter().map(member).collect();
        let built = self.rings.entry((service.id, size)).or_default();
        if built.key != key || built.members != members || built.owners.is_empty() {
            *built = Built::new(Seed { service: service.id, key }, members, size);
        }
        built
    }

    /// Forgets the rings of services that are gone.
    pub(super) fn retain(&mut self, wanted: impl Fn(ServiceId) -> bool) {
        self.rings.retain(|(service, _), _| wanted(*service));
    }
}

/// The backends of a service, in the order of its list.
pub(super) struct Owners<'a> {
    /// For each slot the index of its owner; empty if nobody takes new flows.
    pub(super) slots: &'a [u32],
    /// Their ids.
    pub(super) ids: &'a [BackendId],
    /// Those of them that drain.
    pub(super) draining: &'a BTreeSet<BackendId>,
    /// Those of them that keep their flows.
    pub(super) alive: &'a BTreeSet<BackendId>,
}

impl Owners<'_> {
    /// Who shall have a slot. Where nobody takes new flows, only those who drain keep theirs: the packet path trusts that
    /// a slot's current owner may receive.
    fn of(&self, index: usize, present: Slot) -> BackendId {
        match self.slots.get(index) {
            Some(owner) => self.ids.get(*owner as usize).copied().unwrap_or(BackendId::NONE),
            None if self.draining.contains(&present.current()) => present.current(),
            None => BackendId::NONE,
        }
    }
}

/// A service's slots as they are, and what is known of them.
pub(super) struct Before<'a> {
    pub(super) slots: &'a [Slot],
    /// Whether the tables are asked for packets of every slot: then they may know flows of one that nobody owns.
    pub(super) recorded: bool,
    pub(super) known: Known<'a>,
    pub(super) now_ns: u64,
}

impl Before<'_> {
    /// Whether the tables may know flows of a slot, or do not know all of them yet, for which it is not marked.
    pub(super) fn lacks_mark(&self, slot: Slot) -> bool {
        slot.state() == SlotState::Settled && (self.recorded || slot != Slot::default())
    }
}

/// How slots are changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Manner {
    /// A planned change in two steps, the rest at once.
    Tracked,
    /// Likewise, and every slot is marked: a bigger change is coming.
    Marked,
    /// Likewise, and no older owner is remembered, because flows fall into other slots from here on.
    Rehashed,
    /// At once; nothing is recorded.
    Untracked,
}

/// Words to store.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// `None` if no slot changes.
    pub(super) words: Option<Vec<Option<Slot>>>,
    /// When slots can change that are only marked now.
    pub(super) due_ns: Option<u64>,
}

/// Words to store, so that a ring of `size` slots that was not there is owned as `owners` say. All of them: an earlier
/// ring in this range of the pool must not show through.
pub(super) fn new(owners: &Owners<'_>, size: u32, slot: fn(BackendId) -> Slot) -> Vec<Option<Slot>> {
    (0..size as usize).map(|index| Some(slot(owners.of(index, Slot::default())))).collect()
}

/// Words to store, so that a ring is owned as `owners` say, or is on the way there.
pub(super) fn changes(before: &Before<'_>, owners: &Owners<'_>, manner: Manner) -> Changes {
    let mut due_ns: Option<u64> = None;
    let words: Vec<Option<Slot>> = before
        .slots
        .iter()
        .enumerate()
        .map(|(index, slot)| {
            let owner = owners.of(index, *slot);
            let next = match manner {
                Manner::Untracked => Slot::settled(owner),
                Manner::Tracked | Manner::Marked | Manner::Rehashed => {
                    let waits_until = waits_until(before, index, *slot, owner, owners);
                    due_ns = due_ns.into_iter().chain(waits_until).min();
                    if waits_until.is_some() { slot.marked() } else { slot.moved_to(owner) }
                }
            };
            let next = match manner {
                Manner::Marked if before.lacks_mark(next) => Slot::unsettled(next.current()),
                Manner::Marked => next,
                Manner::Rehashed => Slot::unsettled(next.current()),
                Manner::Tracked | Manner::Untracked => next,
            };
            (next != *slot || manner == Manner::Rehashed).then_some(next)
        })
        .collect();
    Changes { words: words.iter().any(Option::is_some).then_some(words), due_ns }
}

/// Until when a slot is only marked: where its owner lives on, new flows are recorded for a while before it changes.
fn waits_until(
    before: &Before<'_>,
    index: usize,
    slot: Slot,
    owner: BackendId,
    owners: &Owners<'_>,
) -> Option<u64> {
    if slot.current() == owner || !owners.alive.contains(&slot.current()) {
        return None;
    }
    let marked_ns = match slot.state() {
        SlotState::Settled => before.now_ns,
        SlotState::Fresh | SlotState::Late => before.known.first_ns(index).unwrap_or(before.now_ns),
    };
    Some(marked_ns.saturating_add(STEP_WAIT_NS)).filter(|due| *due > before.now_ns)
}
