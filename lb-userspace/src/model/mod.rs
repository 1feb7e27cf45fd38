//! The desired state: what the operator wants balanced, as plain values.
//!
//! Pure: no I/O, no kernel, no YAML. Made by `config`, read by `reconcile`; what the machine adds (next hops,
//! ids, memory) is not known here.

mod health;
pub mod ring;

use std::net::Ipv4Addr;
use std::sync::Arc;

pub use health::{
    AgentCheck, AllDown, BodyMatch, Check, CheckKind, Exchange, FailurePolicy, HealthPolicy, HttpCheck,
    Require, Timing, TlsCheck, Via,
};
pub use lb_common::abi::Protocol;

/// Everything one configuration asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Model {
    /// Interfaces that carry service traffic, in the config's order; at least one when run by the daemon.
    pub interfaces: Vec<Interface>,
    /// Service addresses, one entry per distinct address, sorted by address.
    pub vips: Vec<Vip>,
    /// Services, sorted by (address, protocol, port); no two share that triple.
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

/// A service address and what holds for all its ports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vip {
    /// The address.
    pub address: Ipv4Addr,
    /// Who answers ARP for it; `None`: the XDP program where the address is in an interface's subnet, else nobody.
    pub advertise: Option<Advertise>,
    /// What happens to TCP and UDP packets for the address that belong to no service.
    pub other_ports: OtherPorts,
}

/// Who attracts traffic for a service address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Advertise {
    /// The XDP program answers ARP requests.
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

/// Address, protocol and port that name a service. Ports are in host order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceId {
    /// The virtual IP address.
    pub address: Ipv4Addr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Destination port, 1–65535.
    pub port: u16,
}

impl std::fmt::Display for ServiceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}/{}", self.address, self.port, self.protocol)
    }
}

/// One virtual service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// The operator's name for it, unique.
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
}

impl Service {
    /// Size of the ring it is created with, in slots.
    pub fn new_ring_size(&self) -> u32 {
        self.ring_size.unwrap_or_else(|| ring::default_size(self.backends.len()))
    }
}

/// One server of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Backend {
    /// The operator's name for it, if any.
    pub name: Option<String>,
    /// Its address: where the packets go, and its identity in the ring.
    pub address: Ipv4Addr,
    /// Share of new flows relative to the others, 0–65535; 0 takes no new flows.
    pub weight: u16,
    /// Takes no new flows whatever its weight; flows it has stay.
    pub drain: bool,
    /// How packets get to it.
    pub forwarding: Forwarding,
    /// Next-hop MAC set by hand: no neighbour resolution.
    pub mac: Option<[u8; 6]>,
    /// Egress interface set by hand: no route lookup.
    pub interface: Option<String>,
    /// Priority group: 0 for primaries; backups of a higher number enter after those of a lower one.
    pub group: u8,
    /// How it is checked; without checks it counts as up.
    pub checks: Arc<[Check]>,
}

impl Backend {
    /// The weight that the ring uses: 0 while draining.
    pub fn effective_weight(&self) -> u16 {
        if self.drain { 0 } else { self.weight }
    }
}

/// How a packet gets to a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Forwarding {
    /// MAC rewrite on the same segment; the packet keeps its addresses.
    L2,
    /// IPv4 in IPv4 (RFC 2003).
    Ipip {
        /// Outer source address.
        source: TunnelSource,
    },
}

/// Where a tunnel's outer source address comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TunnelSource {
    /// The node's own address on the way to the backend.
    Node,
    /// From the flow hash, within this prefix, so that the underlay's ECMP spreads flows. It must route back here.
    Prefix {
        /// Network address; host bits are zero.
        network: Ipv4Addr,
        /// Prefix length, 8–32.
        length: u8,
    },
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
    /// Entries of the flow table.
    pub flows: Option<u32>,
    /// Probes in flight at a time.
    pub probes: Option<u32>,
}
