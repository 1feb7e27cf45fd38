//! A data plane in ordinary memory, for tests of whatever plans steps and for packets that are only simulated.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::abi::{
    BackendId, BackendState, Control, LoadEntry, PROBE_SLOTS, PolicyEntry, PrefixKey, Slot,
};
use lb_common::datapath::host::HostTables;

use super::{DataPlane, Error};
use crate::reconcile::{AclEntries, Flow, Observed, Size, Step};

/// Holds what the steps so far have made.
#[derive(Clone, Debug, Default)]
pub struct MemoryPlane {
    /// The state now, but for the rings, which `pool` has.
    state: Observed,
    pool: Vec<Slot>,
    acl: BTreeMap<u32, AclEntries>,
    flows: Vec<Flow>,
    loads: BTreeMap<u32, LoadEntry>,
}

impl MemoryPlane {
    /// An empty one of this size.
    pub fn new(size: Size) -> Self {
        Self {
            state: Observed { size, ..Observed::default() },
            pool: vec![Slot::default(); size.ring_slots as usize],
            acl: BTreeMap::new(),
            flows: Vec::new(),
            loads: BTreeMap::new(),
        }
    }

    /// Records a flow, as the program would.
    pub fn record_flow(&mut self, flow: Flow) {
        self.flows.push(flow);
    }

    /// The source lists, by number.
    pub fn lists(&self) -> &BTreeMap<u32, AclEntries> {
        &self.acl
    }

    /// What the engine finds here; arrays have all their elements, as the kernel's have.
    pub fn tables(&self) -> HostTables {
        let Observed { size, .. } = self.state;
        let backend = |id| (id, self.state.backends.get(&id).copied().unwrap_or_default());
        let port = |number| (number, self.state.ports.get(&number).copied().unwrap_or_default());
        let lists = self.acl.values().flat_map(|entries| entries.iter());
        HostTables {
            control: self.state.control,
            services: self.state.exact.clone(),
            ranges: self.state.ranges.iter().map(|(key, entry)| (key.data, key.bits, *entry)).collect(),
            prefixes: self
                .state
                .prefixes
                .iter()
                .map(|(key, entry)| {
                    (key.data.address, key.bits.saturating_sub(PrefixKey::ADDRESS_AT), *entry)
                })
                .collect(),
            acl: lists.map(|(key, verdict)| (key.data, key.bits, *verdict)).collect(),
            rates: self.state.rates.clone(),
            quic: self.state.quic.clone(),
            vips: self.state.vips.clone(),
            rings: self.pool.clone(),
            policies: self.state.policies.clone(),
            loads: RefCell::new(self.loads.clone()),
            backends: (0..=size.backends).map(backend).collect(),
            ports: (0..=size.ports as u16).map(port).collect(),
            probes: (0..PROBE_SLOTS).map(|slot| (slot, Default::default())).collect(),
            ..HostTables::default()
        }
    }

    /// Sets the clock.
    pub fn set_clock(&mut self, now_ns: u64) {
        self.state.now_ns = now_ns;
    }
}

impl DataPlane for MemoryPlane {
    fn observe(&self) -> Result<Observed, Error> {
        let mut state = self.state.clone();
        let entries = state.entries();
        for (id, service) in &entries {
            let range = service.ring_start as usize..(service.ring_start + service.ring_size) as usize;
            state.rings.insert(*id, self.pool.get(range).unwrap_or_default().to_vec());
        }
        for (id, policy) in &state.policies {
            let end = policy.schedule_start.saturating_add(policy.schedule_size);
            let range = policy.schedule_start as usize..end as usize;
            state.schedules.insert(*id, self.pool.get(range).unwrap_or_default().to_vec());
        }
        let weight = |id: &u32| (*id, self.loads.get(id).map_or(0, |entry| entry.weight));
        state.weights = state.backends.keys().map(weight).collect();
        let limited = state.limited();
        state.rates.retain(|id, _| limited.contains(id));
        Ok(state)
    }

