//! What time settles: forgets flows that are dead, settles slots whose change is long over, frees ids that nothing
//! names any more.
//!
//! A sweep goes beside everything else. It begins with a snapshot of slots, is given every recorded flow, and ends with
//! writes to those slots that are still what they were.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{
    BackendEntry, BackendId, BackendState, FlowEntry, FlowTable, Protocol, ServiceEntry, Slot, SlotState,
};
use lb_common::datapath::{FRAGMENT_LIFE_NS, TOUCH_INTERVAL_NS, hash};

use super::{Flow, History, Observed, Plan, Step, idle_ns};
use crate::model::IdleTimes;

/// For how long after a backend is retired its id stays taken: fragments name it for their time, and a packet that is
/// in the program when it is retired may record it.
const GRACE_NS: u64 = FRAGMENT_LIFE_NS + 5_000_000_000;

/// One look at all recorded flows.
#[derive(Clone, Debug)]
pub struct Sweep {
    begun_ns: u64,
    hash_key: [u64; 2],
    /// By service id.
    services: Vec<Option<Watched>>,
    retired: BTreeSet<u32>,
    /// Live flows by backend id.
    flows: Vec<u64>,
    /// Those that are not closing.
    open: Vec<u64>,
    tables: [u64; 3],
}

/// A service as it was when the sweep began.
#[derive(Clone, Debug)]
struct Watched {
    entry: ServiceEntry,
    /// Empty where all are settled.
    slots: Vec<Slot>,
    /// By slot, a bit each: a live flow is not on the current owner.
    elsewhere: Vec<u64>,
}

/// What a sweep has found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Census {
    /// Live flows by backend id. One that was promoted meanwhile may be counted twice.
    pub flows: BTreeMap<u32, u64>,
    /// Those of them that are not closing.
    pub open: BTreeMap<u32, u64>,
    /// Live flows in each table, TCP's and the others' together.
    pub tables: BTreeMap<FlowTable, u64>,
    /// Slots that settled only because it took too long; some of their flows may have moved.
    pub forced: u64,
    /// The same by service id, of services that had any.
    pub forced_of: BTreeMap<u32, u64>,
    /// When the first slot settles in any case that has this backend for its previous owner, by backend id, in
    /// nanoseconds; where flows are known in settled slots too that moves nobody, and it is left out.
    pub forced_at_ns: BTreeMap<u32, u64>,
    /// Unsettled slots by service id, of services that have any.
    pub unsettled: BTreeMap<u32, u64>,
    /// Backends that own slots.
    pub current: BTreeSet<u32>,
    /// Previous owners of fresh slots: flows of theirs may live that nobody has recorded yet.
    pub previous_fresh: BTreeSet<u32>,
    /// Previous owners of late slots: their live flows are recorded.
    pub previous_late: BTreeSet<u32>,
}

impl Census {
    /// What a sweep of these flows would find, without one: nothing is settled.
    pub fn of(observed: &Observed, flows: &[Flow]) -> Self {
        let mut sweep = Sweep::begin(observed);
        for flow in flows {
            let _dead = sweep.take(flow);
        }
        let mut census = sweep.census();
        let slots = observed.rings.iter().flat_map(|(id, slots)| slots.iter().map(move |slot| (id, slot)));
        slots.for_each(|(id, slot)| census.count(*id, *slot));
        census
    }

    /// Whether a backend may have flows that nobody has recorded.
    pub fn may_have_unseen(&self, backend: u32) -> bool {
        self.current.contains(&backend) || self.previous_fresh.contains(&backend)
    }

    /// All live flows that are recorded.
    pub fn entries(&self) -> u64 {
        self.tables.values().sum()
    }

    /// Whether nobody needs a backend that takes no new flows: it has none that are recorded, and none can be left that
    /// are not.
    pub fn is_done(&self, backend: u32) -> bool {
        !self.flows.contains_key(&backend) && !self.may_have_unseen(backend)
    }

