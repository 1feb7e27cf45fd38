//! The balancer's maps, and the engine's view of them.
//!
//! Capacities here are placeholders: the loader sets the real ones (see `dataplane::capacity`).

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, DevMap, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf, lpm_trie::Key},
};
use aya_log_ebpf::warn;
use lb_common::abi::*;
use lb_common::datapath::{Recorded, Tables, Work};
use lb_ebpf::atomic_add;

use crate::{flows, memory, sampling};

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static SERVICES: HashMap<ServiceKey, ServiceEntry> = HashMap::with_max_entries(1, 0);
#[map]
static VIPS: HashMap<VipKey, VipEntry> = HashMap::with_max_entries(1, 0);
#[map]
static RINGS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static BACKENDS: Array<BackendEntry> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static PORTS: Array<PortEntry> = Array::with_max_entries(1, 0);
#[map]
pub static EGRESS: DevMap = DevMap::with_max_entries(1, 0);
#[map]
static BACKEND_COUNTS: PerCpuArray<BackendCounters> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SERVICE_DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASON_SLOTS, 0);
#[map]
static PROBES: Array<ProbeEntry> = Array::with_max_entries(PROBE_SLOTS, BPF_F_MMAPABLE);

#[map]
static PREFIXES: LpmTrie<PrefixKey, PrefixEntry> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static RANGES: LpmTrie<RangeKey, ServiceEntry> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static ACL: LpmTrie<AclKey, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static RATES: Array<RateEntry> = Array::with_max_entries(1, 0);
#[map]
static SERVICE_BUCKETS: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static SOURCE_BUCKETS: LruHashMap<BucketKey, u64> = LruHashMap::with_max_entries(1, 0);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry> = LruHashMap::with_max_entries(1, 0);
#[map]
static QUIC_IDS: HashMap<QuicKey, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
pub static STAGES: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub static SAMPLER: Array<SampleFilter> = Array::with_max_entries(1, 0);
#[map]
pub static SAMPLES: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Memory of the packet of this CPU that is under way.
#[map]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Number of the port this instance is attached to: the loader sets it, the verifier folds it.
#[unsafe(no_mangle)]
static INGRESS_PORT: u16 = 0;

/// A key on the stack, where the kernel refuses unaligned stores.
#[repr(align(8))]
struct Aligned<T>(T);

/// This CPU's memory for a packet.
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    let work = WORK.get_ptr_mut(0)?;
    // SAFETY: the kernel gave us this CPU's element, zeroed at first, which is a valid value; XDP programs are not
    // preempted by each other on a CPU.
    Some(unsafe { &mut *work })
}

/// The epoch of what packets may remember; `None` while keys change.
#[inline(always)]
fn epoch() -> Option<u64> {
    let control = CONTROL.get(0)?;
    // SAFETY: a field of an array element. Volatile: it is read once, and before anything is looked up.
    let epoch = unsafe { read_volatile(&raw const control.epoch) };
    if epoch & 1 == 0 { Some(epoch) } else { None }
}

/// The maps above as the engine's tables; `NOTED`: what is counted is noted for a sample too, and, as speed is not what
/// such programs are for, nothing is remembered.
pub struct Maps<const NOTED: bool>;

/// Adds `n` to a counter of this CPU's own.
#[inline(always)]
fn add(counter: &mut u64, n: u64) {
    *counter = counter.wrapping_add(n);
}

/// Adds one to a counter; whether it was the first on this CPU.
#[inline(always)]
fn bump(map: &PerCpuArray<u64>, index: u32) -> bool {
    let Some(counter) = map.get_ptr_mut(index) else {
        return false;
    };
    // SAFETY: the kernel gave us this CPU's element; XDP programs are not preempted by each other on a CPU.
    let counter = unsafe { &mut *counter };
    add(counter, 1);
    *counter == 1
}

