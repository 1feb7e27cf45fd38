//! Backends and the ports (interfaces) through which they are reached.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Dense number of one (service, backend) pair: index of its entry and of its counters. 0 names nobody.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId(u32);

impl BackendId {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Ids are below this: a slot holds 28 bits.
    pub const LIMIT: u32 = 1 << 28;

    /// The id with this number; `None` if it is 0 or does not fit a slot.
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 || number >= Self::LIMIT { None } else { Some(Self(number)) }
    }

    /// The low 28 bits of a word.
    #[inline(always)]
    pub(super) const fn truncated(word: u64) -> Self {
        Self(word as u32 & (Self::LIMIT - 1))
    }

    /// Its number, which is the index into the backend maps.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Where a backend's packets leave: MAC address and port, one word so that both change in one store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(transparent)]
pub struct NextHop(pub u64);

impl NextHop {
    /// Not resolved: packets for the backend are dropped and counted.
    pub const UNKNOWN: Self = Self(0);

    /// The next hop behind `port` (never 0) with this MAC address.
    pub const fn new(mac: [u8; 6], port: u16) -> Self {
        let [a, b, c, d, e, f] = mac;
        let [low, high] = port.to_le_bytes();
        Self(u64::from_le_bytes([a, b, c, d, e, f, low, high]))
    }

    /// MAC address of the next hop.
    #[inline(always)]
    pub const fn mac(self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Number of the egress port, 0 if unknown.
    #[inline(always)]
    pub const fn port(self) -> u16 {
        (self.0 >> 48) as u16
    }
}

/// Whether a backend may receive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BackendState {
    /// No such backend.
    Absent,
    /// Takes new flows.
    Up,
    /// Keeps the flows it has.
    Draining,
    /// Receives nothing and does not come back under this id, which becomes free.
    Retired,
    /// Receives nothing as long as it fails its checks or is disabled: its flows move to the current owners of their
    /// slots.
    Down,
}

impl BackendState {
    /// As stored in [`BackendEntry::state`].
    pub const fn to_raw(self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Up => 1,
            Self::Draining => 2,
            Self::Retired => 3,
            Self::Down => 4,
        }
    }

    /// From [`BackendEntry::state`]; unknown values receive nothing.
    #[inline(always)]
    pub const fn from_raw(raw: u8) -> Self {
        match raw {
            0 => Self::Absent,
            1 => Self::Up,
            2 => Self::Draining,
            3 => Self::Retired,
            _ => Self::Down,
        }
    }

    /// Whether flows that are already there stay.
    #[inline(always)]
    pub const fn keeps_flows(self) -> bool {
        matches!(self, Self::Up | Self::Draining)
    }
}

/// How packets get to a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Method {
    /// MAC rewrite.
    L2,
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213).
    Ipip,
    /// Generic routing encapsulation without key, checksum and sequence number (RFC 2784).
    Gre,
    /// Generic UDP encapsulation, variant 1: the IP packet straight behind the UDP header
    /// (draft-ietf-intarea-gue, section 4); the same bytes as Linux' foreign-over-UDP and Katran's.
    GueDirect,
    /// Generic UDP encapsulation, variant 0: with its 4-byte header.
    GueHeader,
}

impl Method {
    /// As stored in [`BackendEntry::method`].
    pub const fn to_raw(self) -> u8 {
        match self {
            Self::L2 => 1,
            Self::Ipip => 2,
            Self::Gre => 3,
            Self::GueDirect => 4,
            Self::GueHeader => 5,
        }
    }

    /// From [`BackendEntry::method`].
    #[inline(always)]
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::L2),
            2 => Some(Self::Ipip),
            3 => Some(Self::Gre),
            4 => Some(Self::GueDirect),
            5 => Some(Self::GueHeader),
            _ => None,
        }
    }

    /// Bytes between the outer IP header and the inner one; `None`: nothing is encapsulated.
    #[inline(always)]
    pub const fn shim_len(self) -> Option<u32> {
        match self {
            Self::L2 => None,
            Self::Ipip => Some(0),
            Self::Gre => Some(4),
            Self::GueDirect => Some(8),
            Self::GueHeader => Some(12),
        }
    }

    /// Bytes in front of the packet for an outer header of either family.
    #[inline(always)]
    pub const fn overhead(self, outer_v6: bool) -> u32 {
        match self.shim_len() {
            None => 0,
            Some(shim) if outer_v6 => 40 + shim,
            Some(shim) => 20 + shim,
        }
    }
}

/// How packets leave: what they may be at most, and from whom. One word, in the backend's entry so that sending needs
/// no look at the interface.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(transparent)]
pub struct Egress(pub u64);

