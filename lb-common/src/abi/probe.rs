//! Health probes on their way: which source port stands for which backend.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Source ports of probes: 61440–65535, above the range that Linux takes ephemeral ports from by default.
pub const PROBE_PORTS: core::ops::RangeInclusive<u16> = 0xf000..=0xffff;

/// Entries of [`PROBES`](super::names::PROBES): one for each of [`PROBE_PORTS`].
pub const PROBE_SLOTS: u32 = 0x1000;

/// MAC address of the prober's end of the veth that joins its namespace; replies are addressed to it.
pub const PROBER_MAC: [u8; 6] = [0x02, 0x6c, 0x62, 0, 0, 0x02];

/// MAC address of the other end, where the program takes the probes over.
pub const PROBE_GATE_MAC: [u8; 6] = [0x02, 0x6c, 0x62, 0, 0, 0x01];

/// Index of a source port in [`PROBES`](super::names::PROBES); `None` if no probe has it.
#[inline(always)]
pub const fn probe_slot(port: [u8; 2]) -> Option<u32> {
    let port = u16::from_be_bytes(port);
    if port >= *PROBE_PORTS.start() { Some((port - *PROBE_PORTS.start()) as u32) } else { None }
}

/// Value of [`PROBES`](super::names::PROBES). Userspace writes the first word last and clears it first.
#[derive(Clone, Copy, Debug, Default, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq)]
#[repr(C, align(8))]
pub struct ProbeEntry {
    /// Id of the backend that the probe goes to; 0: no probe has this port.
    pub backend: u32,
    /// Number of the port that leads to the prober.
    pub gate: u16,
    /// Port that is probed at the service address.
    pub service_port: [u8; 2],
    /// Service address.
    pub service_address: [u8; 16],
    /// The node's address that the probe comes from.
    pub node_address: [u8; 16],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

impl ProbeEntry {
    /// The entry as its aligned words, in memory order.
    pub fn words(&self) -> [u64; 6] {
        zerocopy::transmute!(*self)
    }

    /// The entry made of these words.
    pub fn from_words(words: [u64; 6]) -> Self {
        zerocopy::transmute!(words)
    }
}
