//! Replies to health probes, at the balancer's program in the kernel: which come home, and that nothing else notices
//! that there are probes. Every packet also goes through the engine on the host, which must agree.

use std::net::Ipv4Addr;

use lb_common::abi::{PROBE_SLOTS, ProbeEntry, Protocol, mapped};
use lb_common::datapath::Verdict;
use lb_tests::bpf::Entrance::Network;
use lb_tests::bpf::{Bench, SIZE, delta};
use lb_tests::gate::*;
use lb_tests::packets::*;
use lb_tests::scene::*;

#[test]
fn replies_are_brought_home_from_any_backend() {
    let mut bench = armed(Protocol::Tcp, L2, near(41));
    for (what, reply) in segments(|segment| reply_tcp(mac(41), SLOT, L2, segment)) {
        home(&mut bench, &what, &reply);
    }
    // Direct server return: who answers shows nowhere in the packet but in the MAC address, which routers change.
    home(&mut bench, "through a router", &reply_tcp(CLIENT, SLOT, L2, Segment::SynAck));
    home(&mut bench, "RST of a closed port", &reply_tcp(mac(41), SLOT, L2, Segment::Rst));
    let mut bench = armed(Protocol::Udp, DNS, near(51));
    home(&mut bench, "UDP", &reply_udp(mac(51), SLOT, DNS).payload(40));
    // The reply is wanted as long as the entry stands: also when its backend is gone from the data plane.
    bench.arm(SLOT, &entry(SIZE.backends, Protocol::Udp, DNS));
    home(&mut bench, "unknown backend", &reply_udp(mac(51), SLOT, DNS));
}

