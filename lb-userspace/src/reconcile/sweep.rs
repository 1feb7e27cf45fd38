//! Frees the ids of backends that are gone.

use std::collections::BTreeSet;

use lb_common::abi::{BackendId, BackendState, Slot};

use super::{Observed, Plan, Step};

/// Ids of backends that are down are taken out of the slots that still name them as previous owner (which changes
/// nothing for any packet, see [`Slot::forgetting`]), and freed once neither a slot nor a recorded flow names them.
pub fn sweep(observed: &Observed) -> Plan {
    let down: BTreeSet<u32> = observed
        .backends
        .iter()
        .filter(|(_, entry)| BackendState::from_raw(entry.state) == BackendState::Down)
        .map(|(id, _)| *id)
        .collect();
    if down.is_empty() {
        return Plan::default();
    }
    let mut named = observed.flow_backends.clone();
    let mut steps = Vec::new();
    for (key, slots) in &observed.rings {
        let Some(service) = observed.services.get(key) else { continue };
        let words: Vec<Option<Slot>> = slots.iter().map(|slot| forgotten(*slot, &down)).collect();
        named.extend(slots.iter().map(|slot| slot.current().get()));
        if words.iter().any(Option::is_some) {
            steps.push(Step::WriteSlots { start: service.ring_start, words });
        }
    }
    steps.extend(down.difference(&named).filter_map(|id| BackendId::new(*id)).map(Step::ForgetBackend));
    Plan { steps }
}

fn forgotten(slot: Slot, down: &BTreeSet<u32>) -> Option<Slot> {
    let previous = slot.previous();
    let forgotten = if down.contains(&previous.get()) { slot.forgetting(previous) } else { slot };
    (forgotten != slot).then_some(forgotten)
}