/// Tells the daemon's log of the first drop of its kind, which is often the first sign of a mistake in the set-up. Each
/// CPU tells once per service and reason: a flood of drops is a flood of counts, not of log lines.
#[inline(never)]
fn tell(service: u32, reason: Reason) {
    match reason {
        Reason::NoBackend => {
            warn!((), "service id {}: a packet found no backend, dropped (no_backend)", service)
        }
        Reason::NoNextHop => {
            warn!((), "service id {}: a backend has no next hop, dropped (no_next_hop)", service)
        }
        Reason::TooBig => {
            warn!((), "service id {}: a packet exceeds the egress MTU, dropped (too_big)", service)
        }
        Reason::NoHeadroom => {
            warn!((), "service id {}: no room for an outer header, dropped (no_headroom)", service)
        }
        _ => {}
    }
}

impl<const NOTED: bool> Tables for Maps<NOTED> {
    #[inline(always)]
    fn control(&self) -> Option<&Control> {
        CONTROL.get(0)
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        let look = || {
            // SAFETY: read at once; userspace reuses neither rings nor ids while packets may still name them.
            unsafe { SERVICES.get(key) }
        };
        if NOTED { look() } else { memory::service(key, epoch(), look) }
    }

    #[inline(always)]
    fn range(&self, key: &RangeKey) -> Option<&ServiceEntry> {
        RANGES.get(&Aligned(Key::new(RangeKey::BITS, *key)).0)
    }

    #[inline(always)]
    fn prefix(&self, address: &[u8; 16]) -> Option<PrefixEntry> {
        PREFIXES.get(&Aligned(Key::new(PrefixKey::BITS, PrefixKey::new(*address))).0).copied()
    }

    #[inline(always)]
    fn quic_backend(&self, key: &QuicKey) -> Option<BackendId> {
        // SAFETY: copied at once; an aliased element is caught by the backend's service.
        unsafe { QUIC_IDS.get(key) }.copied().and_then(BackendId::new)
    }

    #[inline(always)]
    fn acl(&self, key: &AclKey) -> Option<AclVerdict> {
        ACL.get(&Aligned(Key::new(AclKey::LIST_BITS + 128, *key)).0).copied().map(AclVerdict::from_raw)
    }

    #[inline(always)]
    fn rates(&self, service: u32) -> Option<&RateEntry> {
        RATES.get(service)
    }

    #[inline(always)]
    fn service_bucket(&self, index: u32) -> Option<u64> {
        let bucket = SERVICE_BUCKETS.get_ptr(index)?;
        // SAFETY: an array element lives as long as its map. Volatile: other CPUs write it.
        Some(unsafe { read_volatile(bucket) })
    }

    #[inline(always)]
    fn set_service_bucket(&self, index: u32, time_ns: u64) {
        if let Some(bucket) = SERVICE_BUCKETS.get_ptr_mut(index) {
            // SAFETY: an array element lives as long as its map. Volatile: other CPUs read it.
            unsafe { write_volatile(bucket, time_ns) };
        }
    }

    #[inline(always)]
    fn add_service_bucket(&self, index: u32, time_ns: u64) {
        if let Some(bucket) = SERVICE_BUCKETS.get_ptr_mut(index) {
            // SAFETY: an array element lives as long as its map, and is aligned.
            unsafe { atomic_add(bucket, time_ns) };
        }
    }

    #[inline(always)]
    fn bucket(&self, key: &BucketKey) -> Option<u64> {
        // SAFETY: copied at once; an aliased element is somebody else's schedule for one packet.
        unsafe { SOURCE_BUCKETS.get(key) }.copied()
    }

