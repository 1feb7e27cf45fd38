//! Tables whose flow tables are as small and as forgetful as a kernel's: each holds so many entries and pushes out the
//! one that was used least lately. Everything else is [`HostTables`]'.
//!
//! Here the rules that live in the engine's use of tables can be broken, see [`Rule`].

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use lb_common::abi::*;
use lb_common::datapath::host::HostTables;
use lb_common::datapath::{Recorded, Tables};
use lb_userspace::reconcile::Flow;

use super::Rule;
use super::words::fresh;

/// One table.
#[derive(Clone, Debug, Default)]
pub struct Lru {
    capacity: usize,
    entries: HashMap<FlowKey, (FlowEntry, u64)>,
    by_use: BTreeMap<u64, FlowKey>,
    uses: u64,
}

impl Lru {
    /// An empty one.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// An entry, which is used by that.
    pub fn get(&mut self, key: &FlowKey) -> Option<FlowEntry> {
        let (entry, used) = self.entries.get_mut(key)?;
        self.uses += 1;
        self.by_use.remove(used);
        self.by_use.insert(self.uses, *key);
        *used = self.uses;
        Some(*entry)
    }

    /// An entry, looked at as userspace does.
    pub fn peek(&self, key: &FlowKey) -> Option<FlowEntry> {
        self.entries.get(key).map(|(entry, _)| *entry)
    }

    /// Sets an entry; the one that was used least lately goes where there are too many.
    pub fn put(&mut self, key: FlowKey, entry: FlowEntry) {
        self.remove(&key);
        if self.entries.len() >= self.capacity
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.uses += 1;
        self.by_use.insert(self.uses, key);
        self.entries.insert(key, (entry, self.uses));
    }

