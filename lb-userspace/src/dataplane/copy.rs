//! Copies one data plane's maps into another's of the same layout, but for what flows and clients are recorded in.

use aya::Pod;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{HashMap, MapData, PerCpuArray};
use lb_common::abi::{REASON_SLOTS, names::*};
use nix::errno::Errno;

use super::Error;
use super::error::is_because;
use super::maps::{BACKEND_WORDS, Maps};
use super::mmap::Words;
use super::policy_maps::{LOAD_WORDS, POLICY_WORDS};

/// Copies all that decides about packets besides flow tables and control block, and all counters. Rates of sources and
/// services begin anew: they are as full as they can be for an instant.
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
    copy_loads(old, new);
    for service in 0..old.size.services.min(new.size.services) {
        let limits = old.rates.get(&service, 0).map_err(Error::map(RATES))?;
        new.rates.set(service, limits, 0).map_err(Error::map(RATES))?;
    }
    for number in 1..=old.size.ports.min(new.size.ports) {
        let port = old.ports.get(&number, 0).map_err(Error::map(PORTS))?;
        if port.ifindex != 0 {
            way_out(new, number, port.ifindex)?;
            new.ports.set(number, port, 0).map_err(Error::map(PORTS))?;
        }
    }
    let backends = old.size.backends.min(new.size.backends) + 1;
    let services = old.size.services.min(new.size.services);
    per_cpu(&old.backend_counters, &mut new.backend_counters, backends, BACKEND_COUNTERS)?;
    per_cpu(&old.service_drops, &mut new.service_drops, services * REASON_SLOTS, SERVICE_DROPS)?;
    per_cpu(&old.reasons, &mut new.reasons, REASON_SLOTS, REASONS)?;
    Ok(())
}

/// Sets the interface of a port, which may be gone: then nothing leaves there, as in the old map, out of which the kernel
/// takes interfaces that go (`EINVAL`: `__dev_map_alloc_node` in kernel/bpf/devmap.c). The next plan drops such a port.
fn way_out(new: &mut Maps, port: u32, ifindex: u32) -> Result<(), Error> {
    match new.egress.set(port, ifindex, None, 0).map_err(|source| Error::Egress { source }) {
        Err(error) if is_because(&error, Errno::EINVAL) => {
            tracing::debug!(port, ifindex, "the port's interface is gone");
            Ok(())
        }
        set => set,
    }
}

/// Copies the loads of backends, which programs write.
pub(super) fn copy_loads(old: &Maps, new: &Maps) {
    let backends = old.size.backends.min(new.size.backends) as usize + 1;
    words(&old.policies.loads, &new.policies.loads, backends * LOAD_WORDS);
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
