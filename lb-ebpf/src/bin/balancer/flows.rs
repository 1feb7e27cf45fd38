//! The flow tables, and what policies keep.
//!
//! A call of its own for each table: the verifier inlines a lookup only where it knows the map.

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_EXIST, BPF_F_MMAPABLE, BPF_F_NO_COMMON_LRU, BPF_NOEXIST},
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray},
};
use lb_common::abi::*;
use lb_common::datapath::Recorded;
use lb_ebpf::atomic_add;

#[map]
static TCP_HALF_OPEN: LruHashMap<FlowKey, FlowEntry> = LruHashMap::with_max_entries(1, BPF_F_NO_COMMON_LRU);
#[map]
static TCP_ESTABLISHED: LruHashMap<FlowKey, FlowEntry> = LruHashMap::with_max_entries(1, BPF_F_NO_COMMON_LRU);
#[map]
static TCP_OLD: LruHashMap<FlowKey, FlowEntry> = LruHashMap::with_max_entries(1, BPF_F_NO_COMMON_LRU);
#[map]
static UDP_HALF_OPEN: LruHashMap<FlowKey, FlowEntry> = LruHashMap::with_max_entries(1, BPF_F_NO_COMMON_LRU);
#[map]
static UDP_ESTABLISHED: LruHashMap<FlowKey, FlowEntry> = LruHashMap::with_max_entries(1, BPF_F_NO_COMMON_LRU);
#[map]
static UDP_OLD: LruHashMap<FlowKey, FlowEntry> = LruHashMap::with_max_entries(1, BPF_F_NO_COMMON_LRU);
#[map]
static POLICIES: Array<PolicyEntry> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static TURNS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LOADS: Array<LoadEntry> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static AFFINITY: LruHashMap<AffinityKey, AffinityEntry> = LruHashMap::with_max_entries(1, 0);

/// `EEXIST` (include/uapi/asm-generic/errno-base.h), as helpers return it.
const EXISTS: i32 = -17;

/// Does something with the map of a table.
macro_rules! with_table {
    ($table:expr, $key:expr, $map:ident => $done:expr) => {
        match ($table, $key.is_tcp()) {
            (FlowTable::HalfOpen, true) => {
                let $map = &TCP_HALF_OPEN;
                $done
            }
            (FlowTable::Established, true) => {
                let $map = &TCP_ESTABLISHED;
                $done
            }
            (FlowTable::Old, true) => {
                let $map = &TCP_OLD;
                $done
            }
            (FlowTable::HalfOpen, false) => {
                let $map = &UDP_HALF_OPEN;
                $done
            }
            (FlowTable::Established, false) => {
                let $map = &UDP_ESTABLISHED;
                $done
            }
            (FlowTable::Old, false) => {
                let $map = &UDP_OLD;
                $done
            }
        }
    };
}

#[inline(always)]
pub fn flow(table: FlowTable, key: &FlowKey) -> Option<FlowEntry> {
    with_table!(table, key, map => {
        // SAFETY: copied at once; an aliased element is caught by its service id, or sends one packet elsewhere.
        unsafe { map.get(key) }.copied()
    })
}

#[inline(always)]
pub fn record(table: FlowTable, key: &FlowKey, entry: &FlowEntry) -> Recorded {
    match with_table!(table, key, map => map.insert(key, entry, u64::from(BPF_NOEXIST))) {
        Ok(()) => Recorded::New,
        Err(error) if error == EXISTS => Recorded::Present,
        Err(_) => Recorded::Failed,
    }
}

#[inline(always)]
pub fn correct(table: FlowTable, key: &FlowKey, entry: &FlowEntry) {
    // Gone meanwhile: the flow's next packet is as good.
    let _gone = with_table!(table, key, map => map.insert(key, entry, u64::from(BPF_EXIST)));
}

#[inline(always)]
pub fn touch(table: FlowTable, key: &FlowKey, now_ns: u64) {
    if let Some(entry) = with_table!(table, key, map => map.get_ptr_mut(key)) {
        // SAFETY: the kernel gave us an element; on one reused meanwhile the next touch mends the stamp.
        let entry = unsafe { &mut *entry };
        entry.last_seen_ns = now_ns;
    }
}

#[inline(always)]
pub fn forget(table: FlowTable, key: &FlowKey) {
    let _gone = with_table!(table, key, map => map.remove(key));
}

#[inline(always)]
pub fn policy(service: u32) -> Option<PolicyEntry> {
    let entry: *const [u64; 2] = POLICIES.get_ptr(service)?.cast();
    // SAFETY: an array element lives as long as its map, and is two aligned words. Volatile: userspace stores each whole.
    Some(PolicyEntry::from_words(unsafe { read_volatile(entry) }))
}

#[inline(always)]
pub fn turn(service: u32) -> u64 {
    let Some(turns) = TURNS.get_ptr_mut(service) else {
        return 0;
    };
    // SAFETY: the kernel gave us this CPU's element; XDP programs are not preempted by each other on a CPU.
    let turns = unsafe { &mut *turns };
    let turn = *turns;
    *turns = turn.wrapping_add(1);
    turn
}

#[inline(always)]
pub fn load(backend: BackendId) -> Option<LoadEntry> {
    let entry = LOADS.get_ptr(backend.get())?;
    // SAFETY: an array element lives as long as its map. Volatile: other CPUs write it.
    Some(unsafe { read_volatile(entry) })
}

#[inline(always)]
pub fn add_load(backend: BackendId, flows: i64) {
    if let Some(entry) = LOADS.get_ptr_mut(backend.get()) {
        // SAFETY: an array element lives as long as its map; its first word, which is aligned, is the load.
        unsafe { atomic_add(entry.cast::<u64>(), flows as u64) };
    }
}

#[inline(always)]
pub fn affinity(key: &AffinityKey) -> Option<AffinityEntry> {
    // SAFETY: copied at once; an aliased element is caught by its backend's service.
    unsafe { AFFINITY.get(key) }.copied()
}

#[inline(always)]
pub fn set_affinity(key: &AffinityKey, entry: &AffinityEntry) {
    // A full LRU evicts; nothing else can fail.
    let _not_remembered = AFFINITY.insert(key, entry, u64::from(BPF_ANY));
}
