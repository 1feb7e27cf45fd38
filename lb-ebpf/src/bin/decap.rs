//! The backend's side: an XDP program around `lb_common::datapath::decapsulate`, and one for what leaves (tc) around
//! `lb_common::datapath::clamp`.
//!
//! Capacities here are placeholders: the loader sets the real ones.
#![no_std]
#![no_main]

use core::ptr::read_volatile;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, TC_ACT_UNSPEC},
    macros::{classifier, map, xdp},
    maps::{Array, LpmTrie, PerCpuArray, lpm_trie::Key},
    programs::{TcContext, XdpContext},
};
use lb_common::abi::*;
use lb_common::datapath::{Clamp, ClampTables, DecapTables, clamp, decapsulate};
use lb_common::wire::ethernet::Mac;
use lb_ebpf::{action, frame::XdpFrame, skb::SkbFrame};

lb_ebpf::license!();

#[map]
static DECAP_VIPS: LpmTrie<PrefixKey, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static DECAP_SOURCES: LpmTrie<PrefixKey, u32> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static DECAP_REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASON_SLOTS, 0);
#[map]
static CLAMP_REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASON_SLOTS, 0);
#[map]
static CLAMP_MSS: Array<u32> = Array::with_max_entries(2, 0);

/// MAC address of the interface this instance is attached to: the loader sets it.
#[unsafe(no_mangle)]
static OWN_MAC: Mac = [0; 6];

/// UDP port that GUE comes to, 0 where none does: the loader sets it.
#[unsafe(no_mangle)]
static GUE_PORT: u16 = 0;

#[xdp(frags)]
fn lb_decap(context: XdpContext) -> u32 {
    action(decapsulate(&mut XdpFrame::new(context), &Maps))
}

/// Whatever it does, the next program or filter goes on with the packet.
#[classifier]
fn lb_clamp(context: TcContext) -> i32 {
    let mut frame = SkbFrame::new(context);
    match clamp(&frame, &Maps) {
        Clamp::NotOurs => {}
        Clamp::Keep(reason) => bump(&CLAMP_REASONS, reason as u32),
        Clamp::Lower(change) => {
            let reason = frame.lower(&change).map_or(ClampReason::NotWritten, |()| ClampReason::Lowered);
            bump(&CLAMP_REASONS, reason as u32);
        }
    }
    TC_ACT_UNSPEC
}

/// A key on the stack, where the kernel refuses unaligned stores.
#[repr(align(8))]
struct Aligned<T>(T);

/// Whether the longest prefix of an address that a list has is an accepted one.
#[inline(always)]
fn accepted(list: &LpmTrie<PrefixKey, u32>, address: [u8; 16]) -> bool {
    list.get(&Aligned(Key::new(PrefixKey::BITS, PrefixKey::new(address))).0).is_some_and(|value| *value != 0)
}

#[inline(always)]
fn bump(counters: &PerCpuArray<u64>, index: u32) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        // SAFETY: the kernel gave us this CPU's element; a program is not preempted by itself on a CPU.
        let counter = unsafe { &mut *counter };
        *counter = counter.wrapping_add(1);
    }
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
    fn gue_port(&self) -> u16 {
        // SAFETY: as above.
        unsafe { read_volatile(&raw const GUE_PORT) }
    }

    #[inline(always)]
    fn source_allowed(&self, address: [u8; 16]) -> bool {
        accepted(&DECAP_SOURCES, address)
    }

    #[inline(always)]
    fn destination_allowed(&self, address: [u8; 16]) -> bool {
        accepted(&DECAP_VIPS, address)
    }

    #[inline(always)]
    fn count(&self, reason: DecapReason) {
        bump(&DECAP_REASONS, reason as u32);
    }
}

impl ClampTables for Maps {
    #[inline(always)]
    fn is_vip(&self, address: [u8; 16]) -> bool {
        accepted(&DECAP_VIPS, address)
    }

    #[inline(always)]
    fn mss(&self, is_v6: bool) -> u16 {
        CLAMP_MSS.get(u32::from(is_v6)).map_or(u16::MAX, |mss| *mss as u16)
    }
}
