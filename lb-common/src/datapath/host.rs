//! The engine's frame and tables in ordinary memory: for tests, and for running packets without a kernel.

extern crate alloc;

use alloc::{collections::BTreeMap, vec, vec::Vec};
use core::cell::{Cell, RefCell};

use zerocopy::IntoBytes;

use super::{DecapTables, Finish, Frame, Recorded, Tables, Verdict, Work, process, sampled, slow};
use crate::abi::*;
use crate::wire::{checksum, ethernet::Mac};

/// Bytes that XDP drivers leave in front of a packet (`XDP_PACKET_HEADROOM`, include/uapi/linux/bpf.h), minus the
/// 40-byte `xdp_frame` that the kernel keeps there (include/net/xdp.h).
const HEADROOM: usize = 256 - 40;
/// The shortest frame that `bpf_xdp_adjust_head` leaves (`ETH_HLEN`, net/core/filter.c).
const SHORTEST: usize = 14;

/// A frame in one buffer.
#[derive(Clone, Debug)]
pub struct HostFrame {
    bytes: Vec<u8>,
    headroom: usize,
}

impl HostFrame {
    /// A frame with as much headroom as a driver leaves.
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), headroom: HEADROOM }
    }

    /// A frame whose driver has left none.
    pub fn without_headroom(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), headroom: 0 }
    }

    /// Its bytes now.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Frame for HostFrame {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk::<N>().copied()
    }

    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        *self.bytes.get_mut(offset..)?.first_chunk_mut::<N>()? = bytes;
        Some(())
    }

    fn holds(&self, len: usize) -> bool {
        self.bytes.len() >= len
    }

    fn sum<const N: usize>(&self, offset: usize) -> Option<u16> {
        self.read::<N>(offset).map(|bytes| checksum::fold(checksum::sum(&bytes)))
    }

    fn grow_front(&mut self, by: i32) -> Option<()> {
        let bytes = by.unsigned_abs() as usize;
        if by < 0 {
            if self.bytes.len() < bytes + SHORTEST {
                return None;
            }
            self.headroom += bytes;
            self.bytes.drain(0..bytes);
        } else {
            self.headroom = self.headroom.checked_sub(bytes)?;
            self.bytes.splice(0..0, vec![0; bytes]);
        }
        Some(())
    }

    fn truncate(&mut self, len: usize) -> Option<()> {
        if len < SHORTEST || len > self.bytes.len() {
            return None;
        }
        self.bytes.truncate(len);
        Some(())
    }
}

/// The verdict is the end of it.
struct Done;

impl Finish for Done {
    type Output = Verdict;

    fn finish(self, verdict: Verdict) -> Verdict {
        verdict
    }
}

/// Runs a frame through all stages, as the kernel does.
pub fn run<T: Tables>(frame: &mut HostFrame, tables: &T) -> Verdict {
    let mut work = Work::new();
    let verdict = match process(frame, tables, &mut work) {
        Verdict::Sampled => sampled(frame, tables, &mut work),
        verdict => verdict,
    };
    match verdict {
        Verdict::Slow => slow(frame, tables, &mut work, Done),
        verdict => verdict,
    }
}

