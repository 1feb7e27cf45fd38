//! The pinned maps as the engine's tables, for looking only: what the engine would write is for whoever asks to keep.

use aya::Pod;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key};
use lb_common::abi::{names::*, *};
use lb_common::datapath::{Recorded, Tables};
use typed_arena::Arena;

use super::flow_maps::FlowMaps;
use super::maps::BACKEND_WORDS;
use super::mmap::Words;
use super::{Error, Pins};

/// Open maps. Values that the engine borrows live as long as this does, so it is for a few packets.
pub struct LiveTables {
    control: Control,
    services: HashMap<MapData, ServiceKey, ServiceEntry>,
    vips: HashMap<MapData, VipKey, VipEntry>,
    ranges: LpmTrie<MapData, RangeKey, ServiceEntry>,
    prefixes: LpmTrie<MapData, PrefixKey, PrefixEntry>,
    acl: LpmTrie<MapData, AclKey, u32>,
    rates: Array<MapData, RateEntry>,
    service_buckets: Array<MapData, u64>,
    buckets: HashMap<MapData, BucketKey, u64>,
    fragments: HashMap<MapData, FragmentKey, FragmentEntry>,
    flows: FlowMaps,
    policies: Array<MapData, PolicyEntry>,
    loads: Array<MapData, LoadEntry>,
    affinity: HashMap<MapData, AffinityKey, AffinityEntry>,
    quic: HashMap<MapData, QuicKey, u32>,
    ports: Array<MapData, PortEntry>,
    probes: Array<MapData, ProbeEntry>,
    rings: Words,
    backends: Words,
    ingress: u16,
    borrowed: Borrowed,
}

/// Copies that are borrowed.
#[derive(Default)]
struct Borrowed {
    services: Arena<ServiceEntry>,
    backends: Arena<BackendEntry>,
    ports: Arena<PortEntry>,
    probes: Arena<ProbeEntry>,
    rates: Arena<RateEntry>,
}

impl LiveTables {
    /// Opens the pinned maps, as a packet on port number `ingress` finds them.
    pub fn open(pins: &Pins, ingress: u16) -> Result<Self, Error> {
        let map = |name: &'static str| MapData::from_pin(pins.map(name)).map_err(Error::map(name));
        let words = |name: &'static str, words_of_each: usize| {
            let map = map(name)?;
            let entries = map.info().map_err(Error::map(name))?.max_entries() as usize;
            let file = |source| Error::File { action: "mapping", path: pins.map(name), source };
            Words::map(map.fd(), entries * words_of_each).map_err(file)
        };
        let control = array::<Control>(map(CONTROL)?, CONTROL)?;
        Ok(Self {
            control: control.get(&0, 0).map_err(Error::map(CONTROL))?,
            services: hash(Map::HashMap(map(SERVICES)?), SERVICES)?,
            vips: hash(Map::HashMap(map(VIPS)?), VIPS)?,
            ranges: trie(map(RANGES)?, RANGES)?,
            prefixes: trie(map(PREFIXES)?, PREFIXES)?,
            acl: trie(map(ACL)?, ACL)?,
            rates: array(map(RATES)?, RATES)?,
            service_buckets: array(map(SERVICE_BUCKETS)?, SERVICE_BUCKETS)?,
            buckets: hash(Map::LruHashMap(map(SOURCE_BUCKETS)?), SOURCE_BUCKETS)?,
            fragments: hash(Map::LruHashMap(map(FRAGMENTS)?), FRAGMENTS)?,
            flows: FlowMaps::open(map)?,
            policies: array(map(POLICIES)?, POLICIES)?,
            loads: array(map(LOADS)?, LOADS)?,
            affinity: hash(Map::LruHashMap(map(AFFINITY)?), AFFINITY)?,
            quic: hash(Map::HashMap(map(QUIC_IDS)?), QUIC_IDS)?,
            ports: array(map(PORTS)?, PORTS)?,
            probes: array(map(PROBES)?, PROBES)?,
            rings: words(RINGS, 1)?,
            backends: words(BACKENDS, BACKEND_WORDS)?,
            ingress,
            borrowed: Borrowed::default(),
        })
    }
}

fn hash<K: Pod, V: Pod>(map: Map, name: &'static str) -> Result<HashMap<MapData, K, V>, Error> {
    HashMap::try_from(map).map_err(Error::map(name))
}

fn array<V: Pod>(map: MapData, name: &'static str) -> Result<Array<MapData, V>, Error> {
    Array::try_from(Map::Array(map)).map_err(Error::map(name))
}

fn trie<K: Pod, V: Pod>(map: MapData, name: &'static str) -> Result<LpmTrie<MapData, K, V>, Error> {
    LpmTrie::try_from(Map::LpmTrie(map)).map_err(Error::map(name))
}

