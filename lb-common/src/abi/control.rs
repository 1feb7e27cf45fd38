//! Settings of the whole data plane.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The single value of [`CONTROL`](super::names::CONTROL).
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct Control {
    /// [`ABI_VERSION`](super::ABI_VERSION) of whoever made the maps.
    pub abi_version: u32,
    /// Bits below.
    pub flags: u32,
    /// Key of the flow hash.
    pub hash_key: [u64; 2],
    /// Counts applied configurations, from 1.
    pub generation: u64,
    /// Counts changes of what packets find services and addresses by.
    pub epoch: u64,
}

impl Control {
    /// Some VIP wants the traffic that belongs to no service dropped: misses are looked up among the VIPs.
    pub const VIP_POLICY: u32 = 1;
    /// Some service takes a range of ports: misses are looked up among the ranges.
    pub const RANGES: u32 = 2;
    /// Some service or VIP is a prefix: misses are looked up among the prefixes.
    pub const PREFIXES: u32 = 4;
    /// Packets are sampled.
    pub const CAPTURE: u32 = 8;
    /// Keys of services or addresses are changing: what packets remember is not to be relied on. When this goes, the
    /// epoch is another one.
    pub const CHANGING: u32 = 16;

    /// The hash key from its 16 bytes, little endian so that every node reads the same.
    pub const fn key_from_bytes(bytes: [u8; 16]) -> [u64; 2] {
        let whole = u128::from_le_bytes(bytes);
        [whole as u64, (whole >> 64) as u64]
    }
}
