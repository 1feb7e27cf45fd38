//! The backend's decapsulator: an XDP program around `lb_common::datapath::decapsulate`.
//!
//! Capacities here are placeholders: the loader sets the real ones.
#![no_std]
#![no_main]

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::{map, xdp},
    maps::{HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
    programs::XdpContext,
};
use lb_common::abi::*;
use lb_common::datapath::{DecapTables, decapsulate};
use lb_common::wire::ethernet::Mac;
use lb_ebpf::{action, frame::XdpFrame};

lb_ebpf::license!();

#[map]
static DECAP_VIPS: HashMap<VipKey, u32> = HashMap::with_max_entries(1, 0);
#[map]
static DECAP_SOURCES: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static DECAP_REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASON_SLOTS, 0);

/// MAC address of the interface this instance is attached to: the loader sets it.
#[unsafe(no_mangle)]
static OWN_MAC: Mac = [0; 6];

#[xdp(frags)]
fn lb_decap(context: XdpContext) -> u32 {
    action(decapsulate(&mut XdpFrame::new(context), &Maps))
}

/// The maps above as the engine's tables.
struct Maps;

impl DecapTables for Maps {
    #[inline(always)]
    fn own_mac(&self) -> Mac {
        // SAFETY: a static of our own; volatile, because the loader changes it after compilation.
        unsafe { read_volatile(&raw const OWN_MAC) }
    }

    #[inline(always)]
    fn source_allowed(&self, address: [u8; 16]) -> bool {
        DECAP_SOURCES.get(Key::new(128, address)).is_some()
    }

    #[inline(always)]
    fn destination_allowed(&self, key: &VipKey) -> bool {
        DECAP_VIPS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn count(&self, reason: DecapReason) {
        if let Some(counter) = DECAP_REASONS.get_ptr_mut(reason as u32) {
            // SAFETY: the kernel gave us this CPU's element; XDP programs are not preempted by each other on a CPU.
            let counter = unsafe { &mut *counter };
            *counter = counter.wrapping_add(1);
        }
    }
}
