//! Ids, entries and rings of all services.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendEntry, BackendId, BackendState, Method, ServiceEntry, ServiceKey, mapped};
use lb_common::wire::ipv4::{IPIP, OuterTemplate};

use super::{
    Desired, DesiredBackend, DesiredService, Memo, Observed, PlanError, Step, pool::Pool, ports::Ports, rings,
};
use crate::model::{ServiceId, ring};

/// TTL of outer headers.
const OUTER_TTL: u8 = 64;

/// What has to change.
#[derive(Default)]
pub(super) struct Services {
    pub(super) backends: Vec<PutBackend>,
    /// Start of a ring and its changed slots.
    pub(super) rings: Vec<(u32, Vec<Option<lb_common::abi::Slot>>)>,
    pub(super) entries: Vec<(ServiceKey, ServiceEntry)>,
    pub(super) gone: Vec<ServiceKey>,
    pub(super) retired: Vec<BackendId>,
}

pub(super) struct PutBackend {
    pub(super) id: BackendId,
    pub(super) entry: BackendEntry,
    pub(super) fresh: bool,
}

impl PutBackend {
    pub(super) fn step(&self) -> Step {
        Step::PutBackend { id: self.id, entry: self.entry, fresh: self.fresh }
    }

    pub(super) fn goes_down(&self) -> bool {
        !self.fresh && BackendState::from_raw(self.entry.state) == BackendState::Down
    }
}

pub(super) fn key(id: ServiceId) -> ServiceKey {
    ServiceKey::v4(id.address.octets(), id.protocol, id.port)
}

/// Compares services one by one; obstacles are added to `errors`.
pub(super) fn assign(
    observed: &Observed,
    desired: &Desired,
    ports: &Ports,
    memo: &mut Memo,
    errors: &mut Vec<PlanError>,
) -> Services {
    let mut services = Services::default();
    let wanted: BTreeSet<ServiceKey> = desired.services.iter().map(|service| key(service.id)).collect();
    services.gone = observed.services.keys().filter(|key| !wanted.contains(key)).copied().collect();
    memo.retain(|service| wanted.contains(&key(service)));
    let mut room = Room::new(observed);
    let known = Known::new(observed);
    let mut kept = BTreeSet::new();
    for service in &desired.services {
        match one(&Given { observed, desired, ports, known: &known }, service, &mut room, memo) {
            Ok(change) => change.add_to(&mut services, &mut kept),
            Err(error) => errors.push(error),
        }
    }
    room.report(observed, errors);
    let alive = observed.backends.iter().filter(|(_, entry)| is_there(entry));
    services.retired =
        alive.filter(|(id, _)| !kept.contains(*id)).filter_map(|(id, _)| BackendId::new(*id)).collect();
    services
}

/// What is free, and what has been asked for beyond it.
struct Room {
    pool: Pool,
    service_ids: BTreeSet<u32>,
    backend_ids: BTreeSet<u32>,
    missing_services: u64,
    missing_backends: u64,
}

impl Room {
    fn new(observed: &Observed) -> Self {
        let entries = observed.services.values();
        // Ids of services are named by the entries of retired backends and by their flows as well.
        let used: BTreeSet<u32> =
            entries.clone().map(|e| e.id).chain(observed.backends.values().map(|b| b.service)).collect();
        Self {
            pool: Pool::new(
                observed.size.ring_slots,
                entries.map(|entry| (entry.ring_start, entry.ring_size)),
            ),
            service_ids: (0..observed.size.services).filter(|id| !used.contains(id)).collect(),
            backend_ids: (1..=observed.size.backends)
                .filter(|id| !observed.backends.contains_key(id))
                .collect(),
            missing_services: 0,
            missing_backends: 0,
        }
    }

    fn service_id(&mut self) -> u32 {
        self.service_ids.pop_first().unwrap_or_else(|| {
            self.missing_services += 1;
            0
        })
    }

    fn backend_id(&mut self) -> BackendId {
        self.backend_ids.pop_first().and_then(BackendId::new).unwrap_or_else(|| {
            self.missing_backends += 1;
            BackendId::NONE
        })
    }

    fn report(&self, observed: &Observed, errors: &mut Vec<PlanError>) {
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

struct Change {
    kept: Vec<u32>,
    backends: Vec<PutBackend>,
    ring: Option<(u32, Vec<Option<lb_common::abi::Slot>>)>,
    entry: Option<(ServiceKey, ServiceEntry)>,
}

impl Change {
    fn add_to(self, services: &mut Services, kept: &mut BTreeSet<u32>) {
        kept.extend(self.kept);
        services.backends.extend(self.backends);
        services.rings.extend(self.ring);
        services.entries.extend(self.entry);
    }
}

/// What all services are compared with.
struct Given<'a> {
    observed: &'a Observed,
    desired: &'a Desired,
    ports: &'a Ports,
    known: &'a Known<'a>,
}

/// The backends that are there, by service id and address.
struct Known<'a>(BTreeMap<Identity, Vec<(u32, &'a BackendEntry)>>);

