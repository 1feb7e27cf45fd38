//! The map ABI: every key and value that crosses between kernel and userspace, and the maps' names.
//!
//! All integers are in host order unless they are byte arrays; byte arrays are in network order. Any change of a size
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
pub use flow::{FlowEntry, FlowKey, FragmentEntry, FragmentKey};
pub use prefix::{PrefixEntry, PrefixKey, RangeKey, prefix_address};
pub use probe::{PROBE_GATE_MAC, PROBE_PORTS, PROBE_SLOTS, PROBER_MAC, ProbeEntry, probe_slot};
pub use quic::{QuicFormat, QuicKey};
pub use reason::{DecapReason, REASON_SLOTS, Reason, VerdictKind};
pub use sample::{SAMPLE_BYTES, Sample, SampleFilter};
pub use service::{Protocol, ServiceEntry, ServiceKey, VipEntry, VipKey};
pub use slot::{Slot, SlotState};

/// Version of this ABI: pinned maps of another version are never adopted.
pub const ABI_VERSION: u32 = 3;

/// An IPv4 address in the 16-byte form that keys use for both families: IPv4-mapped (RFC 4291 section 2.5.5.2).
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The IPv4 address in one that is known to be mapped, in host order. One aligned load where the address is aligned,
/// which a comparison byte by byte is not.
#[inline(always)]
pub const fn low_half(address: [u8; 16]) -> u32 {
    let [_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d] = address;
    u32::from_be_bytes([a, b, c, d])
}

/// The IPv4 address in a mapped one, or `None` for an IPv6 address.
#[inline(always)]
pub const fn unmapped(address: [u8; 16]) -> Option<[u8; 4]> {
    match address {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
        _ => None,
    }
}
