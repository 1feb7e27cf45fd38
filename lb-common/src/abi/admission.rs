//! Who may use a service, and how much of it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Data of a key of [`ACL`](super::names::ACL), an LPM trie: the list's number is matched whole, so a prefix has
/// 32 bits more than the address prefix (in the 16-byte form) that it stands for.
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
#[repr(C)]
pub struct AclKey {
    /// Number of the list, big endian.
    pub list: [u8; 4],
    /// A source address.
    pub address: [u8; 16],
}

impl AclKey {
    /// Bits in front of the address.
    pub const LIST_BITS: u32 = 32;

    /// Where `address` is looked up in a list.
    #[inline(always)]
    pub const fn new(list: u32, address: [u8; 16]) -> Self {
        Self { list: list.to_be_bytes(), address }
    }
}

/// Value of [`ACL`](super::names::ACL).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AclVerdict {
    /// Admitted.
    Allow,
    /// Dropped.
    Deny,
}

impl AclVerdict {
    /// As stored.
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::Deny => 0,
            Self::Allow => 1,
        }
    }

    /// From the stored value; unknown values deny.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Allow,
            _ => Self::Deny,
        }
    }
}

/// A rate and how far arrivals may run ahead of it: the parameters of the generic cell rate algorithm (ITU-T I.371,
/// virtual scheduling), which is a token bucket whose whole state is one time.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Rate {
    /// Nanoseconds per packet or flow at the rate; 0: no limit.
    pub interval_ns: u64,
    /// Nanoseconds that the schedule may lie ahead: (burst - 1) intervals.
    pub tolerance_ns: u64,
}

/// Value of [`RATES`](super::names::RATES): a service's limits.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct RateEntry {
    /// New flows of the service.
    pub new_flows: Rate,
    /// Packets of the service.
    pub packets: Rate,
    /// New flows of each source prefix.
    pub source_new_flows: Rate,
    /// Packets of each source prefix.
    pub source_packets: Rate,
    /// Length of IPv4 source prefixes in bits of the 16-byte form, 96–128.
    pub source_v4_bits: u32,
    /// Length of IPv6 source prefixes in bits, 0–128.
    pub source_v6_bits: u32,
}

/// What a bucket of [`SOURCE_BUCKETS`](super::names::SOURCE_BUCKETS) counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum BucketKind {
    /// New flows of a source prefix to a service.
    SourceNewFlows = 1,
    /// Packets of a source prefix to a service.
    SourcePackets = 2,
    /// Echo replies of a service address.
    Echo = 3,
    /// "Too big" messages to a source.
    TooBig = 4,
}

/// Key of [`SOURCE_BUCKETS`](super::names::SOURCE_BUCKETS); the value is the time, in nanoseconds, for which the next
/// packet is scheduled.
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
pub struct BucketKey {
    /// Id of the service; 0 where there is none.
    pub service: u32,
    /// A [`BucketKind`].
    pub kind: u32,
    /// Source prefix, or the service address of echo replies.
    pub address: [u8; 16],
}
