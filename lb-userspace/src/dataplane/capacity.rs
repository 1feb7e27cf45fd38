//! How large the maps are, and what memory they take.

use lb_common::abi::names::{self, PORTS as PORTS_MAP};
use lb_common::abi::{
    AffinityEntry, AffinityKey, BackendCounters, BackendEntry, BucketKey, FlowEntry, FlowKey, FragmentEntry,
    FragmentKey, LoadEntry, PROBE_SLOTS, PolicyEntry, PortEntry, ProbeEntry, REASON_SLOTS, RateEntry,
    ServiceEntry, ServiceKey, VipEntry, VipKey,
};

use super::flow_maps::FlowMaps;
use crate::reconcile::Size;

/// Interfaces that one data plane can use.
pub const PORTS: u32 = 64;

/// Rates of single sources that are kept at a time; the least recently used make room. A source of whom nothing is
/// known has a whole burst, so that a flood from more sources than these is for the service's own limit.
pub(super) const SOURCE_BUCKETS: u32 = 32 << 10;

/// Fragmented packets under way: fragments of one arrive within milliseconds, and seconds at the most.
pub(super) const FRAGMENTS: u32 = 16 << 10;

/// Bytes of the ring buffer of sampled packets, some 3000 of them.
pub(super) const SAMPLES: u32 = 1 << 20;

/// What the kernel adds to each element of a hash table: `struct htab_elem` (kernel/bpf/hashtab.c).
const ELEMENT_OVERHEAD: u64 = 48;
/// `struct bucket` there; there is a power of two of them, at least one for each element.
const BUCKET: u64 = 16;

/// CPUs that per-CPU maps have values for; 1 where the kernel does not tell.
pub fn possible_cpus() -> usize {
    aya::util::nr_cpus().unwrap_or(1)
}

/// Bytes per map.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Memory {
    /// Name of each map and its bytes.
    pub maps: Vec<(&'static str, u64)>,
}

impl Memory {
    /// Sum of all maps in bytes.
    pub fn total(&self) -> u64 {
        self.maps.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Estimated memory of maps of this size on a machine with `cpus` possible CPUs. Tries and the table of QUIC server ids
/// are not in it: they take memory for what is in them only.
pub fn memory(size: &Size, cpus: u64) -> Memory {
    use names::{
        BACKEND_COUNTERS, BACKENDS, PROBES, RATES, REASONS, RINGS, SERVICE_BUCKETS, SERVICE_DROPS, SERVICES,
        VIPS,
    };
    let of = |bytes: usize| (bytes as u64).next_multiple_of(8);
    let hash = |entries: u32, key: usize, value: usize| {
        let entries = u64::from(entries);
        entries * (of(key) + of(value) + ELEMENT_OVERHEAD) + entries.next_power_of_two() * BUCKET
    };
    let backends = u64::from(size.backends) + 1;
    let mut maps = vec![
        (SERVICES, hash(size.keys, size_of::<ServiceKey>(), size_of::<ServiceEntry>())),
        (VIPS, hash(size.vips, size_of::<VipKey>(), size_of::<VipEntry>())),
        (RINGS, u64::from(size.ring_slots) * 8),
        (BACKENDS, backends * of(size_of::<BackendEntry>())),
        (PORTS_MAP, u64::from(size.ports + 1) * (of(size_of::<PortEntry>()) + 8)),
        (names::POLICIES, u64::from(size.services) * of(size_of::<PolicyEntry>())),
        (names::TURNS, u64::from(size.services) * 8 * cpus),
        (names::LOADS, backends * of(size_of::<LoadEntry>())),
        (names::AFFINITY, hash(size.affinity, size_of::<AffinityKey>(), size_of::<AffinityEntry>())),
        (BACKEND_COUNTERS, backends * of(size_of::<BackendCounters>()) * cpus),
        (SERVICE_DROPS, u64::from(size.services) * u64::from(REASON_SLOTS) * 8 * cpus),
        (REASONS, u64::from(REASON_SLOTS) * 8 * cpus),
        (PROBES, u64::from(PROBE_SLOTS) * of(size_of::<ProbeEntry>())),
        (RATES, u64::from(size.services) * of(size_of::<RateEntry>())),
        (SERVICE_BUCKETS, u64::from(size.services) * 16),
        (names::SOURCE_BUCKETS, hash(SOURCE_BUCKETS, size_of::<BucketKey>(), size_of::<u64>())),
        (names::FRAGMENTS, hash(FRAGMENTS, size_of::<FragmentKey>(), size_of::<FragmentEntry>())),
        (names::STAGES, u64::from(size.ports + 1) * 16),
        (names::SAMPLES, u64::from(SAMPLES)),
    ];
    for (table, tcp) in FlowMaps::all() {
        let entries = size.flows(table, tcp);
        maps.push((
            names::flow_table(table, tcp),
            hash(entries, size_of::<FlowKey>(), size_of::<FlowEntry>()),
        ));
    }
    Memory { maps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::FlowSizes;

    /// The promise of the documentation: 10 services with 100 backends each fit 32 MiB, also on 64 CPUs.
    #[test]
    fn ten_services_with_a_hundred_backends_fit_32_mib() {
        let size = Size {
            services: 64,
            keys: 1024,
            vips: 64,
            ring_slots: 1 << 20,
            backends: 4000,
            ports: PORTS,
            tcp_flows: FlowSizes { half_open: 10 << 10, established: 20 << 10, old: 20 << 10 },
            udp_flows: FlowSizes { half_open: 4 << 10, established: 8 << 10, old: 8 << 10 },
            affinity: 1,
        };
        assert!(memory(&size, 64).total() <= 32 << 20, "{:?}", memory(&size, 64));
    }
}
