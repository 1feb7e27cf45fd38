//! Copies one data plane's maps into another's of the same layout.

use aya::Pod;
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use lb_common::abi::{REASON_SLOTS, names::*};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::Error;
use super::error::is_because;
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
            way_out(new, number, port.ifindex)?;
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

/// Copies the flows that were seen since then (monotonic nanoseconds) and are not there.
pub(super) fn copy_since(old: &Maps, new: &mut Maps, since_ns: u64) -> Result<(), Error> {
    let mut spread = Spread::new()?;
    for (table, tcp) in FlowMaps::all() {
        let most = 2 * old.size.flows(table, tcp) as usize;
        let entries = old.flows.table(table, tcp).iter().take(most).filter_map(Result::ok);
        for (key, entry) in entries.filter(|(_, entry)| entry.last_seen_ns >= since_ns) {
            spread.turn()?;
            absent(new.flows.table_mut(table, tcp).insert(key, entry, IF_ABSENT), flow_table(table, tcp))?;
        }
    }
    drop(spread);
    let clients = old.affinity.iter().take(2 * old.size.affinity as usize).filter_map(Result::ok);
    for (client, entry) in clients.filter(|(_, entry)| entry.last_seen_ns >= since_ns) {
        absent(new.affinity.insert(client, entry, IF_ABSENT), AFFINITY)?;
    }
    Ok(())
}

/// Has this thread take turns on all CPUs: each has a part of a flow table that only it can fill
/// (`BPF_F_NO_COMMON_LRU`). It is back where it may be when this is dropped.
struct Spread {
    before: CpuSet,
    cpus: Vec<usize>,
    done: usize,
}

/// Insertions on one CPU before it is the next one's turn.
const TURN: usize = 256;

impl Spread {
    fn new() -> Result<Self, Error> {
        let before = sched_getaffinity(THIS_THREAD).map_err(unpinned)?;
        let cpus = (0..CpuSet::count()).filter(|cpu| before.is_set(*cpu).unwrap_or(false)).collect();
        Ok(Self { before, cpus, done: 0 })
    }

    fn turn(&mut self) -> Result<(), Error> {
        if self.done.is_multiple_of(TURN)
            && let Some(cpu) = self.cpus.get(self.done / TURN % self.cpus.len().max(1))
        {
            let mut one = CpuSet::new();
            one.set(*cpu).and_then(|()| sched_setaffinity(THIS_THREAD, &one)).map_err(unpinned)?;
        }
        self.done += 1;
        Ok(())
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(THIS_THREAD, &self.before) {
            tracing::warn!(%error, "this thread stays on one CPU");
        }
    }
}

const THIS_THREAD: Pid = Pid::from_raw(0);

fn unpinned(errno: Errno) -> Error {
    Error::File { action: "choosing CPUs of", path: "/proc/self".into(), source: errno.into() }
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
