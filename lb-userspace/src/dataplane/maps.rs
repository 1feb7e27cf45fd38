//! The pinned maps, checked before they are trusted.

use aya::maps::{
    Array, HashMap, MapData, MapType, PerCpuArray, ProgramArray, lpm_trie::LpmTrie, xdp::DevMap,
};
use lb_common::abi::{names::*, *};

use super::flow_maps::FlowMaps;
use super::mmap::Words;
use super::policy_maps::{self, PolicyMaps};
use super::{Error, Pins};
use crate::reconcile::Size;

/// Every map of the balancer, open.
pub(super) struct Maps {
    control: Words,
    pub(super) services: HashMap<MapData, ServiceKey, ServiceEntry>,
    pub(super) vips: HashMap<MapData, VipKey, VipEntry>,
    pub(super) rings: Words,
    pub(super) backends: Words,
    pub(super) ports: Array<MapData, PortEntry>,
    pub(super) egress: DevMap<MapData>,
    pub(super) flows: FlowMaps,
    pub(super) policies: PolicyMaps,
    pub(super) affinity: HashMap<MapData, AffinityKey, AffinityEntry>,
    pub(super) backend_counters: PerCpuArray<MapData, BackendCounters>,
    pub(super) service_drops: PerCpuArray<MapData, u64>,
    pub(super) reasons: PerCpuArray<MapData, u64>,
    pub(super) prefixes: LpmTrie<MapData, PrefixKey, PrefixEntry>,
    pub(super) ranges: LpmTrie<MapData, RangeKey, ServiceEntry>,
    pub(super) acl: LpmTrie<MapData, AclKey, u32>,
    pub(super) rates: Array<MapData, RateEntry>,
    pub(super) quic: HashMap<MapData, QuicKey, u32>,
    pub(super) size: Size,
}

/// Words of a backend's entry.
pub(super) const BACKEND_WORDS: usize = size_of::<BackendEntry>() / 8;

/// Bytes in front of a trie key's data, which say how many of its bits count.
const TRIE_BITS: usize = size_of::<u32>();

/// Type, key size and value size of a map; its capacity comes from whoever created it.
struct Shape(MapType, usize, usize);

fn shape(name: &str) -> Shape {
    let index = size_of::<u32>();
    match name {
        SERVICES => Shape(MapType::Hash, size_of::<ServiceKey>(), size_of::<ServiceEntry>()),
        VIPS => Shape(MapType::Hash, size_of::<VipKey>(), size_of::<VipEntry>()),
        RINGS => Shape(MapType::Array, index, size_of::<Slot>()),
        BACKENDS => Shape(MapType::Array, index, size_of::<BackendEntry>()),
        PORTS => Shape(MapType::Array, index, size_of::<PortEntry>()),
        EGRESS => Shape(MapType::DevMap, index, 8),
        TCP_HALF_OPEN | TCP_ESTABLISHED | TCP_OLD | UDP_HALF_OPEN | UDP_ESTABLISHED | UDP_OLD => {
            Shape(MapType::LruHash, size_of::<FlowKey>(), size_of::<FlowEntry>())
        }
        POLICIES => Shape(MapType::Array, index, size_of::<PolicyEntry>()),
        TURNS => Shape(MapType::PerCpuArray, index, size_of::<u64>()),
        LOADS => Shape(MapType::Array, index, size_of::<LoadEntry>()),
        AFFINITY => Shape(MapType::LruHash, size_of::<AffinityKey>(), size_of::<AffinityEntry>()),
        BACKEND_COUNTERS => Shape(MapType::PerCpuArray, index, size_of::<BackendCounters>()),
        PROBES => Shape(MapType::Array, index, size_of::<ProbeEntry>()),
        PREFIXES => Shape(MapType::LpmTrie, TRIE_BITS + size_of::<PrefixKey>(), size_of::<PrefixEntry>()),
        RANGES => Shape(MapType::LpmTrie, TRIE_BITS + size_of::<RangeKey>(), size_of::<ServiceEntry>()),
        ACL => Shape(MapType::LpmTrie, TRIE_BITS + size_of::<AclKey>(), index),
        RATES => Shape(MapType::Array, index, size_of::<RateEntry>()),
        SERVICE_BUCKETS => Shape(MapType::Array, index, size_of::<u64>()),
        SOURCE_BUCKETS => Shape(MapType::LruHash, size_of::<BucketKey>(), size_of::<u64>()),
        FRAGMENTS => Shape(MapType::LruHash, size_of::<FragmentKey>(), size_of::<FragmentEntry>()),
        QUIC_IDS => Shape(MapType::Hash, size_of::<QuicKey>(), index),
        STAGES => Shape(MapType::ProgramArray, index, index),
        SAMPLER => Shape(MapType::Array, index, size_of::<SampleFilter>()),
        SAMPLES => Shape(MapType::RingBuf, 0, 0),
        SERVICE_DROPS | REASONS => Shape(MapType::PerCpuArray, index, size_of::<u64>()),
        _ => Shape(MapType::Array, index, size_of::<Control>()),
    }
}

