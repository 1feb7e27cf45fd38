//! Recorded flows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Protocol;

/// Key of a flow table: the 5-tuple, one layout for both families.
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

impl FlowKey {
    /// Whether its record is in the tables for TCP.
    #[inline(always)]
    pub const fn is_tcp(&self) -> bool {
        self.protocol == Protocol::Tcp.number()
    }
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
    /// Bits below.
    pub marks: u32,
    /// Zero.
    pub reserved: u32,
}

impl FlowEntry {
    /// The client has sent a FIN: the flow dies of a shorter silence. It may live on half closed: a packet a second later
    /// takes the mark away.
    pub const CLOSING: u32 = 1;
    /// The last packet was an RST, true or spoofed. Any other packet takes the mark away.
    pub const RESET: u32 = 2;

    /// Whether the flow is about to end, as far as the client has said.
    #[inline(always)]
    pub const fn is_closing(&self) -> bool {
        self.marks & (Self::CLOSING | Self::RESET) != 0
    }
}

/// A flow table. Each exists twice, for TCP and for the rest ([`FlowKey::is_tcp`]), so that a flood of one kind of packet
/// pushes out records of its own kind only.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum FlowTable {
    /// New flows until their second packet; of TCP and QUIC, until one that does not open a flow.
    HalfOpen,
    /// Flows that have been half open.
    Established,
    /// Flows that were there before their slot's owner changed, recorded on the owner before.
    Old,
}

impl FlowTable {
    /// All of them, in the order in which they are read: promotion inserts into a later one before it deletes from an
    /// earlier one, so that a flow is always found.
    pub const ALL: [Self; 3] = [Self::HalfOpen, Self::Established, Self::Old];
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
