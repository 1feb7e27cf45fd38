//! What a config would do to the flows there are: slots that change owner, flows that move, flows that are watched so
//! that they do not, and who takes new flows before and after. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use lb_common::abi::{BackendState, ServiceEntry};
use serde::{Deserialize, Serialize};

use super::pace::{Pace, Recent};
use crate::health::fleet::Uses;
use crate::model::ring::{self, Member, Seed};
use crate::model::{Algorithm, IdleTimes, Model, Service, Tracking};
use crate::reconcile::{Census, Desired, DesiredBackend, DesiredService, Observed, narrow};

/// A number of flows.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Flows {
    /// How many.
    pub count: u64,
    /// How that is known.
    pub accuracy: Accuracy,
}

/// How a number of flows is known.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Accuracy {
    /// Counted.
    #[default]
    Exact,
    /// Those that began within the idle time before.
    About,
    /// All that ever began.
    AtMost,
}

/// What would become of a service.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Blast {
    /// Its name.
    pub service: String,
    /// What it takes.
    pub id: String,
    /// Slots of its ring.
    pub slots: u32,
    /// Slots that change owner.
    pub slots_moving: u32,
    /// Slots that change owner later: when those who are added and wait for their first probes have passed them.
    pub slots_later: u32,
    /// These backends.
    pub waiting: Vec<IpAddr>,
    /// Flows in these slots: they stay, or, without tracking, move.
    pub flows_later: Flows,
    /// Backends that take new flows now.
    pub takers_before: usize,
    /// Backends that would take new flows, as far as they work.
    pub takers_after: usize,
    /// Backends that come, or come back from leaving.
    pub added: Vec<IpAddr>,
    /// Backends that stay without new flows.
    pub drained: Vec<IpAddr>,
    /// Backends that are not listed any more and keep their flows until they end.
    pub leaving: Vec<IpAddr>,
    /// Backends that go at once.
    pub dropped: Vec<IpAddr>,
    /// Flows on the last ones: they move, and break.
    pub flows_dropped: Flows,
    /// Flows that move though their backend stays: nothing is recorded of them.
    pub flows_moved: Flows,
    /// Flows in slots that change owner, which stay where they are.
    pub flows_watched: Flows,
    /// For how long these slots are watched at least, in seconds.
    pub watched_s: u64,
    /// Whether flows of slots that change owner move with them: nothing is recorded.
    pub untracked: bool,
    /// Whether the service goes altogether.
    pub removed: bool,
}

/// What is known.
pub(super) struct Scene<'a> {
    pub(super) observed: &'a Observed,
    /// The models before and after, with those that leave.
    pub(super) before: &'a Model,
    pub(super) after: &'a Model,
    pub(super) desired: &'a Desired,
    /// What backends get by health and the operator's word; who is new is not in it.
    pub(super) uses: &'a Uses,
    /// What is left of backends' recorded flows, if they could be counted.
    pub(super) left: Option<&'a Census>,
    /// New flows as they are counted now, by backend number, and were before.
    pub(super) counted: &'a BTreeMap<u32, u64>,
    pub(super) pace: &'a Pace,
    /// Starts of the rings that the plan writes to: only these can change.
    pub(super) written: &'a BTreeSet<u32>,
}

/// What would become of each service that changes.
pub(super) fn blast(scene: &Scene<'_>) -> Vec<Blast> {
    let services = scene.observed.services();
    let stay = scene.after.services.iter().zip(&scene.desired.services).filter_map(|(service, desired)| {
        let entry = services.get(&service.id)?;
        let changed = changed(scene, service, desired, entry);
        (changed.slots_moving > 0 || changed.names_any()).then_some(changed)
    });
    let gone = services.iter().filter(|(id, _)| scene.after.services.iter().all(|after| after.id != **id));
    let gone = gone.map(|(id, entry)| {
        let name = scene.before.services.iter().find(|before| before.id == *id);
        let here = Here::of(scene, entry, IdleTimes::of(id.protocol).established);
        Blast {
            service: name.map_or_else(|| id.to_string(), |before| before.name.clone()),
            id: id.to_string(),
            slots: entry.ring_size,
            slots_moving: entry.ring_size,
            takers_before: here.takers,
            flows_dropped: here.flows(here.numbers.keys()),
            dropped: here.numbers.values().copied().collect(),
            removed: true,
            ..Blast::default()
        }
    });
    stay.chain(gone).collect()
}

impl Blast {
    fn names_any(&self) -> bool {
        [&self.added, &self.drained, &self.leaving, &self.dropped].iter().any(|list| !list.is_empty())
    }
}

