//! Ids, entries and rings of all services.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lb_common::abi::{
    BackendEntry, BackendId, BackendState, QuicFormat, QuicKey, RateEntry, ServiceEntry, Slot,
};

use super::bigger::{self, Bigger};
use super::lists::Lists;
use super::needs::rates;
use super::rings::{Before, Changes, Manner, Owners};
use super::room::{Room, Strictness};
use super::{
    Desired, DesiredBackend, DesiredService, History, Memo, Observed, PlanError, Step, Terms, backend,
    policies, ports::Ports, rings,
};
use crate::model::{Algorithm, FlowRules, ServerIdFormat, ServiceId, Tracking, ring};

/// What has to change.
#[derive(Default)]
pub(super) struct Services {
    pub(super) backends: Vec<PutBackend>,
    /// Start of a ring and its changed slots.
    pub(super) rings: Vec<(u32, Vec<Option<Slot>>)>,
    /// The entry of each wanted service, in their order.
    pub(super) entries: Vec<ServiceEntry>,
    /// Ids that had no service.
    pub(super) fresh: Vec<u32>,
    /// Limits of those services that have any.
    pub(super) rates: BTreeMap<u32, RateEntry>,
    /// Source lists.
    pub(super) lists: Lists,
    /// Backends that QUIC connection IDs name.
    pub(super) quic: BTreeMap<QuicKey, u32>,
    pub(super) policies: policies::Policies,
    pub(super) retired: Vec<BackendId>,
    /// When something that waits can go on.
    pub(super) due_ns: Option<u64>,
    pub(super) terms: BTreeMap<u32, Terms>,
    /// What services go without.
    pub(super) lacking: Vec<PlanError>,
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

/// Compares services one by one; obstacles are added to `errors`.
pub(super) fn assign(
    observed: &Observed,
    desired: &Desired,
    ports: &Ports,
    (memo, history, strictness): (&mut Memo, &History, Strictness),
    errors: &mut Vec<PlanError>,
) -> Services {
    let mut services = Services::default();
    let wanted: BTreeSet<ServiceId> = desired.services.iter().map(|service| service.id).collect();
    memo.retain(|service| wanted.contains(&service));
    memo.schedules.retain(|service| wanted.contains(&service));
    let mut room = Room::new(observed, strictness);
    let known = Known::new(observed);
    let mut kept = BTreeSet::new();
    let given = Given { observed, desired, ports, history, known: &known, services: observed.services() };
    for service in &desired.services {
        match one(&given, service, &mut room, memo, &mut services.lists) {
            Ok(change) => change.add_to(service, &mut services, &mut kept),
            Err(error) => errors.push(error),
        }
    }
    services.lists.trim(&mut memo.digests);
    room.report(observed, errors);
    services.lacking = room.lacking;
    let alive = observed.backends.iter().filter(|(_, entry)| is_there(entry));
    services.retired =
        alive.filter(|(id, _)| !kept.contains(*id)).filter_map(|(id, _)| BackendId::new(*id)).collect();
    services
}

struct Change {
    /// Backends in the order of the service's list.
    ids: Vec<BackendId>,
    backends: Vec<PutBackend>,
    ring: Ring,
    entry: ServiceEntry,
    policy: Option<policies::Policy>,
    fresh: bool,
    due_ns: Option<u64>,
    terms: Terms,
}

impl Change {
    fn add_to(self, service: &DesiredService, services: &mut Services, kept: &mut BTreeSet<u32>) {
        let id = self.entry.id;
        kept.extend(self.ids.iter().map(|id| id.get()));
        services.backends.extend(self.backends);
        services.rings.extend(self.ring);
        services.due_ns = services.due_ns.into_iter().chain(self.due_ns).min();
        services.terms.insert(id, self.terms);
        if let Some(policy) = self.policy {
            services.policies.add(id, policy);
        }
        services.entries.push(self.entry);
        services.fresh.extend(self.fresh.then_some(id));
        services.rates.extend(rates(&service.admission.limits).map(|rates| (id, rates)));
        if service.quic.and_then(|quic| quic.server_id).is_some() {
            let named = service.backends.iter().zip(&self.ids).filter_map(|(b, number)| {
                Some((QuicKey { server: b.server_id?, service: id, reserved: 0 }, number.get()))
            });
            services.quic.extend(named);
        }
    }
}

/// What all services are compared with.
struct Given<'a> {
    observed: &'a Observed,
    desired: &'a Desired,
    ports: &'a Ports,
    history: &'a History,
    known: &'a Known<'a>,
    /// The services that are there.
    services: BTreeMap<ServiceId, ServiceEntry>,
}

/// The backends that are there, by service id and address.
struct Known<'a>(BTreeMap<Identity, (u32, &'a BackendEntry)>);

/// Service id and address.
type Identity = (u32, [u8; 16]);

