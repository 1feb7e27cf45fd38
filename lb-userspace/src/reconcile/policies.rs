//! How services with a policy pick backends for new flows: kind, schedule, weights. What a slot of a ring holds is not
//! known here.
//!
//! A schedule is never changed in place: a new one is written whole to another range of the pool, then the policy's
//! first word is turned to it, and the old range is free for a later plan. It is written with the rings: when those who
//! are to receive are there, and before those who are not any more go down.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::abi::{BackendId, LoadEntry, PolicyEntry, PolicyKind, Slot};

use super::room::Room;
use super::{DesiredService, Observed, PlanError, STEP_WAIT_NS, Step};
use crate::model::ring::Member;
use crate::model::{Algorithm, ServiceId, schedule};

fn kind(algorithm: Algorithm) -> PolicyKind {
    match algorithm {
        // With a policy only for affinity's sake.
        Algorithm::Maglev | Algorithm::SourceHash | Algorithm::LeastResponseTime => PolicyKind::Ring,
        Algorithm::RoundRobin => PolicyKind::Turns,
        Algorithm::LeastConnections => PolicyKind::FewerFlows,
        Algorithm::LeastBandwidth => PolicyKind::LessLoad,
    }
}

/// The schedules that were built last: one of thousands of turns among hundreds of backends takes milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedules(BTreeMap<ServiceId, (Vec<Member>, Arc<[u32]>)>);

impl Schedules {
    fn turns(&mut self, service: &DesiredService) -> Arc<[u32]> {
        let member = |b: &super::DesiredBackend| Member { address: b.address, weight: b.ring_weight() };
        let members: Vec<Member> = service.backends.iter().map(member).collect();
        if let Some((_, turns)) = self.0.get(&service.id).filter(|(built, _)| *built == members) {
            return Arc::clone(turns);
        }
        let turns: Arc<[u32]> = schedule::build(&members).into();
        self.0.insert(service.id, (members, Arc::clone(&turns)));
        turns
    }

    /// Forgets those of services that are gone.
    pub(super) fn retain(&mut self, wanted: impl Fn(ServiceId) -> bool) {
        self.0.retain(|service, _| wanted(*service));
    }
}

/// What a service's policy takes.
pub(super) struct Policy {
    entry: PolicyEntry,
    before: Vec<Step>,
    /// When there is room for its schedule.
    pub(super) due_ns: Option<u64>,
}

/// The policy of the service that has this id and these backends; `None` if it has none.
pub(super) fn one(
    observed: &Observed,
    service: &DesiredService,
    (id, backends): (u32, &[BackendId]),
    room: &mut Room,
    schedules: &mut Schedules,
) -> Result<Option<Policy>, PlanError> {
    if !service.flows.has_policy() {
        return Ok(None);
    }
    let present = observed.policies.get(&id);
    let kind = kind(service.flows.algorithm);
    let (mut before, mut due_ns) = (Vec::new(), None);
    let (schedule_start, schedule_size) = match kind {
        PolicyKind::Ring => (0, 0),
        PolicyKind::Turns | PolicyKind::LessLoad | PolicyKind::FewerFlows => {
            let turns = schedules.turns(service);
            let owner = |index: &u32| backends.get(*index as usize).copied().unwrap_or(BackendId::NONE);
            let turns: Vec<BackendId> = turns.iter().map(owner).collect();
            place(observed, (service.id, id), turns, room, (&mut before, &mut due_ns))?
        }
    };
    if matches!(kind, PolicyKind::LessLoad | PolicyKind::FewerFlows) {
        let begins = present.is_none_or(|present| PolicyKind::from_raw(present.kind) != kind);
        before.extend(weights(observed, service, backends, begins));
    }
    let affinity = service.flows.affinity.map_or(0, |time| time.as_millis());
    let affinity_ms = u32::try_from(affinity).unwrap_or(u32::MAX);
    let entry = PolicyEntry { schedule_start, schedule_size, kind: kind.to_raw(), affinity_ms };
    Ok(Some(Policy { entry, before, due_ns }))
}