fn changed(scene: &Scene<'_>, after: &Service, desired: &DesiredService, entry: &ServiceEntry) -> Blast {
    let here = Here::of(scene, entry, after.flows.idle.established);
    let none = Vec::new();
    let before = scene.before.services.iter().find(|before| before.id == after.id);
    let old = before.map_or(&none, |before| &before.backends);
    let was = |address: IpAddr| old.iter().find(|b| b.address == address);
    let addresses = |keep: &dyn Fn(&crate::model::Backend) -> bool| -> Vec<IpAddr> {
        after.backends.iter().filter(|b| keep(b)).map(|b| b.address).collect()
    };
    let dropped: BTreeMap<u32, IpAddr> = here
        .numbers
        .iter()
        .filter(|(_, address)| after.backends.iter().all(|b| b.address != **address))
        .map(|(number, address)| (*number, *address))
        .collect();
    let moving = moving(scene, desired, entry, &here);
    let stays = moving.values().sum::<u64>()
        - moving.iter().filter(|(n, _)| dropped.contains_key(n)).map(|(_, s)| s).sum::<u64>();
    let shares = here.in_slots(stays);
    let tracked = after.flows.tracking != Tracking::Never;
    let (waiting, proven) = proven(scene, after, desired);
    let count = |moving: &BTreeMap<u32, u64>| moving.values().sum::<u64>();
    let later = match waiting.is_empty() {
        true => 0,
        false => count(&differing(scene, &proven, entry, &here)).saturating_sub(count(&moving)),
    };
    Blast {
        slots_later: u32::try_from(later).unwrap_or(u32::MAX),
        waiting,
        flows_later: here.in_slots(later),
        service: after.name.clone(),
        id: after.id.to_string(),
        slots: entry.ring_size,
        slots_moving: u32::try_from(moving.values().sum::<u64>()).unwrap_or(u32::MAX),
        takers_before: here.takers,
        takers_after: desired.backends.iter().filter(|b| b.state == BackendState::Up && b.weight > 0).count(),
        added: addresses(&|b| !b.leaving && was(b.address).is_none_or(|old| old.leaving)),
        drained: addresses(&|b| {
            !b.leaving
                && b.effective_weight() == 0
                && was(b.address).is_some_and(|old| old.effective_weight() > 0)
        }),
        leaving: addresses(&|b| b.leaving && was(b.address).is_some_and(|old| !old.leaving)),
        flows_dropped: here.flows(dropped.keys()),
        dropped: dropped.into_values().collect(),
        flows_moved: if tracked { Flows::default() } else { shares },
        flows_watched: if tracked { shares } else { Flows::default() },
        watched_s: after.flows.idle.established.as_secs(),
        untracked: !tracked,
        removed: false,
    }
}

/// Those who wait for their first probes, and the service as it is to be when they have passed them. Backups wait on.
fn proven(scene: &Scene<'_>, after: &Service, desired: &DesiredService) -> (Vec<IpAddr>, DesiredService) {
    let (mut waiting, mut proven) = (Vec::new(), desired.clone());
    for (listed, backend) in after.backends.iter().zip(&mut proven.backends) {
        let weight = u32::from(listed.effective_weight());
        let is_new = !scene.uses.contains_key(&(after.id, listed.address));
        if is_new && weight > 0 && listed.group == 0 && backend.state == BackendState::Draining {
            *backend = DesiredBackend { state: BackendState::Up, weight: weight * 100, ..*backend };
            waiting.push(listed.address);
        }
    }
    (waiting, proven)
}

/// Slots that change owner, by the number of their owner now.
fn moving(
    scene: &Scene<'_>,
    desired: &DesiredService,
    entry: &ServiceEntry,
    here: &Here<'_>,
) -> BTreeMap<u32, u64> {
    let by_source = desired.flows.algorithm == Algorithm::SourceHash;
    let rehashed = by_source != (entry.flags & ServiceEntry::BY_SOURCE != 0);
    if !rehashed && !scene.written.contains(&entry.ring_start) {
        return BTreeMap::new();
    }
    differing(scene, desired, entry, here)
}

