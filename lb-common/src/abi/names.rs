//! Names of maps, programs and globals, in one place. Kernel names hold 15 bytes.

/// [`super::Control`], one entry.
pub const CONTROL: &str = "CONTROL";
/// [`super::ServiceKey`] → [`super::ServiceEntry`].
pub const SERVICES: &str = "SERVICES";
/// [`super::VipKey`] → [`super::VipEntry`].
pub const VIPS: &str = "VIPS";
/// Pool of all rings: an mmapable array of [`super::Slot`] words.
pub const RINGS: &str = "RINGS";
/// Backend id → [`super::BackendEntry`], mmapable.
pub const BACKENDS: &str = "BACKENDS";
/// Port number → [`super::PortEntry`].
pub const PORTS: &str = "PORTS";
/// Port number → interface, for redirects.
pub const EGRESS: &str = "EGRESS";
/// [`super::FlowTable::HalfOpen`] of TCP: [`super::FlowKey`] → [`super::FlowEntry`], LRU, as the next five.
pub const TCP_HALF_OPEN: &str = "TCP_HALF_OPEN";
/// [`super::FlowTable::Established`] of TCP.
pub const TCP_ESTABLISHED: &str = "TCP_ESTABLISHED";
/// [`super::FlowTable::Old`] of TCP.
pub const TCP_OLD: &str = "TCP_OLD";
/// [`super::FlowTable::HalfOpen`] of UDP and SCTP.
pub const UDP_HALF_OPEN: &str = "UDP_HALF_OPEN";
/// [`super::FlowTable::Established`] of UDP and SCTP.
pub const UDP_ESTABLISHED: &str = "UDP_ESTABLISHED";
/// [`super::FlowTable::Old`] of UDP and SCTP.
pub const UDP_OLD: &str = "UDP_OLD";
/// Service id → [`super::PolicyEntry`], mmapable.
pub const POLICIES: &str = "POLICIES";
/// Service id → turns of its schedule that this CPU has given, per CPU, u64.
pub const TURNS: &str = "TURNS";
/// Backend id → [`super::LoadEntry`], mmapable.
pub const LOADS: &str = "LOADS";
/// [`super::AffinityKey`] → [`super::AffinityEntry`], LRU.
pub const AFFINITY: &str = "AFFINITY";
/// Backend id → [`super::BackendCounters`], per CPU.
pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTS";
/// `service id * REASON_SLOTS + reason` → drops, per CPU.
pub const SERVICE_DROPS: &str = "SERVICE_DROPS";
/// Reason → packets, per CPU.
pub const REASONS: &str = "REASONS";

/// Source port of a health probe, less the first of [`PROBE_PORTS`](super::PROBE_PORTS) → [`super::ProbeEntry`],
/// mmapable.
pub const PROBES: &str = "PROBES";

/// [`super::PrefixEntry`] by address prefix, a longest-prefix-match trie over [`super::PrefixKey`].
pub const PREFIXES: &str = "PREFIXES";
/// [`super::ServiceEntry`] by port range, a longest-prefix-match trie over [`super::RangeKey`].
pub const RANGES: &str = "RANGES";
/// Lists of sources, a longest-prefix-match trie: [`super::AclKey`] → [`super::AclVerdict`].
pub const ACL: &str = "ACL";
/// Service id → [`super::RateEntry`].
pub const RATES: &str = "RATES";
/// `service id * 2`, and one more: the service's buckets of new flows and of packets, u64.
pub const SERVICE_BUCKETS: &str = "SERVICE_BUCKETS";
/// [`super::BucketKey`] → u64, LRU.
pub const SOURCE_BUCKETS: &str = "SOURCE_BUCKETS";
/// [`super::FragmentKey`] → [`super::FragmentEntry`], LRU.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// [`super::QuicKey`] → backend id, u32.
pub const QUIC_IDS: &str = "QUIC_IDS";
/// Program array: at twice a port's number the instance of [`SLOW_PROGRAM`] for that port, behind it that of
/// [`SAMPLED_PROGRAM`].
pub const STAGES: &str = "STAGES";
/// A [`super::SampleFilter`].
pub const SAMPLER: &str = "SAMPLER";
/// Ring buffer of [`super::Sample`].
pub const SAMPLES: &str = "SAMPLES";

