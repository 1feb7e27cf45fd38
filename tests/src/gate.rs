//! The scene with a gate: probes from the prober's namespace, their replies, the entries that let them through, and
//! what to check of each.

use std::net::Ipv4Addr;

use lb_common::abi::{BackendState, PROBE_GATE_MAC, PROBE_PORTS, PROBER_MAC, ProbeEntry, Protocol, mapped};
use lb_common::datapath::Verdict;
use lb_userspace::reconcile::{Desired, DesiredBackend, DesiredPort};

use crate::bpf::Entrance::{Gate, Network};
use crate::bpf::{Bench, Entrance, delta, interfaces};
use crate::packets::{Flow, Mac, Packet, SHORTEST, Segment, relinked};
use crate::scene::{NEAR, NODE, VIP, desired, desired_with};

/// MTU of the gate in bytes.
pub const GATE_MTU: usize = 1500;
/// From the prober to the gate.
pub const OUTWARD: (Mac, Mac) = (PROBER_MAC, PROBE_GATE_MAC);
/// From the gate to the prober: source and destination of what comes back.
pub const HOMEWARD: (Mac, Mac) = (PROBE_GATE_MAC, PROBER_MAC);

/// The slot that most tests use.
pub const SLOT: u32 = 7;

/// [`desired`] with a gate as port 3.
pub fn gated() -> Desired {
    with_gate(desired())
}

/// [`desired_with`] with a gate as port 3.
pub fn gated_with(port: u16, backends: Vec<DesiredBackend>) -> Desired {
    with_gate(desired_with(port, backends))
}

/// With a gate as its last port.
pub fn with_gate(mut desired: Desired) -> Desired {
    desired.ports.push(DesiredPort { ifindex: interfaces()[2], mtu: GATE_MTU as u32, mac: PROBE_GATE_MAC });
    desired
}

/// The source port with this slot.
pub fn port_of(slot: u32) -> u16 {
    PROBE_PORTS.start() + u16::try_from(slot).expect("a slot of the table")
}

/// Id of the backend with this address.
pub fn id_of(bench: &Bench, address: Ipv4Addr) -> u32 {
    let wanted = mapped(address.octets());
    let found = bench.observed().backends.iter().find(|(_, backend)| backend.address == wanted);
    *found.unwrap_or_else(|| panic!("{address} is a backend of the scene")).0
}

/// State of the backend with this address.
pub fn state_of(bench: &Bench, address: Ipv4Addr) -> BackendState {
    BackendState::from_raw(bench.observed().backends[&id_of(bench, address)].state)
}

/// An entry for probes of [`VIP`] from [`NODE`].
pub fn entry(backend: u32, protocol: Protocol, port: u16) -> ProbeEntry {
    ProbeEntry {
        backend,
        gate: Gate.port(),
        service_port: port.to_be_bytes(),
        service_address: mapped(VIP.octets()),
        node_address: mapped(NODE.octets()),
        protocol: protocol.number(),
        reserved: [0; 7],
    }
}

/// A probe's segment to a TCP service of [`VIP`], as the prober sends it.
pub fn probe_tcp(slot: u32, port: u16, segment: Segment) -> Packet {
    Packet::tcp(OUTWARD, Flow { from: (NODE, port_of(slot)), to: (VIP, port) }, segment)
}

/// A probe's datagram to a UDP service of [`VIP`].
pub fn probe_udp(slot: u32, port: u16) -> Packet {
    Packet::udp(OUTWARD, Flow { from: (NODE, port_of(slot)), to: (VIP, port) })
}

/// What a backend with this MAC address answers to a TCP probe: direct server return, to the node itself.
pub fn reply_tcp(backend: Mac, slot: u32, port: u16, segment: Segment) -> Packet {
    Packet::tcp((backend, NEAR), Flow { from: (VIP, port), to: (NODE, port_of(slot)) }, segment)
}

/// What a backend with this MAC address answers to a UDP probe.
pub fn reply_udp(backend: Mac, slot: u32, port: u16) -> Packet {
    Packet::udp((backend, NEAR), Flow { from: (VIP, port), to: (NODE, port_of(slot)) })
}

/// A frame, and where it comes in.
pub type Input<'a> = (Entrance, &'a [u8]);

/// Runs a frame and checks everything that is observable about it.
#[track_caller]
pub fn check(bench: &mut Bench, what: &str, input: Input<'_>, verdict: Verdict, output: &[u8], reason: &str) {
    let (before, flows) = (bench.kernel_counts(), bench.kernel_flows());
    let (done, bytes) = bench.both_at(input.0, input.1);
    assert_eq!(done, verdict, "{what}");
    assert!(bytes == output, "{what}: bytes\n     got {bytes:02x?}\nexpected {output:02x?}");
    let counted = delta(&before, &bench.kernel_counts());
    assert_eq!(counted, [(reason.to_owned(), 1)].into(), "{what}: counters");
    assert_eq!(bench.kernel_flows(), flows, "{what}: recorded flows");
}

/// Checks a probe that goes out of this port as `output`.
#[track_caller]
pub fn sent(bench: &mut Bench, what: &str, probe: &Packet, port: u16, output: &[u8]) {
    check(bench, what, (Gate, &probe.bytes()), Verdict::Redirect(port), output, "probe_sent");
}

/// Checks a frame from the prober's namespace that goes nowhere.
#[track_caller]
pub fn stopped(bench: &mut Bench, what: &str, frame: &[u8], reason: &str) {
    check(bench, what, (Gate, frame), Verdict::Drop, frame, reason);
}

/// Checks a reply that is brought to the prober.
#[track_caller]
pub fn home(bench: &mut Bench, what: &str, reply: &Packet) {
    let frame = reply.bytes();
    let output = relinked(&frame, HOMEWARD);
    check(bench, what, (Network, &frame), Verdict::Redirect(Gate.port()), &output, "probe_reply");
}

/// Checks a frame from the network that is the host's.
#[track_caller]
pub fn passed(bench: &mut Bench, what: &str, frame: &[u8], reason: &str) {
    check(bench, what, (Network, frame), Verdict::Pass, frame, reason);
}

/// A bench with a probe under way to the backend with this address.
pub fn armed(protocol: Protocol, port: u16, backend: Ipv4Addr) -> Bench {
    let mut bench = Bench::new(&gated());
    let id = id_of(&bench, backend);
    bench.arm(SLOT, &entry(id, protocol, port));
    bench
}

/// All that a TCP probe and its connection send, of every length and shape.
pub fn segments(of: impl Fn(Segment) -> Packet) -> Vec<(String, Packet)> {
    let all = [Segment::Syn, Segment::Ack, Segment::Fin, Segment::Rst, Segment::SynAck];
    let mut shapes: Vec<_> = all.map(|segment| (format!("{segment:?}"), of(segment))).into();
    let syn = || of(Segment::Syn);
    shapes.push(("padded to the shortest frame".to_owned(), syn().padded(SHORTEST)));
    shapes.push(("DF".to_owned(), syn().dont_fragment()));
    shapes.extend([1, 100, 1400].map(|len| (format!("payload of {len}"), of(Segment::Ack).payload(len))));
    shapes.extend([1, 0xb8].map(|tos| (format!("TOS {tos:#x}"), syn().tos(tos))));
    shapes.extend([4, 40].map(|len| (format!("{len} bytes of options"), syn().options(len).payload(3))));
    shapes
}
