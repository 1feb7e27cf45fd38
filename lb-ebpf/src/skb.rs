//! A socket buffer on its way out as a [`Frame`] to be read. Bytes are fetched by the kernel's helpers, because a segment
//! need not lie in the buffer's linear part.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::TcContext,
};
use lb_common::datapath::{Frame, Lower};

/// The frame behind a tc context.
pub struct SkbFrame {
    skb: *mut __sk_buff,
}

impl SkbFrame {
    /// Wraps a context as the kernel handed it to the program.
    #[inline(always)]
    pub fn new(context: TcContext) -> Self {
        Self { skb: context.skb.skb }
    }

    /// Writes an MSS. The checksum first: the kernel knows whether it is there, or is left to the network card
    /// (`CHECKSUM_PARTIAL`), which computes it over the new value.
    #[inline(always)]
    pub fn lower(&mut self, change: &Lower) -> Option<()> {
        let (from, to) = (u16::from_ne_bytes(change.before), u16::from_ne_bytes(change.after));
        let size = size_of::<u16>();
        // SAFETY: the context is the kernel's; the helper checks the offset.
        let refused = unsafe {
            bpf_l4_csum_replace(self.skb, change.checksum_at as u32, from.into(), to.into(), size as u64)
        };
        if refused != 0 {
            return None;
        }
        self.store(change.at, change.mss)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let from = (&raw const bytes).cast::<c_void>();
        // SAFETY: `bytes` has N bytes; the helper checks the offset.
        let refused = unsafe { bpf_skb_store_bytes(self.skb, offset as u32, from, N as u32, 0) };
        (refused == 0).then_some(())
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        let to = bytes.as_mut_ptr().cast::<c_void>();
        // SAFETY: `bytes` has N bytes; the helper checks the offset.
        let refused = unsafe { bpf_skb_load_bytes(self.skb.cast(), offset as u32, to, N as u32) };
        if refused != 0 {
            return None;
        }
        // SAFETY: the helper has filled all of it.
        Some(unsafe { bytes.assume_init() })
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        self.store(offset, bytes)
    }

    #[inline(always)]
    fn holds(&self, len: usize) -> bool {
        // SAFETY: the kernel hands every program a valid context.
        let skb = unsafe { &*self.skb };
        skb.len as usize >= len
    }

    /// Nobody asks for sums on the way out.
    #[inline(always)]
    fn sum<const N: usize>(&self, _offset: usize) -> Option<u16> {
        None
    }

    /// What leaves keeps its length.
    #[inline(always)]
    fn grow_front(&mut self, _by: i32) -> Option<()> {
        None
    }

    /// What leaves keeps its length.
    #[inline(always)]
    fn truncate(&mut self, _len: usize) -> Option<()> {
        None
    }
}
