//! What is known of a packet on its way through the engine, outside the stack.
//!
//! In the kernel this lies in a per-CPU map. That saves BPF stack, of which there are 512 bytes, and the verifier knows
//! nothing about what was written there: it follows a stage once, not once per way to get to it.

use core::hint::black_box;

use super::parse::{Ip, Kind, Packet, Ports};
use crate::abi::{AffinityEntry, AffinityKey, BackendId, FlowEntry, FlowKey, FlowTable, Protocol, Slot};
use crate::wire::ethernet::{self, Mac};

/// Memory for one packet at a time. All zeros is a valid value.
pub struct Work {
    pub(super) packet: Packet,
    /// The packet that an ICMP error is about, as its flow's other direction.
    pub(super) quoted: Packet,
    pub(super) order: Order,
    pub(super) asked: Asked,
    /// MAC address of the interface on which the frame came in.
    pub(super) own: Mac,
    pub(super) link: ethernet::Header,
}

/// Where a packet goes.
pub(super) struct Order {
    /// Hash of the flow.
    pub(super) hash: u64,
    pub(super) service: u32,
    pub(super) backend: BackendId,
    pub(super) sending: Sending,
}

/// What the flow tables are asked, and what is to be done then.
pub(super) struct Asked {
    pub(super) key: FlowKey,
    /// What is to be written.
    pub(super) entry: FlowEntry,
    pub(super) now_ns: u64,
    pub(super) slot: Slot,
    /// The backend that has a flow which is not recorded; [`BackendId::NONE`]: it is to be picked.
    pub(super) older: BackendId,
    pub(super) kind: Kind,
    pub(super) table: FlowTable,
    pub(super) wish: Wish,
    pub(super) new_flow: bool,
    pub(super) client: AffinityKey,
    /// What is to be remembered of the client.
    pub(super) affinity: AffinityEntry,
}

/// What is done with a flow's record once its backend is known.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Wish {
    /// Nothing.
    Nothing,
    /// It is made.
    Record,
    /// It is replaced.
    Correct,
}

/// How a packet that has a backend is counted, and whether its sender can be told that it is too big.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Sending {
    /// A packet of a flow that exists.
    Known,
    /// One that begins a flow.
    New,
    /// An ICMP error about one: about errors nobody is told (RFC 1122 section 3.2.2).
    Error,
}

impl Work {
    /// Memory without a packet.
    pub const fn new() -> Self {
        let ports =
            Ports { source: [0; 2], destination: [0; 2], protocol: Protocol::Tcp, kind: Kind::Opening };
        Self {
            packet: Packet { ip: Ip::NONE, ports },
            quoted: Packet { ip: Ip::NONE, ports },
            asked: Asked {
                key: FlowKey {
                    source: [0; 16],
                    destination: [0; 16],
                    source_port: [0; 2],
                    destination_port: [0; 2],
                    protocol: 0,
                    reserved: [0; 3],
                },
                entry: FlowEntry { service: 0, backend: 0, last_seen_ns: 0, marks: 0, reserved: 0 },
                now_ns: 0,
                slot: Slot(0),
                older: BackendId::NONE,
                kind: Kind::Opening,
                table: FlowTable::HalfOpen,
                wish: Wish::Nothing,
                new_flow: false,
                client: AffinityKey { source: [0; 16], service: 0, reserved: 0 },
                affinity: AffinityEntry { backend: 0, reserved: 0, last_seen_ns: 0 },
            },
            order: Order { hash: 0, service: 0, backend: BackendId::NONE, sending: Sending::Known },
            own: [0; 6],
            link: ethernet::Header { destination: [0; 6], source: [0; 6], ether_type: 0 },
        }
    }

    /// The same, but the compiler has to read from it again what it wrote.
    #[inline(always)]
    pub(super) fn written(&mut self) -> &mut Self {
        black_box(self)
    }
}

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}

// What the kernel's zeroed memory reads as.
const _: () =
    assert!(super::parse::State::NotIp as u8 == 0 && Kind::Opening as u8 == 0 && Sending::Known as u8 == 0);
const _: () = assert!(FlowTable::HalfOpen as u8 == 0 && Wish::Nothing as u8 == 0);
