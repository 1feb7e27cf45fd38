//! Recorded flows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of a flow table: the 5-tuple, one layout for both families.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// Client's address.
    pub source: [u8; 16],
    /// Service address.
    pub destination: [u8; 16],
    /// Client's port.
    pub source_port: [u8; 2],
    /// Service port.
    pub destination_port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Value of a flow table.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct FlowEntry {
    /// Id of the service; another one makes the entry a miss.
    pub service: u32,
    /// Number of the backend that owns the flow.
    pub backend: u32,
    /// When a packet was last seen, monotonic clock in nanoseconds, exact to a second.
    pub last_seen_ns: u64,
    /// Closing marks; none is defined yet.
    pub marks: u32,
    /// Zero.
    pub reserved: u32,
}

/// Key of [`FRAGMENTS`](super::names::FRAGMENTS): what the fragments of one packet have in common (RFC 791, RFC 8200
/// section 4.5).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    FromBytes,
    Hash,
    Immutable,
    IntoBytes,
    KnownLayout,
    Ord,
    PartialEq,
    PartialOrd,
)]
#[repr(C, align(8))]
pub struct FragmentKey {
    /// Client's address.
    pub source: [u8; 16],
    /// Service address.
    pub destination: [u8; 16],
    /// Identification; 16 bits in IPv4.
    pub id: u32,
    /// IP protocol number in IPv4; 0 in IPv6, where fragments need not agree on it.
    pub protocol: u32,
}

/// Value of [`FRAGMENTS`](super::names::FRAGMENTS): where the first fragment went.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct FragmentEntry {
    /// Id of the service.
    pub service: u32,
    /// Number of the backend.
    pub backend: u32,
    /// The flow's hash, for the entropy of outer headers.
    pub hash: u64,
    /// When the first fragment came, monotonic clock in nanoseconds.
    pub seen_ns: u64,
}
