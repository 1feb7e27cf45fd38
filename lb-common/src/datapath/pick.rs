//! Which backend a new flow gets: its slot's owner, or what the service's policy says.

use super::choose::{current, state};
use super::parse::Packet;
use super::serve::flow_hash;
use super::work::Asked;
use super::{Tables, hash};
use crate::abi::{
    AffinityEntry, AffinityKey, BackendId, BackendState, LoadEntry, PolicyEntry, PolicyKind, ServiceEntry,
};

const MS_NS: u64 = 1_000_000;

/// The backend for a new flow, or for one that has lost its own. `None`: there is nobody.
#[inline(always)]
pub(super) fn pick<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    packet: &Packet,
    asked: &mut Asked,
) -> Option<BackendId> {
    if service.flags & ServiceEntry::POLICY == 0 {
        return current(tables, asked.slot);
    }
    by_policy(tables, service, packet, asked)
}

/// A client that is remembered gets its backend again, others get one by the policy and are remembered. A schedule is
/// trusted as slots are: userspace takes a backend out of it before it marks it down.
#[inline(never)]
fn by_policy<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    packet: &Packet,
    asked: &mut Asked,
) -> Option<BackendId> {
    let policy = tables.policy(service.id)?;
    if policy.affinity_ms != 0 {
        asked.client = client(service, packet);
        if let Some(id) = remembered(tables, service, &policy, asked) {
            return Some(id);
        }
    }
    let scheduled = match PolicyKind::from_raw(policy.kind) {
        PolicyKind::Ring => None,
        PolicyKind::Turns => tables
            .turn(service.id)
            .checked_rem(u64::from(policy.schedule_size))
            .and_then(|turn| scheduled(tables, &policy, turn as u32)),
        PolicyKind::LessLoad | PolicyKind::FewerFlows => less_loaded(tables, packet, &policy),
    };
    let id = scheduled.or_else(|| current(tables, asked.slot))?;
    if policy.affinity_ms != 0 {
        set(tables, asked, id);
    }
    Some(id)
}

/// Of two draws the less loaded one. What the flow's hash says is random enough, and the same wherever it is computed.
#[inline(always)]
fn less_loaded<T: Tables>(tables: &T, packet: &Packet, policy: &PolicyEntry) -> Option<BackendId> {
    let hash = flow_hash(tables.control()?, packet);
    let size = policy.schedule_size;
    let first = hash::slot(hash, size);
    let one = scheduled(tables, policy, first)?;
    let mut other = scheduled(tables, policy, hash::slot(hash.rotate_left(32), size))?;
    if other.get() == one.get() {
        // The next turn is somebody else's, unless one backend has more than half of them.
        let next = if first + 1 < size { first + 1 } else { 0 };
        other = scheduled(tables, policy, next)?;
    }
    let (a, b) = (tables.load(one)?, tables.load(other)?);
    let per_weight = |load: u64, weight: u64| {
        let load = if (load as i64) < 0 { 0 } else { load };
        let weight = if weight == 0 { 1 } else { weight };
        // What this flow adds counts: otherwise every idle backend would look the same.
        (load.wrapping_add(1) & LOAD_MASK).wrapping_mul(weight & WEIGHT_MASK)
    };
    // a / weight of a < b / weight of b, without a division.
    Some(if per_weight(a.load, b.weight) <= per_weight(b.load, a.weight) { one } else { other })
}

/// Widths of a load and a weight whose product fits a word: a terabyte per second, and weights as userspace scales them.
const LOAD_MASK: u64 = (1 << 40) - 1;
const WEIGHT_MASK: u64 = LoadEntry::MOST_WEIGHT;

/// Whose turn it is.
#[inline(always)]
fn scheduled<T: Tables>(tables: &T, policy: &PolicyEntry, turn: u32) -> Option<BackendId> {
    if turn >= policy.schedule_size {
        return None;
    }
    current(tables, tables.slot(policy.schedule_start.wrapping_add(turn))?)
}

/// The backend that a client is remembered with, if that takes new flows.
#[inline(always)]
fn remembered<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    policy: &PolicyEntry,
    asked: &mut Asked,
) -> Option<BackendId> {
    let found = tables.affinity(&asked.client)?;
    // Another CPU may have stamped it since the clock was read.
    let age_ns = asked.now_ns.saturating_sub(found.last_seen_ns);
    if age_ns > u64::from(policy.affinity_ms) * MS_NS {
        return None;
    }
    let id = BackendId::new(found.backend)?;
    // One that drains takes no new flows, whoever asks.
    if state(tables, id)? != BackendState::Up || tables.backend(id)?.service != service.id {
        return None;
    }
    set(tables, asked, id);
    Some(id)
}

/// Remembers a client for as long as it has flows.
#[inline(always)]
pub(super) fn remember<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    packet: &Packet,
    asked: &mut Asked,
    id: BackendId,
) {
    if service.flags & ServiceEntry::POLICY == 0 {
        return;
    }
    asked.client = client(service, packet);
    // Not where it has been remembered with another one meanwhile: older flows stay where they are, new ones go there.
    if tables.affinity(&asked.client).is_some_and(|entry| entry.backend == id.get()) {
        set(tables, asked, id);
    }
}

#[inline(always)]
fn set<T: Tables>(tables: &T, asked: &mut Asked, id: BackendId) {
    asked.affinity = AffinityEntry { backend: id.get(), reserved: 0, last_seen_ns: asked.now_ns };
    tables.set_affinity(&asked.client, &asked.affinity);
}

#[inline(always)]
fn client(service: &ServiceEntry, packet: &Packet) -> AffinityKey {
    AffinityKey { source: packet.ip.source, service: service.id, reserved: 0 }
}

/// Counts a flow more or less for a backend, where the service's policy goes by that.
#[inline(always)]
pub(super) fn add<T: Tables>(tables: &T, service: &ServiceEntry, id: BackendId, flows: i64) {
    if service.flags & ServiceEntry::POLICY == 0 {
        return;
    }
    let counts = |policy: PolicyEntry| PolicyKind::from_raw(policy.kind) == PolicyKind::FewerFlows;
    if tables.policy(service.id).is_some_and(counts) {
        tables.add_load(id, flows);
    }
}
