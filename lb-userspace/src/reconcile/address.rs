//! Addresses and prefixes as the maps hold them.

use std::net::IpAddr;

use lb_common::abi::{mapped, unmapped};

use crate::model::Prefix;

/// Bits of an IPv4 prefix in the 16-byte form that stand in front of it.
const MAPPED_BITS: u32 = 96;

/// Key of a longest-prefix-match trie: only its first bits count.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TrieKey<K> {
    /// The data; zero behind the bits that count.
    pub data: K,
    /// How many bits of it count.
    pub bits: u32,
}

/// An address in the 16-byte form.
pub fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The address in a 16-byte form.
pub fn narrow(address: [u8; 16]) -> IpAddr {
    match unmapped(address) {
        Some(v4) => v4.into(),
        None => address.into(),
    }
}

/// A prefix's first address in the 16-byte form, and its length there.
pub(super) fn wide_prefix(prefix: Prefix) -> ([u8; 16], u32) {
    let front = if prefix.network.is_ipv4() { MAPPED_BITS } else { 0 };
    (wide(prefix.network), front + u32::from(prefix.length))
}
