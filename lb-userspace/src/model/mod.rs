//! The desired state: what the operator wants balanced, as plain values.
//!
//! Pure: no I/O, no kernel, no YAML. Made by `config`, read by `reconcile`; what the machine adds (next hops,
//! ids, memory) is not known here.

mod admission;
mod flows;
mod health;
mod nic;
pub mod ring;
pub mod schedule;
mod service_id;
mod tunnel;

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use admission::{Admission, Prefix, Rate, RateLimits};
pub use flows::{Algorithm, DrainRules, FlowRules, IdleTimes, OnRemove, Tracking};
pub use health::{
    AgentCheck, AllDown, BodyMatch, Check, CheckKind, Exchange, FailurePolicy, HealthPolicy, HttpCheck,
    Require, Timing, TlsCheck, Via,
};
pub use lb_common::abi::Protocol;
pub use nic::{InterfaceSettings, QueueCount, RingSizes, Spread, Steering, Toggle, UdpHash, Waiting};
pub use service_id::ServiceId;
pub use tunnel::{Encap, Forwarding, GueVariant, Tunnel, TunnelSource};

/// Everything one configuration asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Model {
    /// Interfaces that carry service traffic, in the config's order; at least one when run by the daemon.
    pub interfaces: Vec<Interface>,
    /// Service addresses and prefixes, one entry per distinct one, sorted by address and length.
    pub vips: Vec<Vip>,
    /// Services, sorted by what they take; no two take the same. Those that one entry of the config asked for share
    /// its name.
    pub services: Vec<Service>,
    /// Map capacities asked for; `None` means sized from the config.
    pub limits: Limits,
    /// Key of the flow hash and of the rings: the same on every balancer that must agree.
    pub hash_key: [u8; 16],
    /// Command that is told of each backend's change of state, with its arguments; empty: none.
    pub on_change: Vec<String>,
}

/// An interface to attach to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its name in the current network namespace.
    pub name: String,
    /// How the program is attached.
    pub mode: AttachMode,
    /// How it shall be set.
    pub settings: InterfaceSettings,
}

impl Interface {
    /// One of which nothing is known but its name.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), mode: AttachMode::default(), settings: InterfaceSettings::default() }
    }
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AttachMode {
    /// Native, or generic (with a loud warning) where the driver refuses.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the network stack (slow; works with every driver).
    Generic,
}

/// A service address, or a prefix of them, and what holds for all its ports. Of several that contain an address the
/// longest decides.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vip {
    /// The address; the first of a prefix.
    pub address: IpAddr,
    /// Length of the prefix; 32 or 128: one address.
    pub prefix_len: u8,
    /// Who answers ARP requests and neighbour solicitations for it; `None`: the XDP program where the address is in an
    /// interface's subnet, else nobody.
    pub advertise: Option<Advertise>,
    /// Whether echo requests are answered.
    pub echo: Echo,
    /// What happens to packets for the address that belong to no service.
    pub other_ports: OtherPorts,
}

impl Vip {
    /// The addresses it is about.
    pub fn prefix(&self) -> Prefix {
        Prefix { network: self.address, length: self.prefix_len }
    }
}

/// Whether the XDP program answers ICMP and ICMPv6 echo requests for a service address.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Echo {
    /// While a backend of a service there may serve.
    #[default]
    WhileUp,
    /// Whatever the backends do.
    Always,
    /// Left to the host's network stack.
    Never,
}

/// Who attracts traffic for a service address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Advertise {
    /// The XDP program answers ARP requests and neighbour solicitations.
    Arp,
    /// Routers bring the traffic.
    None,
}

/// What happens to a VIP's traffic that belongs to no service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OtherPorts {
    /// Dropped and counted.
    #[default]
    Drop,
    /// Left to the host's network stack.
    Pass,
}

