//! Services that take more than one address or port.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Protocol;

/// Data of a key of [`RANGES`](super::names::RANGES), an LPM trie: protocol and address are matched whole, and a range
/// of ports is a few prefixes of the port's bits. In every trie's key the address lies 8 bytes from the beginning,
/// where the prefix length is included, so that it can be stored word by word.
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
pub struct RangeKey {
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Service address, or [`prefix_address`].
    pub address: [u8; 16],
    /// Destination port.
    pub port: [u8; 2],
    /// Zero, and behind all bits that count.
    pub padding: [u8; 2],
}

impl RangeKey {
    /// Bits in front of the port.
    pub const PORT_AT: u32 = 160;
    /// Bits of a key that stands for one port.
    pub const BITS: u32 = Self::PORT_AT + 16;

    /// Where a port is looked up.
    #[inline(always)]
    pub const fn new(address: [u8; 16], protocol: Protocol, port: [u8; 2]) -> Self {
        Self { protocol: protocol.number(), reserved: [0; 3], address, port, padding: [0; 2] }
    }
}

/// Data of a key of [`PREFIXES`](super::names::PREFIXES), an LPM trie of service addresses.
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
pub struct PrefixKey {
    /// Zero.
    pub reserved: [u8; 4],
    /// An address in the 16-byte form.
    pub address: [u8; 16],
}

impl PrefixKey {
    /// Bits in front of the address.
    pub const ADDRESS_AT: u32 = 32;
    /// Bits of a key that stands for one address.
    pub const BITS: u32 = Self::ADDRESS_AT + 128;

    /// Where an address is looked up.
    #[inline(always)]
    pub const fn new(address: [u8; 16]) -> Self {
        Self { reserved: [0; 4], address }
    }
}

/// Value of [`PREFIXES`](super::names::PREFIXES).
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct PrefixEntry {
    /// Its number, from 1: services on the prefix are found under [`prefix_address`].
    pub number: u32,
    /// As in [`VipEntry::flags`](super::VipEntry::flags).
    pub flags: u32,
}

/// What stands for the prefix with this number in [`SERVICES`](super::names::SERVICES) and
/// [`RANGES`](super::names::RANGES): no packet has such a destination, because multicast is never balanced.
#[inline(always)]
pub const fn prefix_address(number: u32) -> [u8; 16] {
    let [a, b, c, d] = number.to_be_bytes();
    [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}
