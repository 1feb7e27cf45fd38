//! Health probes through the service's path, in the kernel: what goes out of the gate and to whom, and what ends there.
//! Every packet also goes through the engine on the host, which must agree.

use std::collections::BTreeSet;

use lb_common::abi::{BackendState, PROBE_SLOTS, ProbeEntry, Protocol};
use lb_tests::bpf::Entrance::Gate;
use lb_tests::bpf::{Bench, SIZE};
use lb_tests::gate::*;
use lb_tests::packets::*;
use lb_tests::scene::*;
use lb_userspace::reconcile::DesiredBackend;

#[test]
fn a_probe_reaches_its_backend_by_l2() {
    let mut bench = armed(Protocol::Tcp, L2, near(41));
    for (what, probe) in segments(|segment| probe_tcp(SLOT, L2, segment)) {
        let output = relinked(&probe.bytes(), (NEAR, mac(41)));
        sent(&mut bench, &what, &probe, 1, &output);
    }
    let mut bench = armed(Protocol::Tcp, L2_FAR, near(44));
    let probe = probe_tcp(SLOT, L2_FAR, Segment::Syn);
    sent(&mut bench, "port 2", &probe, 2, &relinked(&probe.bytes(), (FAR, mac(44))));
    let mut bench = armed(Protocol::Udp, DNS, near(51));
    let probe = probe_udp(SLOT, DNS).payload(30);
    sent(&mut bench, "UDP", &probe, 1, &relinked(&probe.bytes(), (NEAR, mac(51))));
}

#[test]
fn a_probe_reaches_its_backend_by_ipip() {
    let mut bench = armed(Protocol::Tcp, IPIP, remote(42));
    for (what, probe) in segments(|segment| probe_tcp(SLOT, IPIP, segment)) {
        let output = tunnelled(&probe.bytes(), (NEAR, mac(42)), NODE, remote(42));
        sent(&mut bench, &what, &probe, 1, &output);
    }
    let mut bench = armed(Protocol::Tcp, IPIP_FAR, remote(45));
    let probe = probe_tcp(SLOT, IPIP_FAR, Segment::Syn);
    sent(&mut bench, "port 2", &probe, 2, &tunnelled(&probe.bytes(), (FAR, mac(45)), NODE, remote(45)));
    let mut bench = armed(Protocol::Udp, DNS_IPIP, remote(52));
    let probe = probe_udp(SLOT, DNS_IPIP).payload(30);
    sent(&mut bench, "UDP", &probe, 1, &tunnelled(&probe.bytes(), (NEAR, mac(52)), NODE, remote(52)));
}

/// A probe must take the path of a client: its tunnel's source comes from its flow too.
#[test]
fn the_tunnel_source_of_a_probe_comes_from_its_flow() {
    let mut bench = Bench::new(&gated());
    let id = id_of(&bench, remote(43));
    let (network, bits) = SOURCES;
    let mut sources = BTreeSet::new();
    for slot in 0..400 {
        bench.arm(slot, &entry(id, Protocol::Tcp, IPIP_PREFIX));
        let probe = probe_tcp(slot, IPIP_PREFIX, Segment::Syn);
        let source = outer_source(&bench.both_at(Gate, &probe.bytes()).1);
        assert_eq!(u32::from(source) >> bits, u32::from(network) >> bits, "{source} is in the prefix");
        let output = tunnelled(&probe.bytes(), (NEAR, mac(43)), source, remote(43));
        sent(&mut bench, "SYN", &probe, 1, &output);
        // The balancer would send a client with this very address and port through the same tunnel.
        let flow = Flow { from: (NODE, port_of(slot)), to: (VIP, IPIP_PREFIX) };
        let client = Packet::tcp(INBOUND, flow, Segment::Syn);
        assert_eq!(bench.both(&client.bytes()).1, output, "client and probe");
        let later = probe_tcp(slot, IPIP_PREFIX, Segment::Ack).payload(9);
        let output = tunnelled(&later.bytes(), (NEAR, mac(43)), source, remote(43));
        sent(&mut bench, "same flow, same source", &later, 1, &output);
        sources.insert(source);
    }
    // 400 draws out of 128 leave about 5 out.
    assert!(sources.len() > 110, "{} of 128 sources in use", sources.len());
}