/// Every map of the balancer, in the order in which they are created.
pub const BALANCER_MAPS: [&str; 32] = [
    CONTROL,
    SERVICES,
    VIPS,
    RINGS,
    BACKENDS,
    PORTS,
    EGRESS,
    TCP_HALF_OPEN,
    TCP_ESTABLISHED,
    TCP_OLD,
    UDP_HALF_OPEN,
    UDP_ESTABLISHED,
    UDP_OLD,
    POLICIES,
    TURNS,
    LOADS,
    AFFINITY,
    BACKEND_COUNTERS,
    SERVICE_DROPS,
    REASONS,
    PROBES,
    PREFIXES,
    RANGES,
    ACL,
    RATES,
    SERVICE_BUCKETS,
    SOURCE_BUCKETS,
    FRAGMENTS,
    QUIC_IDS,
    STAGES,
    SAMPLER,
    SAMPLES,
];

/// The map of a flow table.
pub const fn flow_table(table: super::FlowTable, tcp: bool) -> &'static str {
    use super::FlowTable::{Established, HalfOpen, Old};
    match (table, tcp) {
        (HalfOpen, true) => TCP_HALF_OPEN,
        (Established, true) => TCP_ESTABLISHED,
        (Old, true) => TCP_OLD,
        (HalfOpen, false) => UDP_HALF_OPEN,
        (Established, false) => UDP_ESTABLISHED,
        (Old, false) => UDP_OLD,
    }
}

/// The balancer's XDP program.
pub const BALANCER_PROGRAM: &str = "lb_balancer";
/// The XDP program that [`BALANCER_PROGRAM`] goes on with where a packet is not of the common kind.
pub const SLOW_PROGRAM: &str = "lb_slow";
/// The XDP program that takes [`BALANCER_PROGRAM`]'s place while packets are sampled.
pub const SAMPLED_PROGRAM: &str = "lb_sampled";
/// The XDP program that takes over what the prober sends.
pub const PROBE_PROGRAM: &str = "lb_probe";
/// Global of both programs: number of the port it is attached to.
pub const INGRESS_PORT: &str = "INGRESS_PORT";

/// Decapsulator: inner destinations, a longest-prefix-match trie: [`super::PrefixKey`] → 1 where packets for such an
/// address may come out of a tunnel, 0 where they may not.
pub const DECAP_VIPS: &str = "DECAP_VIPS";
/// Decapsulator: outer sources, as [`DECAP_VIPS`].
pub const DECAP_SOURCES: &str = "DECAP_SOURCES";
/// Decapsulator: [`super::DecapReason`] → packets, per CPU.
pub const DECAP_REASONS: &str = "DECAP_REASONS";
/// Decapsulator: [`super::ClampReason`] → segments, per CPU.
pub const CLAMP_REASONS: &str = "CLAMP_REASONS";
/// Decapsulator: the largest MSS that leaves from a service address, with IPv4 (index 0) and with IPv6 (1), u32.
pub const CLAMP_MSS: &str = "CLAMP_MSS";
/// The decapsulator's XDP program.
pub const DECAP_PROGRAM: &str = "lb_decap";
/// The decapsulator's program for what leaves (tc).
pub const CLAMP_PROGRAM: &str = "lb_clamp";
/// Global of [`DECAP_PROGRAM`]: MAC address of the interface it is attached to.
pub const OWN_MAC: &str = "OWN_MAC";
/// Global of [`DECAP_PROGRAM`]: UDP port that GUE comes to, 0 where none does.
pub const GUE_PORT: &str = "GUE_PORT";