/// What is there. A map that cannot be read is as one that has nothing, which is what the program sees.
fn found<V>(read: Result<V, MapError>) -> Option<V> {
    read.inspect_err(|error| match error {
        MapError::KeyNotFound => {}
        error => tracing::warn!(%error, "a map cannot be read"),
    })
    .ok()
}

/// A key of full length for a trie's longest match.
fn whole<K: Pod>(key: K) -> Key<K> {
    Key::new(8 * size_of::<K>() as u32, key)
}

impl Tables for LiveTables {
    fn control(&self) -> Option<&Control> {
        Some(&self.control)
    }

    fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        Some(self.borrowed.services.alloc(found(self.services.get(key, 0))?))
    }

    fn range(&self, key: &RangeKey) -> Option<&ServiceEntry> {
        let key = Key::new(RangeKey::BITS, *key);
        Some(self.borrowed.services.alloc(found(self.ranges.get(&key, 0))?))
    }

    fn prefix(&self, address: &[u8; 16]) -> Option<PrefixEntry> {
        found(self.prefixes.get(&Key::new(PrefixKey::BITS, PrefixKey::new(*address)), 0))
    }

    fn vip(&self, key: &VipKey) -> Option<VipEntry> {
        found(self.vips.get(key, 0))
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        Some(Slot(self.rings.load(index as usize)))
    }

    fn backend(&self, id: BackendId) -> Option<&BackendEntry> {
        let start = id.get() as usize * BACKEND_WORDS;
        let words = std::array::from_fn(|word| self.backends.load(start + word));
        Some(self.borrowed.backends.alloc(BackendEntry::from_words(words)))
    }

    fn port(&self, number: u16) -> Option<&PortEntry> {
        Some(self.borrowed.ports.alloc(found(self.ports.get(&number.into(), 0))?))
    }

    fn probe(&self, slot: u32) -> Option<&ProbeEntry> {
        Some(self.borrowed.probes.alloc(found(self.probes.get(&slot, 0))?))
    }

    fn quic_backend(&self, key: &QuicKey) -> Option<BackendId> {
        found(self.quic.get(key, 0)).and_then(BackendId::new)
    }

    fn ingress(&self) -> u16 {
        self.ingress
    }

    fn acl(&self, key: &AclKey) -> Option<AclVerdict> {
        found(self.acl.get(&whole(*key), 0)).map(AclVerdict::from_raw)
    }

    fn rates(&self, service: u32) -> Option<&RateEntry> {
        Some(self.borrowed.rates.alloc(found(self.rates.get(&service, 0))?))
    }

    fn service_bucket(&self, index: u32) -> Option<u64> {
        found(self.service_buckets.get(&index, 0))
    }

    fn bucket(&self, key: &BucketKey) -> Option<u64> {
        found(self.buckets.get(key, 0))
    }

    fn flow(&self, table: FlowTable, key: &FlowKey) -> Option<FlowEntry> {
        found(self.flows.table(table, key.is_tcp()).get(key, 0))
    }

    fn policy(&self, service: u32) -> Option<PolicyEntry> {
        found(self.policies.get(&service, 0))
    }

    fn load(&self, backend: BackendId) -> Option<LoadEntry> {
        found(self.loads.get(&backend.get(), 0))
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry> {
        found(self.affinity.get(key, 0))
    }

    /// Whose turn it is depends on the CPU that a packet comes to.
    fn turn(&self, _: u32) -> u64 {
        0
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        found(self.fragments.get(key, 0))
    }

    fn now_ns(&self) -> u64 {
        super::monotonic_ns()
    }

    // Nothing is ever written: that is for the packets that are really there.
    fn set_service_bucket(&self, _: u32, _: u64) {}
    fn add_service_bucket(&self, _: u32, _: u64) {}
    fn set_bucket(&self, _: &BucketKey, _: u64) {}
    fn add_bucket(&self, _: &BucketKey, _: u64) {}
    fn record_flow(&self, _: FlowTable, _: &FlowKey, _: &FlowEntry) -> Recorded {
        Recorded::New
    }
    fn correct_flow(&self, _: FlowTable, _: &FlowKey, _: &FlowEntry) {}
    fn touch_flow(&self, _: FlowTable, _: &FlowKey, _: u64) {}
    fn forget_flow(&self, _: FlowTable, _: &FlowKey) {}
    fn add_load(&self, _: BackendId, _: i64) {}
    fn set_affinity(&self, _: &AffinityKey, _: &AffinityEntry) {}
    fn count_note(&self, _: u32, _: Reason) {}
    fn record_fragment(&self, _: &FragmentKey, _: &FragmentEntry) {}
    fn count(&self, _: Reason) {}
    fn count_drop(&self, _: u32, _: Reason) {}
    fn count_forward(&self, _: BackendId, _: u32, _: u64) {}
}