/// The entry names the backend, whatever the ring says of the flow.
#[test]
fn every_backend_is_reached_whatever_its_state() {
    let mut backends = mixed();
    backends[1].state = BackendState::Down;
    backends[2].state = BackendState::Draining;
    backends[3] = DesiredBackend { state: BackendState::Down, ..backends[3] };
    let mut bench = Bench::new(&gated_with(MIXED, backends));
    assert_eq!(state_of(&bench, near(22)), BackendState::Down);
    assert_eq!(state_of(&bench, near(23)), BackendState::Draining);
    assert_eq!(state_of(&bench, remote(31)), BackendState::Down);
    let expected = |number: u8, frame: &[u8]| match number {
        21 | 22 => (1, relinked(frame, (NEAR, mac(number)))),
        23 => (2, relinked(frame, (FAR, mac(number)))),
        _ => (1, tunnelled(frame, (NEAR, mac(number)), NODE, remote(number))),
    };
    for (slot, address) in (100..).zip([near(21), near(22), near(23), remote(31)]) {
        let id = id_of(&bench, address);
        bench.arm(slot, &entry(id, Protocol::Tcp, MIXED));
        let probe = probe_tcp(slot, MIXED, Segment::Syn);
        let (port, output) = expected(address.octets()[3], &probe.bytes());
        sent(&mut bench, &format!("{address}"), &probe, port, &output);
    }
}

#[test]
fn probes_record_no_flows_where_clients_would() {
    let mut bench = Bench::new(&gated_with(MIXED, mixed()));
    bench.apply(&gated_with(MIXED, mixed().split_off(1)));
    for slot in 0..200 {
        let id = id_of(&bench, near(22));
        bench.arm(slot, &entry(id, Protocol::Tcp, MIXED));
        for segment in [Segment::Syn, Segment::Ack] {
            let probe = probe_tcp(slot, MIXED, segment);
            sent(&mut bench, "unsettled", &probe, 1, &relinked(&probe.bytes(), (NEAR, mac(22))));
        }
        home(&mut bench, "reply", &reply_tcp(mac(22), slot, MIXED, Segment::SynAck));
    }
    assert!(bench.kernel_flows().is_empty());
    for n in 0..200 {
        bench.both(&Packet::tcp(INBOUND, Flow::nth(n, (VIP, MIXED)), Segment::Syn).bytes());
    }
    assert!(!bench.kernel_flows().is_empty(), "clients' flows are recorded: the ring is unsettled");
}

#[test]
fn the_first_and_the_last_port_of_the_range_have_slots() {
    let mut bench = Bench::new(&gated());
    let id = id_of(&bench, near(41));
    for slot in [0, PROBE_SLOTS - 1] {
        let probe = probe_tcp(slot, L2, Segment::Syn);
        stopped(&mut bench, "not yet armed", &probe.bytes(), "stray_probe");
        bench.arm(slot, &entry(id, Protocol::Tcp, L2));
        sent(&mut bench, "armed", &probe, 1, &relinked(&probe.bytes(), (NEAR, mac(41))));
        home(&mut bench, "reply", &reply_tcp(mac(41), slot, L2, Segment::SynAck));
    }
    for port in [0, 1024, 0x7007, 0xefff] {
        let flow = Flow { from: (NODE, port), to: (VIP, L2) };
        let frame = Packet::tcp(OUTWARD, flow, Segment::Syn).bytes();
        stopped(&mut bench, &format!("port {port}"), &frame, "stray_probe");
        let flow = Flow { from: (VIP, L2), to: (NODE, port) };
        let frame = Packet::tcp((mac(41), NEAR), flow, Segment::SynAck).bytes();
        passed(&mut bench, &format!("reply to port {port}"), &frame, "not_a_service");
    }
}

