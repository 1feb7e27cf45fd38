//! The balancer: an XDP program around `lb_common::datapath::process`, and the maps it works on.
//!
//! Capacities here are placeholders: the loader sets the real ones (see `dataplane::capacity`).
#![no_std]
#![no_main]

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST, xdp_action},
    helpers::bpf_ktime_get_ns,
    macros::{map, xdp},
    maps::{Array, DevMap, HashMap, LruHashMap, PerCpuArray},
    programs::XdpContext,
};
use aya_log_ebpf::warn;
use lb_common::abi::*;
use lb_common::datapath::{Tables, Verdict, probe, process};
use lb_ebpf::{action, frame::XdpFrame};

lb_ebpf::license!();

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, 0);
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
static EGRESS: DevMap = DevMap::with_max_entries(1, 0);
#[map]
static FLOWS: LruHashMap<FlowKey, FlowEntry> = LruHashMap::with_max_entries(1, 0);
#[map]
static BACKEND_COUNTS: PerCpuArray<BackendCounters> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SERVICE_DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASON_SLOTS, 0);
#[map]
static PROBES: Array<ProbeEntry> = Array::with_max_entries(PROBE_SLOTS, BPF_F_MMAPABLE);

/// Number of the port this instance is attached to: the loader sets it, the verifier folds it.
#[unsafe(no_mangle)]
static INGRESS_PORT: u16 = 0;

#[xdp(frags)]
fn lb_balancer(context: XdpContext) -> u32 {
    act(process(&mut XdpFrame::new(context), &Maps))
}

/// Where the prober's packets come out of its namespace.
#[xdp(frags)]
fn lb_probe(context: XdpContext) -> u32 {
    act(probe(&mut XdpFrame::new(context), &Maps))
}

#[inline(always)]
fn act(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass => action(VerdictKind::Pass),
        Verdict::Drop => action(VerdictKind::Drop),
        Verdict::Transmit => action(VerdictKind::Transmit),
        Verdict::Redirect(port) => {
            EGRESS.redirect(u32::from(port), u64::from(xdp_action::XDP_DROP)).unwrap_or(xdp_action::XDP_DROP)
        }
    }
}

/// The maps above as the engine's tables.
struct Maps;

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

impl Tables for Maps {
    #[inline(always)]
    fn control(&self) -> Option<Control> {
        CONTROL.get(0).copied()
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<ServiceEntry> {
        // SAFETY: copied at once; userspace reuses neither rings nor ids while packets may still name them.
        unsafe { SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey) -> Option<VipEntry> {
        // SAFETY: copied at once; the worst an aliased element does is another VIP's flags for one packet.
        unsafe { VIPS.get(key) }.copied()
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        let word = RINGS.get_ptr(index)?;
        // SAFETY: an array element lives as long as its map. Volatile: one aligned load, not to be repeated.
        Some(Slot(unsafe { read_volatile(word) }))
    }

    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<BackendEntry> {
        BACKENDS.get(id.get()).copied()
    }

    #[inline(always)]
    fn port(&self, number: u16) -> Option<PortEntry> {
        PORTS.get(u32::from(number)).copied()
    }

    #[inline(always)]
    fn probe(&self, slot: u32) -> Option<ProbeEntry> {
        PROBES.get(slot).copied()
    }

    #[inline(always)]
    fn ingress(&self) -> u16 {
        // SAFETY: a static of our own; volatile, because the loader changes it after compilation.
        unsafe { read_volatile(&raw const INGRESS_PORT) }
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowEntry> {
        // SAFETY: copied at once; an aliased element is caught by its service id, or sends one packet elsewhere.
        unsafe { FLOWS.get(key) }.copied()
    }

    #[inline(always)]
    fn record_flow(&self, key: &FlowKey, entry: &FlowEntry) {
        // Another CPU may have recorded the same flow just now: then its entry stands.
        let _already_recorded = FLOWS.insert(key, entry, u64::from(BPF_NOEXIST));
    }

    #[inline(always)]
    fn correct_flow(&self, key: &FlowKey, entry: &FlowEntry) {
        // A full LRU evicts; nothing else can fail, and an uncorrected record is corrected by the next packet.
        let _corrected_later = FLOWS.insert(key, entry, 0);
    }

    #[inline(always)]
    fn touch_flow(&self, key: &FlowKey, now_ns: u64) {
        if let Some(entry) = FLOWS.get_ptr_mut(key) {
            // SAFETY: the kernel gave us an element; on one reused meanwhile the next touch mends the stamp.
            let entry = unsafe { &mut *entry };
            entry.last_seen_ns = now_ns;
        }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        let _first = bump(&REASONS, reason as u32);
    }

    #[inline(always)]
    fn count_drop(&self, service: u32, reason: Reason) {
        if bump(&SERVICE_DROPS, service.wrapping_mul(REASON_SLOTS).wrapping_add(reason as u32)) {
            tell(service, reason);
        }
    }

    #[inline(always)]
    fn count_forward(&self, backend: BackendId, bytes: u16, flows: u64) {
        if let Some(counters) = BACKEND_COUNTS.get_ptr_mut(backend.get()) {
            // SAFETY: the kernel gave us this CPU's element; XDP programs are not preempted by each other on a CPU.
            let counters = unsafe { &mut *counters };
            add(&mut counters.packets, 1);
            add(&mut counters.bytes, u64::from(bytes));
            add(&mut counters.flows, flows);
        }
    }
}
