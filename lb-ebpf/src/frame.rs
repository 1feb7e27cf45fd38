//! An XDP context as a [`Frame`].

use core::ptr::{read_unaligned, read_volatile, write_unaligned};

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len},
    programs::XdpContext,
};
use lb_common::datapath::Frame;

/// Bounds every offset for the verifier; no header of ours lies further in.
const MAX_OFFSET: usize = 0x3fff;

/// The frame behind an XDP context.
pub struct XdpFrame {
    context: XdpContext,
}

impl XdpFrame {
    /// Wraps a context as the kernel handed it to the program.
    #[inline(always)]
    pub fn new(context: XdpContext) -> Self {
        Self { context }
    }

    /// `data` and `data_end` as they are now. Volatile, because LLVM otherwise keeps them across calls that move the
    /// packet, or passes them on as plain integers, and the verifier refuses either.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the kernel hands every XDP program a valid context.
        let md = unsafe { &*self.context.ctx };
        // SAFETY: a reference is valid.
        let start = unsafe { read_volatile(&raw const md.data) };
        // SAFETY: as above.
        let end = unsafe { read_volatile(&raw const md.data_end) };
        (start as usize, end as usize)
    }

    /// Where `N` bytes at `offset` are, if the first buffer has them.
    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let (start, end) = self.bounds();
        (start + offset + N <= end).then_some((start + offset) as *mut [u8; N])
    }

    #[inline(always)]
    fn adjust_head(&mut self, delta: i32) -> Option<()> {
        // SAFETY: the context is the kernel's; every pointer into the packet is computed anew after this call.
        let refused = unsafe { bpf_xdp_adjust_head(self.context.as_ptr().cast(), delta) };
        (refused == 0).then_some(())
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let window = self.window::<N>(offset)?;
        // SAFETY: `window` has checked that N bytes from here on are packet data.
        Some(unsafe { read_unaligned(window) })
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let window = self.window::<N>(offset)?;
        // SAFETY: `window` has checked that N bytes from here on are packet data.
        unsafe { write_unaligned(window, bytes) };
        Some(())
    }

    /// Nearly every frame lies in one buffer: only where that is too short does the helper add up the others.
    #[inline(always)]
    fn holds(&self, len: usize) -> bool {
        let (start, end) = self.bounds();
        if end - start >= len {
            return true;
        }
        // SAFETY: the context is the kernel's.
        let whole = unsafe { bpf_xdp_get_buff_len(self.context.as_ptr().cast()) };
        whole >= len as u64
    }

    #[inline(always)]
    fn grow_front<const N: usize>(&mut self) -> Option<()> {
        self.adjust_head(-(N as i32))
    }

    #[inline(always)]
    fn shrink_front<const N: usize>(&mut self) -> Option<()> {
        self.adjust_head(N as i32)
    }
}
