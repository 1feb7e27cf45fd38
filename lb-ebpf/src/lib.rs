//! Adapters between the kernel and `lb_common::datapath`, shared by the programs in `src/bin`: no decision is made here.
#![no_std]
#![feature(asm_experimental_arch)]

pub mod bench;
pub mod frame;
pub mod skb;

use core::arch::asm;

use aya_ebpf::bindings::xdp_action;
use lb_common::abi::VerdictKind;

/// Licence under which the kernel loads the programs: GPL-only helpers are open to them.
#[macro_export]
macro_rules! license {
    () => {
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

        #[panic_handler]
        fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
            loop {}
        }
    };
}

/// The XDP action for a verdict.
#[inline(always)]
pub const fn action(verdict: VerdictKind) -> u32 {
    match verdict {
        VerdictKind::Pass => xdp_action::XDP_PASS,
        VerdictKind::Drop => xdp_action::XDP_DROP,
        VerdictKind::Transmit => xdp_action::XDP_TX,
    }
}

/// Adds to a word of a map that other CPUs add to as well: none of them is lost. The compiler's own atomics are not
/// there for this target.
///
/// # Safety
/// `word` is a valid, aligned map value.
#[inline(always)]
pub unsafe fn atomic_add(word: *mut u64, n: u64) {
    // SAFETY: one instruction, on memory that the caller vouches for.
    unsafe { asm!("lock *(u64 *)({word} + 0) += {n}", word = in(reg) word, n = in(reg) n) }
}
