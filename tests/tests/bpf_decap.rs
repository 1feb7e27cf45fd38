//! The decapsulator in the kernel: what it lets out of a tunnel, what it refuses, what it leaves alone, and that the same
//! code on the host does the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::abi::{DecapReason, mapped};
use lb_common::datapath::decapsulate;
use lb_common::datapath::host::{HostDecapTables, HostFrame};
use lb_tests::bpf::{Action, Bench};
use lb_tests::mutate::{Random, mutated};
use lb_tests::packets::*;
use lb_tests::scene::*;
use lb_tests::tunnels::*;
use lb_userspace::dataplane::{Decap, DecapLists, DecapReader, TestProgram};
use lb_userspace::model::Prefix;

/// MAC address of the backend's interface.
const OWN: Mac = mac(42);
const PORT: u16 = 6080;
/// Mutations of each well-formed tunnel packet.
const MUTATIONS: usize = 300;

const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10));
const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7));
const BALANCER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 5));
const BACKEND6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 42));

fn prefix(address: impl Into<IpAddr>, length: u8) -> Prefix {
    Prefix { network: address.into(), length }
}

/// A backend that takes tunnels from 192.0.2.0/24, one more host and all of IPv6, for [`VIP`] and a prefix with
/// [`VIP6`].
struct Backend {
    program: TestProgram,
    counters: DecapReader,
}

impl Backend {
    fn new() -> Self {
        let sources = [
            prefix(Ipv4Addr::new(192, 0, 2, 0), 24),
            prefix(Ipv4Addr::new(198, 51, 100, 9), 32),
            prefix(Ipv6Addr::UNSPECIFIED, 0),
        ];
        let vips = [prefix(VIP, 32), Prefix::containing(VIP6, 64)];
        let lists = DecapLists { mac: OWN, gue_port: PORT, vips: &vips, sources: &sources };
        let decap = Decap::load(&lists).expect("the verifier accepts the program");
        let (program, counters) = decap.into_test();
        Self { program, counters }
    }