    /// Notes when a service's slots settle in any case, if that can move flows.
    fn note_forced(&mut self, slots: &[Slot], entry: &ServiceEntry, history: &History) {
        let terms = history.terms(entry.id).filter(|terms| terms.max_unsettled_ns > 0 && !terms.held);
        let Some(terms) = terms.filter(|_| entry.flags & ServiceEntry::TRACKED == 0) else { return };
        let known = history.of(entry.id, entry.ring_start);
        for (index, slot) in slots.iter().enumerate().filter(|(_, slot)| is_unsettled(slot)) {
            let Some(first_ns) = known.first_ns(index) else { continue };
            let at_ns = first_ns.saturating_add(terms.max_unsettled_ns);
            let first = self.forced_at_ns.entry(slot.previous().get()).or_insert(at_ns);
            *first = at_ns.min(*first);
        }
    }

    fn count(&mut self, service: u32, slot: Slot) {
        self.current.insert(slot.current().get());
        let previous = slot.previous().get();
        match slot.state() {
            SlotState::Settled => return,
            SlotState::Fresh => self.previous_fresh.insert(previous),
            SlotState::Late => self.previous_late.insert(previous),
        };
        *self.unsettled.entry(service).or_default() += 1;
    }
}

impl Sweep {
    /// Begins one with a snapshot. All flows that are recorded from now on are to be given to it, table by table in the
    /// order of [`FlowTable::ALL`]: a flow that moves from one to another meanwhile is found in the later one.
    pub fn begin(observed: &Observed) -> Self {
        let entries = observed.entries();
        let most = entries.keys().next_back().map_or(0, |id| *id as usize + 1);
        let mut services = vec![None; most];
        for (id, entry) in entries {
            let slots = observed.rings.get(&id).filter(|slots| slots.iter().any(is_unsettled));
            let slots = slots.cloned().unwrap_or_default();
            let elsewhere = vec![0; slots.len().div_ceil(64)];
            if let Some(service) = services.get_mut(id as usize) {
                *service = Some(Watched { entry, slots, elsewhere });
            }
        }
        Self {
            begun_ns: observed.now_ns,
            hash_key: observed.control.hash_key,
            services,
            retired: retired(observed),
            flows: vec![0; observed.size.backends as usize + 1],
            open: vec![0; observed.size.backends as usize + 1],
            tables: [0; 3],
        }
    }

    /// Takes a recorded flow. One that is dead is to be deleted, if it is still the same then; others are noted.
    pub fn take(&mut self, flow: &Flow) -> Option<Step> {
        let Flow { table, key, entry } = flow;
        let service = self.services.get_mut(entry.service as usize).and_then(Option::as_mut);
        let silent_ns = self.begun_ns.saturating_sub(entry.last_seen_ns);
        let limit_ns = match &service {
            Some(service) => life_ns(&service.entry, flow),
            None => gone_ns(key.protocol),
        };
        // Stamps are exact to the interval in which they are renewed.
        if silent_ns > limit_ns.saturating_add(TOUCH_INTERVAL_NS) {
            // Until it is deleted another flow from the same port can bring it back to life: its slot waits for the next
            // sweep, which sees what became of it.
            if let Some(service) = service {
                service.note(self.hash_key, flow);
            }
            return Some(Step::DeleteFlow(*table, *key, entry.last_seen_ns));
        }
        if let Some(count) = self.tables.get_mut(*table as usize) {
            *count += 1;
        }
        if let Some(count) = self.flows.get_mut(entry.backend as usize) {
            *count += 1;
        }
        if let Some(count) = self.open.get_mut(entry.backend as usize).filter(|_| !entry.is_closing()) {
            *count += 1;
        }
        if let Some(service) = service {
            service.note(self.hash_key, flow);
        }
        None
    }

