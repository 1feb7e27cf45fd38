//! The map ABI: every key and value that crosses between kernel and userspace, and the maps' names.
//!
//! Keys that a program makes on its stack are aligned to 8 bytes where their size allows it: the kernel refuses unaligned
//! stores there. All integers are in host order unless they are byte arrays; byte arrays are in network order. Any change of a size
//! or an offset here needs a new [`ABI_VERSION`] (the `layout` test holds the golden figures).

mod admission;
mod backend;
mod control;
mod flow;
#[cfg(test)]
mod layout;
pub mod names;
#[cfg(feature = "user")]
mod pod;
mod policy;
mod prefix;
mod probe;
mod quic;
mod reason;
mod sample;
mod service;
mod slot;

pub use admission::{AclKey, AclVerdict, BucketKey, BucketKind, Rate, RateEntry};
pub use backend::{
    BackendCounters, BackendEntry, BackendId, BackendState, Egress, Method, NextHop, PortEntry, Tag,
};
pub use control::Control;
pub use flow::{FlowEntry, FlowKey, FlowTable, FragmentEntry, FragmentKey};
pub use policy::{AffinityEntry, AffinityKey, LoadEntry, PolicyEntry, PolicyKind};
pub use prefix::{PrefixEntry, PrefixKey, RangeKey, prefix_address};
pub use probe::{PROBE_GATE_MAC, PROBE_PORTS, PROBE_SLOTS, PROBER_MAC, ProbeEntry, probe_slot};
pub use quic::{QuicFormat, QuicKey};
pub use reason::{ClampReason, DecapReason, REASON_SLOTS, Reason, VerdictKind};
pub use sample::{SAMPLE_BYTES, Sample, SampleFilter};
pub use service::{Protocol, ServiceEntry, ServiceKey, VipEntry, VipKey};
pub use slot::{Slot, SlotState};

/// Version of this ABI: pinned maps of another version are never adopted.
pub const ABI_VERSION: u32 = 4;

/// An IPv4 address in the 16-byte form that keys use for both families: IPv4-mapped (RFC 4291 section 2.5.5.2).
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    from_words([0, MAPPED | u32::from_be_bytes(v4) as u64])
}

/// The upper 32 bits of a mapped address' second word.
const MAPPED: u64 = 0xffff << 32;

/// The two halves of an address as numbers. What looks at addresses does it word by word: byte by byte would cost a
/// packet dozens of instructions.
#[inline(always)]
pub const fn words(address: [u8; 16]) -> [u64; 2] {
    let [high, low]: [u64; 2] = zerocopy::transmute!(address);
    [u64::from_be(high), u64::from_be(low)]
}

/// The address with these halves.
#[inline(always)]
pub const fn from_words([high, low]: [u64; 2]) -> [u8; 16] {
    zerocopy::transmute!([high.to_be(), low.to_be()])
}

/// The IPv4 address in one that is known to be mapped, in host order.
#[inline(always)]
pub const fn low_half(address: [u8; 16]) -> u32 {
    let [_, low] = words(address);
    low as u32
}

/// Whether an address is an IPv4 one.
#[inline(always)]
pub const fn is_mapped(address: [u8; 16]) -> bool {
    let [high, low] = words(address);
    high == 0 && low >> 32 == MAPPED >> 32
}

/// The IPv4 address in a mapped one, or `None` for an IPv6 address.
#[inline(always)]
pub const fn unmapped(address: [u8; 16]) -> Option<[u8; 4]> {
    if is_mapped(address) { Some(low_half(address).to_be_bytes()) } else { None }
}
