//! Backends on their way out: which ones a new config no longer lists and keeps until their flows are gone, since when
//! each one drains, and when that has to be over. Pure.
//!
//! They stay in the model that everybody else works with, as backends that drain. It knows neither maps nor sweeps: what
//! is left of a backend's flows is handed in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::BackendState;
use serde::{Deserialize, Serialize};

use super::{InForce, Word};
use crate::health::fleet::{Place, Uses};
use crate::health::member::Use;
use crate::model::{Backend, Model, OnRemove, Service};
use crate::reconcile::Census;

/// A backend that has left the config, as it was there.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Leaver {
    /// Its service, as services are displayed.
    pub service: String,
    /// When it left, in seconds since 1970.
    pub since: u64,
    /// Whether it had checks, which are not stored.
    pub checked: bool,
    /// What it was.
    pub backend: Backend,
}

/// A backend that takes no new flows because the config says so.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Drained {
    /// Its service, as services are displayed.
    pub service: String,
    /// Its address.
    pub backend: IpAddr,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// All that is to be remembered of backends on their way out.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Drains {
    /// Those that the config no longer lists.
    pub leaving: Vec<Leaver>,
    /// Those that it lists with `drain: true` or without weight.
    pub drained: Vec<Drained>,
}

/// For so long both steps of a change may take, and the stamps of flows be off, in seconds.
const STEPS_S: u64 = 5;

/// Backends of a data plane, their numbers and states.
pub(super) type Numbers = BTreeMap<Place, (u32, BackendState)>;

impl Drains {
    /// What is on its way out when `listed` takes the place of `before`, which has those that leave already. Who has no
    /// flows, because it is down or not `there`, has nothing to wait for.
    pub(super) fn after(&self, before: &Model, listed: &Model, there: &Numbers, now: u64) -> Self {
        let mut next = Self::default();
        for service in &listed.services {
            let name = service.id.to_string();
            let old = before.services.iter().find(|old| old.id == service.id);
            let gone = old.into_iter().flat_map(|old| &old.backends);
            let gone = gone.filter(|old| service.backends.iter().all(|b| b.address != old.address));
            for backend in gone.filter(|_| service.drain.on_remove == OnRemove::Drain) {
                let since = self.left_at(&name, backend.address).unwrap_or(now);
                let over = ends(service, since).is_some_and(|end| end <= now);
                if has_flows(there, (service.id, backend.address)) && !over {
                    let backend = Backend { drain: true, leaving: true, ..backend.clone() };
                    let checked = !backend.checks.is_empty();
                    next.leaving.push(Leaver { service: name.clone(), since, checked, backend });
                }
            }
            let drained = service.backends.iter().filter(|b| b.effective_weight() == 0);
            next.drained.extend(drained.map(|backend| Drained {
                service: name.clone(),
                backend: backend.address,
                since: self.drained_at(&name, backend.address).unwrap_or(now),
            }));
        }
        next
    }

    fn left_at(&self, service: &str, backend: IpAddr) -> Option<u64> {
        let same = |leaver: &&Leaver| leaver.service == service && leaver.backend.address == backend;
        self.leaving.iter().find(same).map(|leaver| leaver.since)
    }

    fn drained_at(&self, service: &str, backend: IpAddr) -> Option<u64> {
        let same = |drained: &&Drained| drained.service == service && drained.backend == backend;
        self.drained.iter().find(same).map(|drained| drained.since)
    }

    /// Since when the config has had a backend drain, listed or not.
    pub fn since(&self, service: &str, backend: IpAddr) -> Option<u64> {
        self.left_at(service, backend).or_else(|| self.drained_at(service, backend))
    }

    /// A config's model with those that leave.
    pub fn join(&self, listed: &Model) -> Model {
        let mut model = listed.clone();
        for service in &mut model.services {
            let name = service.id.to_string();
            for leaver in self.leaving.iter().filter(|leaver| leaver.service == name) {
                if service.backends.iter().all(|b| b.address != leaver.backend.address) {
                    let backend = fitted(leaver, service, listed);
                    service.backends.push(backend);
                }
            }
            service.backends.sort_by_key(|backend| backend.address);
        }
        model
    }

