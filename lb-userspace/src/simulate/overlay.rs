//! Tables that are only read: what the engine writes stays here, and is found again by the packets that follow.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use lb_common::abi::{
    AclKey, AclVerdict, AffinityEntry, AffinityKey, BackendEntry, BackendId, BucketKey, Control, FlowEntry,
    FlowKey, FlowTable, FragmentEntry, FragmentKey, LoadEntry, PolicyEntry, PortEntry, PrefixEntry,
    ProbeEntry, QuicKey, RangeKey, RateEntry, Reason, ServiceEntry, ServiceKey, Slot, VipEntry, VipKey,
};
use lb_common::datapath::{Recorded, Tables};

/// What was written.
#[derive(Debug, Default)]
struct Written {
    /// `None`: taken out.
    flows: HashMap<(FlowTable, FlowKey), Option<FlowEntry>>,
    turns: BTreeMap<u32, u64>,
    loads: BTreeMap<u32, i64>,
    affinity: BTreeMap<AffinityKey, AffinityEntry>,
    fragments: BTreeMap<FragmentKey, FragmentEntry>,
    service_buckets: BTreeMap<u32, u64>,
    buckets: BTreeMap<BucketKey, u64>,
}

/// Reads from the tables below it, and keeps what is written.
pub struct Overlay<'t, T> {
    below: &'t T,
    written: RefCell<Written>,
}

impl<'t, T: Tables> Overlay<'t, T> {
    /// An overlay to which nothing has been written yet.
    pub fn new(below: &'t T) -> Self {
        Self { below, written: RefCell::default() }
    }
}

impl<T: Tables> Tables for Overlay<'_, T> {
    fn control(&self) -> Option<&Control> {
        self.below.control()
    }

    fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        self.below.service(key)
    }

    fn range(&self, key: &RangeKey) -> Option<&ServiceEntry> {
        self.below.range(key)
    }

    fn prefix(&self, address: &[u8; 16]) -> Option<PrefixEntry> {
        self.below.prefix(address)
    }

    fn vip(&self, key: &VipKey) -> Option<VipEntry> {
        self.below.vip(key)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.below.slot(index)
    }

    fn backend(&self, id: BackendId) -> Option<&BackendEntry> {
        self.below.backend(id)
    }

    fn port(&self, number: u16) -> Option<&PortEntry> {
        self.below.port(number)
    }

    fn probe(&self, slot: u32) -> Option<&ProbeEntry> {
        self.below.probe(slot)
    }

    fn quic_backend(&self, key: &QuicKey) -> Option<BackendId> {
        self.below.quic_backend(key)
    }

    fn ingress(&self) -> u16 {
        self.below.ingress()
    }

    fn acl(&self, key: &AclKey) -> Option<AclVerdict> {
        self.below.acl(key)
    }

    fn rates(&self, service: u32) -> Option<&RateEntry> {
        self.below.rates(service)
    }

    fn service_bucket(&self, index: u32) -> Option<u64> {
        let own = self.written.borrow().service_buckets.get(&index).copied();
        own.or_else(|| self.below.service_bucket(index))
    }

    fn set_service_bucket(&self, index: u32, time_ns: u64) {
        self.written.borrow_mut().service_buckets.insert(index, time_ns);
    }

    fn add_service_bucket(&self, index: u32, time_ns: u64) {
        let sum = self.service_bucket(index).map_or(time_ns, |bucket| bucket.saturating_add(time_ns));
        self.set_service_bucket(index, sum);
    }

    fn bucket(&self, key: &BucketKey) -> Option<u64> {
        let own = self.written.borrow().buckets.get(key).copied();
        own.or_else(|| self.below.bucket(key))
    }

    fn set_bucket(&self, key: &BucketKey, time_ns: u64) {
        self.written.borrow_mut().buckets.insert(*key, time_ns);
    }

    fn add_bucket(&self, key: &BucketKey, time_ns: u64) {
        if let Some(bucket) = self.bucket(key) {
            self.set_bucket(key, bucket.saturating_add(time_ns));
        }
    }

    fn flow(&self, table: FlowTable, key: &FlowKey) -> Option<FlowEntry> {
        let own = self.written.borrow().flows.get(&(table, *key)).copied();
        own.unwrap_or_else(|| self.below.flow(table, key))
    }

    fn record_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry) -> Recorded {
        if self.flow(table, key).is_some() {
            return Recorded::Present;
        }
        self.written.borrow_mut().flows.insert((table, *key), Some(*entry));
        Recorded::New
    }

    fn correct_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry) {
        self.written.borrow_mut().flows.insert((table, *key), Some(*entry));
    }

    fn touch_flow(&self, table: FlowTable, key: &FlowKey, now_ns: u64) {
        if let Some(entry) = self.flow(table, key) {
            self.correct_flow(table, key, &FlowEntry { last_seen_ns: now_ns, ..entry });
        }
    }

    fn forget_flow(&self, table: FlowTable, key: &FlowKey) {
        self.written.borrow_mut().flows.insert((table, *key), None);
    }

    fn policy(&self, service: u32) -> Option<PolicyEntry> {
        self.below.policy(service)
    }

    fn turn(&self, service: u32) -> u64 {
        let mut written = self.written.borrow_mut();
        let given = written.turns.entry(service).or_default();
        *given += 1;
        self.below.turn(service) + *given - 1
    }

    fn load(&self, backend: BackendId) -> Option<LoadEntry> {
        let below = self.below.load(backend)?;
        let own = self.written.borrow().loads.get(&backend.get()).copied().unwrap_or_default();
        Some(LoadEntry { load: below.load.wrapping_add_signed(own), ..below })
    }

    fn add_load(&self, backend: BackendId, flows: i64) {
        *self.written.borrow_mut().loads.entry(backend.get()).or_default() += flows;
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry> {
        let own = self.written.borrow().affinity.get(key).copied();
        own.or_else(|| self.below.affinity(key))
    }

    fn set_affinity(&self, key: &AffinityKey, entry: &AffinityEntry) {
        self.written.borrow_mut().affinity.insert(*key, *entry);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        let own = self.written.borrow().fragments.get(key).copied();
        own.or_else(|| self.below.fragment(key))
    }

    fn record_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) {
        self.written.borrow_mut().fragments.insert(*key, *entry);
    }

    fn now_ns(&self) -> u64 {
        self.below.now_ns()
    }

    // A packet that is only explained has not been here.
    fn count(&self, _: Reason) {}

    fn count_note(&self, _: u32, _: Reason) {}

    fn count_drop(&self, _: u32, _: Reason) {}

    fn count_forward(&self, _: BackendId, _: u32, _: u64) {}
}
