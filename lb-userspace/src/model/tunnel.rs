//! How packets get to a backend: on the segment or through a tunnel, as plain values.

use std::net::IpAddr;

use lb_common::abi::Method;
use serde::{Deserialize, Serialize};

use super::Prefix;

/// How a packet gets to a backend.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Forwarding {
    /// MAC rewrite on the same segment; the packet keeps its addresses.
    L2,
    /// Within an outer packet to the backend's address, whose family is the outer one's.
    Tunnel(Tunnel),
}

impl Forwarding {
    /// The word for it in configs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Tunnel(tunnel) => tunnel.encap.name(),
        }
    }

    /// Bytes that a packet grows by on the way to this backend.
    pub fn overhead(self, backend: IpAddr) -> u32 {
        match self {
            Self::L2 => 0,
            Self::Tunnel(tunnel) => tunnel.encap.method().overhead(backend.is_ipv6()),
        }
    }
}

/// An outer header.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tunnel {
    /// What stands between the outer and the inner IP header.
    pub encap: Encap,
    /// Where the outer source address comes from.
    pub source: TunnelSource,
    /// Outer DSCP, 0–63; `None`: the inner packet's. ECN is always copied (RFC 6040).
    pub dscp: Option<u8>,
    /// Outer TTL or hop limit, 1–255.
    pub ttl: u8,
}

impl Tunnel {
    /// The TTL where none is asked for.
    pub const DEFAULT_TTL: u8 = 64;

    /// A tunnel with defaults for everything but its kind.
    pub fn new(encap: Encap) -> Self {
        Self { encap, source: TunnelSource::Node, dscp: None, ttl: Self::DEFAULT_TTL }
    }
}

/// What stands between the outer and the inner IP header.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Encap {
    /// Nothing (RFC 2003, RFC 2473).
    Ipip,
    /// GRE without options (RFC 2784).
    Gre,
    /// UDP, whose source port comes from the flow hash.
    Gue {
        /// What follows the UDP header.
        variant: GueVariant,
        /// Destination port, host order.
        port: u16,
    },
}

impl Encap {
    /// GUE's destination port where none is asked for.
    pub const GUE_PORT: u16 = 6080;

    /// The data plane's method for it.
    pub fn method(self) -> Method {
        match self {
            Self::Ipip => Method::Ipip,
            Self::Gre => Method::Gre,
            Self::Gue { variant: GueVariant::Direct, .. } => Method::GueDirect,
            Self::Gue { variant: GueVariant::Header, .. } => Method::GueHeader,
        }
    }

    /// The word for it in configs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gre => "gre",
            Self::Gue { .. } => "gue",
        }
    }
}

/// What follows the UDP header (draft-ietf-intarea-gue, section 3).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum GueVariant {
    /// Variant 0: a GUE header of 4 bytes.
    Header,
    /// Variant 1: the inner IP header, as with Linux' FOU and Katran.
    #[default]
    Direct,
}

/// Where a tunnel's outer source address comes from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum TunnelSource {
    /// The node's own address on the way to the backend.
    Node,
    /// From the flow hash, within this prefix of the backend's family, so that the underlay's ECMP spreads flows; at
    /// most 24 bits are hashed. It must route back here. IPv4: length 8–32; IPv6: 96–128.
    Prefix(Prefix),
}