/// Opens a pin and checks that it is what its name says: neither the kernel nor aya does.
pub(super) fn open(pins: &Pins, name: &'static str) -> Result<MapData, Error> {
    let map = MapData::from_pin(pins.map(name)).map_err(Error::map(name))?;
    let info = map.info().map_err(Error::map(name))?;
    let Shape(kind, key, value) = shape(name);
    let found = info.map_type().map_err(Error::map(name))?;
    let misfit = |difference: String| Error::Misfit { map: name.to_owned(), difference };
    if found != kind {
        return Err(misfit(format!("it is of type {found:?}, not {kind:?}")));
    }
    for (what, found, wanted) in [("keys", info.key_size(), key), ("values", info.value_size(), value)] {
        if found as usize != wanted {
            return Err(misfit(format!("its {what} have {found} bytes, not {wanted}")));
        }
    }
    Ok(map)
}

fn entries(map: &MapData, name: &'static str) -> Result<u32, Error> {
    Ok(map.info().map_err(Error::map(name))?.max_entries())
}

fn words(pins: &Pins, name: &'static str, map: MapData, count: usize) -> Result<Words, Error> {
    Words::map(map.fd(), count).map_err(|source| Error::File {
        action: "mapping",
        path: pins.map(name),
        source,
    })
}

/// The words of [`CONTROL`].
pub(super) fn control(pins: &Pins) -> Result<Words, Error> {
    words(pins, CONTROL, open(pins, CONTROL)?, size_of::<Control>() / 8)
}

impl Maps {
    /// What is in force.
    pub(super) fn control(&self) -> Control {
        Control::from_words(std::array::from_fn(|word| self.control.load(word)))
    }

    /// Replaces it, in the order of the words, but for who samples.
    pub(super) fn put_control(&self, control: &Control) {
        for (word, value) in control.words().into_iter().enumerate().take(Control::SAMPLING_WORD) {
            self.control.store(word, value);
        }
    }

    /// Opens all pins. `None` where there is no data plane; an error where there is one that does not fit.
    pub(super) fn open(pins: &Pins) -> Result<Option<Self>, Error> {
        if !pins.map(CONTROL).exists() {
            return Ok(None);
        }
        let control = control(pins)?;
        let version = Control::from_words(std::array::from_fn(|word| control.load(word))).abi_version;
        // Zero: created, and its maker died before it wrote anything.
        if version != ABI_VERSION && version != 0 {
            let difference = format!("ABI version {version}, not {ABI_VERSION}");
            return Err(Error::Misfit { map: CONTROL.to_owned(), difference });
        }
        Self::assemble(pins, control).map(Some)
    }