impl<'a> Known<'a> {
    fn new(observed: &'a Observed) -> Self {
        let there = observed.backends.iter().filter(|(_, entry)| is_there(entry));
        Self(there.map(|(id, entry)| ((entry.service, entry.address), (*id, entry))).collect())
    }

    /// The entry of the same service and address as `wanted`, with its id.
    fn like(&self, wanted: &BackendEntry) -> Option<(u32, &'a BackendEntry)> {
        self.0.get(&(wanted.service, wanted.address)).copied()
    }
}

/// Whether an entry is in use: one that is retired may still be named by flows that were moved away from it.
pub(super) fn is_there(entry: &BackendEntry) -> bool {
    !matches!(BackendState::from_raw(entry.state), BackendState::Absent | BackendState::Retired)
}

fn one(
    given: &Given<'_>,
    service: &DesiredService,
    room: &mut Room,
    memo: &mut Memo,
    lists: &mut Lists,
) -> Result<Change, PlanError> {
    let present = given.services.get(&service.id);
    let size = service.ring_size.or(present.map(|entry| entry.ring_size));
    let size = size.unwrap_or_else(|| ring::default_size(service.backends.len()));
    let entry = match present {
        Some(entry) if entry.ring_size == size => *entry,
        Some(entry) => match room.slots("ring", service.id, size) {
            Ok(ring_start) => ServiceEntry { ring_start, ring_size: size, ..*entry },
            // The ring that it has serves on.
            Err(error) => room.go_without(error).map(|()| *entry)?,
        },
        None => {
            let ring_start = room.slots("ring", service.id, size)?;
            ServiceEntry {
                ring_start,
                ring_size: size,
                id: room.service_id(service),
                ..ServiceEntry::default()
            }
        }
    };
    let size = entry.ring_size;
    let wanted = with_rules(entry, service, lists, memo);
    let (ids, backends) = numbered(given, service, wanted.id, room);
    // Also where it has to wait: that it cannot be had is told at once.
    let slots = match memo.owners(service, given.desired.hash_key, size) {
        Ok(slots) => slots,
        // Weights that move by themselves may leave a backend none.
        Err(error) => {
            room.go_without(error)?;
            memo.owners_for_now(service, given.desired.hash_key, size)
        }
    };
    let having = |state: fn(BackendState) -> bool| -> BTreeSet<BackendId> {
        let all = service.backends.iter().zip(&ids);
        all.filter(|(backend, _)| state(backend.state)).map(|(_, id)| *id).collect()
    };
    let draining = having(|state| state == BackendState::Draining);
    let owners =
        Owners { slots: &slots, ids: &ids, draining: &draining, alive: &having(BackendState::keeps_flows) };
    let fresh = present.is_none();
    let (ring, turn) = match present {
        None => {
            let words = rings::new(&owners, size, Slot::settled);
            (Some((wanted.ring_start, words)), Turn { entry: wanted, due_ns: None, held: false })
        }
        Some(present) => turned(given, service, (present, wanted), &owners, memo),
    };
    let Turn { entry, due_ns, held } = turn;
    let max_unsettled_ns = u64::try_from(service.flows.max_unsettled.as_nanos()).unwrap_or(u64::MAX);
    let terms = Terms { ring_start: entry.ring_start, held, max_unsettled_ns };
    let policy = policies::one(given.observed, service, (entry.id, &ids), room, &mut memo.schedules)?;
    let policy_due_ns = policy.as_ref().and_then(|policy| policy.due_ns);
    let due_ns = due_ns.into_iter().chain(policy_due_ns).min();
    Ok(Change { ids, backends, ring, entry, policy, fresh, due_ns, terms })
}

/// The ids of a service's backends, in the order of its list, and entries that are to be put.
fn numbered(
    given: &Given<'_>,
    service: &DesiredService,
    service_id: u32,
    room: &mut Room,
) -> (Vec<BackendId>, Vec<PutBackend>) {
    let Given { ports, known, .. } = given;
    let (mut ids, mut backends) = (Vec::new(), Vec::new());
    for backend in &service.backends {
        let wanted = placed(known, backend, service_id, service.id, ports);
        let like = known.like(&wanted);
        let id = like.and_then(|(id, _)| BackendId::new(id)).unwrap_or_else(|| room.backend_id());
        ids.push(id);
        if like.is_none_or(|(_, present)| *present != wanted) {
            backends.push(PutBackend { id, entry: wanted, fresh: like.is_none() });
        }
    }
    (ids, backends)
}

/// Where a running service stands after this plan.
struct Turn {
    entry: ServiceEntry,
    due_ns: Option<u64>,
    held: bool,
}

type Ring = Option<(u32, Vec<Option<Slot>>)>;

