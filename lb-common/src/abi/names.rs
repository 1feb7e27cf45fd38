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
/// [`super::FlowKey`] → [`super::FlowEntry`], LRU.
pub const FLOWS: &str = "FLOWS";
/// Backend id → [`super::BackendCounters`], per CPU.
pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTS";
/// `service id * REASON_SLOTS + reason` → drops, per CPU.
pub const SERVICE_DROPS: &str = "SERVICE_DROPS";
/// Reason → packets, per CPU.
pub const REASONS: &str = "REASONS";

/// Source port of a health probe, less the first of [`PROBE_PORTS`](super::PROBE_PORTS) → [`super::ProbeEntry`],
/// mmapable.
pub const PROBES: &str = "PROBES";

/// Every map of the balancer, in the order in which they are created.
pub const BALANCER_MAPS: [&str; 12] = [
    CONTROL,
    SERVICES,
    VIPS,
    RINGS,
    BACKENDS,
    PORTS,
    EGRESS,
    FLOWS,
    BACKEND_COUNTERS,
    SERVICE_DROPS,
    REASONS,
    PROBES,
];

/// The balancer's XDP program.
pub const BALANCER_PROGRAM: &str = "lb_balancer";
/// The XDP program that takes over what the prober sends.
pub const PROBE_PROGRAM: &str = "lb_probe";
/// Global of both programs: number of the port it is attached to.
pub const INGRESS_PORT: &str = "INGRESS_PORT";

/// Decapsulator: inner destinations it accepts ([`super::VipKey`] → 4 bytes, zero).
pub const DECAP_VIPS: &str = "DECAP_VIPS";
/// Decapsulator: outer source prefixes it accepts, a longest-prefix-match trie over 16-byte addresses.
pub const DECAP_SOURCES: &str = "DECAP_SOURCES";
/// Decapsulator: [`super::DecapReason`] → packets, per CPU.
pub const DECAP_REASONS: &str = "DECAP_REASONS";
/// The decapsulator's XDP program.
pub const DECAP_PROGRAM: &str = "lb_decap";
