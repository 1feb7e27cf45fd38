//! QUIC connection IDs that name their server.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How a server's id lies in the connection IDs that it chooses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuicFormat {
    /// The plaintext mode of draft-ietf-quic-load-balancers: configuration id in the top three bits of the first byte,
    /// the server id in the `length` (1–8) bytes behind it.
    Draft {
        /// Configuration id, 0–6.
        config_id: u8,
        /// Length of the server id in bytes, 1–8.
        length: u8,
    },
    /// Katran's layout: the top two bits of the first byte are a version; 1: the next 16 bits are the id; 2: bytes 1–3.
    Katran,
}

impl QuicFormat {
    /// As stored in [`ServiceEntry::quic`](super::ServiceEntry::quic).
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::Draft { config_id, length } => 1 | (config_id as u32) << 8 | (length as u32) << 16,
            Self::Katran => 2,
        }
    }

    /// From [`ServiceEntry::quic`](super::ServiceEntry::quic); `None`: ids are not read.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw & 0xff {
            1 => Some(Self::Draft { config_id: (raw >> 8) as u8, length: (raw >> 16) as u8 }),
            2 => Some(Self::Katran),
            _ => None,
        }
    }
}

/// Key of [`QUIC_IDS`](super::names::QUIC_IDS); the value is the number of the backend that has the id.
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
pub struct QuicKey {
    /// The server's id.
    pub server: u64,
    /// Id of the service.
    pub service: u32,
    /// Zero.
    pub reserved: u32,
}
