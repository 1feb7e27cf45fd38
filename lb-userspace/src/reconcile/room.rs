//! What is free of the data plane's maps, and what becomes of a service that does not fit.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendEntry, BackendId};

use super::pool::Pool;
use super::services::is_there;
use super::{DesiredService, Observed, PlanError, wide};
use crate::model::ServiceId;

/// What becomes of a service that cannot be had as it is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Strictness {
    /// There is no plan: a new config is had whole, or not at all.
    Whole,
    /// It is planned as far as can be: what is in force follows its backends, whatever one of the services lacks.
    AsFarAsCanBe,
}

/// What is free, and what has been asked for beyond it.
pub(super) struct Room {
    pub(super) pool: Pool,
    service_ids: BTreeSet<u32>,
    /// Ids of services that no entry names, with the addresses of their backends.
    begun: BTreeMap<u32, BTreeSet<[u8; 16]>>,
    backend_ids: BTreeSet<u32>,
    missing_services: u64,
    missing_backends: u64,
    capacity: u32,
    strictness: Strictness,
    /// What services go without.
    pub(super) lacking: Vec<PlanError>,
}

impl Room {
    pub(super) fn new(observed: &Observed, strictness: Strictness) -> Self {
        let entries = || observed.ranges.values().chain(observed.exact.values());
        // Ids of services are named by the entries of retired backends and by their flows as well.
        let used: BTreeSet<u32> =
            entries().map(|e| e.id).chain(observed.backends.values().map(|b| b.service)).collect();
        let named: BTreeSet<u32> = entries().map(|entry| entry.id).collect();
        let mut begun: BTreeMap<u32, BTreeSet<[u8; 16]>> = BTreeMap::new();
        let nameless = |backend: &&BackendEntry| is_there(backend) && !named.contains(&backend.service);
        for backend in observed.backends.values().filter(nameless) {
            begun.entry(backend.service).or_default().insert(backend.address);
        }
        // A service that was on its way to another ring has two.
        let rings: BTreeSet<(u32, u32)> =
            entries().map(|entry| (entry.ring_start, entry.ring_size)).collect();
        Self {
            pool: Pool::new(observed.size.ring_slots, rings.into_iter().chain(observed.scheduled())),
            service_ids: (0..observed.size.services).filter(|id| !used.contains(id)).collect(),
            begun,
            backend_ids: (1..=observed.size.backends)
                .filter(|id| !observed.backends.contains_key(id))
                .collect(),
            missing_services: 0,
            missing_backends: 0,
            capacity: observed.size.ring_slots,
            strictness,
            lacking: Vec::new(),
        }
    }

    /// Notes what a service cannot have, if it is to go on without.
    pub(super) fn go_without(&mut self, error: PlanError) -> Result<(), PlanError> {
        match self.strictness {
            Strictness::Whole => Err(error),
            Strictness::AsFarAsCanBe => {
                self.lacking.push(error);
                Ok(())
            }
        }
    }

    /// Room in the pool for a service's `what` of `size` slots.
    pub(super) fn slots(
        &mut self,
        what: &'static str,
        service: ServiceId,
        size: u32,
    ) -> Result<u32, PlanError> {
        let capacity = self.capacity;
        self.pool.take(size).ok_or(PlanError::RingPoolFull { what, service, size, capacity })
    }

    /// An id for a service that is new. A plan that stopped before any key named the service has given it one, and its
    /// backends as well: these are taken up, or every further try would use up as many.
    pub(super) fn service_id(&mut self, service: &DesiredService) -> u32 {
        let wanted: BTreeSet<[u8; 16]> = service.backends.iter().map(|b| wide(b.address)).collect();
        let begun = self.begun.iter().find(|(_, addresses)| addresses.is_subset(&wanted));
        if let Some(id) = begun.map(|(id, _)| *id) {
            self.begun.remove(&id);
            return id;
        }
        self.service_ids.pop_first().unwrap_or_else(|| {
            self.missing_services += 1;
            0
        })
    }

    pub(super) fn backend_id(&mut self) -> BackendId {
        self.backend_ids.pop_first().and_then(BackendId::new).unwrap_or_else(|| {
            self.missing_backends += 1;
            BackendId::NONE
        })
    }

    /// What has been asked for and is not there.
    pub(super) fn report(&self, observed: &Observed, errors: &mut Vec<PlanError>) {
        let mut full = |what, missing: u64, capacity: u32, limit| {
            if missing > 0 {
                let capacity = u64::from(capacity);
                errors.push(PlanError::Full { what, needed: capacity + missing, capacity, limit });
            }
        };
        full("services", self.missing_services, observed.size.services, "services");
        full("(service, backend) pairs", self.missing_backends, observed.size.backends, "backends");
    }
}
