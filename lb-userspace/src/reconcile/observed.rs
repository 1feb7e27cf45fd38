//! What the data plane is: a snapshot of its maps.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendEntry, Control, PortEntry, ServiceEntry, ServiceKey, Slot, VipEntry, VipKey};

/// A snapshot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observed {
    /// Capacities.
    pub size: Size,
    /// The control block; all zero before the first plan.
    pub control: Control,
    /// Services.
    pub services: BTreeMap<ServiceKey, ServiceEntry>,
    /// Service addresses.
    pub vips: BTreeMap<VipKey, VipEntry>,
    /// Each service's slots.
    pub rings: BTreeMap<ServiceKey, Vec<Slot>>,
    /// Backends that are not absent, by id.
    pub backends: BTreeMap<u32, BackendEntry>,
    /// Ports in use, by number.
    pub ports: BTreeMap<u16, PortEntry>,
    /// Ports that a program is attached to: they stay.
    pub attached: BTreeSet<u16>,
    /// Ids that recorded flows name; read only where some backend is down.
    pub flow_backends: BTreeSet<u32>,
}

/// Capacities of the maps, in entries. The ids of backends and the numbers of ports start at 1, and those maps hold one
/// entry more than is said here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Size {
    /// Services.
    pub services: u32,
    /// Service addresses.
    pub vips: u32,
    /// Slots of the ring pool.
    pub ring_slots: u32,
    /// Backends.
    pub backends: u32,
    /// Ports.
    pub ports: u32,
    /// Recorded flows.
    pub flows: u32,
}
