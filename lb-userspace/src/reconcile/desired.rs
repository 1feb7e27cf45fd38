//! What the data plane shall be: the model joined with what the machine knows (next hops, interfaces).

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::abi::{BackendState, VipEntry};

use crate::model::{Admission, Encap, FlowRules, Prefix, Quic, ServiceId};

/// The whole of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Desired {
    /// Number of this configuration.
    pub generation: u64,
    /// Key of flow hash and rings.
    pub hash_key: [u8; 16],
    /// Interfaces that packets come in or leave by.
    pub ports: Vec<DesiredPort>,
    /// Service addresses, and prefixes of them.
    pub vips: BTreeMap<Prefix, VipEntry>,
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
    /// How it treats QUIC.
    pub quic: Option<Quic>,
    /// Whose packets it takes, and how many.
    pub admission: Admission,
    /// How new flows get their backends, and what is remembered of flows.
    pub flows: FlowRules,
}

/// A backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DesiredBackend {
    /// Its address.
    pub address: IpAddr,
    /// Share of new flows relative to the others; only [`BackendState::Up`] ones get any, and 0 gets none.
    pub weight: u32,
    /// Up, draining or down.
    pub state: BackendState,
    /// Encapsulation; `None`: L2.
    pub tunnel: Option<DesiredTunnel>,
    /// How packets leave, if known.
    pub next_hop: Option<DesiredHop>,
    /// What QUIC connection IDs call it.
    pub server_id: Option<u64>,
}

impl DesiredBackend {
    /// The weight that its ring is built with.
    pub(super) fn ring_weight(&self) -> u32 {
        if self.state == BackendState::Up { self.weight } else { 0 }
    }
}

/// The way out to a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DesiredHop {
    /// Index of the interface.
    pub ifindex: u32,
    /// Destination of frames.
    pub mac: [u8; 6],
    /// Largest IP packet on the way, in bytes, outer headers included.
    pub mtu: u32,
    /// VLAN of frames, 1–4094; `None`: tags stay as they came.
    pub vlan: Option<u16>,
}

/// An outer header. Its destination is the backend's address, and its family that address's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DesiredTunnel {
    /// What stands between the outer and the inner IP header.
    pub encap: Encap,
    /// Outer source; its low `source_bits` bits are zero.
    pub source: IpAddr,
    /// How many low bits of the source come from the flow hash, 0–24.
    pub source_bits: u8,
    /// Outer DSCP, 0–63; `None`: the inner packet's.
    pub dscp: Option<u8>,
    /// Outer TTL or hop limit.
    pub ttl: u8,
}