    /// Ends it: settles slots, forgets retired backends. What it changes is in the history already.
    pub fn finish(self, now: &Observed, history: &mut History) -> (Plan, Census) {
        let mut census = self.census();
        let mut steps = Vec::new();
        history.retire(now, now.now_ns);
        let entries = now.entries();
        history.keep_services(|id| entries.contains_key(&id));
        for (id, entry) in &entries {
            let Some(slots) = now.rings.get(id) else { continue };
            history.refresh(*id, entry.ring_start, slots, now.now_ns);
            let watched = self.services.get(*id as usize).and_then(Option::as_ref);
            let watched = watched.filter(|watched| same_placing(&watched.entry, entry));
            let words = match watched {
                Some(watched) => self.settled(watched, slots, now, history, &mut census),
                None => slots.clone(),
            };
            for (index, (slot, before)) in words.iter().zip(slots).enumerate() {
                // One that has only become late now: flows may have spoken, and been recorded, behind the read position.
                let was_late = watched.and_then(|watched| watched.slots.get(index));
                let was_late = was_late.is_some_and(|begun| begun.state() == SlotState::Late);
                let turns_late = slot.state() == SlotState::Late && !was_late;
                census.count(*id, if turns_late { *before } else { *slot });
            }
            census.note_forced(&words, entry, history);
            let changed: Vec<Option<Slot>> =
                words.iter().zip(slots).map(|(new, old)| (new != old).then_some(*new)).collect();
            if changed.iter().any(Option::is_some) {
                history.refresh(*id, entry.ring_start, &words, now.now_ns);
                steps.push(Step::WriteSlots { start: entry.ring_start, words: changed });
            }
        }
        census.forced_at_ns.remove(&BackendId::NONE.get());
        for nobody in [&mut census.current, &mut census.previous_fresh, &mut census.previous_late] {
            nobody.remove(&BackendId::NONE.get());
        }
        let free = retired(now).into_iter().filter(|id| self.is_free(*id, now, history, &census));
        steps.extend(free.filter_map(BackendId::new).map(Step::ForgetBackend));
        (Plan { steps, ..Plan::default() }, census)
    }

    fn census(&self) -> Census {
        let some = |counts: &[u64]| {
            let counts = (0..).zip(counts.iter().copied());
            counts.filter(|(_, count)| *count > 0).collect()
        };
        Census {
            flows: some(&self.flows),
            open: some(&self.open),
            tables: FlowTable::ALL.into_iter().zip(self.tables).collect(),
            ..Census::default()
        }
    }

    /// The slots of a service as they shall be now.
    fn settled(
        &self,
        watched: &Watched,
        slots: &[Slot],
        now: &Observed,
        history: &History,
        census: &mut Census,
    ) -> Vec<Slot> {
        let entry = &watched.entry;
        let known = history.of(entry.id, entry.ring_start);
        let terms = history.terms(entry.id).unwrap_or_default();
        let by_time = entry.flags & ServiceEntry::TRACKED != 0;
        let past = |since: Option<u64>, wait_ns: u64| {
            since.is_some_and(|since| now.now_ns.saturating_sub(since) >= wait_ns)
        };
        let next = |(index, slot): (usize, &Slot)| {
            if !is_unsettled(slot) {
                return *slot;
            }
            let slot = forget(*slot, &self.retired);
            let over = past(known.last_ns(index), idle_ns(entry));
            let unchanged =
                watched.slots.get(index).is_some_and(|begun| forget(*begun, &self.retired) == slot);
            let all_here = by_time || !watched.is_elsewhere(index);
            let late = slot.state() == SlotState::Late;
            if terms.held {
                return if over { slot.late() } else { slot };
            }
            if late && over && unchanged && all_here {
                return Slot::settled(slot.current());
            }
            if terms.max_unsettled_ns > 0 && past(known.first_ns(index), terms.max_unsettled_ns) {
                census.forced += 1;
                *census.forced_of.entry(entry.id).or_default() += 1;
                return Slot::settled(slot.current());
            }
            if over { slot.late() } else { slot }
        };
        slots.iter().enumerate().map(next).collect()
    }

