//! Access to the maps.

use crate::abi::{
    AclKey, AclVerdict, AffinityEntry, AffinityKey, BackendEntry, BackendId, BucketKey, Control, FlowEntry,
    FlowKey, FlowTable, FragmentEntry, FragmentKey, LoadEntry, PolicyEntry, PortEntry, PrefixEntry,
    ProbeEntry, QuicKey, RangeKey, RateEntry, Reason, ServiceEntry, ServiceKey, Slot, VipEntry, VipKey,
};

/// What became of the wish to record a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Recorded {
    /// It is recorded now.
    New,
    /// Another CPU has recorded it meanwhile: what it says counts.
    Present,
    /// There was no room.
    Failed,
}

/// What the engine reads and writes besides the frame. Large values are references into the maps, which would otherwise
/// fill the BPF stack: what must not change between two looks is read once.
pub trait Tables {
    /// Settings of the whole data plane.
    fn control(&self) -> Option<&Control>;
    /// The service with exactly this address, protocol and port.
    fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry>;
    /// The service with the smallest range of ports that has this one.
    fn range(&self, key: &RangeKey) -> Option<&ServiceEntry>;
    /// The longest prefix of service addresses that has this address.
    fn prefix(&self, address: &[u8; 16]) -> Option<PrefixEntry>;
    /// What holds for a service address, whatever the port.
    fn vip(&self, key: &VipKey) -> Option<VipEntry>;
    /// A slot of the ring pool.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// A backend.
    fn backend(&self, id: BackendId) -> Option<&BackendEntry>;
    /// An interface.
    fn port(&self, number: u16) -> Option<&PortEntry>;
    /// The probe that has the source port with this [`probe_slot`](crate::abi::probe_slot).
    fn probe(&self, slot: u32) -> Option<&ProbeEntry>;
    /// The backend that a service's QUIC server id names.
    fn quic_backend(&self, key: &QuicKey) -> Option<BackendId>;
    /// Number of the port on which the frame came in.
    fn ingress(&self) -> u16;

    /// What the longest prefix of a list says about a source.
    fn acl(&self, key: &AclKey) -> Option<AclVerdict>;
    /// A service's limits.
    fn rates(&self, service: u32) -> Option<&RateEntry>;
    /// A bucket of a service: its id times two, and one more for packets.
    fn service_bucket(&self, index: u32) -> Option<u64>;
    /// Sets such a bucket. May be lost.
    fn set_service_bucket(&self, index: u32, time_ns: u64);
    /// Adds to such a bucket; never lost.
    fn add_service_bucket(&self, index: u32, time_ns: u64);
    /// Any other bucket.
    fn bucket(&self, key: &BucketKey) -> Option<u64>;
    /// Sets it, and makes it if need be. May be lost.
    fn set_bucket(&self, key: &BucketKey, time_ns: u64);
    /// Adds to it, if it is there.
    fn add_bucket(&self, key: &BucketKey, time_ns: u64);

    /// A flow recorded in a table.
    fn flow(&self, table: FlowTable, key: &FlowKey) -> Option<FlowEntry>;
    /// Records a flow in a table, unless it is there.
    fn record_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry) -> Recorded;
    /// Replaces the entry of a flow that a table has.
    fn correct_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry);
    /// Sets when a recorded flow was last seen. May be lost.
    fn touch_flow(&self, table: FlowTable, key: &FlowKey, now_ns: u64);
    /// Takes a flow out of a table.
    fn forget_flow(&self, table: FlowTable, key: &FlowKey);

    /// How a service picks backends for new flows.
    fn policy(&self, service: u32) -> Option<PolicyEntry>;
    /// The number of the next turn of a service's schedule; of this CPU's own.
    fn turn(&self, service: u32) -> u64;
    /// A backend's load and weight.
    fn load(&self, backend: BackendId) -> Option<LoadEntry>;
    /// Adds to a backend's load; never lost.
    fn add_load(&self, backend: BackendId, flows: i64);
    /// The backend that a client is remembered with.
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry>;
    /// Remembers it. May be lost.
    fn set_affinity(&self, key: &AffinityKey, entry: &AffinityEntry);

    /// Where the first fragment of a packet went.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry>;
    /// Records it, or replaces the record.
    fn record_fragment(&self, key: &FragmentKey, entry: &FragmentEntry);
    /// Monotonic clock in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Counts a packet that was not forwarded and belongs to no service.
    fn count(&self, reason: Reason);
    /// Counts a packet of a service that was dropped.
    fn count_drop(&self, service: u32, reason: Reason);
    /// Counts a packet of a service besides what becomes of it ([`Reason::is_note`]).
    fn count_note(&self, service: u32, reason: Reason);
    /// Counts a forwarded packet of `bytes` bytes, `flows` (0 or 1) of them new flows.
    fn count_forward(&self, backend: BackendId, bytes: u32, flows: u64);
}