impl Egress {
    /// `mac`: address of the interface where packets leave; `mtu`: largest IP packet on the way, in bytes. No IP packet
    /// is larger than 65,535.
    pub const fn new(mac: [u8; 6], mtu: u32) -> Self {
        let mtu = if mtu > u16::MAX as u32 { u16::MAX } else { mtu as u16 };
        let [a, b, c, d, e, f] = mac;
        let [low, high] = mtu.to_le_bytes();
        Self(u64::from_le_bytes([a, b, c, d, e, f, low, high]))
    }

    /// MAC address that packets come from.
    #[inline(always)]
    pub const fn mac(self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Largest IP packet on the way, outer header included, in bytes.
    #[inline(always)]
    pub const fn mtu(self) -> u32 {
        (self.0 >> 48) as u32
    }
}

/// What becomes of a packet's VLAN tags.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tag {
    /// They stay as they came.
    Kept,
    /// One 802.1Q tag with this id (1–4094) takes their place.
    Vlan(u16),
}

impl Tag {
    /// Its bits in [`BackendEntry::flags`].
    pub const fn flags(self) -> u16 {
        match self {
            Self::Kept => 0,
            Self::Vlan(id) => id << BackendEntry::VLAN_SHIFT,
        }
    }
}

/// Value of [`BACKENDS`](super::names::BACKENDS): one cache line. Userspace replaces it word by word with atomic
/// stores; where several words have to change together its next hop is unknown meanwhile.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C, align(64))]
pub struct BackendEntry {
    /// A [`NextHop`].
    pub next_hop: u64,
    /// Id of the service it belongs to.
    pub service: u32,
    /// A [`BackendState`].
    pub state: u8,
    /// A [`Method`].
    pub method: u8,
    /// Bits below, and from [`Self::VLAN_SHIFT`] up the id of a VLAN, 0 for none.
    pub flags: u16,
    /// An [`Egress`].
    pub egress: u64,
    /// The backend's address: outer destination of tunnels, and its identity.
    pub address: [u8; 16],
    /// Outer source address; its low `source_bits` bits are zero here and come from the flow hash.
    pub outer_source: [u8; 16],
    /// How many low bits of the outer source come from the flow hash, 0–24.
    pub source_bits: u8,
    /// Outer TTL or hop limit.
    pub ttl: u8,
    /// Outer DSCP in the upper six bits; [`Self::COPY_DSCP`]: the inner packet's.
    pub dscp: u8,
    /// Zero.
    pub reserved: u8,
    /// One's-complement sum (RFC 1071, not inverted) of the outer IPv4 header with TOS, length, checksum and the
    /// hashed source bits zero; of both addresses where the outer header is IPv6.
    pub checksum: u16,
    /// UDP destination port of UDP encapsulations.
    pub encap_port: [u8; 2],
}

impl BackendEntry {
    /// Bit of `flags`: outer headers are IPv6.
    pub const OUTER_V6: u16 = 1;
    /// Where in `flags` the 12 bits of a VLAN id begin.
    pub const VLAN_SHIFT: u32 = 4;
    /// Value of `dscp`: outer headers have the inner packet's.
    pub const COPY_DSCP: u8 = 0xff;

    /// Bytes in front of a packet: 0 where nothing is encapsulated.
    #[inline(always)]
    pub const fn overhead(&self) -> u32 {
        match Method::from_raw(self.method) {
            Some(method) => method.overhead(self.flags & Self::OUTER_V6 != 0),
            None => 0,
        }
    }

    /// Largest packet that fits the way there, in bytes, its own IP header included and outer headers not.
    #[inline(always)]
    pub const fn fits(&self) -> u32 {
        Egress(self.egress).mtu().saturating_sub(self.overhead())
    }

    /// What becomes of VLAN tags.
    #[inline(always)]
    pub const fn tag(&self) -> Tag {
        match self.flags >> Self::VLAN_SHIFT {
            0 => Tag::Kept,
            id => Tag::Vlan(id),
        }
    }

    /// The entry as its aligned words, in memory order.
    pub fn words(&self) -> [u64; 8] {
        zerocopy::transmute!(*self)
    }

    /// The entry made of these words.
    pub fn from_words(words: [u64; 8]) -> Self {
        zerocopy::transmute!(words)
    }
}

/// Per-CPU value of [`BACKEND_COUNTERS`](super::names::BACKEND_COUNTERS).
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C)]
pub struct BackendCounters {
    /// Packets forwarded.
    pub packets: u64,
    /// Bytes forwarded: the IP packet as it came, without link header and encapsulation.
    pub bytes: u64,
    /// New flows: TCP SYNs, and UDP flows when they are recorded.
    pub flows: u64,
}

/// Value of [`PORTS`](super::names::PORTS): an interface of the balancer. Port 0 is never used.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C, align(8))]
pub struct PortEntry {
    /// Kernel's interface index; 0: unused.
    pub ifindex: u32,
    /// Largest IP packet that leaves there, in bytes.
    pub mtu: u32,
    /// MAC address of the interface.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: u16,
}
