//! Adapters between the kernel and `lb_common::datapath`, shared by the programs in `src/bin`: no decision is made here.
#![no_std]

pub mod bench;
pub mod frame;

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
