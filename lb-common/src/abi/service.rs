//! Services and their addresses.

use network_types::ip::IpProto;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::mapped;

/// Transport protocols that services have.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260; its ports lie where UDP's do.
    Sctp,
}

impl Protocol {
    /// IP protocol number.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => IpProto::Tcp as u8,
            Self::Udp => IpProto::Udp as u8,
            Self::Sctp => IpProto::Sctp as u8,
        }
    }

    /// The protocol with this IP protocol number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        const TCP: u8 = IpProto::Tcp as u8;
        const UDP: u8 = IpProto::Udp as u8;
        const SCTP: u8 = IpProto::Sctp as u8;
        match number {
            TCP => Some(Self::Tcp),
            UDP => Some(Self::Udp),
            SCTP => Some(Self::Sctp),
            _ => None,
        }
    }

    /// `tcp`, `udp` or `sctp`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Key of [`SERVICES`](super::names::SERVICES).
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
pub struct ServiceKey {
    /// Service address.
    pub address: [u8; 16],
    /// Destination port.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
    /// Zero.
    pub padding: u32,
}

impl ServiceKey {
    /// Key of the IPv4 service `address`:`port`.
    #[inline(always)]
    pub const fn v4(address: [u8; 4], protocol: Protocol, port: u16) -> Self {
        Self {
            address: mapped(address),
            port: port.to_be_bytes(),
            protocol: protocol.number(),
            reserved: 0,
            padding: 0,
        }
    }

    /// The key as its aligned words, in memory order.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 3] {
        zerocopy::transmute!(*self)
    }

    /// The key made of these words.
    #[inline(always)]
    pub const fn from_words(words: [u64; 3]) -> Self {
        zerocopy::transmute!(words)
    }
}

/// Value of [`SERVICES`](super::names::SERVICES).
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct ServiceEntry {
    /// Where its ring starts in the pool.
    pub ring_start: u32,
    /// Its ring's size in slots.
    pub ring_size: u32,
    /// Dense id, index of its drop counters.
    pub id: u32,
    /// Bits below.
    pub flags: u32,
    /// Number of its list in [`ACL`](super::names::ACL), with [`Self::ACL`].
    pub acl: u32,
    /// A [`QuicFormat`](super::QuicFormat), with [`Self::QUIC`].
    pub quic: u32,
    /// A flow that is silent for longer is dead, in milliseconds; read by userspace only, like the next two.
    pub idle_ms: u32,
    /// The same for a flow that is half open, in tenths of a second.
    pub half_open_ds: u16,
    /// The same for a flow that is closing, in tenths of a second.
    pub closing_ds: u16,
}

impl ServiceEntry {
    /// Sources are looked up in the service's list.
    pub const ACL: u32 = 1;
    /// Sources that the list does not name are refused; otherwise they are admitted.
    pub const ACL_ONLY: u32 = 2;
    /// The service has limits in [`RATES`](super::names::RATES).
    pub const RATES: u32 = 4;
    /// UDP payloads are QUIC.
    pub const QUIC: u32 = 8;

    /// Every flow is recorded, also in settled slots: a policy places flows elsewhere, or the config says so.
    pub const TRACKED: u32 = 16;
    /// The slot of a flow depends on the client's address only.
    pub const BY_SOURCE: u32 = 32;
    /// New flows get the backend that [`POLICIES`](super::names::POLICIES) says; with [`Self::TRACKED`] only.
    pub const POLICY: u32 = 64;

    /// Whether a packet has to be admitted before it gets a backend.
    #[inline(always)]
    pub const fn guarded(&self) -> bool {
        self.flags & (Self::ACL | Self::RATES) != 0
    }
}

/// Key of [`VIPS`](super::names::VIPS).
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
pub struct VipKey {
    /// Service address.
    pub address: [u8; 16],
}

impl VipKey {
    /// Key of an IPv4 address.
    #[inline(always)]
    pub const fn v4(address: [u8; 4]) -> Self {
        Self { address: mapped(address) }
    }

    /// The key as its aligned words, in memory order.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        zerocopy::transmute!(*self)
    }
}

/// Value of [`VIPS`](super::names::VIPS).
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct VipEntry {
    /// Bits below.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

impl VipEntry {
    /// ARP requests and neighbour solicitations for the address are answered.
    pub const ADVERTISED: u32 = 1;
    /// TCP and UDP packets that belong to no service are dropped.
    pub const DROP_OTHER_PORTS: u32 = 2;
    /// Echo requests are answered.
    pub const ECHO: u32 = 4;
}
