//! What a data plane itself tells of its backends. Pure.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendEntry, BackendState};

use crate::daemon::overrides::{self, InForce};
use crate::health::fleet::{Place, Uses};
use crate::health::member::{Override, Use};
use crate::model::{Model, ServiceId};
use crate::reconcile::{Observed, narrow};

/// Backends of a data plane that are not retired: number and state.
pub(in crate::daemon) fn places(observed: &Observed) -> BTreeMap<Place, (u32, BackendState)> {
    let services = observed.services();
    let services: BTreeMap<u32, ServiceId> = services.iter().map(|(id, entry)| (entry.id, *id)).collect();
    let place = |(number, entry): (&u32, &BackendEntry)| {
        let state = BackendState::from_raw(entry.state);
        let service = services.get(&entry.service).filter(|_| state != BackendState::Retired)?;
        Some(((*service, narrow(entry.address)), (*number, state)))
    };
    observed.backends.iter().filter_map(place).collect()
}

/// What backends get as far as it is known without probes: the operator's words; who was down stays down while something
/// is there that could find it up; backups wait unless they were found in use.
pub(super) fn known_uses(model: &Model, observed: &Observed, words: &[InForce]) -> Uses {
    let (places, words) = (places(observed), overrides::by_place(words));
    let known = model.services.iter().flat_map(|service| service.backends.iter().map(move |b| (service, b)));
    let known = known.filter_map(|(service, backend)| {
        let place = (service.id, backend.address);
        let is_down = places.get(&place).is_some_and(|(_, state)| *state == BackendState::Down);
        let in_use = places.get(&place).is_some_and(|(_, state)| *state == BackendState::Up);
        let checked = !backend.checks.is_empty() || service.agent.is_some();
        let gets = match words.get(&(service.pool.clone(), backend.address)) {
            Some(Override::Disable) => Use::Out,
            Some(Override::Drain) => Use::Draining,
            None if is_down && checked => Use::Out,
            // Whether backups are needed is for probes to say: they stay as they were found.
            None if backend.group > 0 && !in_use => Use::Draining,
            None => return None,
        };
        Some((place, gets))
    });
    known.collect()
}

/// Backends that were found down when somebody last probed.
pub(in crate::daemon) fn down(observed: &Observed) -> BTreeSet<Place> {
    let is_down = |(_, (_, state)): &(Place, (u32, BackendState))| *state == BackendState::Down;
    places(observed).into_iter().filter(is_down).map(|(place, _)| place).collect()
}
