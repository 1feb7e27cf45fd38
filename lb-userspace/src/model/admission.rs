//! Whose packets a service takes, and how many, as plain values; and the prefixes that this is said with.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// An address prefix; host bits are zero.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Prefix {
    /// Its first address.
    pub network: IpAddr,
    /// Its length in bits, 0–32 or 0–128.
    pub length: u8,
}

impl Prefix {
    /// The prefix of this length that contains an address. A length beyond the family's is the family's.
    pub fn containing(address: IpAddr, length: u8) -> Self {
        let (network, length) = match address {
            IpAddr::V4(v4) => {
                let length = length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                (Ipv4Addr::from_bits(v4.to_bits() & mask).into(), length)
            }
            IpAddr::V6(v6) => {
                let length = length.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                (Ipv6Addr::from_bits(v6.to_bits() & mask).into(), length)
            }
        };
        Self { network, length }
    }

    /// The prefix of one address.
    pub fn host(address: IpAddr) -> Self {
        Self::containing(address, 128)
    }

    /// Whether it is a single address.
    pub fn is_host(&self) -> bool {
        self.length == if self.network.is_ipv4() { 32 } else { 128 }
    }

    /// Its last address.
    pub fn last(&self) -> IpAddr {
        match self.network {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(self.length.into()).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() | host).into()
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(self.length.into()).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() | host).into()
            }
        }
    }

    /// Whether an address is in it. No address of one family is in a prefix of the other.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::containing(address, self.length) == *self
    }

    /// It and all that contain it, the longest first.
    pub fn ancestors(self) -> impl Iterator<Item = Self> {
        (0..=self.length).rev().map(move |length| Self::containing(self.network, length))
    }

    /// Whether it contains all of another, or is the same.
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && self.contains(other.network)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

/// Whose packets a service takes, and how many.
///
/// The longest prefix of both lists that contains the source decides. Where there is none, the source is let in if
/// `allow` is empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Admission {
    /// Sources that are let in; sorted, without duplicates, nothing of `deny`. Shared by the services of an entry.
    pub allow: Arc<[Prefix]>,
    /// Sources that are kept out; sorted, without duplicates.
    pub deny: Arc<[Prefix]>,
    /// How many packets and flows.
    pub limits: RateLimits,
}

/// How many packets and new flows a service takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateLimits {
    /// New flows of the whole service.
    pub new_flows: Option<Rate>,
    /// Packets of the whole service.
    pub packets: Option<Rate>,
    /// New flows from one source prefix.
    pub source_new_flows: Option<Rate>,
    /// Packets from one source prefix.
    pub source_packets: Option<Rate>,
    /// Length of an IPv4 source prefix, 8–32.
    pub source_v4_len: u8,
    /// Length of an IPv6 source prefix, 32–128.
    pub source_v6_len: u8,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            new_flows: None,
            packets: None,
            source_new_flows: None,
            source_packets: None,
            source_v4_len: 32,
            source_v6_len: 64,
        }
    }
}

/// A token bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Tokens per second, 1–10,000,000.
    pub per_second: u32,
    /// Tokens that a full bucket holds, 1–10,000,000.
    pub burst: u32,
}