/// Changes the slots of a running service, and its entry where that can be now.
fn turned(
    given: &Given<'_>,
    service: &DesiredService,
    (present, wanted): (&ServiceEntry, ServiceEntry),
    owners: &Owners<'_>,
    memo: &mut Memo,
) -> (Ring, Turn) {
    let Given { observed, desired, history, .. } = given;
    let slots = observed.rings.get(&present.id).map_or(&[][..], Vec::as_slice);
    let known = history.of(present.id, present.ring_start);
    let recorded = present.flags & ServiceEntry::TRACKED != 0;
    let before = Before { slots, recorded, known, now_ns: observed.now_ns };
    let untracked = service.flows.tracking == Tracking::Never && !service.flows.records_all();
    let bigger = if untracked { Bigger::Not } else { Bigger::between(present, &wanted) };
    let due_ns = bigger.due_ns(&before, &wanted);
    if due_ns > observed.now_ns {
        let entry = bigger::held(present, wanted);
        let slots = memo.owners_for_now(service, desired.hash_key, entry.ring_size);
        let Changes { words, due_ns: step_ns } =
            rings::changes(&before, &Owners { slots: &slots, ..*owners }, Manner::Marked);
        let due_ns = Some(step_ns.unwrap_or(due_ns).min(due_ns));
        return (words.map(|words| (entry.ring_start, words)), Turn { entry, due_ns, held: true });
    }
    if present.ring_size != wanted.ring_size {
        let slot = if untracked { Slot::settled } else { Slot::unsettled };
        let words = rings::new(owners, wanted.ring_size, slot);
        let turn = Turn { entry: wanted, due_ns: None, held: false };
        return (Some((wanted.ring_start, words)), turn);
    }
    let manner = match bigger {
        _ if untracked => Manner::Untracked,
        Bigger::Rehash => Manner::Rehashed,
        Bigger::Repolicy | Bigger::Not => Manner::Tracked,
    };
    let Changes { words, due_ns } = rings::changes(&before, owners, manner);
    (words.map(|words| (wanted.ring_start, words)), Turn { entry: wanted, due_ns, held: false })
}

/// The entry with what the service wants of packets.
fn with_rules(
    entry: ServiceEntry,
    service: &DesiredService,
    lists: &mut Lists,
    memo: &mut Memo,
) -> ServiceEntry {
    let (acl, acl_flags) = lists.number(&service.admission, &mut memo.digests).unwrap_or_default();
    let rate_flag = if rates(&service.admission.limits).is_some() { ServiceEntry::RATES } else { 0 };
    let quic_flag = if service.quic.is_some() { ServiceEntry::QUIC } else { 0 };
    let format = service.quic.and_then(|quic| quic.server_id).map(|format| match format {
        ServerIdFormat::Draft { config_id, length } => QuicFormat::Draft { config_id, length },
        ServerIdFormat::Katran => QuicFormat::Katran,
    });
    let idle = service.flows.idle;
    let tenths = |time: Duration| u16::try_from(time.as_millis().div_ceil(100)).unwrap_or(u16::MAX);
    ServiceEntry {
        flags: acl_flags | rate_flag | quic_flag | placing(&service.flows),
        acl,
        quic: format.map_or(0, QuicFormat::to_raw),
        idle_ms: u32::try_from(idle.established.as_millis()).unwrap_or(u32::MAX),
        half_open_ds: tenths(idle.half_open),
        closing_ds: tenths(idle.closing),
        ..entry
    }
}

/// Flags that say how flows are placed and found. A running service does not get them at once, see `bigger`.
fn placing(flows: &FlowRules) -> u32 {
    let tracked = if flows.records_all() { ServiceEntry::TRACKED } else { 0 };
    let by_source = if flows.algorithm == Algorithm::SourceHash { ServiceEntry::BY_SOURCE } else { 0 };
    let policy = if flows.has_policy() { ServiceEntry::POLICY } else { 0 };
    tracked | by_source | policy
}

/// The wanted entry. While there is no way to a tunnelled backend, so that the node's own address on it is not known
/// either, with the outer source it has: otherwise all of it would change each time that a route flaps. So with the MTU
/// and the tag, which nothing uses without a next hop.
fn placed(
    known: &Known<'_>,
    backend: &DesiredBackend,
    service: u32,
    id: ServiceId,
    ports: &Ports,
) -> BackendEntry {
    let inner_v6 = id.address.is_ipv6();
    let wanted = backend::entry(backend, service, inner_v6, ports);
    if backend.next_hop.is_some() {
        return wanted;
    }
    let alike =
        |entry: &BackendEntry| (entry.method, entry.source_bits) == (wanted.method, wanted.source_bits);
    let Some((_, present)) = known.like(&wanted).filter(|(_, present)| alike(present)) else {
        return wanted;
    };
    let source = super::narrow(present.outer_source);
    let tunnel = backend.tunnel.map(|tunnel| super::DesiredTunnel { source, ..tunnel });
    let entry = backend::entry(&DesiredBackend { tunnel, ..*backend }, service, inner_v6, ports);
    BackendEntry { egress: present.egress, flags: present.flags, ..entry }
}