/// The balancer's maps.
#[derive(Clone, Debug, Default)]
pub struct HostTables {
    /// [`Tables::control`].
    pub control: Control,
    /// [`Tables::service`].
    pub services: BTreeMap<ServiceKey, ServiceEntry>,
    /// [`Tables::range`]: keys with the bits of them that count.
    pub ranges: Vec<(RangeKey, u32, ServiceEntry)>,
    /// [`Tables::prefix`]: addresses with their prefix length in bits of the 16-byte form.
    pub prefixes: Vec<([u8; 16], u32, PrefixEntry)>,
    /// [`Tables::acl`]: keys with the bits of them that count.
    pub acl: Vec<(AclKey, u32, AclVerdict)>,
    /// [`Tables::rates`].
    pub rates: BTreeMap<u32, RateEntry>,
    /// [`Tables::service_bucket`].
    pub service_buckets: RefCell<BTreeMap<u32, u64>>,
    /// [`Tables::bucket`].
    pub buckets: RefCell<BTreeMap<BucketKey, u64>>,
    /// [`Tables::fragment`].
    pub fragments: RefCell<BTreeMap<FragmentKey, FragmentEntry>>,
    /// [`Tables::quic_backend`].
    pub quic: BTreeMap<QuicKey, u32>,
    /// [`Tables::vip`].
    pub vips: BTreeMap<VipKey, VipEntry>,
    /// [`Tables::slot`].
    pub rings: Vec<Slot>,
    /// [`Tables::backend`].
    pub backends: BTreeMap<u32, BackendEntry>,
    /// [`Tables::port`].
    pub ports: BTreeMap<u16, PortEntry>,
    /// [`Tables::probe`].
    pub probes: BTreeMap<u32, ProbeEntry>,
    /// [`Tables::ingress`].
    pub ingress: u16,
    /// [`Tables::flow`].
    pub flows: RefCell<BTreeMap<(FlowTable, FlowKey), FlowEntry>>,
    /// [`Tables::policy`].
    pub policies: BTreeMap<u32, PolicyEntry>,
    /// [`Tables::turn`].
    pub turns: RefCell<BTreeMap<u32, u64>>,
    /// [`Tables::load`].
    pub loads: RefCell<BTreeMap<u32, LoadEntry>>,
    /// [`Tables::affinity`].
    pub affinity: RefCell<BTreeMap<AffinityKey, AffinityEntry>>,
    /// [`Tables::now_ns`].
    pub now_ns: Cell<u64>,
    /// Packets by reason.
    pub reasons: RefCell<BTreeMap<u32, u64>>,
    /// Drops by service and reason.
    pub drops: RefCell<BTreeMap<(u32, u32), u64>>,
    /// Forwarded, by backend.
    pub forwarded: RefCell<BTreeMap<u32, BackendCounters>>,
}

/// The entry with the longest prefix of `key`; prefix lengths are in bits.
fn longest<'a, K: 'a, V: 'a>(
    entries: impl IntoIterator<Item = &'a (K, u32, V)>,
    key: &[u8],
    bytes: impl Fn(&'a K) -> &'a [u8],
) -> Option<&'a V> {
    let matches = |own: &[u8], bits: u32| {
        (0..bits).all(|bit| {
            let (at, mask) = (bit as usize / 8, 0x80 >> (bit % 8));
            own.get(at).zip(key.get(at)).is_some_and(|(own, key)| (own ^ key) & mask == 0)
        })
    };
    let found = entries.into_iter().filter(|(own, bits, _)| matches(bytes(own), *bits));
    found.max_by_key(|(_, bits, _)| *bits).map(|(_, _, value)| value)
}

impl Tables for HostTables {
    fn control(&self) -> Option<&Control> {
        Some(&self.control)
    }

    fn service(&self, key: &ServiceKey) -> Option<&ServiceEntry> {
        self.services.get(key)
    }

    fn range(&self, key: &RangeKey) -> Option<&ServiceEntry> {
        longest(&self.ranges, key.as_bytes(), RangeKey::as_bytes)
    }

    fn prefix(&self, address: &[u8; 16]) -> Option<PrefixEntry> {
        longest(&self.prefixes, address, |own| own).copied()
    }

    fn quic_backend(&self, key: &QuicKey) -> Option<BackendId> {
        self.quic.get(key).copied().and_then(BackendId::new)
    }

    fn acl(&self, key: &AclKey) -> Option<AclVerdict> {
        longest(&self.acl, key.as_bytes(), AclKey::as_bytes).copied()
    }

    fn rates(&self, service: u32) -> Option<&RateEntry> {
        self.rates.get(&service)
    }

    fn service_bucket(&self, index: u32) -> Option<u64> {
        Some(self.service_buckets.borrow().get(&index).copied().unwrap_or_default())
    }

    fn set_service_bucket(&self, index: u32, time_ns: u64) {
        self.service_buckets.borrow_mut().insert(index, time_ns);
    }

    fn add_service_bucket(&self, index: u32, time_ns: u64) {
        *self.service_buckets.borrow_mut().entry(index).or_default() += time_ns;
    }

    fn bucket(&self, key: &BucketKey) -> Option<u64> {
        self.buckets.borrow().get(key).copied()
    }

    fn set_bucket(&self, key: &BucketKey, time_ns: u64) {
        self.buckets.borrow_mut().insert(*key, time_ns);
    }