    /// Changes an entry, if it is there.
    pub fn change(&mut self, key: &FlowKey, change: impl FnOnce(&mut FlowEntry)) {
        if self.get(key).is_some()
            && let Some((entry, _)) = self.entries.get_mut(key)
        {
            change(entry);
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &FlowKey) {
        if let Some((_, used)) = self.entries.remove(key) {
            self.by_use.remove(&used);
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries, in the order of their keys.
    pub fn all(&self) -> Vec<(FlowKey, FlowEntry)> {
        let mut all: Vec<_> = self.entries.iter().map(|(key, (entry, _))| (*key, *entry)).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}

/// The balancer's tables.
pub struct LruTables {
    /// All but flows.
    pub host: HostTables,
    flows: RefCell<HashMap<(FlowTable, bool), Lru>>,
    broken: Option<Rule>,
}

impl LruTables {
    /// Empty ones; `capacity` is each flow table's.
    pub fn new(capacity: usize, broken: Option<Rule>) -> Self {
        let tables = FlowTable::ALL.into_iter().flat_map(|table| [(table, true), (table, false)]);
        let flows = tables.map(|table| (table, Lru::new(capacity))).collect();
        Self { host: HostTables::default(), flows: RefCell::new(flows), broken }
    }

    fn with<R>(&self, table: FlowTable, key: &FlowKey, act: impl FnOnce(&mut Lru) -> R) -> R {
        let table = match table {
            FlowTable::Old if self.broken == Some(Rule::TableOfOldFlows) => FlowTable::Established,
            table => table,
        };
        let mut flows = self.flows.borrow_mut();
        act(flows.get_mut(&(table, key.is_tcp())).expect("every table is there"))
    }

    /// What the tables say about a flow, read as the engine does, but without use.
    pub fn recorded(&self, key: &FlowKey) -> Option<FlowEntry> {
        FlowTable::ALL.into_iter().find_map(|table| self.with(table, key, |lru| lru.peek(key)))
    }

    /// All recorded flows.
    pub fn all(&self) -> Vec<Flow> {
        let flows = self.flows.borrow();
        let mut all = Vec::new();
        for table in FlowTable::ALL {
            for tcp in [true, false] {
                let entries = flows[&(table, tcp)].all();
                all.extend(entries.into_iter().map(|(key, entry)| Flow { table, key, entry }));
            }
        }
        all
    }

    /// How many flows are recorded, once for each table that has them.
    pub fn len(&self) -> usize {
        self.flows.borrow().values().map(Lru::len).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a sweep's step does: only what has not been seen since is deleted.
    pub fn delete(&self, table: FlowTable, key: &FlowKey, last_seen_ns: u64) {
        self.with(table, key, |lru| {
            if lru.peek(key).is_some_and(|entry| entry.last_seen_ns == last_seen_ns) {
                lru.remove(key);
            }
        });
    }

    /// Forgets whatever there is about a flow.
    pub fn forget(&self, key: &FlowKey) {
        for table in FlowTable::ALL {
            self.with(table, key, |lru| lru.remove(key));
        }
    }
}

impl Tables for LruTables {
    fn slot(&self, index: u32) -> Option<Slot> {
        let slot = self.host.slot(index)?;
        let never_late = self.broken == Some(Rule::LateState) && slot.state() == SlotState::Late;
        Some(if never_late { fresh(slot.current(), slot.previous()) } else { slot })
    }

    fn flow(&self, table: FlowTable, key: &FlowKey) -> Option<FlowEntry> {
        self.with(table, key, |lru| lru.get(key))
    }

    fn record_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry) -> Recorded {
        self.with(table, key, |lru| {
            if lru.peek(key).is_some() {
                return Recorded::Present;
            }
            lru.put(*key, *entry);
            Recorded::New
        })
    }

    fn correct_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry) {
        self.with(table, key, |lru| lru.change(key, |present| *present = *entry));
    }

    fn touch_flow(&self, table: FlowTable, key: &FlowKey, now_ns: u64) {
        self.with(table, key, |lru| lru.change(key, |entry| entry.last_seen_ns = now_ns));
    }

    fn forget_flow(&self, table: FlowTable, key: &FlowKey) {
        self.with(table, key, |lru| lru.remove(key));
    }

    fn control(&self) -> Option<&Control> {
        self.host.control()
    }

    fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        self.host.service(key)
    }

    fn range(&self, key: &RangeKey) -> Option<&ServiceEntry> {
        self.host.range(key)
    }

    fn prefix(&self, address: &[u8; 16]) -> Option<PrefixEntry> {
        self.host.prefix(address)
    }

    fn vip(&self, key: &VipKey) -> Option<VipEntry> {
        self.host.vip(key)
    }

    fn backend(&self, id: BackendId) -> Option<&BackendEntry> {
        self.host.backend(id)
    }

    fn port(&self, number: u16) -> Option<&PortEntry> {
        self.host.port(number)
    }

    fn probe(&self, slot: u32) -> Option<&ProbeEntry> {
        self.host.probe(slot)
    }

    fn quic_backend(&self, key: &QuicKey) -> Option<BackendId> {
        self.host.quic_backend(key)
    }

    fn ingress(&self) -> u16 {
        self.host.ingress()
    }

    fn acl(&self, key: &AclKey) -> Option<AclVerdict> {
        self.host.acl(key)
    }

    fn rates(&self, service: u32) -> Option<&RateEntry> {
        self.host.rates(service)
    }

    fn service_bucket(&self, index: u32) -> Option<u64> {
        self.host.service_bucket(index)
    }

    fn set_service_bucket(&self, index: u32, time_ns: u64) {
        self.host.set_service_bucket(index, time_ns);
    }

    fn add_service_bucket(&self, index: u32, time_ns: u64) {
        self.host.add_service_bucket(index, time_ns);
    }

    fn bucket(&self, key: &BucketKey) -> Option<u64> {
        self.host.bucket(key)
    }

    fn set_bucket(&self, key: &BucketKey, time_ns: u64) {
        self.host.set_bucket(key, time_ns);
    }

    fn add_bucket(&self, key: &BucketKey, time_ns: u64) {
        self.host.add_bucket(key, time_ns);
    }

    fn policy(&self, service: u32) -> Option<PolicyEntry> {
        self.host.policy(service)
    }

    fn turn(&self, service: u32) -> u64 {
        self.host.turn(service)
    }

    fn load(&self, backend: BackendId) -> Option<LoadEntry> {
        self.host.load(backend)
    }

    fn add_load(&self, backend: BackendId, flows: i64) {
        self.host.add_load(backend, flows);
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry> {
        self.host.affinity(key)
    }

    fn set_affinity(&self, key: &AffinityKey, entry: &AffinityEntry) {
        self.host.set_affinity(key, entry);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        self.host.fragment(key)
    }

    fn record_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) {
        self.host.record_fragment(key, entry);
    }

    fn now_ns(&self) -> u64 {
        self.host.now_ns()
    }

    fn count(&self, reason: Reason) {
        self.host.count(reason);
    }

    fn count_drop(&self, service: u32, reason: Reason) {
        self.host.count_drop(service, reason);
    }

    fn count_note(&self, service: u32, reason: Reason) {
        self.host.count_note(service, reason);
    }

    fn count_forward(&self, backend: BackendId, bytes: u32, flows: u64) {
        self.host.count_forward(backend, bytes, flows);
    }
}