/// Service id and address.
type Identity = (u32, [u8; 16]);

impl<'a> Known<'a> {
    fn new(observed: &'a Observed) -> Self {
        let mut known: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (id, entry) in observed.backends.iter().filter(|(_, entry)| is_there(entry)) {
            known.entry((entry.service, entry.address)).or_default().push((*id, entry));
        }
        Self(known)
    }

    /// Entries of the same service and address as `wanted`, with their ids.
    fn like(&self, wanted: &BackendEntry) -> &[(u32, &'a BackendEntry)] {
        self.0.get(&(wanted.service, wanted.address)).map_or(&[], Vec::as_slice)
    }
}

/// Whether an entry is in use: one that is retired may still be named by flows that were moved away from it.
fn is_there(entry: &BackendEntry) -> bool {
    !matches!(BackendState::from_raw(entry.state), BackendState::Absent | BackendState::Retired)
}

fn one(
    given: &Given<'_>,
    service: &DesiredService,
    room: &mut Room,
    memo: &mut Memo,
) -> Result<Change, PlanError> {
    let Given { observed, desired, ports, known } = *given;
    let key = key(service.id);
    let present = observed.services.get(&key);
    let entry = match present {
        Some(entry) => *entry,
        None => {
            let size = service.ring_size.unwrap_or_else(|| ring::default_size(service.backends.len()));
            let capacity = observed.size.ring_slots;
            let full = PlanError::RingPoolFull { service: service.id, size, capacity };
            let ring_start = room.pool.take(size).ok_or(full)?;
            ServiceEntry { ring_start, ring_size: size, id: room.service_id(), ..ServiceEntry::default() }
        }
    };
    if let Some(wanted) = service.ring_size.filter(|wanted| *wanted != entry.ring_size) {
        return Err(PlanError::RingResized { service: service.id, current: entry.ring_size, wanted });
    }
    let mut change = Change { kept: Vec::new(), backends: Vec::new(), ring: None, entry: None };
    let (mut ids, mut draining) = (Vec::new(), Vec::new());
    for backend in &service.backends {
        let wanted = placed(known, backend, backend_entry(backend, entry.id, ports));
        let same = known.like(&wanted).iter().find(|(_, present)| same_backend(present, &wanted));
        let id = same.and_then(|(id, _)| BackendId::new(*id)).unwrap_or_else(|| room.backend_id());
        ids.push(id);
        if backend.state == BackendState::Draining {
            draining.push(id);
        }
        change.kept.push(id.get());
        if same.is_none_or(|(_, present)| **present != wanted) {
            change.backends.push(PutBackend { id, entry: wanted, fresh: same.is_none() });
        }
    }
    let slots = memo.owners(service, desired.hash_key, entry.ring_size)?;
    let owners = rings::Owners { slots: &slots, ids: &ids, draining: &draining };
    let before = present.and_then(|_| observed.rings.get(&key)).map(Vec::as_slice);
    change.ring = rings::changes(before, &owners, entry.ring_size).map(|words| (entry.ring_start, words));
    change.entry = present.is_none().then_some((key, entry));
    Ok(change)
}

/// The wanted entry; while there is no way to a tunnelled backend, so that the node's own address on it is not known
/// either, with the tunnel it has. Otherwise a flapping route would take a new id each time.
fn placed(known: &Known<'_>, backend: &DesiredBackend, wanted: BackendEntry) -> BackendEntry {
    if backend.next_hop.is_some() || backend.tunnel.is_none() {
        return wanted;
    }
    let present = known.like(&wanted).iter().find(|(_, entry)| entry.method == wanted.method);
    present.map_or(wanted, |(_, present)| BackendEntry {
        next_hop: wanted.next_hop,
        state: wanted.state,
        ..**present
    })
}

/// Whether an entry can become the wanted one under its id: what tells a packet how to travel must not change in more
/// than one word.
fn same_backend(present: &BackendEntry, wanted: &BackendEntry) -> bool {
    let fixed = |entry: &BackendEntry| BackendEntry { next_hop: 0, state: 0, ..*entry };
    fixed(present) == fixed(wanted)
}

fn backend_entry(backend: &DesiredBackend, service: u32, ports: &Ports) -> BackendEntry {
    let plain = BackendEntry {
        next_hop: ports.next_hop(backend.next_hop).0,
        service,
        state: backend.state.to_raw(),
        method: Method::L2.to_raw(),
        address: mapped(backend.address.octets()),
        ..BackendEntry::default()
    };
    let Some(tunnel) = backend.tunnel else {
        return plain;
    };
    let template = OuterTemplate {
        ttl: OUTER_TTL,
        protocol: IPIP,
        source: tunnel.source.to_bits(),
        destination: backend.address.to_bits(),
    };
    BackendEntry {
        method: Method::Ipip.to_raw(),
        outer_source: mapped(tunnel.source.octets()),
        source_bits: tunnel.source_bits,
        ttl: OUTER_TTL,
        checksum: template.partial_checksum(),
        ..plain
    }
}