    fn flows(&self) -> Result<Option<Vec<Flow>>, Error> {
        Ok(Some(self.flows.clone()))
    }

    fn loads(&self, backends: &[BackendId]) -> BTreeMap<BackendId, i64> {
        let load = |id: &BackendId| self.loads.get(&id.get()).map_or(0, |entry| entry.load as i64);
        backends.iter().map(|id| (*id, load(id))).collect()
    }

    fn correct_loads(&mut self, by: &[(BackendId, i64)]) {
        for (id, by) in by {
            let entry = self.loads.entry(id.get()).or_default();
            entry.load = entry.load.wrapping_add_signed(*by);
        }
    }

    fn set_loads(&mut self, loads: &[(BackendId, u64)]) {
        loads.iter().for_each(|(id, load)| self.loads.entry(id.get()).or_default().load = *load);
    }

    fn execute(&mut self, step: &Step) -> Result<(), Error> {
        let state = &mut self.state;
        match step {
            Step::PutPort(number, entry) => drop(state.ports.insert(*number, *entry)),
            Step::DeletePort(number) => drop(state.ports.remove(number)),
            Step::PutBackend { id, entry, .. } => drop(state.backends.insert(id.get(), *entry)),
            Step::RetireBackend(id) => {
                if let Some(entry) = state.backends.get_mut(&id.get()) {
                    entry.state = BackendState::Retired.to_raw();
                }
            }
            Step::ForgetBackend(id) => drop(state.backends.remove(&id.get())),
            Step::WriteSlots { start, words } => {
                for (slot, word) in self.pool.iter_mut().skip(*start as usize).zip(words) {
                    *slot = word.unwrap_or(*slot);
                }
            }
            Step::WriteSchedule { start, turns } => {
                for (slot, owner) in self.pool.iter_mut().skip(*start as usize).zip(turns) {
                    *slot = Slot::settled(*owner);
                }
            }
            Step::PutPolicy(id, entry) if *entry == PolicyEntry::default() => {
                let _policy = state.policies.remove(id);
            }
            Step::PutPolicy(id, entry) => {
                let _before = state.policies.insert(*id, *entry);
            }
            Step::PutWeight(id, weight) => self.loads.entry(id.get()).or_default().weight = *weight,
            Step::PutLoad(id, entry) => {
                let _before = self.loads.insert(id.get(), *entry);
            }
            Step::PutControl(control) => {
                state.control = Control { sampling: state.control.sampling, ..*control }
            }
            Step::TakeServiceId(_) => {}
            Step::PutRates(id, entry) => drop(state.rates.insert(*id, *entry)),
            Step::PutAcl { list, entries } => drop(self.acl.insert(*list, Arc::clone(entries))),
            Step::KeepAcl(lists) => self.acl.retain(|list, _| lists.contains(list)),
            Step::PutQuic(key, id) => drop(state.quic.insert(*key, id.get())),
            Step::DeleteQuic(key) => drop(state.quic.remove(key)),
            Step::PutService(key, entry) => drop(state.exact.insert(*key, *entry)),
            Step::DeleteService(key) => drop(state.exact.remove(key)),
            Step::PutRange(key, entry) => drop(state.ranges.insert(*key, *entry)),
            Step::DeleteRange(key) => drop(state.ranges.remove(key)),
            Step::PutPrefix(key, entry) => drop(state.prefixes.insert(*key, *entry)),
            Step::DeletePrefix(key) => drop(state.prefixes.remove(key)),
            Step::PutVip(key, entry) => drop(state.vips.insert(*key, *entry)),
            Step::DeleteVip(key) => drop(state.vips.remove(key)),
            Step::DeleteFlow(table, key, seen_ns) => self
                .flows
                .retain(|flow| (flow.table, flow.key, flow.entry.last_seen_ns) != (*table, *key, *seen_ns)),
        }
        Ok(())
    }
}
