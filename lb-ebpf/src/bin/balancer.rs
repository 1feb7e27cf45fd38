//! The balancer: XDP programs around `lb_common::datapath`, on the maps of `balancer/maps.rs`.
//!
//! `lb_balancer` is on the interface. It goes on in `lb_slow` where a packet is not of the common kind, and in
//! `lb_sampled` while packets are sampled; `lb_probe` is on the gate of the prober's namespace.
#![no_std]
#![no_main]

#[path = "balancer/flows.rs"]
mod flows;
#[path = "balancer/maps.rs"]
mod maps;
#[path = "balancer/memory.rs"]
mod memory;
#[path = "balancer/sampling.rs"]
mod sampling;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::abi::{Reason, VerdictKind};
use lb_common::datapath::{Finish, Tables as _, Verdict, probe, process, sampled, slow};
use lb_ebpf::{action, frame::XdpFrame};
use maps::{EGRESS, Maps, STAGES, work};

lb_ebpf::license!();

/// Counts only.
const PLAIN: Maps<false> = Maps;
/// Counts, and notes for the sample what it counts.
const NOTED: Maps<true> = Maps;

/// Where an instance's other programs are in [`STAGES`]: at twice the number of its port, and behind that.
#[derive(Clone, Copy)]
enum Stage {
    Slow,
    Sampled,
}

#[xdp(frags)]
fn lb_balancer(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(context);
    let Some(work) = work() else { return no_stage() };
    match process(&mut frame, &PLAIN, work) {
        Verdict::Slow => go_on(&frame, Stage::Slow),
        Verdict::Sampled => go_on(&frame, Stage::Sampled),
        verdict => act(verdict),
    }
}

#[xdp(frags)]
fn lb_slow(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(context);
    let Some(work) = work() else { return no_stage() };
    slow(&mut frame, &NOTED, work, Sampled)
}

#[xdp(frags)]
fn lb_sampled(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(context);
    let Some(work) = work() else { return no_stage() };
    sampling::begin(&frame);
    match sampled(&mut frame, &NOTED, work) {
        Verdict::Slow => go_on(&frame, Stage::Slow),
        verdict => Sampled.finish(verdict),
    }
}

/// Ends the sample, if there is one.
struct Sampled;

impl Finish for Sampled {
    type Output = u32;

    #[inline(always)]
    fn finish(self, verdict: Verdict) -> u32 {
        sampling::end(verdict);
        act(verdict)
    }
}

/// Where the prober's packets come out of its namespace.
#[xdp(frags)]
fn lb_probe(context: XdpContext) -> u32 {
    let Some(work) = work() else { return no_stage() };
    act(probe(&mut XdpFrame::new(context), &PLAIN, work))
}

/// Goes on in another program; what is left where that is not in place.
#[inline(always)]
fn go_on(frame: &XdpFrame, stage: Stage) -> u32 {
    let index = u32::from(PLAIN.ingress()) * 2 + stage as u32;
    // It returns only where the program is missing. SAFETY: nothing here needs to be dropped.
    unsafe { STAGES.tail_call(frame.context(), index) };
    no_stage()
}

#[inline(always)]
fn no_stage() -> u32 {
    PLAIN.count(Reason::NoStage);
    action(Reason::NoStage.verdict())
}

#[inline(always)]
fn act(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass => action(VerdictKind::Pass),
        Verdict::Transmit => action(VerdictKind::Transmit),
        Verdict::Drop | Verdict::Slow | Verdict::Sampled => action(VerdictKind::Drop),
        Verdict::Redirect(port) => {
            EGRESS.redirect(u32::from(port), u64::from(xdp_action::XDP_DROP)).unwrap_or_else(no_egress)
        }
    }
}

/// The interface is not in the devmap.
#[inline(always)]
fn no_egress(_refused: u32) -> u32 {
    PLAIN.count(Reason::NoEgress);
    action(Reason::NoEgress.verdict())
}
