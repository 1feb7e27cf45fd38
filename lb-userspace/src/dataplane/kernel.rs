//! The data plane in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError, PerCpuValues};
use aya::util::nr_cpus;
use lb_common::abi::{names::*, *};

use super::batch::Batches;
use super::bring::count_clients;
use super::flow_maps::{FlowMaps, FlowUse};
use super::maps::{BACKEND_WORDS, Maps};
use super::{Counters, DataPlane, Error, Gate, Pins, ProbeTable, attach, counters, object, stages};
use crate::reconcile::{Flow, Observed, Plan, Size, Step, TrieKey};

/// Pinned maps, open for reading and writing.
pub struct KernelPlane {
    pins: Pins,
    maps: Maps,
}

impl KernelPlane {
    /// Adopts the pinned data plane; an error if there is none, or one that does not fit.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        match Maps::open(pins)? {
            Some(maps) => Ok(Self { pins: pins.clone(), maps }),
            None => Err(Error::NotLoaded { path: pins.directory() }),
        }
    }

    /// Adopts the pinned data plane, or creates one of this size. Nothing stays pinned if that fails.
    pub fn open_or_create(pins: &Pins, size: &Size) -> Result<Self, Error> {
        if let Some(maps) = Maps::open(pins)? {
            return Ok(Self { pins: pins.clone(), maps });
        }
        let created = object::balancer(pins, size, 0).and_then(|_object| Self::open(pins));
        if created.is_err() {
            // The error that matters is the first one.
            let _second = pins.remove_all();
        }
        created
    }

    /// Reads all counters of what exists.
    pub fn counters(&self) -> Result<Counters, Error> {
        let observed = self.snapshot(Depth::Shallow)?;
        let backends: Vec<u32> = observed.backends.keys().copied().collect();
        let services: Vec<u32> = observed.entries().into_keys().collect();
        Counters::read(&self.maps, &backends, &services)
    }

    /// Packets that each CPU has had in our programs.
    pub fn packets_per_cpu(&self) -> Result<Vec<u64>, Error> {
        let observed = self.snapshot(Depth::Shallow)?;
        counters::per_cpu(&self.maps, observed.backends.keys().copied())
    }

    /// A snapshot without slots and flows: what status commands need.
    pub fn glance(&self) -> Result<Observed, Error> {
        self.snapshot(Depth::Shallow)
    }

    /// Bytes that backends have been sent.
    pub fn bytes(&self, backends: &[BackendId]) -> Result<BTreeMap<BackendId, u64>, Error> {
        counters::bytes(&self.maps, backends)
    }

    /// How full the flow tables are, dead flows among them; more or less where they change while they are counted.
    pub fn flow_use(&self) -> Result<Vec<FlowUse>, Error> {
        self.maps.flows.used()
    }

    /// How many clients are remembered for affinity, and how many there is room for.
    pub fn affinity_use(&self) -> Result<(usize, u32), Error> {
        let room = self.maps.size.affinity;
        Ok((count_clients(&self.maps.affinity, room)?, room))
    }

    fn snapshot(&self, depth: Depth) -> Result<Observed, Error> {
        let maps = &self.maps;
        let backends: BTreeMap<u32, BackendEntry> = (1..=maps.size.backends)
            .map(|id| (id, maps.backend(id)))
            .filter(|(_, entry)| BackendState::from_raw(entry.state) != BackendState::Absent)
            .collect();
        let mut ports = BTreeMap::new();
        for number in 1..=maps.size.ports {
            let entry = maps.ports.get(&number, 0).map_err(Error::map(PORTS))?;
            if entry.ifindex != 0 {
                ports.insert(number as u16, entry);
            }
        }
        let attached: BTreeSet<u16> = {
            let links = self.pins.links();
            ports
                .iter()
                .filter(|(_, port)| links.contains(&port.ifindex))
                .map(|(number, _)| *number)
                .collect()
        };
        let mut observed = Observed {
            size: maps.size,
            control: maps.control(),
            vips: pairs(maps.vips.iter(), VIPS)?,
            rings: BTreeMap::new(),
            exact: pairs(maps.services.iter(), SERVICES)?,
            ranges: trie(&maps.ranges, RANGES)?,
            prefixes: trie(&maps.prefixes, PREFIXES)?,
            policies: maps.policies.policies(maps.size.services),
            schedules: BTreeMap::new(),
            weights: BTreeMap::new(),
            rates: BTreeMap::new(),
            quic: maps.quic.iter().collect::<Result<_, _>>().map_err(Error::map(QUIC_IDS))?,
            backends,
            ports,
            attached,
            now_ns: monotonic_ns(),
        };
        for id in observed.limited() {
            observed.rates.insert(id, maps.rates.get(&id, 0).map_err(Error::map(RATES))?);
        }
        if let Depth::Full = depth {
            self.deepen(&mut observed);
        }
        Ok(observed)
    }

    /// Adds slots, and weights.
    fn deepen(&self, observed: &mut Observed) {
        for (id, service) in observed.entries() {
            let slots = service.ring_start..service.ring_start + service.ring_size;
            let slots = slots.map(|index| Slot(self.maps.rings.load(index as usize))).collect();
            observed.rings.insert(id, slots);
        }
        for (id, policy) in &observed.policies {
            let end = policy.schedule_start.saturating_add(policy.schedule_size);
            let slots = policy.schedule_start..end.min(self.maps.size.ring_slots);
            let slots = slots.map(|index| Slot(self.maps.rings.load(index as usize))).collect();
            observed.schedules.insert(*id, slots);
        }
        observed.weights = observed.backends.keys().map(|id| (*id, self.maps.policies.weight(*id))).collect();
    }

    /// Replaces an entry word by word. Where what packets would get differs in several, there is no way to the backend
    /// for an instant: packets are dropped and counted rather than sent with half of either.
    fn store_backend(&mut self, id: BackendId, entry: &BackendEntry) {
        let start = id.get() as usize * BACKEND_WORDS;
        let words = entry.words();
        let differs = |word: &usize| self.maps.backends.load(start + word) != words[*word];
        if (1..BACKEND_WORDS).filter(differs).count() > 1 {
            self.maps.backends.store(start, NextHop::UNKNOWN.0);
        }
        // The first words (next hop; service and state) go last: an entry comes to life when all of it is there.
        for word in (0..BACKEND_WORDS).rev().filter(differs) {
            self.maps.backends.store(start + word, words[word]);
        }
    }

    fn set_state(&mut self, id: BackendId, state: BackendState) {
        let entry = BackendEntry { state: state.to_raw(), ..self.maps.backend(id.get()) };
        self.store_backend(id, &entry);
    }

    fn clear_counters(&mut self, id: BackendId) -> Result<(), Error> {
        let zero = zeros::<BackendCounters>()?;
        self.maps.backend_counters.set(id.get(), zero, 0).map_err(Error::map(BACKEND_COUNTERS))
    }

    fn clear_drops(&mut self, service: u32) -> Result<(), Error> {
        for reason in Reason::ALL {
            let index = service * REASON_SLOTS + *reason as u32;
            self.maps.service_drops.set(index, zeros::<u64>()?, 0).map_err(Error::map(SERVICE_DROPS))?;
        }
        Ok(())
    }

    fn put_acl(&mut self, entries: &[(TrieKey<AclKey>, AclVerdict)]) -> Result<(), Error> {
        let put = |(key, verdict): &(TrieKey<AclKey>, AclVerdict)| {
            self.maps.acl.insert(&trie_key(key), verdict.to_raw(), 0).map_err(Error::map(ACL))
        };
        entries.iter().try_for_each(put)
    }

    /// Removes all lists but these. The keys are read first: a walk does not survive that its place is removed.
    fn keep_acl(&mut self, lists: &BTreeSet<u32>) -> Result<(), Error> {
        let keys: Vec<Key<AclKey>> =
            self.maps.acl.keys().collect::<Result<_, _>>().map_err(Error::map(ACL))?;
        for key in keys.iter().filter(|key| !lists.contains(&u32::from_be_bytes(key.data().list))) {
            self.maps.acl.remove(key).map_err(Error::map(ACL))?;
        }
        Ok(())
    }

    fn put_port(&mut self, number: u16, entry: &PortEntry) -> Result<(), Error> {
        self.put_port_at(number, entry, entry.ifindex)
    }

    fn put_port_at(&mut self, number: u16, entry: &PortEntry, device: u32) -> Result<(), Error> {
        self.maps.egress.set(number.into(), device, None, 0).map_err(|source| Error::Egress { source })?;
        self.maps.ports.set(number.into(), entry, 0).map_err(Error::map(PORTS))
    }

    fn delete_port(&mut self, number: u16) -> Result<(), Error> {
        stages::clear(&self.pins, number)?;
        self.maps.ports.set(number.into(), PortEntry::default(), 0).map_err(Error::map(PORTS))
    }
}

