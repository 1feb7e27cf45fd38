//! What the data plane is: a snapshot of its maps.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{
    BackendEntry, BackendState, Control, FlowEntry, FlowKey, FlowTable, PolicyEntry, PortEntry, PrefixEntry,
    PrefixKey, Protocol, QuicKey, RangeKey, RateEntry, ServiceEntry, ServiceKey, Slot, SlotState, VipEntry,
    VipKey,
};

use super::{TrieKey, narrow, record};
use crate::model::ServiceId;

/// A recorded flow, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flow {
    /// The table.
    pub table: FlowTable,
    /// Its addresses and ports.
    pub key: FlowKey,
    /// What is recorded.
    pub entry: FlowEntry,
}

/// A snapshot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observed {
    /// Capacities.
    pub size: Size,
    /// The control block; all zero before the first plan.
    pub control: Control,
    /// Single ports of addresses, or of what stands for prefixes of them; several can belong to one service.
    pub exact: BTreeMap<ServiceKey, ServiceEntry>,
    /// Ranges of ports, and the records that say what a service with more than one key is about.
    pub ranges: BTreeMap<TrieKey<RangeKey>, ServiceEntry>,
    /// Prefixes of service addresses.
    pub prefixes: BTreeMap<TrieKey<PrefixKey>, PrefixEntry>,
    /// Service addresses.
    pub vips: BTreeMap<VipKey, VipEntry>,
    /// Slots by service id.
    pub rings: BTreeMap<u32, Vec<Slot>>,
    /// Policies by service id, whether there is a service that goes by it or not; none of those that are all zero.
    pub policies: BTreeMap<u32, PolicyEntry>,
    /// Their schedules.
    pub schedules: BTreeMap<u32, Vec<Slot>>,
    /// Weights of all backends, as policies that compare loads have them.
    pub weights: BTreeMap<u32, u64>,
    /// Limits by service id, of services that have any.
    pub rates: BTreeMap<u32, RateEntry>,
    /// Backends that QUIC connection IDs name.
    pub quic: BTreeMap<QuicKey, u32>,
    /// Backends that are not absent, by id.
    pub backends: BTreeMap<u32, BackendEntry>,
    /// Ports in use, by number.
    pub ports: BTreeMap<u16, PortEntry>,
    /// Ports that a program is attached to: they stay.
    pub attached: BTreeSet<u16>,
    /// The monotonic clock in nanoseconds, as flows are stamped with.
    pub now_ns: u64,
}

impl Observed {
    /// Whether recorded flows decide anything: an id waits to be freed, a slot to be settled, or a policy counts them.
    pub fn needs_flows(&self) -> bool {
        let retired = |entry: &BackendEntry| BackendState::from_raw(entry.state) == BackendState::Retired;
        let unsettled = |slot: &Slot| slot.state() != SlotState::Settled;
        let mut entries = self.ranges.values().chain(self.exact.values());
        entries.any(|entry| entry.flags & ServiceEntry::TRACKED != 0)
            || self.backends.values().any(retired)
            || self.rings.values().flatten().any(unsettled)
    }

    /// What schedules take of the pool: start and size of each.
    pub(super) fn scheduled(&self) -> impl Iterator<Item = (u32, u32)> {
        let taken = self.policies.values().filter(|policy| policy.schedule_size > 0);
        taken.map(|policy| (policy.schedule_start, policy.schedule_size))
    }

    /// An entry of each service, by the service's id. All of its keys have the same, unless whoever changed them was
    /// killed meanwhile: what its record says is written first, and so is what counts.
    pub fn entries(&self) -> BTreeMap<u32, ServiceEntry> {
        let (records, ranges): (Vec<_>, Vec<_>) =
            self.ranges.iter().partition(|(key, _)| record::service(key).is_some());
        let keys = self.exact.values().chain(ranges.into_iter().map(|(_, entry)| entry));
        keys.chain(records.into_iter().map(|(_, entry)| entry)).map(|entry| (entry.id, *entry)).collect()
    }

    /// Ids of services that have limits. While a service with several keys changes, some of them may not say so yet.
    pub fn limited(&self) -> BTreeSet<u32> {
        let entries = self.ranges.values().chain(self.exact.values());
        entries.filter(|entry| entry.flags & ServiceEntry::RATES != 0).map(|entry| entry.id).collect()
    }

    /// The services and what they take: what their records say, or, of those without one, their only key.
    pub fn services(&self) -> BTreeMap<ServiceId, ServiceEntry> {
        let recorded = self.ranges.iter().filter_map(|(key, entry)| Some((record::service(key)?, *entry)));
        let mut services: BTreeMap<ServiceId, ServiceEntry> = recorded.collect();
        let known: BTreeSet<u32> = services.values().map(|entry| entry.id).collect();
        let single = |(key, entry): (&ServiceKey, &ServiceEntry)| {
            let protocol = Protocol::from_number(key.protocol)?;
            let id = ServiceId::single(narrow(key.address), protocol, u16::from_be_bytes(key.port));
            (!known.contains(&entry.id)).then_some((id, *entry))
        };
        services.extend(self.exact.iter().filter_map(single));
        services
    }
}

/// Capacities of the maps, in entries. The ids of backends and the numbers of ports start at 1, and those maps hold one
/// entry more than is said here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Size {
    /// Services.
    pub services: u32,
    /// Single ports of addresses that services take.
    pub keys: u32,
    /// Service addresses.
    pub vips: u32,
    /// Slots of the ring pool.
    pub ring_slots: u32,
    /// Backends.
    pub backends: u32,
    /// Ports.
    pub ports: u32,
    /// Flows of TCP that are recorded.
    pub tcp_flows: FlowSizes,
    /// Flows of UDP and SCTP that are recorded.
    pub udp_flows: FlowSizes,
    /// Clients that are remembered with their backend.
    pub affinity: u32,
}

/// Capacities of the flow tables of a protocol, in entries.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FlowSizes {
    /// Half-open flows.
    pub half_open: u32,
    /// Established ones.
    pub established: u32,
    /// Flows from before a change.
    pub old: u32,
}

impl FlowSizes {
    /// The capacity of a table.
    pub fn of(&self, table: FlowTable) -> u32 {
        match table {
            FlowTable::HalfOpen => self.half_open,
            FlowTable::Established => self.established,
            FlowTable::Old => self.old,
        }
    }
}

impl Size {
    /// The capacity of a flow table.
    pub fn flows(&self, table: FlowTable, tcp: bool) -> u32 {
        if tcp { self.tcp_flows.of(table) } else { self.udp_flows.of(table) }
    }
}

/// Capacities that no config changes: these maps take memory for what is in them only, or little.
impl Size {
    /// Prefixes of service addresses: who has more would have them aggregated.
    pub const PREFIXES: u32 = 1 << 10;
    /// Blocks of port ranges; a range takes at most 30.
    pub const RANGES: u32 = 64 << 10;
    /// Prefixes in all source lists: ten lists of 100,000, or half as many while every one of them changes.
    pub const ACL: u32 = 1 << 20;
    /// Server ids in QUIC connection IDs.
    pub const QUIC_IDS: u32 = 64 << 10;
}
