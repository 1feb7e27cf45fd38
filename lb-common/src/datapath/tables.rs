//! Access to the maps.

use crate::abi::{
    BackendEntry, BackendId, Control, FlowEntry, FlowKey, PortEntry, ProbeEntry, Reason, ServiceEntry,
    ServiceKey, Slot, VipEntry, VipKey,
};

/// What the engine reads and writes besides the frame. Values are copies: nobody else's update can change them while a
/// packet is on its way.
pub trait Tables {
    /// Settings of the whole data plane.
    fn control(&self) -> Option<Control>;
    /// The service with exactly this address, protocol and port.
    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry>;
    /// What holds for a service address, whatever the port.
    fn vip(&self, key: &VipKey) -> Option<VipEntry>;
    /// A slot of the ring pool.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// A backend.
    fn backend(&self, id: BackendId) -> Option<BackendEntry>;
    /// An interface.
    fn port(&self, number: u16) -> Option<PortEntry>;
    /// The probe that has the source port with this [`probe_slot`](crate::abi::probe_slot).
    fn probe(&self, slot: u32) -> Option<ProbeEntry>;
    /// Number of the port on which the frame came in.
    fn ingress(&self) -> u16;

    /// A recorded flow.
    fn flow(&self, key: &FlowKey) -> Option<FlowEntry>;
    /// Records a flow, unless it is already recorded.
    fn record_flow(&self, key: &FlowKey, entry: &FlowEntry);
    /// Replaces a recorded flow's entry.
    fn correct_flow(&self, key: &FlowKey, entry: &FlowEntry);
    /// Sets when a recorded flow was last seen. May be lost.
    fn touch_flow(&self, key: &FlowKey, now_ns: u64);
    /// Monotonic clock in nanoseconds.
    fn now_ns(&self) -> u64;

    /// Counts a packet that was not forwarded and belongs to no service.
    fn count(&self, reason: Reason);
    /// Counts a packet of a service that was dropped.
    fn count_drop(&self, service: u32, reason: Reason);
    /// Counts a forwarded packet of `bytes` bytes, `flows` (0 or 1) of them new flows.
    fn count_forward(&self, backend: BackendId, bytes: u16, flows: u64);
}
