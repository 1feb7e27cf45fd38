//! How much of an interface's MTU a tunnel leaves. Pure.

use lb_common::wire::{ipv4, ipv6, shim};

use super::wanted::{Wanted, Way};
use crate::dataplane::Mss;

/// A TCP header without options, in bytes.
const TCP_LEN: u32 = 20;
/// The least MTU of IPv6, in bytes (RFC 8200 section 5).
const LEAST_V6: u32 = 1280;
/// What every IPv4 host takes, in bytes (RFC 791 section 3.1).
const LEAST_V4: u32 = 576;

/// What fits a way to a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    /// Bytes that the way adds at most.
    pub overhead: u32,
    /// The largest inner packet, in bytes.
    pub packet: u32,
}

impl Room {
    /// What an MTU leaves.
    pub fn of(wanted: &Wanted, mtu: u32) -> Self {
        let is_v6 = wanted.from.iter().any(|prefix| prefix.network.is_ipv6());
        let outer = if is_v6 { ipv6::LEN } else { ipv4::LEN };
        let overhead = match wanted.way {
            Way::L2 => 0,
            Way::Ipip => outer,
            Way::Gre => outer + shim::GRE_LEN,
            Way::Gue => outer + shim::UDP_LEN + shim::GUE_LEN,
        };
        let overhead = overhead as u32;
        Self { overhead, packet: mtu.saturating_sub(overhead) }
    }

    /// The largest MSS that fits, for each inner family.
    pub fn mss(self) -> Mss {
        let of = |header: usize| {
            let left = self.packet.saturating_sub(header as u32 + TCP_LEN);
            u16::try_from(left).unwrap_or(u16::MAX)
        };
        Mss { v4: of(ipv4::LEN), v6: of(ipv6::LEN) }
    }

    /// The packet that must fit at least for these service addresses.
    pub fn least(wanted: &Wanted) -> u32 {
        if wanted.has_v6() { LEAST_V6 } else { LEAST_V4 }
    }
}