    /// Whether nothing names a backend's id any more.
    fn is_free(&self, id: u32, now: &Observed, history: &History, census: &Census) -> bool {
        let over = history.retired_ns(id).is_some_and(|since| now.now_ns.saturating_sub(since) >= GRACE_NS);
        let previous = [&census.previous_fresh, &census.previous_late];
        over && self.retired.contains(&id)
            && !census.flows.contains_key(&id)
            && !census.current.contains(&id)
            && !previous.iter().any(|ids| ids.contains(&id))
            && !now.quic.values().any(|named| *named == id)
    }
}

impl Watched {
    fn note(&mut self, hash_key: [u64; 2], flow: &Flow) {
        if self.slots.is_empty() {
            return;
        }
        let Some(index) = slot_of(hash_key, &self.entry, flow) else { return };
        let Some(slot) = self.slots.get(index).filter(|slot| is_unsettled(slot)) else { return };
        if slot.current().get() == flow.entry.backend {
            return;
        }
        if let Some(bits) = self.elsewhere.get_mut(index / 64) {
            *bits |= 1 << (index % 64);
        }
    }

    fn is_elsewhere(&self, index: usize) -> bool {
        self.elsewhere.get(index / 64).is_none_or(|bits| bits >> (index % 64) & 1 == 1)
    }
}

fn is_unsettled(slot: &Slot) -> bool {
    slot.state() != SlotState::Settled
}

fn retired(observed: &Observed) -> BTreeSet<u32> {
    let is_retired = |entry: &BackendEntry| BackendState::from_raw(entry.state) == BackendState::Retired;
    observed.backends.iter().filter(|(_, entry)| is_retired(entry)).map(|(id, _)| *id).collect()
}

/// Without retired backends as previous owners, which changes nothing for any packet, see [`Slot::forgetting`].
fn forget(slot: Slot, retired: &BTreeSet<u32>) -> Slot {
    let previous = slot.previous();
    if retired.contains(&previous.get()) { slot.forgetting(previous) } else { slot }
}

/// Whether flows fall into the same slots and are found in the same way.
fn same_placing(before: &ServiceEntry, now: &ServiceEntry) -> bool {
    let placing = |entry: &ServiceEntry| {
        let flags = entry.flags & (ServiceEntry::TRACKED | ServiceEntry::BY_SOURCE | ServiceEntry::POLICY);
        (entry.ring_start, entry.ring_size, flags)
    };
    placing(before) == placing(now)
}

/// After how long a silence a flow is dead. Only TCP has a handshake to complete. An RST makes no difference: anybody can
/// send one in the name of a flow that is silent for now, and nobody takes it back before the flow speaks again.
fn life_ns(service: &ServiceEntry, flow: &Flow) -> u64 {
    const TENTH_NS: u64 = 100_000_000;
    let closing_ns = u64::from(service.closing_ds) * TENTH_NS;
    let life_ns = match flow.table {
        FlowTable::HalfOpen if flow.key.is_tcp() => u64::from(service.half_open_ds) * TENTH_NS,
        FlowTable::HalfOpen | FlowTable::Established | FlowTable::Old => idle_ns(service),
    };
    if flow.entry.marks & FlowEntry::CLOSING != 0 { life_ns.min(closing_ns) } else { life_ns }
}

/// The same for a flow whose service is gone.
fn gone_ns(protocol: u8) -> u64 {
    let protocol = Protocol::from_number(protocol).unwrap_or(Protocol::Tcp);
    u64::try_from(IdleTimes::of(protocol).established.as_nanos()).unwrap_or(u64::MAX)
}

/// The slot that a flow falls into, as the program computes it.
fn slot_of(hash_key: [u64; 2], service: &ServiceEntry, flow: &Flow) -> Option<usize> {
    let key = &flow.key;
    let hash = match service.flags & ServiceEntry::BY_SOURCE {
        0 => hash::flow(
            hash_key,
            key.source,
            key.destination,
            key.source_port,
            key.destination_port,
            key.protocol,
        ),
        _ => hash::source(hash_key, key.source),
    };
    usize::try_from(hash::slot(hash, service.ring_size)).ok()
}