/// The same where all of the ring may change.
fn differing(
    scene: &Scene<'_>,
    desired: &DesiredService,
    entry: &ServiceEntry,
    here: &Here<'_>,
) -> BTreeMap<u32, u64> {
    let mut moving = BTreeMap::new();
    let by_source = desired.flows.algorithm == Algorithm::SourceHash;
    if by_source != (entry.flags & ServiceEntry::BY_SOURCE != 0) {
        // Flows fall into other slots, all of them.
        for slot in scene.observed.rings.get(&entry.id).into_iter().flatten() {
            *moving.entry(slot.current().get()).or_default() += 1;
        }
        return moving;
    }
    let weight = |b: &DesiredBackend| if b.state == BackendState::Up { b.weight } else { 0 };
    let members: Vec<Member> =
        desired.backends.iter().map(|b| Member { address: b.address, weight: weight(b) }).collect();
    let size = desired.ring_size.unwrap_or(entry.ring_size);
    let seed = Seed { service: desired.id, key: scene.desired.hash_key };
    let owners = if size == entry.ring_size { ring::build(&seed, &members, size) } else { Vec::new() };
    let drains = |address: IpAddr| {
        desired.backends.iter().any(|b| b.address == address && b.state == BackendState::Draining)
    };
    let Some(slots) = scene.observed.rings.get(&entry.id) else { return moving };
    for (index, slot) in slots.iter().enumerate() {
        let current = slot.current().get();
        let now = here.numbers.get(&current).copied();
        let next =
            owners.get(index).and_then(|owner| members.get(*owner as usize)).map(|member| member.address);
        // Where nobody takes new flows, those that drain keep their slots.
        let keeps = owners.is_empty() && size == entry.ring_size && now.is_some_and(&drains);
        if next != now && !keeps {
            *moving.entry(current).or_default() += 1;
        }
    }
    moving
}

/// What a service has now.
struct Here<'a> {
    scene: &'a Scene<'a>,
    entry: &'a ServiceEntry,
    /// Its backends that may have flows, by number.
    numbers: BTreeMap<u32, IpAddr>,
    takers: usize,
    /// Their flows that began within an idle time.
    recent: Recent,
}

impl<'a> Here<'a> {
    fn of(scene: &'a Scene<'a>, entry: &'a ServiceEntry, idle: Duration) -> Self {
        let state = |raw| BackendState::from_raw(raw);
        let ours = scene.observed.backends.iter().filter(|(_, backend)| backend.service == entry.id);
        let alive = ours.filter(|(_, b)| matches!(state(b.state), BackendState::Up | BackendState::Draining));
        let takers = alive.clone().filter(|(_, b)| state(b.state) == BackendState::Up).count();
        let numbers: BTreeMap<u32, IpAddr> =
            alive.map(|(number, backend)| (*number, narrow(backend.address))).collect();
        let counted = numbers.keys().filter_map(|number| Some((*number, *scene.counted.get(number)?)));
        let recent = scene.pace.recent(scene.observed.now_ns, counted.collect(), idle);
        Self { scene, entry, numbers, takers, recent }
    }

    /// Flows of some of its backends.
    fn flows<'n>(&self, numbers: impl Iterator<Item = &'n u32>) -> Flows {
        let recorded =
            |number: &u32| self.scene.left.and_then(|left| left.flows.get(number)).copied().unwrap_or(0);
        let all_recorded = self.entry.flags & ServiceEntry::TRACKED != 0 && self.scene.left.is_some();
        let (count, accuracy) = numbers.fold((0, Accuracy::Exact), |(count, accuracy), number| {
            let recent = self.recent.flows.get(number).copied().unwrap_or(0);
            let ever = self.scene.counted.get(number).copied().unwrap_or(0);
            if all_recorded || ever == 0 && recorded(number) == 0 {
                (count + recorded(number), accuracy)
            } else if recent == 0 {
                // Any of them may have lived for so long.
                (count + ever.max(recorded(number)), accuracy.max(Accuracy::AtMost))
            } else {
                (count + recent.max(recorded(number)), accuracy.max(self.recent.accuracy))
            }
        });
        Flows { count, accuracy }
    }

    /// Flows of all its backends in so many of its slots.
    fn in_slots(&self, slots: u64) -> Flows {
        let all = self.flows(self.numbers.keys());
        let size = u64::from(self.entry.ring_size.max(1));
        if slots >= size || all.count == 0 {
            return all;
        }
        let count = u128::from(all.count) * u128::from(slots) / u128::from(size);
        // A part of what is counted is a guess.
        let accuracy = if slots == 0 { Accuracy::Exact } else { all.accuracy.max(Accuracy::About) };
        Flows { count: u64::try_from(count).unwrap_or(u64::MAX), accuracy }
    }
}

#[cfg(test)]
#[path = "blast_tests.rs"]
mod tests;
