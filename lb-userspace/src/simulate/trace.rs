//! What the engine looked up and counted while it decided about a packet: an explanation out of its own lookups, so that
//! no decision is made twice.

use std::cell::RefCell;

use lb_common::abi::{
    AclKey, AclVerdict, AffinityEntry, AffinityKey, BackendEntry, BackendId, BucketKey, Control, FlowEntry,
    FlowKey, FlowTable, FragmentEntry, FragmentKey, LoadEntry, PolicyEntry, PortEntry, PrefixEntry,
    ProbeEntry, QuicKey, RangeKey, RateEntry, Reason, ServiceEntry, ServiceKey, Slot, VipEntry, VipKey,
};
use lb_common::datapath::{Recorded, Tables};

/// What was noted, last lookups last.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    /// The service that was found, and by what.
    pub service: Option<(ServiceEntry, Found)>,
    /// The slot that was read: index in the pool, and the word.
    pub slot: Option<(u32, Slot)>,
    /// Backends that were read, the last one last.
    pub backends: Vec<(BackendId, BackendEntry)>,
    /// What the service's lists say of the source.
    pub listed: Option<AclVerdict>,
    /// Whether limits were looked at.
    pub limited: bool,
    /// The backend that a QUIC server id names.
    pub named: Option<BackendId>,
    /// Whether the flow tables were asked, and what they knew.
    pub flow: Option<Option<(FlowTable, FlowEntry)>>,
    /// Whether the flow was recorded, or its record corrected.
    pub recorded: bool,
    /// What is known of the packet whose later fragment this is.
    pub fragment: Option<Option<FragmentEntry>>,
    /// Whether this is the fragment that the others follow.
    pub first_fragment: bool,
    /// The reason that was counted.
    pub reason: Option<Reason>,
    /// What was counted besides ([`Reason::is_note`]).
    pub remark: Option<Reason>,
    /// The id of the service that the reason was counted for.
    pub dropped_for: Option<u32>,
    /// The backend that a forwarded packet was counted for, its length in bytes, and whether it begins a flow.
    pub forwarded: Option<(BackendId, u32, bool)>,
}

/// How a service was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Found {
    /// By its address and port.
    Exactly,
    /// By a range of ports.
    InARange,
}

impl Noted {
    /// The backend that the packet was for.
    pub fn backend(&self) -> Option<(BackendId, BackendEntry)> {
        let forwarded = self.forwarded.map(|(id, ..)| id);
        let meant = |(id, _): &&(BackendId, BackendEntry)| forwarded.is_none_or(|forwarded| forwarded == *id);
        self.backends.iter().rev().find(meant).copied()
    }
}

/// Tables that note what is done with them.
pub struct Trace<'t, T> {
    tables: &'t T,
    noted: RefCell<Noted>,
}

impl<'t, T: Tables> Trace<'t, T> {
    /// Passes everything on to `tables`.
    pub fn new(tables: &'t T) -> Self {
        Self { tables, noted: RefCell::default() }
    }

    /// What has been noted.
    pub fn into_noted(self) -> Noted {
        self.noted.into_inner()
    }

    fn note(&self, note: impl FnOnce(&mut Noted)) {
        note(&mut self.noted.borrow_mut());
    }
}

