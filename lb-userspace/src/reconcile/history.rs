//! Since when slots are unsettled, and when they last changed: what the slots' words do not say, kept by whoever writes
//! them. It is not stored: what a new process does not know counts as changed when it first asks.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendState, Slot, SlotState};

use super::{Observed, Plan, Step};

/// Unit of the times, in nanoseconds.
const TICK_NS: u64 = 100_000_000;

/// What a plan lays down for one service beside its slots.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Terms {
    /// Where its ring starts in the pool when the plan is executed.
    pub ring_start: u32,
    /// Its slots stay unsettled because a bigger change waits for all of its flows to be recorded.
    pub held: bool,
    /// After how long a slot settles though some of its flows are elsewhere, in nanoseconds.
    pub max_unsettled_ns: u64,
}

/// When slots changed, and since when retired backends are that. Takes eight bytes for each slot of a service that has
/// unsettled ones.
#[derive(Clone, Debug, Default)]
pub struct History {
    begun_ns: Option<u64>,
    /// By service id.
    services: BTreeMap<u32, Times>,
    terms: BTreeMap<u32, Terms>,
    retired: BTreeMap<u32, u64>,
}

/// Times of a service's slots.
#[derive(Clone, Debug, Default)]
struct Times {
    ring_start: u32,
    slots: Vec<Ticks>,
}

/// When a slot was first marked unsettled, and when it last changed, in ticks since the history's beginning, rounded up;
/// 0 where that is not known.
#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    first: u32,
    last: u32,
}

/// The times of one service's slots.
#[derive(Clone, Copy, Default)]
pub(super) struct Known<'a> {
    begun_ns: u64,
    slots: &'a [Ticks],
}

impl Known<'_> {
    /// Since when a slot that is unsettled now has been that, if that is known; never too early.
    pub(super) fn first_ns(&self, index: usize) -> Option<u64> {
        self.slots.get(index).and_then(|ticks| self.time_ns(ticks.first))
    }

    /// When it last changed.
    pub(super) fn last_ns(&self, index: usize) -> Option<u64> {
        self.slots.get(index).and_then(|ticks| self.time_ns(ticks.last))
    }

    fn time_ns(&self, tick: u32) -> Option<u64> {
        Some(self.begun_ns + u64::from(tick.checked_sub(1)?) * TICK_NS)
    }
}

impl History {
    /// That of a data plane which nobody has written to since then: backends that are retired have been so for as long.
    pub fn adopt(observed: &Observed, untouched_ns: u64) -> Self {
        let mut history = Self::default();
        history.retire(observed, untouched_ns);
        history
    }

    /// Notes what a plan has changed; `observed` is what it was made for. To be called also where it was executed only
    /// in part: what has not been changed then waits for nothing. What a sweep changes is noted by itself.
    pub fn note(&mut self, observed: &Observed, plan: &Plan) {
        self.terms.clone_from(&plan.terms);
        self.services.retain(|id, _| plan.terms.contains_key(id));
        self.begun_ns.get_or_insert(observed.now_ns);
        let now = self.tick(observed.now_ns);
        let entries = observed.entries();
        let start_of = |id: &u32| entries.get(id).map(|entry| entry.ring_start);
        for (id, slots) in &observed.rings {
            if let Some(start) = start_of(id).filter(|_| slots.iter().any(is_unsettled)) {
                self.learn(*id, start, slots, now);
            }
        }
        let services: BTreeMap<u32, u32> =
            plan.terms.iter().map(|(id, terms)| (terms.ring_start, *id)).collect();
        for step in &plan.steps {
            let Step::WriteSlots { start, words } = step else { continue };
            let Some(id) = services.get(start) else { continue };
            let before = observed.rings.get(id).filter(|_| start_of(id) == Some(*start));
            self.write(*id, *start, words, before.map_or(&[], Vec::as_slice), now);
        }
        self.retire(observed, observed.now_ns);
    }