    fn assemble(pins: &Pins, control: Words) -> Result<Self, Error> {
        use aya::maps::Map;
        let mut all: std::collections::BTreeMap<&'static str, MapData> = Default::default();
        for name in BALANCER_MAPS {
            all.insert(name, open(pins, name)?);
        }
        let mut take = |name: &'static str| all.remove(name).ok_or(Error::Missing(name));
        let (services, vips, rings, backends) = (take(SERVICES)?, take(VIPS)?, take(RINGS)?, take(BACKENDS)?);
        let (ports, rates, affinity) = (take(PORTS)?, take(RATES)?, take(AFFINITY)?);
        let flows = FlowMaps::open(&mut take)?;
        let [tcp_flows, udp_flows] = flows.sizes();
        let size = Size {
            services: entries(&rates, RATES)?,
            keys: entries(&services, SERVICES)?,
            vips: entries(&vips, VIPS)?,
            ring_slots: entries(&rings, RINGS)?,
            backends: entries(&backends, BACKENDS)?.saturating_sub(1),
            ports: entries(&ports, PORTS)?.saturating_sub(1),
            tcp_flows,
            udp_flows,
            affinity: entries(&affinity, AFFINITY)?,
        };
        let words = |name: &'static str, map: MapData, count: usize| words(pins, name, map, count);
        Ok(Self {
            control,
            services: HashMap::try_from(Map::HashMap(services)).map_err(Error::map(SERVICES))?,
            vips: HashMap::try_from(Map::HashMap(vips)).map_err(Error::map(VIPS))?,
            rings: words(RINGS, rings, size.ring_slots as usize)?,
            backends: words(BACKENDS, backends, (size.backends as usize + 1) * BACKEND_WORDS)?,
            ports: Array::try_from(Map::Array(ports)).map_err(Error::map(PORTS))?,
            egress: DevMap::try_from(Map::DevMap(take(EGRESS)?)).map_err(Error::map(EGRESS))?,
            flows,
            policies: PolicyMaps {
                policies: words(
                    POLICIES,
                    take(POLICIES)?,
                    size.services as usize * policy_maps::POLICY_WORDS,
                )?,
                loads: words(LOADS, take(LOADS)?, (size.backends as usize + 1) * policy_maps::LOAD_WORDS)?,
            },
            affinity: HashMap::try_from(Map::LruHashMap(affinity)).map_err(Error::map(AFFINITY))?,
            backend_counters: PerCpuArray::try_from(Map::PerCpuArray(take(BACKEND_COUNTERS)?))
                .map_err(Error::map(BACKEND_COUNTERS))?,
            service_drops: PerCpuArray::try_from(Map::PerCpuArray(take(SERVICE_DROPS)?))
                .map_err(Error::map(SERVICE_DROPS))?,
            reasons: PerCpuArray::try_from(Map::PerCpuArray(take(REASONS)?)).map_err(Error::map(REASONS))?,
            prefixes: LpmTrie::try_from(Map::LpmTrie(take(PREFIXES)?)).map_err(Error::map(PREFIXES))?,
            ranges: LpmTrie::try_from(Map::LpmTrie(take(RANGES)?)).map_err(Error::map(RANGES))?,
            acl: LpmTrie::try_from(Map::LpmTrie(take(ACL)?)).map_err(Error::map(ACL))?,
            rates: Array::try_from(Map::Array(rates)).map_err(Error::map(RATES))?,
            quic: HashMap::try_from(Map::HashMap(take(QUIC_IDS)?)).map_err(Error::map(QUIC_IDS))?,
            size,
        })
    }

    /// The number of an interface's port.
    pub(super) fn port_of(&self, ifindex: u32) -> Result<Option<u16>, Error> {
        for number in 1..=self.size.ports {
            if self.ports.get(&number, 0).map_err(Error::map(PORTS))?.ifindex == ifindex {
                return Ok(Some(number as u16));
            }
        }
        Ok(None)
    }

    /// A backend's entry; all zero if the id is out of range.
    pub(super) fn backend(&self, id: u32) -> BackendEntry {
        let start = id as usize * BACKEND_WORDS;
        BackendEntry::from_words(std::array::from_fn(|word| self.backends.load(start + word)))
    }
}

/// The pinned table of programs that the attached ones go on with.
pub(super) fn stages(pins: &Pins) -> Result<ProgramArray<MapData>, Error> {
    let map = aya::maps::Map::ProgramArray(open(pins, STAGES)?);
    ProgramArray::try_from(map).map_err(Error::map(STAGES))
}
