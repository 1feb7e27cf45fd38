//! Sampled packets: a frame as it came is kept aside, with what is counted for it, until its verdict is known.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::PerCpuArray};
use lb_common::abi::{BackendId, Reason, Sample, VerdictKind};
use lb_common::datapath::{Tables as _, Verdict, sample};
use lb_ebpf::frame::XdpFrame;

use crate::PLAIN;
use crate::maps::{SAMPLER, SAMPLES};

/// The packet of this CPU that is under way; `captured` is 0 while there is none.
#[map]
static SCRATCH: PerCpuArray<Sample> = PerCpuArray::with_max_entries(1, 0);
/// Packets of this CPU that matched the filter.
#[map]
static MATCHED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
fn scratch() -> Option<&'static mut Sample> {
    let sample = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the kernel gave us this CPU's element; XDP programs are not preempted by each other on a CPU.
    Some(unsafe { &mut *sample })
}

/// Keeps a frame.
#[inline(always)]
pub fn begin(frame: &XdpFrame) {
    let Some(sample) = scratch() else { return };
    // SAFETY: a helper without arguments.
    sample.time_ns = unsafe { bpf_ktime_get_ns() };
    sample.service = Sample::NOBODY;
    sample.backend = 0;
    sample.reason = Sample::NOBODY;
    sample.ingress = u32::from(PLAIN.ingress());
    sample.length = frame.whole_len() as u32;
    sample.source = sample::source(frame);
    sample.captured = frame.copy_to(&mut sample.bytes);
}

/// Notes what is counted for it.
#[inline(always)]
pub fn note(service: Option<u32>, backend: Option<BackendId>, reason: Option<Reason>) {
    let Some(sample) = scratch() else { return };
    if let Some(service) = service {
        sample.service = service;
    }
    if let Some(backend) = backend {
        sample.backend = backend.get();
    }
    if let Some(reason) = reason {
        sample.reason = reason as u32;
    }
}

/// Hands it out, if it is one that is wanted.
#[inline(always)]
pub fn end(verdict: Verdict) {
    let Some(sample) = scratch() else { return };
    if sample.captured == 0 {
        return;
    }
    let verdict = match verdict {
        Verdict::Pass => VerdictKind::Pass,
        Verdict::Transmit | Verdict::Redirect(_) => VerdictKind::Transmit,
        Verdict::Drop | Verdict::Slow | Verdict::Sampled => VerdictKind::Drop,
    };
    sample.verdict = verdict as u32;
    if is_wanted(sample) {
        // Where nobody reads them samples are lost, not packets.
        let _full = SAMPLES.output::<Sample>(&*sample, 0);
    }
    sample.captured = 0;
}

#[inline(always)]
fn is_wanted(sample: &Sample) -> bool {
    let Some(filter) = SAMPLER.get(0) else { return false };
    if !sample::matches(filter, sample.service, sample.verdict, sample.source) {
        return false;
    }
    let Some(matched) = MATCHED.get_ptr_mut(0) else { return false };
    // SAFETY: the kernel gave us this CPU's element; XDP programs are not preempted by each other on a CPU.
    let matched = unsafe { &mut *matched };
    *matched = matched.wrapping_add(1);
    filter.every <= 1 || matched.is_multiple_of(u64::from(filter.every))
}