/// One virtual service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// The operator's name for it; services that one entry of the config asked for share it.
    pub name: String,
    /// What traffic it takes.
    pub id: ServiceId,
    /// Name of its pool; the service's own name where the backends are written in place.
    pub pool: String,
    /// Ring size (a prime) set by hand; `None`: chosen from the number of backends.
    pub ring_size: Option<u32>,
    /// Its backends, sorted by address; at least one.
    pub backends: Vec<Backend>,
    /// How their check results become states.
    pub health: HealthPolicy,
    /// What happens when they fail.
    pub failure: FailurePolicy,
    /// The agent that says how each of them wants to be used.
    pub agent: Option<AgentCheck>,
    /// How it treats QUIC; only with UDP.
    pub quic: Option<Quic>,
    /// Whose packets it takes, and how many.
    pub admission: Admission,
    /// How new flows get their backends, and what is remembered of flows.
    pub flows: FlowRules,
    /// How its backends come and go.
    pub drain: DrainRules,
}

/// How a UDP service treats QUIC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quic {
    /// Where connection IDs that servers chose carry a server ID; `None`: they carry none.
    pub server_id: Option<ServerIdFormat>,
}

/// How a server ID is written into a connection ID.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServerIdFormat {
    /// In plain text, behind the first byte (draft-ietf-quic-load-balancers).
    Draft {
        /// Config rotation codepoint: the first byte's upper three bits, 0–6.
        config_id: u8,
        /// Length of the server ID in bytes, 1–8.
        length: u8,
    },
    /// Katran's: 16 bits in version 1, 24 bits in version 2.
    Katran,
}

impl ServerIdFormat {
    /// The server IDs that it can carry.
    pub fn ids(self) -> std::ops::RangeInclusive<u64> {
        match self {
            Self::Draft { length, .. } => 0..=u64::MAX >> (64 - 8 * u32::from(length.clamp(1, 8))),
            Self::Katran => 1..=0xff_ffff,
        }
    }
}

impl Service {
    /// Size of the ring it is created with, in slots.
    pub fn new_ring_size(&self) -> u32 {
        self.ring_size.unwrap_or_else(|| ring::default_size(self.backends.len()))
    }
}

/// One server of a service. What is stored of one that leaves is all but its checks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Backend {
    /// The operator's name for it, if any.
    pub name: Option<String>,
    /// Its address: where the packets go, and its identity in the ring.
    pub address: IpAddr,
    /// Share of new flows relative to the others, 0–65535; 0 takes no new flows.
    pub weight: u16,
    /// Takes no new flows whatever its weight; flows it has stay.
    pub drain: bool,
    /// The config does not list it any more, and it stays until its flows are gone; then it drains.
    #[serde(default)]
    pub leaving: bool,
    /// How packets get to it.
    pub forwarding: Forwarding,
    /// Next-hop MAC set by hand: no neighbour resolution.
    pub mac: Option<[u8; 6]>,
    /// Egress interface set by hand: no route lookup.
    pub interface: Option<String>,
    /// VLAN on the egress interface, 1–4094; `None`: that of the route, or none.
    pub vlan: Option<u16>,
    /// What QUIC connection IDs call it.
    pub server_id: Option<u64>,
    /// Priority group: 0 for primaries; backups of a higher number enter after those of a lower one.
    pub group: u8,
    /// How it is checked; without checks it counts as up.
    #[serde(skip)]
    pub checks: Arc<[Check]>,
}

impl Backend {
    /// The weight that the ring uses: 0 while draining.
    pub fn effective_weight(&self) -> u16 {
        if self.drain { 0 } else { self.weight }
    }
}

/// Map capacities set by hand.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Ring pool size in slots of 8 bytes.
    pub ring_slots: Option<u32>,
    /// Services.
    pub services: Option<u32>,
    /// (Service, backend) pairs.
    pub backends: Option<u32>,
    /// Flows that each of TCP's tables for established and old ones shall hold; half as many half-open ones.
    pub flows: Option<u32>,
    /// The same for UDP and SCTP.
    pub udp_flows: Option<u32>,
    /// Clients remembered for affinity.
    pub affinity: Option<u32>,
    /// CPUs that receive packets; `None`: all that are online.
    pub receiving_cpus: Option<u32>,
    /// Probes in flight at a time.
    pub probes: Option<u32>,
}
