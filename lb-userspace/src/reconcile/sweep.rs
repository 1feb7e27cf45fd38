//! What time settles: forgets flows that are dead, settles slots whose change is long over, frees ids that nothing
//! names any more.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendId, BackendState, FlowEntry, FlowKey, Protocol, Slot, SlotState};
use lb_common::datapath::hash;

use super::{Flow, Observed, Plan, Step};

const SECOND_NS: u64 = 1_000_000_000;
/// A TCP flow that is silent for so long is dead.
const TCP_IDLE_NS: u64 = 15 * 60 * SECOND_NS;
/// A UDP flow that is silent for so long is dead.
const UDP_IDLE_NS: u64 = 60 * SECOND_NS;

/// When the ring of each service last changed. What is not known counts as changed when it is first asked about: so a
/// daemon that takes over waits a whole idle time.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// By service id: a service that takes over an id has written its ring.
    changed_ns: BTreeMap<u32, u64>,
}

impl Changes {
    /// Notes the ring changes of a plan that was made for `observed`.
    pub fn note(&mut self, observed: &Observed, plan: &Plan) {
        let services = observed.entries();
        for step in &plan.steps {
            let Step::WriteSlots { start, .. } = step else { continue };
            let service = services.values().find(|service| service.ring_start == *start);
            if let Some(service) = service {
                self.changed_ns.insert(service.id, observed.now_ns);
            }
        }
    }

    /// Whether every flow that is older than the last change, and alive, has been seen since.
    fn is_over(&mut self, service: u32, protocol: Protocol, now_ns: u64) -> bool {
        let changed_ns = *self.changed_ns.entry(service).or_insert(now_ns);
        now_ns.saturating_sub(changed_ns) >= idle_ns(Some(protocol))
    }
}

fn idle_ns(protocol: Option<Protocol>) -> u64 {
    match protocol {
        Some(Protocol::Udp) => UDP_IDLE_NS,
        Some(Protocol::Tcp | Protocol::Sctp) | None => TCP_IDLE_NS,
    }
}

/// Plans one sweep. When a service's change is over, its slots settle if every live recorded flow in them is on the
/// current owner, and become late otherwise.
/// Ids of backends that are down are taken out of slots that name them as previous owner (which changes nothing for any
/// packet, see [`Slot::forgetting`]), and freed once neither a slot nor a live flow names them.
pub fn sweep(observed: &Observed, changes: &mut Changes) -> Plan {
    if !observed.needs_flows() {
        return Plan::default();
    }
    let (live, dead): (Vec<Flow>, Vec<Flow>) =
        observed.flows.iter().partition(|flow| is_live(observed, &flow.key, &flow.entry));
    let mut steps: Vec<Step> =
        dead.iter().map(|flow| Step::DeleteFlow(flow.table, flow.key, flow.entry.last_seen_ns)).collect();
    let is_down =
        |entry: &lb_common::abi::BackendEntry| BackendState::from_raw(entry.state) == BackendState::Retired;
    let down: BTreeSet<u32> =
        observed.backends.iter().filter(|(_, entry)| is_down(entry)).map(|(id, _)| *id).collect();
    let mut named: BTreeSet<u32> = live.iter().map(|flow| flow.entry.backend).collect();
    for (id, service) in observed.services() {
        let Some(slots) = observed.rings.get(&service.id) else { continue };
        let over = changes.is_over(service.id, id.protocol, observed.now_ns);
        let elsewhere = over.then(|| strayed(observed, service.id, slots, &live));
        let words: Vec<Option<Slot>> = slots
            .iter()
            .enumerate()
            .map(|(index, slot)| {
                let next = match &elsewhere {
                    Some(elsewhere) if !elsewhere.contains(&index) => Slot::settled(slot.current()),
                    Some(_) => forget_down(slot.late(), &down),
                    None => forget_down(*slot, &down),
                };
                (next != *slot).then_some(next)
            })
            .collect();
        named.extend(slots.iter().map(|slot| slot.current().get()));
        if words.iter().any(Option::is_some) {
            steps.push(Step::WriteSlots { start: service.ring_start, words });
        }
    }
    steps.extend(down.difference(&named).filter_map(|id| BackendId::new(*id)).map(Step::ForgetBackend));
    Plan { steps }
}

fn is_live(observed: &Observed, key: &FlowKey, flow: &FlowEntry) -> bool {
    observed.now_ns.saturating_sub(flow.last_seen_ns) <= idle_ns(Protocol::from_number(key.protocol))
}

/// Unsettled slots of a service with a live flow that is not on the slot's current owner.
fn strayed(observed: &Observed, service: u32, slots: &[Slot], live: &[Flow]) -> BTreeSet<usize> {
    let ours = live.iter().filter(|flow| flow.entry.service == service);
    let placed = ours.filter_map(|Flow { key: flow, entry, .. }| {
        let index = slot_of(observed, flow, slots.len())?;
        let slot = slots.get(index).filter(|slot| slot.state() != SlotState::Settled)?;
        (slot.current().get() != entry.backend).then_some(index)
    });
    placed.collect()
}

/// The slot that a flow falls into, as the program computes it.
fn slot_of(observed: &Observed, flow: &FlowKey, ring_size: usize) -> Option<usize> {
    let hash = hash::flow(
        observed.control.hash_key,
        flow.source,
        flow.destination,
        flow.source_port,
        flow.destination_port,
        flow.protocol,
    );
    Some(hash::slot(hash, u32::try_from(ring_size).ok()?) as usize)
}

fn forget_down(slot: Slot, down: &BTreeSet<u32>) -> Slot {
    let previous = slot.previous();
    if down.contains(&previous.get()) { slot.forgetting(previous) } else { slot }
}
