//! A service's slots, before and after.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use lb_common::abi::{BackendId, Slot};

use super::{DesiredService, PlanError};
use crate::model::ring::{self, Member, Seed};

/// The ring a service shall have, by backend address; the error names the first backend that gets no slot.
pub(super) fn owners(service: &DesiredService, key: [u8; 16], size: u32) -> Result<Vec<Ipv4Addr>, PlanError> {
    let members: Vec<Member> =
        service.backends.iter().map(|b| Member { address: b.address, weight: b.weight }).collect();
    let built = ring::build(&Seed { service: service.id, key }, &members, size);
    let owners: Vec<Ipv4Addr> = built.iter().map(|owner| members[*owner as usize].address).collect();
    let served: std::collections::BTreeSet<_> = owners.iter().collect();
    match members.iter().find(|member| member.weight > 0 && !served.contains(&member.address)) {
        Some(member) => Err(PlanError::NoSlot { service: service.id, backend: member.address, size }),
        None => Ok(owners),
    }
}

/// Words to store, so that a ring of `size` slots that holds `before` (nothing, if new) is owned as `owners` say; `None`
/// if no slot changes. Without owners (nobody has a weight) a new ring is empty, and another stays as it is.
pub(super) fn changes(
    before: Option<&[Slot]>,
    owners: &[Ipv4Addr],
    ids: &BTreeMap<Ipv4Addr, BackendId>,
    size: u32,
) -> Option<Vec<Option<Slot>>> {
    if before.is_none() && owners.is_empty() {
        // Written all the same: an earlier ring in this range of the pool must not show through.
        return Some(vec![Some(Slot::default()); size as usize]);
    }
    let words: Vec<Option<Slot>> = owners
        .iter()
        .enumerate()
        .map(|(index, owner)| {
            let owner = ids.get(owner).copied().unwrap_or(BackendId::NONE);
            let Some(before) = before else {
                // A new ring: whatever an earlier one left in this range of the pool is overwritten.
                return Some(Slot::settled(owner));
            };
            let slot = before.get(index).copied().unwrap_or_default();
            let moved = slot.moved_to(owner);
            (moved != slot).then_some(moved)
        })
        .collect();
    words.iter().any(Option::is_some).then_some(words)
}
