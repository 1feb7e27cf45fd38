//! Single packets through the program in the kernel: verdict, whole output frame and exact counters, each compared
//! with what etherparse builds. Every packet also goes through the engine on the host, which must agree.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use lb_tests::bpf::{Action, Bench, Counts, delta};
use lb_tests::packets::*;
use lb_tests::scene::*;

/// Runs a frame and checks everything that is observable about it.
#[track_caller]
fn check(bench: &mut Bench, what: &str, input: &[u8], action: Action, output: &[u8], counts: &[(&str, u64)]) {
    let before = bench.kernel_counts();
    let (done, bytes) = bench.both(input);
    assert_eq!(done, action, "{what}");
    assert!(bytes == output, "{what}: bytes\n     got {bytes:02x?}\nexpected {output:02x?}");
    let counted = delta(&before, &bench.kernel_counts());
    let expected = counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
    assert_eq!(counted, expected, "{what}: counters");
}

/// Checks a packet that is counted under one reason and stays as it is.
#[track_caller]
fn refused(bench: &mut Bench, what: &str, input: &[u8], action: Action, reason: &str) {
    check(bench, what, input, action, input, &[(reason, 1)]);
}

/// Checks a packet that goes to the backend `name` as `output`; `len` is its IP length.
#[track_caller]
fn sent(
    bench: &mut Bench,
    what: &str,
    packet: &Packet,
    action: Action,
    output: &[u8],
    name: &str,
    flows: u64,
) {
    let input = packet.bytes();
    let len = u64::from(u16::from_be_bytes([input[16], input[17]]));
    let (packets, bytes, new) = (format!("{name} packets"), format!("{name} bytes"), format!("{name} flows"));
    let mut counts = vec![(packets.as_str(), 1), (bytes.as_str(), len)];
    if flows > 0 {
        counts.push((new.as_str(), flows));
    }
    check(bench, what, &input, action, output, &counts);
}

/// Packets of every shape that a service takes.
fn shapes(of: impl Fn() -> Packet, mtu: usize) -> Vec<(String, Packet)> {
    let mut shapes = vec![
        ("no payload".to_owned(), of()),
        ("padded to the shortest frame".to_owned(), of().padded(SHORTEST)),
        ("padded far".to_owned(), of().payload(3).padded(200)),
        ("DF".to_owned(), of().dont_fragment()),
        ("largest".to_owned(), of().ip_len(mtu)),
        ("largest, with options".to_owned(), of().options(40).ip_len(mtu)),
    ];
    shapes.extend((1..=9).map(|len| (format!("payload of {len}"), of().payload(len))));
    shapes.extend([1, 2, 0x2c, 0xb8, 0xff].map(|tos| (format!("TOS {tos:#x}"), of().tos(tos))));
    shapes.extend(
        (4..=40).step_by(4).map(|len| (format!("{len} bytes of options"), of().options(len).payload(len))),
    );
    shapes
}

#[test]
fn l2_replaces_the_mac_addresses_only() {
    let mut bench = Bench::new(&desired());
    for (what, packet) in shapes(|| tcp(L2, Segment::Ack), NEAR_MTU) {
        let output = relinked(&packet.bytes(), (NEAR, mac(41)));
        sent(&mut bench, &what, &packet, Action::Transmit, &output, "8001 203.0.113.41", 0);
    }
    for (what, packet) in shapes(|| udp(DNS), NEAR_MTU) {
        let output = relinked(&packet.bytes(), (NEAR, mac(51)));
        sent(&mut bench, &format!("UDP, {what}"), &packet, Action::Transmit, &output, "53 203.0.113.51", 0);
    }
}

#[test]
fn ipip_adds_an_outer_header_with_the_inner_tos() {
    let mut bench = Bench::new(&desired());
    for (what, packet) in shapes(|| tcp(IPIP, Segment::Ack), NEAR_MTU - 20) {
        let output = tunnelled(&packet.bytes(), (NEAR, mac(42)), NODE, remote(42));
        sent(&mut bench, &what, &packet, Action::Transmit, &output, "8002 198.51.100.42", 0);
    }
    for (what, packet) in shapes(|| udp(DNS_IPIP), NEAR_MTU - 20) {
        let output = tunnelled(&packet.bytes(), (NEAR, mac(52)), NODE, remote(52));
        sent(&mut bench, &format!("UDP, {what}"), &packet, Action::Transmit, &output, "54 198.51.100.52", 0);
    }
}