/// An entry in which one field differs, by the field's name.
fn altered(entry: ProbeEntry) -> [(&'static str, ProbeEntry); 8] {
    [
        ("backend 0", ProbeEntry { backend: 0, ..entry }),
        ("gate beyond the ports", ProbeEntry { gate: SIZE.ports as u16 + 1, ..entry }),
        ("gate that is no port", ProbeEntry { gate: SIZE.ports as u16, ..entry }),
        ("service port", ProbeEntry { service_port: IPIP.to_be_bytes(), ..entry }),
        ("service address", ProbeEntry { service_address: mapped(QUIET_VIP.octets()), ..entry }),
        ("node address", ProbeEntry { node_address: mapped(STRANGER.octets()), ..entry }),
        ("protocol", ProbeEntry { protocol: 17, ..entry }),
        ("empty", ProbeEntry::default()),
    ]
}

#[test]
fn a_packet_that_differs_from_a_reply_in_any_field_passes_as_before() {
    let mut bench = armed(Protocol::Tcp, L2, near(41));
    let (own, service) = ((NODE, port_of(SLOT)), (VIP, L2));
    let link = (mac(41), NEAR);
    let flow = |from, to| Packet::tcp(link, Flow { from, to }, Segment::SynAck).bytes();
    let reply = || reply_tcp(mac(41), SLOT, L2, Segment::SynAck);
    let cases = [
        ("no entry", flow(service, (NODE, port_of(SLOT + 1))), "not_a_service"),
        ("from another address", flow((QUIET_VIP, L2), own), "not_a_service"),
        ("from the backend's own address", flow((near(41), L2), own), "not_a_service"),
        ("from another port", flow((VIP, IPIP), own), "not_a_service"),
        ("to another address", flow(service, (STRANGER, own.1)), "not_a_service"),
        ("another protocol", reply_udp(mac(41), SLOT, L2).bytes(), "not_a_service"),
        ("the probe's direction", flow(own, (STRANGER, L2)), "not_a_service"),
        ("fragment", reply().fragment(0, true).payload(64).bytes(), "not_a_service"),
        ("ICMP", Packet::raw(link, Flow { from: service, to: own }, 1).payload(36).bytes(), "other_protocol"),
        ("for another station", reply().to_mac(mac(1)).bytes(), "other_mac"),
        ("broadcast", reply().to_mac([0xff; 6]).bytes(), "other_mac"),
    ];
    for (what, frame, reason) in cases {
        passed(&mut bench, what, &frame, reason);
    }
    let whole = reply().payload(5).bytes();
    for len in ETHERNET..whole.len() {
        passed(&mut bench, &format!("cut to {len}"), &whole[..len], "malformed_elsewhere");
    }
    let id = id_of(&bench, near(41));
    for (what, altered) in altered(entry(id, Protocol::Tcp, L2)) {
        bench.arm(SLOT, &altered);
        passed(&mut bench, what, &reply().bytes(), "not_a_service");
    }
    bench.arm(SLOT, &entry(id, Protocol::Tcp, L2));
    home(&mut bench, "armed again", &reply());
}

#[test]
fn without_a_gate_replies_pass() {
    let mut bench = armed(Protocol::Tcp, L2, near(41));
    let reply = reply_tcp(mac(41), SLOT, L2, Segment::SynAck);
    home(&mut bench, "gate", &reply);
    bench.apply(&desired());
    passed(&mut bench, "gate gone", &reply.bytes(), "not_a_service");
    bench.apply(&gated());
    home(&mut bench, "gate again", &reply);
}

#[test]
fn clients_with_ports_of_the_probes_range_are_balanced_as_ever() {
    let mut bench = Bench::new(&gated());
    let ids = [id_of(&bench, near(44)), id_of(&bench, remote(45))];
    let mut slots = vec![0, SLOT, 1000, PROBE_SLOTS - 1];
    slots.extend((0..60).map(|n| n * 67 + 1));
    for (n, slot) in slots.into_iter().enumerate() {
        // Armed for another backend than the service's, and half of the time for this very service.
        let port = if n % 2 == 0 { L2 } else { IPIP };
        bench.arm(slot, &entry(ids[n % 2], Protocol::Tcp, port));
        for client in [NODE, Ipv4Addr::new(198, 51, 100, 200)] {
            let flow = Flow { from: (client, port_of(slot)), to: (VIP, L2) };
            let frame = Packet::tcp(INBOUND, flow, Segment::Ack).bytes();
            let before = bench.kernel_counts();
            let (verdict, bytes) = bench.both_at(Network, &frame);
            assert_eq!(verdict, Verdict::Transmit, "{client}");
            assert_eq!(bytes, relinked(&frame, (NEAR, mac(41))));
            let counted = delta(&before, &bench.kernel_counts());
            let expected =
                [("packets", 1), ("bytes", 40)].map(|(what, n)| (format!("{L2} 203.0.113.41 {what}"), n));
            assert_eq!(counted, expected.into());
        }
    }
}

/// A service keeps what is its own, even where its port is one that probes come from.
#[test]
fn a_service_on_a_port_of_the_probes_range_is_served_first() {
    let mut desired = gated();
    desired.services.push(service(Protocol::Tcp, port_of(SLOT), vec![backend(1, 49, None)]));
    let mut bench = Bench::new(&desired);
    let id = id_of(&bench, near(49));
    bench.arm(SLOT, &ProbeEntry { node_address: mapped(VIP.octets()), ..entry(id, Protocol::Tcp, L2) });
    let flow = Flow { from: (VIP, L2), to: (VIP, port_of(SLOT)) };
    let frame = Packet::tcp(INBOUND, flow, Segment::Ack).bytes();
    let (verdict, bytes) = bench.both_at(Network, &frame);
    assert_eq!((verdict, bytes), (Verdict::Transmit, relinked(&frame, (NEAR, mac(49)))));
    // And it is probed like any other.
    bench.arm(SLOT, &entry(id, Protocol::Tcp, port_of(SLOT)));
    let probe = probe_tcp(SLOT, port_of(SLOT), Segment::Syn);
    sent(&mut bench, "probe", &probe, 1, &relinked(&probe.bytes(), (NEAR, mac(49))));
}