#[test]
fn what_is_no_probe_under_way_ends_at_the_gate() {
    let mut bench = armed(Protocol::Tcp, L2, near(41));
    let id = id_of(&bench, near(41));
    let flow = |from, to| Packet::tcp(OUTWARD, Flow { from, to }, Segment::Syn).bytes();
    let (own, service) = ((NODE, port_of(SLOT)), (VIP, L2));
    let syn = || probe_tcp(SLOT, L2, Segment::Syn);
    let cases = [
        ("no entry", flow((NODE, port_of(SLOT + 1)), service)),
        ("another source", flow((STRANGER, own.1), service)),
        ("the service as source", flow((VIP, own.1), service)),
        ("another address", flow(own, (QUIET_VIP, L2))),
        ("another port", flow(own, (VIP, IPIP))),
        ("the port's bytes swapped", flow(own, (VIP, L2.swap_bytes()))),
        ("the reply's direction", flow(service, own)),
        ("another protocol", probe_udp(SLOT, L2).bytes()),
        ("ICMP", Packet::raw(OUTWARD, Flow { from: own, to: service }, 1).payload(64).bytes()),
        ("in a tunnel", tunnelled(&syn().bytes(), OUTWARD, NODE, VIP)),
        ("IPv6", ethernet(OUTWARD, 0x86dd, &[0x60; 60])),
        ("ARP", arp(OUTWARD, true, (OUTWARD.0, NODE), ([0; 6], VIP))),
        ("bare Ethernet", ethernet(OUTWARD, 0x0800, &[])),
        ("first fragment", syn().fragment(0, true).payload(64).bytes()),
        ("last fragment", syn().fragment(9, false).bytes()),
    ];
    for (what, frame) in cases {
        stopped(&mut bench, what, &frame, "stray_probe");
    }
    let whole = syn().payload(5).bytes();
    for len in ETHERNET..whole.len() {
        stopped(&mut bench, &format!("cut to {len}"), &whole[..len], "stray_probe");
    }
    // An address in another form is not this IPv4 address.
    let mut plain = entry(id, Protocol::Tcp, L2);
    plain.service_address[10..12].fill(0);
    bench.arm(SLOT, &plain);
    stopped(&mut bench, "not a mapped address", &syn().bytes(), "stray_probe");
}

#[test]
fn a_probe_without_a_way_to_its_backend_is_dropped_with_the_reason() {
    let mut bench = Bench::new(&gated());
    let unresolved = id_of(&bench, near(46));
    let free = (1..SIZE.backends).find(|id| !bench.observed().backends.contains_key(id)).expect("a free id");
    let cases = [
        ("nobody", 0, "no_backend"),
        ("a free id", free, "no_backend"),
        ("the last id", SIZE.backends, "no_backend"),
        ("beyond the table", SIZE.backends + 1, "no_backend"),
        ("beyond all ids", u32::MAX, "no_backend"),
        ("no next hop", unresolved, "no_next_hop"),
    ];
    for (what, id, reason) in cases {
        bench.arm(SLOT, &entry(id, Protocol::Tcp, UNRESOLVED));
        stopped(&mut bench, what, &probe_tcp(SLOT, UNRESOLVED, Segment::Syn).bytes(), reason);
    }
    bench.arm(SLOT, &ProbeEntry::default());
    stopped(&mut bench, "empty", &probe_tcp(SLOT, UNRESOLVED, Segment::Syn).bytes(), "stray_probe");
    let mut bench = armed(Protocol::Tcp, IPIP, remote(42));
    let fits = probe_tcp(SLOT, IPIP, Segment::Ack).ip_len(NEAR_MTU - 20);
    sent(&mut bench, "largest", &fits, 1, &tunnelled(&fits.bytes(), (NEAR, mac(42)), NODE, remote(42)));
    let frame = probe_tcp(SLOT, IPIP, Segment::Ack).ip_len(NEAR_MTU - 19).bytes();
    stopped(&mut bench, "a byte more", &frame, "too_big");
}