#[test]
fn other_ports_are_reached_by_redirect_with_their_own_mac_and_mtu() {
    let mut bench = Bench::new(&desired());
    for (what, packet) in shapes(|| tcp(L2_FAR, Segment::Ack), FAR_MTU) {
        let output = relinked(&packet.bytes(), (FAR, mac(44)));
        sent(&mut bench, &what, &packet, Action::Redirect, &output, "8004 203.0.113.44", 0);
    }
    for (what, packet) in shapes(|| tcp(IPIP_FAR, Segment::Ack), FAR_MTU - 20) {
        let output = tunnelled(&packet.bytes(), (FAR, mac(45)), NODE, remote(45));
        sent(&mut bench, &what, &packet, Action::Redirect, &output, "8005 198.51.100.45", 0);
    }
}

#[test]
fn only_a_syn_alone_counts_as_a_new_flow() {
    let mut bench = Bench::new(&desired());
    let segments =
        [(Segment::Syn, 1), (Segment::SynAck, 0), (Segment::Ack, 0), (Segment::Fin, 0), (Segment::Rst, 0)];
    for (segment, flows) in segments {
        let packet = tcp(L2, segment);
        let output = relinked(&packet.bytes(), (NEAR, mac(41)));
        let what = format!("{segment:?}");
        sent(&mut bench, &what, &packet, Action::Transmit, &output, "8001 203.0.113.41", flows);
    }
    assert!(bench.kernel_flows().is_empty(), "a settled ring records nothing");
}

#[test]
fn who_sends_a_packet_that_does_not_fit_is_told_what_does() {
    let mut bench = Bench::new(&desired());
    for (port, mtu) in [
        (L2, NEAR_MTU),
        (IPIP, NEAR_MTU - 20),
        (IPIP_PREFIX, NEAR_MTU - 20),
        (L2_FAR, FAR_MTU),
        (IPIP_FAR, FAR_MTU - 20),
    ] {
        let (action, _) = bench.both(&tcp(port, Segment::Ack).ip_len(mtu).bytes());
        assert_ne!(action, Action::Drop, "{port}: {mtu} bytes fit");
        let before = bench.kernel_counts();
        let (action, answer) = bench.both(&tcp(port, Segment::Ack).ip_len(mtu + 1).bytes());
        assert_eq!(action, Action::Transmit, "{port}: {mtu} + 1 bytes");
        let counted = delta(&before, &bench.kernel_counts());
        assert_eq!(counted, Counts::from([("too_big_answered".to_owned(), 1)]), "{port}: {mtu} + 1 bytes");
        // Destination unreachable, fragmentation needed, next-hop MTU (RFC 1191 section 4).
        let [high, low] = (mtu as u16).to_be_bytes();
        let told = &answer[ETHERNET + 20..ETHERNET + 28];
        assert_eq!((&told[..2], &told[4..]), (&[3, 4][..], &[0, 0, high, low][..]), "{port}");
    }
}

#[test]
fn a_tunnel_source_comes_from_the_flow_within_its_prefix() {
    let mut bench = Bench::new(&desired());
    let (network, bits) = SOURCES;
    let mut sources = BTreeSet::new();
    for n in 0..400 {
        let flow = Flow::nth(n, (VIP, IPIP_PREFIX));
        let first = Packet::tcp(INBOUND, flow, Segment::Syn).bytes();
        let later = Packet::tcp(INBOUND, flow, Segment::Ack).tos(0x2c).payload(n as usize).bytes();
        let (action, output) = bench.both(&first);
        assert_eq!(action, Action::Transmit);
        let source = outer_source(&output);
        assert_eq!(u32::from(source) >> bits, u32::from(network) >> bits, "{source} is in the prefix");
        assert!(output == tunnelled(&first, (NEAR, mac(43)), source, remote(43)), "{output:02x?}");
        let (_, output) = bench.both(&later);
        assert!(output == tunnelled(&later, (NEAR, mac(43)), source, remote(43)), "same flow, same source");
        sources.insert(source);
    }
    // 400 draws out of 128 leave about 5 out.
    assert!(sources.len() > 110, "{} of 128 sources in use", sources.len());
}

