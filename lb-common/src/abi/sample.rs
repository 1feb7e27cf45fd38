//! Sampled packets for `lb capture`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a sampled frame that are kept.
pub const SAMPLE_BYTES: usize = 256;

/// The single value of [`SAMPLER`](super::names::SAMPLER): which packets are sampled while
/// [`Control::sampling`](super::Control::sampling) says so.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct SampleFilter {
    /// One in this many of the packets that match; 0 and 1: all.
    pub every: u32,
    /// Bits below.
    pub flags: u32,
    /// Id of the service, with [`Self::SERVICE`].
    pub service: u32,
    /// A [`VerdictKind`](super::VerdictKind), with [`Self::VERDICT`].
    pub verdict: u32,
    /// Source prefix, in the 16-byte form, with [`Self::SOURCE`]; bits behind its length are zero.
    pub source: [u8; 16],
    /// Its length in bits of that form.
    pub source_bits: u32,
    /// Zero.
    pub reserved: u32,
}

impl SampleFilter {
    /// Only packets of one service.
    pub const SERVICE: u32 = 1;
    /// Only packets with one verdict.
    pub const VERDICT: u32 = 2;
    /// Only packets from one source prefix.
    pub const SOURCE: u32 = 4;
}

/// A record in [`SAMPLES`](super::names::SAMPLES), a ring buffer: a frame as it came, and what became of it.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Sample {
    /// Monotonic clock in nanoseconds.
    pub time_ns: u64,
    /// Id of the service, or [`Self::NOBODY`].
    pub service: u32,
    /// Number of the backend; 0: none.
    pub backend: u32,
    /// A [`Reason`](super::Reason), or [`Self::NOBODY`] where the packet was forwarded to its backend.
    pub reason: u32,
    /// A [`VerdictKind`](super::VerdictKind).
    pub verdict: u32,
    /// Number of the port on which it came in.
    pub ingress: u32,
    /// Length of the whole frame in bytes.
    pub length: u32,
    /// How many of `bytes` are the frame's.
    pub captured: u32,
    /// Zero.
    pub reserved: u32,
    /// Source address in the 16-byte form; zero where there is none.
    pub source: [u8; 16],
    /// The frame's beginning.
    pub bytes: [u8; SAMPLE_BYTES],
}

impl Sample {
    /// No service, or no reason.
    pub const NOBODY: u32 = u32::MAX;
}
