//! What the data plane shall be: the model joined with what the machine knows (next hops, interfaces).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use lb_common::abi::{BackendState, VipEntry};

use crate::model::ServiceId;

/// The whole of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Desired {
    /// Number of this configuration.
    pub generation: u64,
    /// Key of flow hash and rings.
    pub hash_key: [u8; 16],
    /// Interfaces that packets come in or leave by.
    pub ports: Vec<DesiredPort>,
    /// Service addresses.
    pub vips: BTreeMap<Ipv4Addr, VipEntry>,
    /// Services.
    pub services: Vec<DesiredService>,
}

/// An interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DesiredPort {
    /// Kernel's index.
    pub ifindex: u32,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// A service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DesiredService {
    /// What traffic it takes.
    pub id: ServiceId,
    /// Ring size asked for; `None`: whatever it has, or a default.
    pub ring_size: Option<u32>,
    /// Its backends.
    pub backends: Vec<DesiredBackend>,
}

/// A backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DesiredBackend {
    /// Its address.
    pub address: Ipv4Addr,
    /// Share of new flows relative to the others; only [`BackendState::Up`] ones get any, and 0 gets none.
    pub weight: u32,
    /// Up, draining or down.
    pub state: BackendState,
    /// Encapsulation; `None`: L2.
    pub tunnel: Option<Tunnel>,
    /// Egress interface and next hop's MAC address, if known.
    pub next_hop: Option<(u32, [u8; 6])>,
}

impl DesiredBackend {
    /// The weight that its ring is built with.
    pub(super) fn ring_weight(&self) -> u32 {
        if self.state == BackendState::Up { self.weight } else { 0 }
    }
}

/// IPIP parameters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tunnel {
    /// Outer source; its low `source_bits` bits are zero.
    pub source: Ipv4Addr,
    /// How many low bits of the source come from the flow hash.
    pub source_bits: u8,
}