#[test]
fn a_backend_without_next_hop_or_a_service_without_backend_drops() {
    let mut bench = Bench::new(&desired());
    let frame = tcp(UNRESOLVED, Segment::Syn).bytes();
    refused(&mut bench, "no next hop", &frame, Action::Drop, "8006 drop no_next_hop");
    let frame = tcp(EMPTY, Segment::Syn).bytes();
    refused(&mut bench, "no backend", &frame, Action::Drop, "8007 drop no_backend");
}

#[test]
fn traffic_that_is_no_service_s_passes_untouched() {
    let mut bench = Bench::new(&desired());
    let to = |address, port| Flow::nth(7, (address, port));
    let v6 = [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &[0x20; 52]].concat();
    let cases = [
        ("IPv6", ethernet(INBOUND, 0x86dd, &v6), "not_a_service"),
        ("LLDP", ethernet(INBOUND, 0x88cc, &[2, 7, 4]), "not_ip"),
        ("14 bytes", ethernet(INBOUND, 0x0806, &[]), "not_ip"),
        ("another MAC", tcp(L2, Segment::Ack).to_mac(mac(1)).bytes(), "other_mac"),
        ("broadcast", tcp(L2, Segment::Ack).to_mac([0xff; 6]).bytes(), "other_mac"),
        ("ICMP to a VIP", Packet::raw(INBOUND, to(VIP, 0), 1).payload(64).bytes(), "other_protocol"),
        ("GRE to a VIP", Packet::raw(INBOUND, to(VIP, 0), 47).payload(64).bytes(), "other_protocol"),
        ("TCP elsewhere", Packet::tcp(INBOUND, to(STRANGER, 80), Segment::Syn).bytes(), "not_a_service"),
        ("UDP elsewhere", Packet::udp(INBOUND, to(STRANGER, 53)).payload(9).bytes(), "not_a_service"),
        (
            "to a backend itself",
            Packet::tcp(INBOUND, to(near(41), L2), Segment::Syn).bytes(),
            "not_a_service",
        ),
        (
            "other port, passing VIP",
            Packet::tcp(INBOUND, to(QUIET_VIP, L2), Segment::Syn).bytes(),
            "not_a_service",
        ),
        ("other protocol, passing VIP", Packet::udp(INBOUND, to(QUIET_VIP, QUIET)).bytes(), "not_a_service"),
        (
            "fragment elsewhere",
            Packet::udp(INBOUND, to(STRANGER, 53)).fragment(0, true).payload(64).bytes(),
            "not_a_service",
        ),
    ];
    for (what, frame, reason) in cases {
        refused(&mut bench, what, &frame, Action::Pass, reason);
    }
}

#[test]
fn other_ports_and_fragments_without_a_first_are_dropped() {
    let mut bench = Bench::new(&desired());
    let quiet = Flow::nth(7, (QUIET_VIP, QUIET));
    let cases = [
        ("other TCP port", tcp(9, Segment::Syn).bytes(), "other_port"),
        ("TCP to a UDP service's port", tcp(DNS, Segment::Syn).bytes(), "other_port"),
        ("UDP to a TCP service's port", udp(L2).bytes(), "other_port"),
        ("middle fragment", tcp(L2, Segment::Ack).fragment(9, true).payload(64).bytes(), "fragment"),
        ("last fragment", udp(DNS).fragment(9, false).payload(64).bytes(), "fragment"),
    ];
    for (what, frame, reason) in cases {
        refused(&mut bench, what, &frame, Action::Drop, reason);
    }
    // Where other ports are the host's, so are fragments: nobody can tell whose they are.
    let fragment = Packet::tcp(INBOUND, quiet, Segment::Ack).fragment(9, true).bytes();
    refused(&mut bench, "fragment to a passing VIP", &fragment, Action::Pass, "not_a_service");
}

/// A frame with some bytes replaced.
fn with(mut frame: Vec<u8>, offset: usize, bytes: &[u8]) -> Vec<u8> {
    frame[offset..offset + bytes.len()].copy_from_slice(bytes);
    frame
}

