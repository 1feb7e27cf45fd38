//! Recorded flows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of a flow table: the 5-tuple, one layout for both families.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
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