impl<T: Tables> Tables for Trace<'_, T> {
    fn control(&self) -> Option<&Control> {
        self.tables.control()
    }

    fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        let found = self.tables.service(key)?;
        self.note(|noted| noted.service = Some((*found, Found::Exactly)));
        Some(found)
    }

    fn range(&self, key: &RangeKey) -> Option<&ServiceEntry> {
        let found = self.tables.range(key)?;
        self.note(|noted| noted.service = Some((*found, Found::InARange)));
        Some(found)
    }

    fn prefix(&self, address: &[u8; 16]) -> Option<PrefixEntry> {
        self.tables.prefix(address)
    }

    fn vip(&self, key: &VipKey) -> Option<VipEntry> {
        self.tables.vip(key)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        let slot = self.tables.slot(index)?;
        self.note(|noted| noted.slot = Some((index, slot)));
        Some(slot)
    }

    fn backend(&self, id: BackendId) -> Option<&BackendEntry> {
        let entry = self.tables.backend(id)?;
        self.note(|noted| noted.backends.push((id, *entry)));
        Some(entry)
    }

    fn port(&self, number: u16) -> Option<&PortEntry> {
        self.tables.port(number)
    }

    fn probe(&self, slot: u32) -> Option<&ProbeEntry> {
        self.tables.probe(slot)
    }

    fn quic_backend(&self, key: &QuicKey) -> Option<BackendId> {
        let named = self.tables.quic_backend(key);
        self.note(|noted| noted.named = named);
        named
    }

    fn ingress(&self) -> u16 {
        self.tables.ingress()
    }

    fn acl(&self, key: &AclKey) -> Option<AclVerdict> {
        let listed = self.tables.acl(key);
        self.note(|noted| noted.listed = listed);
        listed
    }

    fn rates(&self, service: u32) -> Option<&RateEntry> {
        self.note(|noted| noted.limited = true);
        self.tables.rates(service)
    }

    fn service_bucket(&self, index: u32) -> Option<u64> {
        self.tables.service_bucket(index)
    }

    fn set_service_bucket(&self, index: u32, time_ns: u64) {
        self.tables.set_service_bucket(index, time_ns);
    }

    fn add_service_bucket(&self, index: u32, time_ns: u64) {
        self.tables.add_service_bucket(index, time_ns);
    }

    fn bucket(&self, key: &BucketKey) -> Option<u64> {
        self.tables.bucket(key)
    }

    fn set_bucket(&self, key: &BucketKey, time_ns: u64) {
        self.tables.set_bucket(key, time_ns);
    }

    fn add_bucket(&self, key: &BucketKey, time_ns: u64) {
        self.tables.add_bucket(key, time_ns);
    }

    fn flow(&self, table: FlowTable, key: &FlowKey) -> Option<FlowEntry> {
        let known = self.tables.flow(table, key);
        // A packet that is too big is looked at twice: what the first look recorded was not known before.
        self.note(|noted| {
            if !noted.recorded {
                noted.flow = Some(noted.flow.flatten().or(known.map(|entry| (table, entry))));
            }
        });
        known
    }

    fn record_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry) -> Recorded {
        self.note(|noted| noted.recorded = true);
        self.tables.record_flow(table, key, entry)
    }

    fn correct_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry) {
        self.note(|noted| noted.recorded = true);
        self.tables.correct_flow(table, key, entry);
    }

    fn touch_flow(&self, table: FlowTable, key: &FlowKey, now_ns: u64) {
        self.tables.touch_flow(table, key, now_ns);
    }

    fn forget_flow(&self, table: FlowTable, key: &FlowKey) {
        self.tables.forget_flow(table, key);
    }

    fn policy(&self, service: u32) -> Option<PolicyEntry> {
        self.tables.policy(service)
    }

    fn turn(&self, service: u32) -> u64 {
        self.tables.turn(service)
    }

    fn load(&self, backend: BackendId) -> Option<LoadEntry> {
        self.tables.load(backend)
    }

    fn add_load(&self, backend: BackendId, flows: i64) {
        self.tables.add_load(backend, flows);
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry> {
        self.tables.affinity(key)
    }

    fn set_affinity(&self, key: &AffinityKey, entry: &AffinityEntry) {
        self.tables.set_affinity(key, entry);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        let known = self.tables.fragment(key);
        self.note(|noted| noted.fragment = Some(known));
        known
    }

    fn record_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) {
        self.note(|noted| noted.first_fragment = true);
        self.tables.record_fragment(key, entry);
    }

    fn now_ns(&self) -> u64 {
        self.tables.now_ns()
    }

    fn count(&self, reason: Reason) {
        self.note(|noted| noted.reason = Some(reason));
        self.tables.count(reason);
    }

    fn count_drop(&self, service: u32, reason: Reason) {
        self.note(|noted| (noted.reason, noted.dropped_for) = (Some(reason), Some(service)));
        self.tables.count_drop(service, reason);
    }

    fn count_note(&self, service: u32, reason: Reason) {
        self.note(|noted| noted.remark = Some(reason));
        self.tables.count_note(service, reason);
    }

    fn count_forward(&self, backend: BackendId, bytes: u32, flows: u64) {
        self.note(|noted| noted.forwarded = Some((backend, bytes, flows > 0)));
        self.tables.count_forward(backend, bytes, flows);
    }
}