#[test]
fn contradictory_headers_are_dropped_for_a_vip_and_passed_elsewhere() {
    let mut bench = Bench::new(&desired());
    for (address, action, reason) in
        [(VIP, Action::Drop, "malformed"), (STRANGER, Action::Pass, "malformed_elsewhere")]
    {
        let tcp = Packet::tcp(INBOUND, Flow::nth(7, (address, L2)), Segment::Ack).payload(20).bytes();
        let udp = Packet::udp(INBOUND, Flow::nth(7, (address, DNS))).payload(20).bytes();
        let ip_len = |frame: &[u8], len: u16| with(frame.to_vec(), 16, &len.to_be_bytes());
        let mut cases = vec![
            ("version 6".to_owned(), with(tcp.clone(), 14, &[0x65])),
            ("version 0".to_owned(), with(tcp.clone(), 14, &[0x05])),
            ("longer than the frame by 1".to_owned(), ip_len(&tcp, 61)),
            ("longest".to_owned(), ip_len(&tcp, 0xffff)),
            ("header longer than the packet".to_owned(), with(ip_len(&tcp, 40), 14, &[0x4b])),
        ];
        cases.extend((0..5).map(|ihl| (format!("ihl {ihl}"), with(tcp.clone(), 14, &[0x40 | ihl]))));
        cases
            .extend((0..20).map(|len| (format!("length {len}, shorter than the header"), ip_len(&tcp, len))));
        cases.extend((20..40).map(|len| (format!("TCP of {} bytes", len - 20), ip_len(&tcp, len))));
        cases.extend((20..28).map(|len| (format!("UDP of {} bytes", len - 20), ip_len(&udp, len))));
        for (what, frame) in cases {
            refused(&mut bench, &format!("{address}: {what}"), &frame, action, reason);
        }
    }
}

#[test]
fn truncation_at_every_byte_is_seen() {
    let mut bench = Bench::new(&desired());
    for (what, frame) in [
        ("TCP", tcp(L2, Segment::Syn).payload(10).bytes()),
        ("TCP with options", tcp(IPIP, Segment::Syn).options(40).payload(1).bytes()),
        ("UDP", udp(DNS_IPIP).payload(5).bytes()),
    ] {
        for len in ETHERNET..frame.len() {
            // Without a whole IPv4 header there is no address, and so no VIP to protect.
            let (action, reason) = if len < ETHERNET + 20 {
                (Action::Pass, "malformed_elsewhere")
            } else {
                (Action::Drop, "malformed")
            };
            refused(&mut bench, &format!("{what} cut to {len}"), &frame[..len], action, reason);
        }
    }
}

#[test]
fn arp_requests_for_an_advertised_address_are_answered() {
    let mut bench = Bench::new(&desired());
    const NOBODY: Mac = [0; 6];
    let client = (CLIENT, Ipv4Addr::new(203, 0, 113, 5));
    let answer = |to, target| arp((NEAR, CLIENT), false, (NEAR, VIP), (to, target));
    for (what, link, sender) in [
        ("broadcast", (CLIENT, [0xff; 6]), client),
        ("unicast", (CLIENT, NEAR), client),
        ("probe (RFC 5227)", (CLIENT, [0xff; 6]), (CLIENT, Ipv4Addr::UNSPECIFIED)),
    ] {
        let request = arp(link, true, sender, (NOBODY, VIP));
        let output = answer(CLIENT, sender.1);
        check(&mut bench, what, &request, Action::Transmit, &output, &[("arp_answered", 1)]);
    }
    let broadcast = (CLIENT, [0xff; 6]);
    for (what, frame) in [
        ("for another host", arp(broadcast, true, client, (NOBODY, STRANGER))),
        ("for a VIP that routers bring", arp(broadcast, true, client, (NOBODY, QUIET_VIP))),
        ("announcement of a VIP", arp(broadcast, true, (CLIENT, VIP), (NOBODY, VIP))),
        ("announcement of a host", arp(broadcast, true, client, (NOBODY, client.1))),
        ("reply", arp((CLIENT, NEAR), false, client, (NEAR, VIP))),
        ("reply to all", arp(broadcast, false, (CLIENT, VIP), (CLIENT, VIP))),
    ] {
        refused(&mut bench, what, &frame, Action::Pass, "not_ip");
    }
    let request = arp(broadcast, true, client, (NOBODY, VIP));
    for len in ETHERNET..ETHERNET + 28 {
        refused(&mut bench, &format!("cut to {len}"), &request[..len], Action::Pass, "not_ip");
    }
    let ethernet_only = with(request.clone(), 15, &[6]);
    refused(&mut bench, "another kind of hardware", &ethernet_only, Action::Pass, "not_ip");
}
