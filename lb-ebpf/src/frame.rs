//! An XDP context as a [`Frame`].

use core::arch::asm;
use core::ptr::{null_mut, read_unaligned, read_volatile, write_unaligned};

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
    },
    programs::XdpContext,
};
use lb_common::abi::SAMPLE_BYTES;
use lb_common::datapath::Frame;
use lb_common::wire::checksum;

/// Bounds every offset for the verifier; no header of ours lies further in.
const MAX_OFFSET: usize = 0x3fff;

/// The frame behind an XDP context.
pub struct XdpFrame {
    context: XdpContext,
}

/// A number of which the verifier sees where it is used that it is at most `MAX`, all ones in binary. To the compiler
/// this is any number: it would otherwise compare one copy and use another, and Linux 6.1 does not see that they are
/// related. An instruction, because LLVM gives an empty one a line of its own in the debug information, and the kernel
/// refuses two lines at one place.
#[inline(always)]
fn bounded<const MAX: usize>(mut number: usize) -> usize {
    const { assert!((MAX + 1).is_power_of_two()) }
    // SAFETY: it changes nothing but its register.
    unsafe {
        asm!(
            "{number} &= {max}",
            number = inout(reg) number,
            max = const MAX,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
    number
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
        let at = start + bounded::<MAX_OFFSET>(offset);
        (at + N <= end).then_some(at as *mut [u8; N])
    }

    /// Length of the whole frame in bytes, all its buffers included.
    #[inline(always)]
    pub fn whole_len(&self) -> usize {
        // SAFETY: the context is the kernel's.
        unsafe { bpf_xdp_get_buff_len(self.context.as_ptr().cast()) as usize }
    }

    /// Copies the beginning of the frame; how many bytes.
    #[inline(always)]
    pub fn copy_to(&self, to: &mut [u8; SAMPLE_BYTES]) -> u32 {
        let Some(last) = self.whole_len().min(SAMPLE_BYTES).checked_sub(1) else {
            return 0;
        };
        // Linux 6.1 wants to see that it is not zero.
        let len = bounded::<{ SAMPLE_BYTES - 1 }>(last) as u32 + 1;
        // SAFETY: the buffer has SAMPLE_BYTES bytes, and `len` is at most that.
        let refused =
            unsafe { bpf_xdp_load_bytes(self.context.as_ptr().cast(), 0, to.as_mut_ptr().cast(), len) };
        if refused == 0 { len } else { 0 }
    }

    /// The context, for a tail call.
    #[inline(always)]
    pub fn context(&self) -> &XdpContext {
        &self.context
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
        self.whole_len() >= len
    }

    #[inline(always)]
    fn sum<const N: usize>(&self, offset: usize) -> Option<u16> {
        let window = self.window::<N>(offset)?;
        // SAFETY: `window` has checked that N bytes from here on are packet data; nothing is subtracted.
        let sum = unsafe { bpf_csum_diff(null_mut(), 0, window.cast(), N as u32, 0) };
        // The helper adds words as they lie in memory (net/core/filter.c).
        (sum >= 0).then(|| u16::from_be(checksum::fold(sum as u32)))
    }

    #[inline(always)]
    fn grow_front(&mut self, by: i32) -> Option<()> {
        // SAFETY: the context is the kernel's; every pointer into the packet is computed anew after this call.
        let refused = unsafe { bpf_xdp_adjust_head(self.context.as_ptr().cast(), -by) };
        (refused == 0).then_some(())
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) -> Option<()> {
        let whole = self.whole_len();
        if whole == len {
            return Some(());
        }
        if len > whole {
            return None;
        }
        // SAFETY: the context is the kernel's; every pointer into the packet is computed anew after this call.
        let refused = unsafe { bpf_xdp_adjust_tail(self.context.as_ptr().cast(), len as i32 - whole as i32) };
        (refused == 0).then_some(())
    }
}
