//! The decapsulator in the kernel: what it lets out of a tunnel, what it refuses, and what it leaves alone.

use std::net::Ipv4Addr;

use lb_common::abi::DecapReason;
use lb_tests::bpf::{Action, Bench};
use lb_tests::packets::*;
use lb_tests::scene::*;
use lb_userspace::dataplane::{Decap, DecapReader, TestProgram};

/// MAC address of the backend's interface.
const OWN: Mac = mac(42);

/// A backend that takes tunnels from 192.0.2.0/24 and one more host, for [`VIP`].
struct Backend {
    program: TestProgram,
    counters: DecapReader,
}

impl Backend {
    fn new() -> Self {
        let sources = [(Ipv4Addr::new(192, 0, 2, 0), 24), (Ipv4Addr::new(198, 51, 100, 9), 32)];
        let decap = Decap::load(OWN, &[VIP], &sources).expect("the verifier accepts the program");
        let (program, counters) = decap.into_test();
        Self { program, counters }
    }

    fn counts(&self) -> Vec<u64> {
        DecapReason::ALL.iter().map(|reason| self.counters.count(*reason).expect("a counter")).collect()
    }

    /// Checks verdict, bytes, and that exactly this reason is counted.
    #[track_caller]
    fn check(&mut self, what: &str, input: &[u8], reason: DecapReason, action: Action, output: &[u8]) {
        let before = self.counts();
        let (done, bytes) = self.program.run(input).expect("the kernel runs the program");
        assert_eq!(Action::from_raw(done), action, "{what}");
        assert!(bytes == output, "{what}: bytes\n     got {bytes:02x?}\nexpected {output:02x?}");
        for ((counted, before), other) in self.counts().into_iter().zip(before).zip(DecapReason::ALL) {
            assert_eq!(counted - before, u64::from(*other == reason), "{what}: counter {}", other.name());
        }
    }

    #[track_caller]
    fn refuses(&mut self, what: &str, input: &[u8], reason: DecapReason) {
        self.check(what, input, reason, Action::Drop, input);
    }

    #[track_caller]
    fn ignores(&mut self, what: &str, input: &[u8], reason: DecapReason) {
        self.check(what, input, reason, Action::Pass, input);
    }
}

/// A client's frame in a tunnel to the backend.
fn tunnel(inner: &Packet, source: Ipv4Addr) -> Vec<u8> {
    tunnelled(&inner.bytes(), (NEAR, OWN), source, remote(42))
}

