//! Settings of the whole data plane.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The single value of [`CONTROL`](super::names::CONTROL). Userspace replaces it word by word with atomic stores, in this
/// order; the last word only by who samples.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C, align(8))]
pub struct Control {
    /// [`ABI_VERSION`](super::ABI_VERSION) of whoever made the maps.
    pub abi_version: u32,
    /// Bits below.
    pub flags: u32,
    /// Key of the flow hash.
    pub hash_key: [u64; 2],
    /// Counts applied configurations, from 1.
    pub generation: u64,
    /// Odd while what packets find services and addresses by is changing: nothing is to be remembered, nor to be found in
    /// memory. Even: the same as long as nothing changes.
    pub epoch: u64,
    /// Not 0: packets are sampled.
    pub sampling: u64,
}

impl Control {
    /// Some VIP wants the traffic that belongs to no service dropped: misses are looked up among the VIPs.
    pub const VIP_POLICY: u32 = 1;
    /// Some service takes a range of ports: misses are looked up among the ranges.
    pub const RANGES: u32 = 2;
    /// Some service or VIP is a prefix: misses are looked up among the prefixes.
    pub const PREFIXES: u32 = 4;
    /// Index of [`Self::sampling`] among the words.
    pub const SAMPLING_WORD: usize = 5;

    /// The value as its aligned words, in memory order.
    pub fn words(&self) -> [u64; 6] {
        zerocopy::transmute!(*self)
    }

    /// The value made of these words.
    pub fn from_words(words: [u64; 6]) -> Self {
        zerocopy::transmute!(words)
    }

    /// The epoch of a change of keys that begins in `epoch`.
    pub const fn changing(epoch: u64) -> u64 {
        epoch | 1
    }

    /// The epoch that begins when a change of keys is over, whichever way it began.
    pub const fn changed(epoch: u64) -> u64 {
        (epoch | 1).wrapping_add(1)
    }

    /// The hash key from its 16 bytes, little endian so that every node reads the same.
    pub const fn key_from_bytes(bytes: [u8; 16]) -> [u64; 2] {
        let whole = u128::from_le_bytes(bytes);
        [whole as u64, (whole >> 64) as u64]
    }
}