    fn add_bucket(&self, key: &BucketKey, time_ns: u64) {
        if let Some(bucket) = self.buckets.borrow_mut().get_mut(key) {
            *bucket += time_ns;
        }
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentEntry> {
        self.fragments.borrow().get(key).copied()
    }

    fn record_fragment(&self, key: &FragmentKey, entry: &FragmentEntry) {
        self.fragments.borrow_mut().insert(*key, *entry);
    }

    fn vip(&self, key: &VipKey) -> Option<VipEntry> {
        self.vips.get(key).copied()
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.rings.get(index as usize).copied()
    }

    fn backend(&self, id: BackendId) -> Option<&BackendEntry> {
        self.backends.get(&id.get())
    }

    fn port(&self, number: u16) -> Option<&PortEntry> {
        self.ports.get(&number)
    }

    fn probe(&self, slot: u32) -> Option<&ProbeEntry> {
        self.probes.get(&slot)
    }

    fn ingress(&self) -> u16 {
        self.ingress
    }

    fn flow(&self, table: FlowTable, key: &FlowKey) -> Option<FlowEntry> {
        self.flows.borrow().get(&(table, *key)).copied()
    }

    fn record_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry) -> Recorded {
        let mut flows = self.flows.borrow_mut();
        if flows.contains_key(&(table, *key)) {
            return Recorded::Present;
        }
        flows.insert((table, *key), *entry);
        Recorded::New
    }

    fn correct_flow(&self, table: FlowTable, key: &FlowKey, entry: &FlowEntry) {
        if let Some(present) = self.flows.borrow_mut().get_mut(&(table, *key)) {
            *present = *entry;
        }
    }

    fn touch_flow(&self, table: FlowTable, key: &FlowKey, now_ns: u64) {
        if let Some(entry) = self.flows.borrow_mut().get_mut(&(table, *key)) {
            entry.last_seen_ns = now_ns;
        }
    }

    fn forget_flow(&self, table: FlowTable, key: &FlowKey) {
        self.flows.borrow_mut().remove(&(table, *key));
    }

    fn policy(&self, service: u32) -> Option<PolicyEntry> {
        // An array in the kernel: all its elements are there.
        Some(self.policies.get(&service).copied().unwrap_or_default())
    }

    fn turn(&self, service: u32) -> u64 {
        let mut turns = self.turns.borrow_mut();
        let next = turns.entry(service).or_default();
        let turn = *next;
        *next = turn.wrapping_add(1);
        turn
    }

    fn load(&self, backend: BackendId) -> Option<LoadEntry> {
        Some(self.loads.borrow().get(&backend.get()).copied().unwrap_or_default())
    }

    fn add_load(&self, backend: BackendId, flows: i64) {
        let mut loads = self.loads.borrow_mut();
        let entry = loads.entry(backend.get()).or_default();
        entry.load = entry.load.wrapping_add_signed(flows);
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityEntry> {
        self.affinity.borrow().get(key).copied()
    }

    fn set_affinity(&self, key: &AffinityKey, entry: &AffinityEntry) {
        self.affinity.borrow_mut().insert(*key, *entry);
    }

    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn count(&self, reason: Reason) {
        *self.reasons.borrow_mut().entry(reason as u32).or_default() += 1;
    }

    fn count_drop(&self, service: u32, reason: Reason) {
        *self.drops.borrow_mut().entry((service, reason as u32)).or_default() += 1;
    }

    fn count_note(&self, service: u32, reason: Reason) {
        self.count_drop(service, reason);
    }

    fn count_forward(&self, backend: BackendId, bytes: u32, flows: u64) {
        let mut forwarded = self.forwarded.borrow_mut();
        let counters = forwarded.entry(backend.get()).or_default();
        counters.packets += 1;
        counters.bytes += u64::from(bytes);
        counters.flows += flows;
    }
}

/// The decapsulator's maps.
#[derive(Clone, Debug, Default)]
pub struct HostDecapTables {
    /// [`DecapTables::own_mac`].
    pub mac: Mac,
    /// [`DecapTables::gue_port`].
    pub gue_port: u16,
    /// Outer sources: address, prefix length in bits of the 16-byte form, and whether it is accepted.
    pub sources: Vec<([u8; 16], u32, bool)>,
    /// Inner destinations, likewise.
    pub vips: Vec<([u8; 16], u32, bool)>,
    /// Packets by reason.
    pub reasons: RefCell<BTreeMap<u32, u64>>,
}

impl DecapTables for HostDecapTables {
    fn own_mac(&self) -> Mac {
        self.mac
    }

    fn gue_port(&self) -> u16 {
        self.gue_port
    }

    fn source_allowed(&self, address: [u8; 16]) -> bool {
        longest(&self.sources, &address, |own| own) == Some(&true)
    }

    fn destination_allowed(&self, address: [u8; 16]) -> bool {
        longest(&self.vips, &address, |own| own) == Some(&true)
    }

    fn count(&self, reason: DecapReason) {
        *self.reasons.borrow_mut().entry(reason as u32).or_default() += 1;
    }
}