    /// What is known of a service's slots, if its ring is where it was.
    pub(super) fn of(&self, service: u32, ring_start: u32) -> Known<'_> {
        let times = self.services.get(&service).filter(|times| times.ring_start == ring_start);
        Known {
            begun_ns: self.begun_ns.unwrap_or_default(),
            slots: times.map_or(&[], |times| times.slots.as_slice()),
        }
    }

    /// What was last laid down for a service.
    pub(super) fn terms(&self, service: u32) -> Option<Terms> {
        self.terms.get(&service).copied()
    }

    /// Since when a backend is known to be retired.
    pub(super) fn retired_ns(&self, backend: u32) -> Option<u64> {
        self.retired.get(&backend).copied()
    }

    /// Counts unsettled slots that are not known as changed now, and forgets those that are settled.
    pub(super) fn refresh(&mut self, service: u32, ring_start: u32, slots: &[Slot], now_ns: u64) {
        self.begun_ns.get_or_insert(now_ns);
        let now = self.tick(now_ns);
        if slots.iter().any(is_unsettled) {
            self.learn(service, ring_start, slots, now);
        } else {
            self.services.remove(&service);
        }
    }

    /// Forgets services that are gone.
    pub(super) fn keep_services(&mut self, present: impl Fn(u32) -> bool) {
        self.services.retain(|id, _| present(*id));
    }

    /// Backends that are retired and not known as such are retired since then.
    pub(super) fn retire(&mut self, observed: &Observed, since_ns: u64) {
        let is_retired = |state| BackendState::from_raw(state) == BackendState::Retired;
        let retired = observed.backends.iter().filter(|(_, entry)| is_retired(entry.state));
        let retired: BTreeSet<u32> = retired.map(|(id, _)| *id).collect();
        self.retired.retain(|id, _| retired.contains(id));
        for id in retired {
            self.retired.entry(id).or_insert(since_ns);
        }
    }

    /// Never 0, and rounded up: whatever waits from then on waits long enough.
    fn tick(&self, now_ns: u64) -> u32 {
        let since = now_ns.saturating_sub(self.begun_ns.unwrap_or(now_ns));
        u32::try_from(since.div_ceil(TICK_NS)).unwrap_or(u32::MAX - 1) + 1
    }

    fn learn(&mut self, id: u32, ring_start: u32, slots: &[Slot], now: u32) {
        let times = self.times(id, ring_start, slots.len());
        for (ticks, slot) in times.slots.iter_mut().zip(slots) {
            if !is_unsettled(slot) {
                *ticks = Ticks::default();
            } else if ticks.first == 0 {
                *ticks = Ticks { first: now, last: now };
            }
        }
    }

    fn write(&mut self, id: u32, ring_start: u32, words: &[Option<Slot>], before: &[Slot], now: u32) {
        let known = self.services.get(&id).is_some_and(|times| times.ring_start == ring_start);
        if !known && !words.iter().flatten().any(is_unsettled) {
            return;
        }
        let times = self.times(id, ring_start, words.len());
        for (index, (ticks, word)) in times.slots.iter_mut().zip(words).enumerate() {
            let Some(word) = word else { continue };
            let was_unsettled = before.get(index).is_some_and(is_unsettled);
            *ticks = match (is_unsettled(word), was_unsettled && ticks.first != 0) {
                (false, _) => Ticks::default(),
                (true, true) => Ticks { last: now, ..*ticks },
                (true, false) => Ticks { first: now, last: now },
            };
        }
    }

    fn times(&mut self, id: u32, ring_start: u32, size: usize) -> &mut Times {
        let times = self.services.entry(id).or_default();
        if times.ring_start != ring_start || times.slots.len() != size {
            *times = Times { ring_start, slots: vec![Ticks::default(); size] };
        }
        times
    }
}

fn is_unsettled(slot: &Slot) -> bool {
    slot.state() != SlotState::Settled
}