/// Where the schedule is, or will be: start and size. Where there is no room for it beside the one before, that one goes
/// first, and where there is none at all it is done without: either way the ring decides meanwhile, which holds nobody
/// who is down.
fn place(
    observed: &Observed,
    (service, id): (ServiceId, u32),
    turns: Vec<BackendId>,
    room: &mut Room,
    (before, due_ns): (&mut Vec<Step>, &mut Option<u64>),
) -> Result<(u32, u32), PlanError> {
    // Nobody takes new flows: nor does anybody in the ring.
    if turns.is_empty() {
        return Ok((0, 0));
    }
    let size = u32::try_from(turns.len()).unwrap_or(u32::MAX);
    let there = observed.schedules.get(&id).zip(observed.policies.get(&id));
    if let Some((slots, policy)) = there
        && slots.iter().copied().eq(turns.iter().copied().map(Slot::settled))
    {
        return Ok((policy.schedule_start, size));
    }
    let start = match room.slots("schedule", service, size) {
        Ok(start) => start,
        Err(error) => {
            let own = observed.policies.get(&id).map(|old| (old.schedule_start, old.schedule_size));
            if own.is_some_and(|own| room.pool.has_room_without(own, size)) {
                *due_ns = Some(observed.now_ns.saturating_add(STEP_WAIT_NS));
            } else {
                room.go_without(error)?;
            }
            return Ok((0, 0));
        }
    };
    before.push(Step::WriteSchedule { start, turns });
    Ok((start, size))
}

/// The backends' weights where they are others. A load from before, of another meaning or another backend, is no load.
fn weights(
    observed: &Observed,
    service: &DesiredService,
    backends: &[BackendId],
    begins: bool,
) -> impl Iterator<Item = Step> {
    let most = service.backends.iter().map(|backend| backend.ring_weight()).max().unwrap_or(0);
    service.backends.iter().zip(backends).filter_map(move |(backend, id)| {
        let weight = scaled(backend.ring_weight(), most);
        match observed.weights.get(&id.get()) {
            Some(present) if !begins => (*present != weight).then_some(Step::PutWeight(*id, weight)),
            _ => Some(Step::PutLoad(*id, LoadEntry { load: 0, weight })),
        }
    })
}

/// A weight as programs compare it, where the largest is `most`: all shrink together if that one does not fit, so that
/// their proportions stay, and none that counts shrinks to nothing.
fn scaled(weight: u32, most: u32) -> u64 {
    let (weight, most) = (u64::from(weight), u64::from(most));
    if most <= LoadEntry::MOST_WEIGHT || weight == 0 {
        return weight;
    }
    (weight * LoadEntry::MOST_WEIGHT / most).max(1)
}

/// The policies of all services.
#[derive(Default)]
pub(super) struct Policies {
    wanted: BTreeMap<u32, PolicyEntry>,
    before: Vec<Step>,
}

impl Policies {
    pub(super) fn add(&mut self, id: u32, policy: Policy) {
        self.before.extend(policy.before);
        self.wanted.insert(id, policy.entry);
    }

    /// Brings them into force; services that had none are turned to them by their entries. Where none is wanted any more
    /// the ring decides from here on, whatever the entry says: what was scheduled may go down with the next step. What
    /// the schedule held of the pool is free after that.
    pub(super) fn steps(&self, observed: &Observed, steps: &mut Vec<Step>) {
        steps.extend(self.before.iter().cloned());
        let changed = self.wanted.iter().filter(|(id, entry)| observed.policies.get(*id) != Some(*entry));
        steps.extend(changed.map(|(id, entry)| Step::PutPolicy(*id, *entry)));
        let unwanted = observed.policies.keys().filter(|id| !self.wanted.contains_key(*id));
        steps.extend(unwanted.map(|id| Step::PutPolicy(*id, PolicyEntry::default())));
    }
}

#[cfg(test)]
mod tests;