    #[inline(always)]
    fn set_bucket(&self, key: &BucketKey, time_ns: u64) {
        // A full LRU evicts; nothing else can fail.
        let _begins_anew = SOURCE_BUCKETS.insert(key, time_ns, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn add_bucket(&self, key: &BucketKey, time_ns: u64) {
        if let Some(bucket) = SOURCE_BUCKETS.get_ptr_mut(key) {
            // SAFETY: the kernel gave us an element, which is aligned.
            unsafe { atomic_add(bucket, time_ns) };
        }
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        // SAFETY: copied at once; an aliased element is caught by its age, or sends one fragment elsewhere.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn record_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) {
        // A full LRU evicts; nothing else can fail.
        let _later_ones_are_dropped = FRAGMENTS.insert(key, entry, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey) -> Option<VipEntry> {
        let look = || {
            // SAFETY: copied at once; the worst an aliased element does is another VIP's flags for a packet, or while a
            // key's deletion is under way, which nobody remembers.
            unsafe { VIPS.get(key) }.copied()
        };
        if NOTED { look() } else { memory::vip(key, epoch(), look) }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        let word = RINGS.get_ptr(index)?;
        // SAFETY: an array element lives as long as its map. Volatile: one aligned load, not to be repeated.
        Some(Slot(unsafe { read_volatile(word) }))
    }

    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<&BackendEntry> {
        BACKENDS.get(id.get())
    }

    #[inline(always)]
    fn port(&self, number: u16) -> Option<&PortEntry> {
        PORTS.get(u32::from(number))
    }

    #[inline(always)]
    fn probe(&self, slot: u32) -> Option<&ProbeEntry> {
        PROBES.get(slot)
    }

    #[inline(always)]
    fn ingress(&self) -> u16 {
        // SAFETY: a static of our own; volatile, because the loader changes it after compilation.
        unsafe { read_volatile(&raw const INGRESS_PORT) }
    }

    #[inline(always)]
    fn flow(&self, table: FlowTable, key: &FlowKey) -> Option<FlowEntry> {
        flows::flow(table, key)
    }

    #[inline(always)]
    fn record_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry) -> Recorded {
        flows::record(table, key, entry)
    }

    #[inline(always)]
    fn correct_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry) {
        flows::correct(table, key, entry);
    }

    #[inline(always)]
    fn touch_flow(&self, table: FlowTable, key: &FlowKey, now_ns: u64) {
        flows::touch(table, key, now_ns);
    }

    #[inline(always)]
    fn forget_flow(&self, table: FlowTable, key: &FlowKey) {
        flows::forget(table, key);
    }

    #[inline(always)]
    fn policy(&self, service: u32) -> Option<PolicyEntry> {
        flows::policy(service)
    }

    #[inline(always)]
    fn turn(&self, service: u32) -> u64 {
        flows::turn(service)
    }

    #[inline(always)]
    fn load(&self, backend: BackendId) -> Option<LoadEntry> {
        flows::load(backend)
    }

    #[inline(always)]
    fn add_load(&self, backend: BackendId, added: i64) {
        flows::add_load(backend, added);
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry> {
        flows::affinity(key)
    }

    #[inline(always)]
    fn set_affinity(&self, key: &AffinityKey, entry: &AffinityEntry) {
        flows::set_affinity(key, entry);
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        if NOTED {
            sampling::note(None, None, Some(reason));
        }
        let _first = bump(&REASONS, reason as u32);
    }

    #[inline(always)]
    fn count_drop(&self, service: u32, reason: Reason) {
        if NOTED {
            sampling::note(Some(service), None, Some(reason));
        }
        if bump(&SERVICE_DROPS, service.wrapping_mul(REASON_SLOTS).wrapping_add(reason as u32)) {
            tell(service, reason);
        }
    }

    #[inline(always)]
    fn count_note(&self, service: u32, reason: Reason) {
        let _first = bump(&SERVICE_DROPS, service.wrapping_mul(REASON_SLOTS).wrapping_add(reason as u32));
    }

    #[inline(always)]
    fn count_forward(&self, backend: BackendId, bytes: u32, flows: u64) {
        if NOTED {
            let service = BACKENDS.get(backend.get()).map(|entry| entry.service);
            sampling::note(service, Some(backend), None);
        }
        if let Some(counters) = BACKEND_COUNTS.get_ptr_mut(backend.get()) {
            // SAFETY: the kernel gave us this CPU's element; XDP programs are not preempted by each other on a CPU.
            let counters = unsafe { &mut *counters };
            add(&mut counters.packets, 1);
            add(&mut counters.bytes, u64::from(bytes));
            add(&mut counters.flows, flows);
        }
    }
}