    /// Drops those that leave and have nothing to wait for any more: no flows, or no time. Returns them.
    pub(super) fn let_go(
        &mut self,
        model: &Model,
        there: &Numbers,
        left: Option<&Census>,
        now: u64,
    ) -> Vec<Leaver> {
        let services: BTreeMap<String, &Service> =
            model.services.iter().map(|service| (service.id.to_string(), service)).collect();
        let stays = |leaver: &Leaver| {
            let Some(service) = services.get(&leaver.service) else { return false };
            let place = (service.id, leaver.backend.address);
            let over = ends(service, leaver.since).is_some_and(|end| end <= now);
            let number = there.get(&place).map(|(number, _)| *number);
            let empty = left.zip(number).is_some_and(|(left, number)| left.is_done(number));
            has_flows(there, place) && !over && !empty
        };
        let (stay, go) = std::mem::take(&mut self.leaving).into_iter().partition(stays);
        self.leaving = stay;
        go
    }

    /// Takes flows of backends for seen that have left for longer than their flows may be silent: to be asked where no
    /// daemon makes slots late. From the second step of the change on each of them is recorded when it speaks.
    pub(super) fn heard_out(&self, model: &Model, there: &Numbers, left: &mut Census, now: u64) {
        for service in &model.services {
            let (name, idle) = (service.id.to_string(), service.flows.idle.established.as_secs());
            for leaver in self.leaving.iter().filter(|leaver| leaver.service == name) {
                let number = there.get(&(service.id, leaver.backend.address)).map(|(number, _)| number);
                if now > leaver.since.saturating_add(idle).saturating_add(STEPS_S) {
                    number.map(|number| left.previous_fresh.remove(number));
                }
            }
        }
    }

    /// When what is left of a backend's flows moves, by backend, in seconds since 1970. The operator's own deadline counts
    /// before the config's.
    pub fn deadlines(&self, model: &Model, words: &[InForce]) -> BTreeMap<Place, u64> {
        let backends =
            model.services.iter().flat_map(|service| service.backends.iter().map(move |b| (service, b)));
        let deadline = |(service, backend): (&Service, &Backend)| {
            let said = |word: &&InForce| {
                word.word == Word::Drain && (&word.pool, word.backend) == (&service.pool, backend.address)
            };
            let word = words.iter().find(said);
            let by_word = word.and_then(|word| word.deadline);
            let since = word.map(|word| word.since).into_iter();
            let since = since.chain(self.since(&service.id.to_string(), backend.address)).min();
            let end = by_word.or_else(|| ends(service, since?))?;
            Some(((service.id, backend.address), end))
        };
        backends.filter_map(deadline).collect()
    }
}

/// When a drain that began `since` has to be over by the config.
fn ends(service: &Service, since: u64) -> Option<u64> {
    service.drain.deadline.map(|deadline| since.saturating_add(deadline.as_secs().max(1)))
}

/// Who is down, or was never there, keeps no flow.
fn has_flows(there: &Numbers, place: Place) -> bool {
    there.get(&place).is_some_and(|(_, state)| matches!(state, BackendState::Up | BackendState::Draining))
}

/// One that leaves, so that it is in nobody's way: what the config says of its address, or gives to others, counts.
fn fitted(leaver: &Leaver, service: &Service, listed: &Model) -> Backend {
    let mut backend = leaver.backend.clone();
    let taken = |id: &u64| service.backends.iter().any(|other| other.server_id == Some(*id));
    backend.server_id = backend.server_id.filter(|id| !taken(id));
    let elsewhere = || listed.services.iter().flat_map(|service| &service.backends);
    if let Some(same) = elsewhere().find(|other| other.address == backend.address) {
        (backend.mac, backend.interface) = (same.mac, same.interface.clone());
    }
    // After a restart those that all others share are likely to be the ones that it had.
    if leaver.checked
        && backend.checks.is_empty()
        && let Some((first, others)) = service.backends.split_first()
        && others.iter().filter(|other| !other.leaving).all(|other| other.checks == first.checks)
    {
        backend.checks = Arc::clone(&first.checks);
    }
    backend
}

/// What backends get, with those out whose time to drain is over.
pub(super) fn overdue(uses: &Uses, deadlines: &BTreeMap<Place, u64>, now: u64) -> Uses {
    let over = deadlines.iter().filter(|(_, end)| **end <= now).map(|(place, _)| (*place, Use::Out));
    uses.iter().map(|(place, use_)| (*place, *use_)).chain(over).collect()
}

/// The first deadline after the moment up to which all have been seen to, in seconds since 1970.
pub(super) fn next_deadline(deadlines: &BTreeMap<Place, u64>, seen_to: u64) -> Option<u64> {
    deadlines.values().copied().filter(|end| *end > seen_to).min()
}

#[cfg(test)]
#[path = "leaving_tests.rs"]
mod tests;
