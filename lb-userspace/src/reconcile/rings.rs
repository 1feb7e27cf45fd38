//! A service's slots, before and after.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::abi::{BackendId, Slot};

use super::lists::Digests;
use super::{DesiredService, PlanError};
use crate::model::ServiceId;
use crate::model::ring::{self, Member, Seed};

/// The rings that were built last. A ring depends on nothing but what is compared here, so that only services whose
/// backends or weights have changed cost the milliseconds of building one.
#[derive(Clone, Debug, Default)]
pub struct Memo {
    rings: BTreeMap<ServiceId, Built>,
    pub(super) digests: Digests,
}

#[derive(Clone, Debug)]
struct Built {
    key: [u8; 16],
    size: u32,
    members: Vec<Member>,
    owners: Arc<[u32]>,
}

impl Memo {
    /// The ring a service shall have, as indexes into its backends; the error names the first backend that gets no slot.
    pub(super) fn owners(
        &mut self,
        service: &DesiredService,
        key: [u8; 16],
        size: u32,
    ) -> Result<Arc<[u32]>, PlanError> {
        let member = |b: &super::DesiredBackend| Member { address: b.address, weight: b.ring_weight() };
        let members: Vec<Member> = service.backends.iter().map(member).collect();
        let same = |built: &&Built| (built.key, built.size) == (key, size) && built.members == members;
        if let Some(built) = self.rings.get(&service.id).filter(same) {
            return Ok(Arc::clone(&built.owners));
        }
        let owners: Arc<[u32]> = ring::build(&Seed { service: service.id, key }, &members, size).into();
        let mut served = vec![false; members.len()];
        for owner in owners.iter() {
            if let Some(served) = served.get_mut(*owner as usize) {
                *served = true;
            }
        }
        let unserved = members.iter().zip(&served).find(|(member, served)| member.weight > 0 && !**served);
        if let Some((member, _)) = unserved {
            return Err(PlanError::NoSlot { service: service.id, backend: member.address, size });
        }
        self.rings.insert(service.id, Built { key, size, members, owners: Arc::clone(&owners) });
        Ok(owners)
    }

    /// Forgets the rings of services that are gone.
    pub(super) fn retain(&mut self, wanted: impl Fn(ServiceId) -> bool) {
        self.rings.retain(|service, _| wanted(*service));
    }
}

/// The backends of a service, in the order of its list.
pub(super) struct Owners<'a> {
    /// For each slot the index of its owner; empty if nobody takes new flows.
    pub(super) slots: &'a [u32],
    /// Their ids.
    pub(super) ids: &'a [BackendId],
    /// Those of them that drain.
    pub(super) draining: &'a [BackendId],
}

/// Words to store, so that a ring of `size` slots that holds `before` (nothing, if new) is owned as `owners` say; `None`
/// if no slot changes. Where nobody takes new flows, a new ring is empty, and in another one only those who drain keep
/// their slots: the packet path trusts that a slot's current owner may receive.
pub(super) fn changes(before: Option<&[Slot]>, owners: &Owners<'_>, size: u32) -> Option<Vec<Option<Slot>>> {
    if owners.slots.is_empty() {
        let Some(before) = before else {
            // Written all the same: an earlier ring in this range of the pool must not show through.
            return Some(vec![Some(Slot::default()); size as usize]);
        };
        let vacated = |slot: &Slot| {
            let stays = slot.current() == BackendId::NONE || owners.draining.contains(&slot.current());
            (!stays).then(|| slot.moved_to(BackendId::NONE))
        };
        return some_of(before.iter().map(vacated).collect());
    }
    let words = owners.slots.iter().enumerate().map(|(index, owner)| {
        let owner = owners.ids.get(*owner as usize).copied().unwrap_or(BackendId::NONE);
        let Some(before) = before else {
            // A new ring: whatever an earlier one left in this range of the pool is overwritten.
            return Some(Slot::settled(owner));
        };
        let slot = before.get(index).copied().unwrap_or_default();
        let moved = slot.moved_to(owner);
        (moved != slot).then_some(moved)
    });
    some_of(words.collect())
}

fn some_of(words: Vec<Option<Slot>>) -> Option<Vec<Option<Slot>>> {
    words.iter().any(Option::is_some).then_some(words)
}