    /// The same lists for the host.
    fn on_host() -> HostDecapTables {
        let v4 = mapped([0; 4]);
        let IpAddr::V6(vip6) = Prefix::containing(VIP6, 64).network else { panic!("IPv6") };
        HostDecapTables {
            mac: OWN,
            gue_port: PORT,
            sources: vec![
                (v4, 96, false),
                (mapped([192, 0, 2, 0]), 120, true),
                (mapped([198, 51, 100, 9]), 128, true),
                ([0; 16], 0, true),
            ],
            vips: vec![(v4, 96, false), (mapped(VIP.octets()), 128, true), (vip6.octets(), 64, true)],
            ..HostDecapTables::default()
        }
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

/// Every kind of tunnel for each inner family, with the inner packet for a service address.
fn all() -> Vec<(Tunnel, Vec<u8>)> {
    let mut tunnels = Vec::new();
    for ends in [(IpAddr::V4(NODE), IpAddr::V4(remote(42))), (BALANCER6, BACKEND6)] {
        for (encap, tags) in ENCAPS.into_iter().flat_map(|encap| TAGS.map(|tags| (encap, tags))) {
            let tunnel = Tunnel { link: (NEAR, OWN), tags, ends, encap, port: PORT, tos: 0 };
            for (client, vip) in [(IpAddr::V4(STRANGER), IpAddr::V4(VIP)), (CLIENT6, VIP6)] {
                tunnels.push((tunnel, ip(0xb8, (client, vip), 6, b"hardly a TCP segment at all")));
            }
        }
    }
    tunnels
}

/// A client's frame in a tunnel to the backend.
fn tunnel(inner: &Packet, source: Ipv4Addr) -> Vec<u8> {
    tunnelled(&inner.bytes(), (NEAR, OWN), source, remote(42))
}

/// A frame with some bytes replaced, and the outer checksum made right again.
fn with(mut frame: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    mend(&mut frame, 0);
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
    for (tunnel, packet) in all() {
        let output = framed(tunnel.link, tunnel.tags, &packet);
        let what = format!("{tunnel:?}");
        backend.check(&what, &tunnel.around(&packet), DecapReason::Decapsulated, Action::Pass, &output);
    }
}

#[test]
fn congestion_on_the_way_is_told_to_the_inner_packet_s_receiver() {
    let mut backend = Backend::new();
    for (tunnel, packet) in all() {
        let (ends, what) = (ends(&packet), format!("{tunnel:?}"));
        let inner = |tos| ip(tos, ends, 6, b"data");
        let marked = Tunnel { tos: 0x28 | 3, ..tunnel };
        let output = framed(tunnel.link, tunnel.tags, &inner(0xb8 | 3));
        backend.check(
            &what,
            &marked.around(&inner(0xb8 | 2)),
            DecapReason::Decapsulated,
            Action::Pass,
            &output,
        );
        backend.refuses(&what, &marked.around(&inner(0xb8)), DecapReason::Congested);
    }
}

/// Addresses of a packet, source first.
fn ends(packet: &[u8]) -> (IpAddr, IpAddr) {
    match etherparse::IpHeaders::from_slice(packet).expect("an IP packet").0 {
        etherparse::IpHeaders::Ipv4(ip, _) => (ip.source.into(), ip.destination.into()),
        etherparse::IpHeaders::Ipv6(ip, _) => (ip.source.into(), ip.destination.into()),
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
    // `::/0` among the sources does not mean them.
    for source in [Ipv4Addr::new(192, 0, 3, 1), Ipv4Addr::new(198, 51, 100, 8), Ipv4Addr::UNSPECIFIED] {
        backend.refuses("source", &tunnel(&inner, source), DecapReason::ForeignSource);
    }
    for address in [STRANGER, QUIET_VIP, Ipv4Addr::LOCALHOST] {
        let inner = Packet::tcp(INBOUND, Flow::nth(7, (address, L2)), Segment::Ack);
        backend.refuses("inner destination", &tunnel(&inner, NODE), DecapReason::ForeignDestination);
    }
    for (tunnel, _) in all() {
        let elsewhere = ip(0, (CLIENT6, BALANCER6), 6, b"data");
        backend.refuses("IPv6", &tunnel.around(&elsewhere), DecapReason::ForeignDestination);
    }
}

#[test]
fn fragments_and_contradictory_headers_are_refused() {
    use DecapReason::{Malformed, OtherHeader, OuterChecksum, OuterFragment};
    let mut backend = Backend::new();
    let frame = tunnel(&tcp(L2, Segment::Ack).payload(8), NODE);
    let (outer, inner) = (ETHERNET, ETHERNET + 20);
    let mut flipped = frame.clone();
    flipped[outer + 8] ^= 1;
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
        ("a flipped bit", flipped, OuterChecksum),
        (
            "GRE with optional fields",
            with(with(frame.clone(), 23, &[47]), inner, &[0x80, 0, 8, 0]),
            OtherHeader,
        ),
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
        ("UDP to another port", Packet::udp(link, Flow::nth(7, (near(42), 6081))).bytes(), NotATunnel),
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

/// One mutation near the beginning of a frame whose headers may be 240 bytes long; mostly with a right checksum, behind
/// which the other checks are.
fn mutation(frame: &[u8], tags: usize, random: &mut Random) -> Vec<u8> {
    let mut frame = match random.below(2) {
        0 => mutated(frame, random),
        _ => {
            let mut frame = frame.to_vec();
            let at = random.below(frame.len());
            frame[at] = match random.below(3) {
                0 => frame[at] ^ 1 << random.below(8),
                1 => [0, 1, 4, 6, 17, 41, 44, 47, 0x20, 0x45, 0x60, 0xff][random.below(12)],
                _ => random.word() as u8,
            };
            if random.below(4) == 0 {
                frame.truncate(ETHERNET + random.below(frame.len() - ETHERNET + 1));
            }
            frame
        }
    };
    if random.below(4) != 0 {
        mend(&mut frame, tags);
    }
    frame
}

#[test]
fn kernel_and_host_agree() {
    let (mut backend, host) = (Backend::new(), Backend::on_host());
    let mut frames = vec![
        (tcp(L2, Segment::Ack).to_mac(OWN).bytes(), 0),
        (arp((NEAR, [0xff; 6]), true, (NEAR, NODE), ([0; 6], remote(42))), 0),
        (tunnel(&tcp(L2, Segment::Ack), STRANGER), 0),
        (tunnel(&Packet::tcp(INBOUND, Flow::nth(1, (STRANGER, 80)), Segment::Ack), NODE), 0),
        (tunnel(&udp(DNS).options(8), SOURCES.0), 0),
        (tunnel(&tcp(L2, Segment::Ack).ip_len(1480).padded(1600), NODE), 0),
    ];
    for (tunnel, packet) in all() {
        let ends = ends(&packet);
        for (outer, inner) in [(0, 0), (3, 0), (3, 1), (1, 2), (2, 1)] {
            let frame = Tunnel { tos: outer, ..tunnel }.around(&ip(0xb8 | inner, ends, 17, &[7; 30]));
            frames.push((frame, tunnel.tags.len()));
        }
        let fragment =
            [&[17, 0, 0, 1, 1, 2, 3, 4][..], &[0xc1, 0x23, 0x17, 0xc0, 0, 60, 0, 0], &packet].concat();
        frames.push((
            framed(tunnel.link, tunnel.tags, &ip(0, (BALANCER6, BACKEND6), 44, &fragment)),
            tunnel.tags.len(),
        ));
    }
    let mut random = Random::new(6);
    let mut ran = 0u64;
    for (frame, tags) in &frames {
        for n in 0..MUTATIONS {
            let input = if n == 0 { frame.clone() } else { mutation(frame, *tags, &mut random) };
            let (action, bytes) = backend.program.run(&input).expect("the kernel runs the program");
            let mut on_host = HostFrame::new(&input);
            let verdict = format!("{:?}", decapsulate(&mut on_host, &host));
            assert_eq!(format!("{:?}", Action::from_raw(action)), verdict, "{input:02x?}");
            assert!(bytes == on_host.bytes(), "kernel {bytes:02x?}\n  host {:02x?}", on_host.bytes());
            ran += 1;
        }
    }
    for (reason, counted) in DecapReason::ALL.iter().zip(backend.counts()) {
        let expected = host.reasons.borrow().get(&(*reason as u32)).copied().unwrap_or(0);
        assert_eq!(counted, expected, "{}", reason.name());
        assert!(expected > 0, "no packet met {}", reason.name());
        println!("{:>8} {}", expected, reason.name());
    }
    println!("{ran} packets through both decapsulators: verdicts, bytes and counters are the same");
    assert!(ran >= 100_000);
}
