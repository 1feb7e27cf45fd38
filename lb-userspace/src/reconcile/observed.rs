//! What the data plane is: a snapshot of its maps.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{
    BackendEntry, BackendState, Control, FlowEntry, FlowKey, PortEntry, ServiceEntry, ServiceKey, Slot,
    SlotState, VipEntry, VipKey,
};

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
    /// Recorded flows; only for a sweep, and only where they matter, see [`Observed::needs_flows`].
    pub flows: Vec<(FlowKey, FlowEntry)>,
    /// The monotonic clock in nanoseconds, as flows are stamped with.
    pub now_ns: u64,
}

impl Observed {
    /// Whether recorded flows decide anything: an id waits to be freed, or a slot to be settled.
    pub fn needs_flows(&self) -> bool {
        let down = |entry: &BackendEntry| BackendState::from_raw(entry.state) == BackendState::Retired;
        let unsettled = |slot: &Slot| slot.state() != SlotState::Settled;
        self.backends.values().any(down) || self.rings.values().flatten().any(unsettled)
    }
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
