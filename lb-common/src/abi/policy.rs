//! How services choose backends for new flows other than by their rings.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of [`POLICIES`](super::names::POLICIES), for services with [`ServiceEntry::POLICY`](super::ServiceEntry::POLICY).
/// Userspace stores it as two aligned words: the schedule in the first, the rest in the second.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C, align(8))]
pub struct PolicyEntry {
    /// Where its schedule starts in the pool of slots: each backend as often as its weight says, evenly spread, as the
    /// current owner of settled slots.
    pub schedule_start: u32,
    /// The schedule's length in slots; 0: the ring decides.
    pub schedule_size: u32,
    /// A [`PolicyKind`] in the lowest byte.
    pub kind: u32,
    /// For how long after its last packet a client is remembered, in milliseconds; 0: not at all.
    pub affinity_ms: u32,
}

impl PolicyEntry {
    /// The value as its aligned words, in memory order.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        zerocopy::transmute!(*self)
    }

    /// The value made of these words.
    #[inline(always)]
    pub const fn from_words(words: [u64; 2]) -> Self {
        zerocopy::transmute!(words)
    }
}

/// What picks a backend for a new flow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PolicyKind {
    /// The flow's slot.
    #[default]
    Ring,
    /// The schedule's next turn on this CPU.
    Turns,
    /// Of two backends drawn from the schedule the one with less load for its weight (Mitzenmacher, "The Power of Two
    /// Choices in Randomized Load Balancing", 2001); loads are what userspace writes.
    LessLoad,
    /// Likewise; the programs add the flows that they record, and take off those that close.
    FewerFlows,
}

impl PolicyKind {
    /// As stored in [`PolicyEntry::kind`].
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::Ring => 0,
            Self::Turns => 1,
            Self::LessLoad => 2,
            Self::FewerFlows => 3,
        }
    }

    /// From [`PolicyEntry::kind`]; unknown ones read as the ring.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        match raw & 0xff {
            1 => Self::Turns,
            2 => Self::LessLoad,
            3 => Self::FewerFlows,
            _ => Self::Ring,
        }
    }
}

/// Value of [`LOADS`](super::names::LOADS).
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C, align(8))]
pub struct LoadEntry {
    /// Live flows, or bytes per second; programs and userspace add to it atomically. Read as signed: below zero is none.
    pub load: u64,
    /// The backend's weight, at most [`LoadEntry::MOST_WEIGHT`]; 0 reads as 1.
    pub weight: u64,
}

impl LoadEntry {
    /// The largest weight: the product of a load of 40 bits and a weight fits a word.
    pub const MOST_WEIGHT: u64 = (1 << 24) - 1;
}

/// Key of [`AFFINITY`](super::names::AFFINITY).
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
pub struct AffinityKey {
    /// Client's address.
    pub source: [u8; 16],
    /// Id of the service.
    pub service: u32,
    /// Zero.
    pub reserved: u32,
}

/// Value of [`AFFINITY`](super::names::AFFINITY).
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C, align(8))]
pub struct AffinityEntry {
    /// Number of the backend that has the client's flows.
    pub backend: u32,
    /// Zero.
    pub reserved: u32,
    /// When a packet was last seen, monotonic clock in nanoseconds, exact to a second.
    pub last_seen_ns: u64,
}
