//! Copies one data plane's maps into another's of the same layout.

use aya::Pod;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use lb_common::abi::{REASON_SLOTS, names::*};

use super::Error;
use super::flow_maps::FlowMaps;
use super::maps::{BACKEND_WORDS, Maps};
use super::mmap::Words;
use super::policy_maps::{LOAD_WORDS, POLICY_WORDS};

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h): what is there stays.
const IF_ABSENT: u64 = 1;

/// Copies all that decides about packets, and all counters. Rates of sources and services begin anew: they are as full
/// as they can be for an instant.
pub(super) fn copy(old: &Maps, new: &mut Maps) -> Result<(), Error> {
    pairs(&old.services, &mut new.services, SERVICES)?;
    pairs(&old.vips, &mut new.vips, VIPS)?;
    pairs(&old.quic, &mut new.quic, QUIC_IDS)?;
    trie(&old.prefixes, &mut new.prefixes, PREFIXES)?;
    trie(&old.ranges, &mut new.ranges, RANGES)?;
    trie(&old.acl, &mut new.acl, ACL)?;
    words(&old.rings, &new.rings, old.size.ring_slots as usize);
    words(&old.backends, &new.backends, (old.size.backends as usize + 1) * BACKEND_WORDS);
    words(&old.policies.policies, &new.policies.policies, old.size.services as usize * POLICY_WORDS);
    words(&old.policies.loads, &new.policies.loads, (old.size.backends as usize + 1) * LOAD_WORDS);
    for service in 0..old.size.services.min(new.size.services) {
        let limits = old.rates.get(&service, 0).map_err(Error::map(RATES))?;
        new.rates.set(service, limits, 0).map_err(Error::map(RATES))?;
    }
    for number in 1..=old.size.ports.min(new.size.ports) {
        let port = old.ports.get(&number, 0).map_err(Error::map(PORTS))?;
        if port.ifindex != 0 {
            new.egress.set(number, port.ifindex, None, 0).map_err(|source| Error::Egress { source })?;
            new.ports.set(number, port, 0).map_err(Error::map(PORTS))?;
        }
    }
    let backends = old.size.backends.min(new.size.backends) + 1;
    let services = old.size.services.min(new.size.services);
    per_cpu(&old.backend_counters, &mut new.backend_counters, backends, BACKEND_COUNTERS)?;
    per_cpu(&old.service_drops, &mut new.service_drops, services * REASON_SLOTS, SERVICE_DROPS)?;
    per_cpu(&old.reasons, &mut new.reasons, REASON_SLOTS, REASONS)?;
    copy_since(old, new, 0)?;
    // Last, as whoever opens the maps looks there.
    new.put_control(&old.control());
    Ok(())
}

/// Copies the flows that were seen since then (monotonic nanoseconds) and are not there.
pub(super) fn copy_since(old: &Maps, new: &mut Maps, since_ns: u64) -> Result<(), Error> {
    for (table, tcp) in FlowMaps::all() {
        let most = 2 * old.size.flows(table, tcp) as usize;
        let entries = old.flows.table(table, tcp).iter().take(most).filter_map(Result::ok);
        for (key, entry) in entries.filter(|(_, entry)| entry.last_seen_ns >= since_ns) {
            absent(new.flows.table_mut(table, tcp).insert(key, entry, IF_ABSENT), flow_table(table, tcp))?;
        }
    }
    let clients = old.affinity.iter().take(2 * old.size.affinity as usize).filter_map(Result::ok);
    for (client, entry) in clients.filter(|(_, entry)| entry.last_seen_ns >= since_ns) {
        absent(new.affinity.insert(client, entry, IF_ABSENT), AFFINITY)?;
    }
    Ok(())
}

/// What is there already is no failure.
fn absent(inserted: Result<(), MapError>, name: &'static str) -> Result<(), Error> {
    match inserted {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::AlreadyExists => {
            Ok(())
        }
        other => other.map_err(Error::map(name)),
    }
}

fn pairs<K: Pod, V: Pod>(
    old: &HashMap<MapData, K, V>,
    new: &mut HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<(), Error> {
    for pair in old.iter() {
        let (key, value) = pair.map_err(Error::map(name))?;
        new.insert(key, value, 0).map_err(Error::map(name))?;
    }
    Ok(())
}

fn trie<K: Pod, V: Pod>(
    old: &LpmTrie<MapData, K, V>,
    new: &mut LpmTrie<MapData, K, V>,
    name: &'static str,
) -> Result<(), Error> {
    for pair in old.iter() {
        let (key, value) = pair.map_err(Error::map(name))?;
        new.insert(&key, value, 0).map_err(Error::map(name))?;
    }
    Ok(())
}

fn words(old: &Words, new: &Words, count: usize) {
    for word in 0..count {
        new.store(word, old.load(word));
    }
}

fn per_cpu<V: Pod>(
    old: &PerCpuArray<MapData, V>,
    new: &mut PerCpuArray<MapData, V>,
    count: u32,
    name: &'static str,
) -> Result<(), Error> {
    for index in 0..count {
        let values = old.get(&index, 0).map_err(Error::map(name))?;
        new.set(index, values, 0).map_err(Error::map(name))?;
    }
    Ok(())
}