/// `lo` in every network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
const LOOPBACK_IFINDEX: u32 = 1;

/// The clock that the program stamps flows with (`bpf_ktime_get_ns`).
pub fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| Duration::from(now).as_nanos() as u64)
}

enum Depth {
    Shallow,
    Full,
}

fn pairs<K: Ord, V>(
    iter: impl Iterator<Item = Result<(K, V), MapError>>,
    name: &'static str,
) -> Result<BTreeMap<K, V>, Error> {
    iter.collect::<Result<_, _>>().map_err(Error::map(name))
}

fn trie_key<K: Pod>(key: &TrieKey<K>) -> Key<K> {
    Key::new(key.bits, key.data)
}

fn trie<K, V>(map: &LpmTrie<MapData, K, V>, name: &'static str) -> Result<BTreeMap<TrieKey<K>, V>, Error>
where
    K: Pod + Ord,
    V: Pod,
{
    let entry = |found: Result<(Key<K>, V), MapError>| {
        found.map(|(key, value)| (TrieKey { data: key.data(), bits: key.prefix_len() }, value))
    };
    map.iter().map(entry).collect::<Result<_, _>>().map_err(Error::map(name))
}

fn zeros<T: aya::Pod + Default>() -> Result<PerCpuValues<T>, Error> {
    let file =
        |source| Error::File { action: "reading", path: "/sys/devices/system/cpu/possible".into(), source };
    let cpus = nr_cpus().map_err(|(_, source)| file(source))?;
    PerCpuValues::try_from(vec![T::default(); cpus]).map_err(file)
}

impl DataPlane for KernelPlane {
    fn observe(&self) -> Result<Observed, Error> {
        self.snapshot(Depth::Full)
    }

    fn flows(&self) -> Result<Option<Vec<Flow>>, Error> {
        let (mut all, mut batches) = (Vec::new(), Batches::new());
        for (table, tcp) in FlowMaps::all() {
            let whole = self.maps.flows.each((table, tcp), &mut batches, |keys, entries| {
                let pairs = keys.iter().zip(entries);
                all.extend(pairs.map(|(key, entry)| Flow { table, key: *key, entry: *entry }));
            })?;
            if !whole {
                return Ok(None);
            }
        }
        Ok(Some(all))
    }

    fn loads(&self, backends: &[BackendId]) -> BTreeMap<BackendId, i64> {
        backends.iter().map(|id| (*id, self.maps.policies.load(*id) as i64)).collect()
    }

    fn correct_loads(&mut self, by: &[(BackendId, i64)]) {
        by.iter().for_each(|(id, by)| self.maps.policies.add_load(*id, *by));
    }

    fn set_loads(&mut self, loads: &[(BackendId, u64)]) {
        loads.iter().for_each(|(id, load)| self.maps.policies.set_load(*id, *load));
    }

    fn execute(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::PutPort(number, entry) => self.put_port(*number, entry)?,
            Step::DeletePort(number) => self.delete_port(*number)?,
            Step::PutBackend { id, entry, fresh } => {
                if *fresh {
                    self.clear_counters(*id)?;
                }
                self.store_backend(*id, entry);
            }
            Step::RetireBackend(id) => self.set_state(*id, BackendState::Retired),
            Step::ForgetBackend(id) => self.store_backend(*id, &BackendEntry::default()),
            Step::WriteSlots { start, words } => {
                for (index, slot) in (*start as usize..).zip(words) {
                    if let Some(slot) = slot {
                        self.maps.rings.store(index, slot.0);
                    }
                }
            }
            Step::WriteSchedule { start, turns } => {
                for (index, owner) in (*start as usize..).zip(turns) {
                    self.maps.rings.store(index, Slot::settled(*owner).0);
                }
            }
            Step::PutPolicy(id, entry) => self.maps.policies.put_policy(*id, entry),
            Step::PutWeight(id, weight) => self.maps.policies.put_weight(*id, *weight),
            Step::PutLoad(id, entry) => {
                self.maps.policies.set_load(*id, entry.load);
                self.maps.policies.put_weight(*id, entry.weight);
            }
            Step::PutControl(control) => self.maps.put_control(control),
            Step::TakeServiceId(id) => self.clear_drops(*id)?,
            Step::PutRates(id, entry) => self.maps.rates.set(*id, *entry, 0).map_err(Error::map(RATES))?,
            Step::PutAcl { entries, .. } => self.put_acl(entries)?,
            Step::KeepAcl(lists) => self.keep_acl(lists)?,
            Step::PutQuic(key, id) => {
                self.maps.quic.insert(*key, id.get(), 0).map_err(Error::map(QUIC_IDS))?;
            }
            Step::DeleteQuic(key) => self.maps.quic.remove(key).map_err(Error::map(QUIC_IDS))?,
            Step::PutRange(key, entry) => {
                self.maps.ranges.insert(&trie_key(key), *entry, 0).map_err(Error::map(RANGES))?;
            }
            Step::DeleteRange(key) => {
                self.maps.ranges.remove(&trie_key(key)).map_err(Error::map(RANGES))?;
            }
            Step::PutPrefix(key, entry) => {
                self.maps.prefixes.insert(&trie_key(key), *entry, 0).map_err(Error::map(PREFIXES))?;
            }
            Step::DeletePrefix(key) => {
                self.maps.prefixes.remove(&trie_key(key)).map_err(Error::map(PREFIXES))?;
            }
            Step::PutService(key, entry) => {
                self.maps.services.insert(key, entry, 0).map_err(Error::map(SERVICES))?;
            }
            Step::DeleteService(key) => self.maps.services.remove(key).map_err(Error::map(SERVICES))?,
            Step::PutVip(key, entry) => self.maps.vips.insert(key, entry, 0).map_err(Error::map(VIPS))?,
            Step::DeleteVip(key) => self.maps.vips.remove(key).map_err(Error::map(VIPS))?,
            Step::DeleteFlow(table, key, seen_ns) => self.maps.flows.delete(*table, key, *seen_ns),
        }
        Ok(())
    }
}

impl KernelPlane {
    /// Attaches (or replaces) the program on an interface that already has a port; see [`attach::attach`].
    pub fn attach(
        &self,
        interface: &attach::Target,
        mode: attach::Mode,
    ) -> Result<attach::Attachment, Error> {
        attach::attach(&self.pins, &self.maps.size, interface, mode)
    }

    /// Puts the probes' program on the gate of the prober's namespace, an interface that already has a port.
    pub fn attach_gate(&self, interface: &str, ifindex: u32, port: u16) -> Result<Gate, Error> {
        Gate::attach(&self.pins, &self.maps.size, interface, ifindex, port)
    }

    /// As [`DataPlane::run`], in a data plane that no packet leaves: its interfaces need not exist, and the redirect
    /// map names the one that always does.
    pub fn run_without_devices(&mut self, plan: &Plan) -> Result<(), Error> {
        plan.steps.iter().try_for_each(|step| match step {
            Step::PutPort(number, entry) => self.put_port_at(*number, entry, LOOPBACK_IFINDEX),
            step => self.execute(step),
        })
    }

    /// The table of probes under way.
    pub fn probe_table(&self) -> Result<ProbeTable, Error> {
        ProbeTable::open(&self.pins)
    }
}