/// A frame with some bytes replaced, outer checksum left wrong: nobody checks it.
fn with(mut frame: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

#[test]
fn accepted_tunnels_give_the_inner_packet_under_the_same_link_header() {
    let mut backend = Backend::new();
    let inners = [
        ("TCP", tcp(L2, Segment::Syn)),
        ("padded TCP", tcp(L2, Segment::Ack).padded(SHORTEST)),
        ("inner options", tcp(L2, Segment::Ack).options(40).payload(3)),
        ("full size", tcp(L2, Segment::Ack).ip_len(1480)),
        ("beyond one buffer", tcp(L2, Segment::Ack).ip_len(8980)),
        ("UDP", udp(DNS).payload(1)),
        ("ICMP", Packet::raw(INBOUND, Flow::nth(7, (VIP, 0)), 1).payload(8)),
        ("inner fragment", udp(DNS).fragment(3, true).payload(16)),
    ];
    for (what, inner) in inners {
        for source in [NODE, Ipv4Addr::new(192, 0, 2, 255), Ipv4Addr::new(198, 51, 100, 9)] {
            let output = relinked(&inner.bytes(), (NEAR, OWN));
            let input = tunnel(&inner, source);
            backend.check(what, &input, DecapReason::Decapsulated, Action::Pass, &output);
        }
    }
}

#[test]
fn what_the_balancer_sends_comes_out_as_it_came_in() {
    let mut bench = Bench::new(&desired());
    let mut backend = Backend::new();
    for n in 0..64u32 {
        let flow = Flow::nth(n, (VIP, IPIP));
        let input = Packet::tcp(INBOUND, flow, Segment::Ack).tos(n as u8).payload(n as usize * 22).bytes();
        let (action, sent) = bench.kernel(&input);
        assert_eq!(action, Action::Transmit);
        let output = relinked(&input, (NEAR, OWN));
        backend.check("round trip", &sent, DecapReason::Decapsulated, Action::Pass, &output);
    }
}

#[test]
fn foreign_tunnels_are_refused() {
    let mut backend = Backend::new();
    let inner = tcp(L2, Segment::Ack).payload(8);
    for source in [Ipv4Addr::new(192, 0, 3, 1), Ipv4Addr::new(198, 51, 100, 8), Ipv4Addr::UNSPECIFIED] {
        backend.refuses("source", &tunnel(&inner, source), DecapReason::ForeignSource);
    }
    for address in [STRANGER, QUIET_VIP, Ipv4Addr::LOCALHOST] {
        let inner = Packet::tcp(INBOUND, Flow::nth(7, (address, L2)), Segment::Ack);
        backend.refuses("inner destination", &tunnel(&inner, NODE), DecapReason::ForeignDestination);
    }
}

#[test]
fn fragments_and_contradictory_headers_are_refused() {
    use DecapReason::{Malformed, OuterFragment};
    let mut backend = Backend::new();
    let frame = tunnel(&tcp(L2, Segment::Ack).payload(8), NODE);
    let (outer, inner) = (ETHERNET, ETHERNET + 20);
    let cases = [
        ("first fragment", with(frame.clone(), outer + 6, &[0x20, 0]), OuterFragment),
        ("last fragment", with(frame.clone(), outer + 6, &[0, 9]), OuterFragment),
        ("outer ihl 4", with(frame.clone(), outer, &[0x44]), Malformed),
        ("outer ihl 6", with(frame.clone(), outer, &[0x46]), Malformed),
        ("outer length 19", with(frame.clone(), outer + 2, &[0, 19]), Malformed),
        ("outer length beyond the frame", with(frame.clone(), outer + 2, &[0, 69]), Malformed),
        ("outer length without inner header", with(frame.clone(), outer + 2, &[0, 39]), Malformed),
        ("inner version", with(frame.clone(), inner, &[0x65]), Malformed),
        ("inner ihl", with(frame.clone(), inner, &[0x44]), Malformed),
        ("inner length beyond the outer", with(frame.clone(), inner + 2, &[0, 49]), Malformed),
        ("inner length 19", with(frame.clone(), inner + 2, &[0, 19]), Malformed),
    ];
    for (what, frame, reason) in cases {
        backend.refuses(what, &frame, reason);
    }
    for len in ETHERNET..frame.len() {
        if len < ETHERNET + 20 {
            backend.ignores("no outer header", &frame[..len], DecapReason::NotATunnel);
        } else {
            backend.refuses("cut short", &frame[..len], Malformed);
        }
    }
}

#[test]
fn everything_else_passes_untouched() {
    use DecapReason::{NotATunnel, OtherMac};
    let mut backend = Backend::new();
    let frame = tunnel(&tcp(L2, Segment::Ack), NODE);
    let link = (NEAR, OWN);
    let cases = [
        (
            "TCP to the backend",
            Packet::tcp(link, Flow::nth(7, (near(42), 22)), Segment::Syn).bytes(),
            NotATunnel,
        ),
        ("TCP to the VIP, plain", tcp(L2, Segment::Ack).to_mac(OWN).bytes(), NotATunnel),
        ("GRE", with(frame.clone(), 23, &[47]), NotATunnel),
        ("IANA's protocol 94, which RFC 2003 is not", with(frame.clone(), 23, &[94]), NotATunnel),
        ("IPv6", ethernet(link, 0x86dd, &[0x60; 60]), NotATunnel),
        ("ARP", arp(link, true, (NEAR, NODE), ([0; 6], remote(42))), NotATunnel),
        ("bare Ethernet", ethernet(link, 0x0800, &[]), NotATunnel),
        ("another MAC", relinked(&frame, (NEAR, mac(1))), OtherMac),
    ];
    for (what, frame, reason) in cases {
        backend.ignores(what, &frame, reason);
    }
}
