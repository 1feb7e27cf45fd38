//! The engine on the host: parsing at its edges, the rules of flow choice, and what probes may do.

use etherparse::PacketBuilder;

use super::host::{HostFrame, HostTables};
use super::{TOUCH_INTERVAL_NS, Verdict, probe, process};
use crate::abi::*;

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const CLIENT: [u8; 4] = [198, 51, 100, 7];
const VIP: [u8; 4] = [203, 0, 113, 10];
const RING: u32 = 7;
const SERVICE: u32 = 3;

fn id(n: u32) -> BackendId {
    BackendId::new(n).unwrap()
}

fn backend(n: u8) -> BackendEntry {
    BackendEntry {
        next_hop: NextHop::new([2, 0, 0, 0, 1, n], 1).0,
        service: SERVICE,
        state: BackendState::Up.to_raw(),
        method: Method::L2.to_raw(),
        address: mapped([203, 0, 113, 20 + n]),
        ..BackendEntry::default()
    }
}

/// Services tcp/80 and udp/53 on one VIP whose slots all hold `slot`; backends 1 and 2 are up.
fn tables(slot: Slot) -> HostTables {
    let mut tables = HostTables { ingress: 1, rings: vec![slot; RING as usize], ..HostTables::default() };
    tables.control.flags = Control::VIP_POLICY;
    let entry = ServiceEntry { ring_start: 0, ring_size: RING, id: SERVICE, ..ServiceEntry::default() };
    tables.services.insert(ServiceKey::v4(VIP, Protocol::Tcp, 80), entry);
    tables.services.insert(ServiceKey::v4(VIP, Protocol::Udp, 53), entry);
    let flags = VipEntry::ANSWER_ARP | VipEntry::DROP_OTHER_PORTS;
    tables.vips.insert(VipKey::v4(VIP), VipEntry { flags, reserved: 0 });
    tables.ports.insert(1, PortEntry { ifindex: 5, mtu: 1500, mac: OWN, reserved: 0 });
    tables.backends.insert(1, backend(1));
    tables.backends.insert(2, backend(2));
    tables
}

fn tcp(port: u16, syn: bool) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, OWN).ipv4(CLIENT, VIP, 64).tcp(port, 80, 1, 1000);
    let mut frame = Vec::new();
    if syn { builder.syn() } else { builder.ack(1) }.write(&mut frame, b"odd").unwrap();
    frame
}

fn udp(port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(CLIENT_MAC, OWN)
        .ipv4(CLIENT, VIP, 64)
        .udp(port, 53)
        .write(&mut frame, b"query")
        .unwrap();
    frame
}

/// Runs a frame; its verdict and the number of the backend it was sent to.
fn send(tables: &HostTables, bytes: &[u8]) -> (Verdict, Option<u8>) {
    let mut frame = HostFrame::new(bytes);
    let verdict = process(&mut frame, tables);
    let to = frame.bytes().get(5).copied().filter(|_| verdict == Verdict::Transmit);
    (verdict, to)
}

fn sent_to(tables: &HostTables, bytes: &[u8]) -> u8 {
    send(tables, bytes).1.expect("transmitted")
}

fn dropped(tables: &HostTables, reason: Reason) -> u64 {
    let of_services =
        tables.drops.borrow().iter().filter(|((_, r), _)| *r == reason as u32).map(|(_, n)| n).sum::<u64>();
    of_services + tables.reasons.borrow().get(&(reason as u32)).copied().unwrap_or(0)
}

#[test]
fn a_frame_cut_anywhere_is_never_forwarded() {
    let whole = tcp(4000, true);
    for len in 0..whole.len() {
        let tables = tables(Slot::settled(id(1)));
        let (verdict, _) = send(&tables, &whole[..len]);
        // With fewer than 20 bytes of IPv4 nobody can tell whom it is for.
        let expected = if len < 14 + 20 { Verdict::Pass } else { Verdict::Drop };
        assert_eq!(verdict, expected, "{len} bytes");
        assert_eq!(dropped(&tables, Reason::Malformed), u64::from(len >= 34), "{len} bytes");
    }
    assert_eq!(sent_to(&tables(Slot::settled(id(1))), &whole), 1);
}

#[test]
fn contradicting_lengths_are_malformed() {
    let cases: [(&str, usize, u8); 6] = [
        ("version 6 in the first nibble", 14, 0x65),
        ("header length 16", 14, 0x44),
        ("header length 60 in a shorter packet", 14, 0x4f),
        ("total length beyond the frame", 16, 0xff),
        ("total length below the header", 17, 19),
        ("total length below the TCP header", 17, 39),
    ];
    for (name, offset, value) in cases {
        let tables = tables(Slot::settled(id(1)));
        let mut frame = tcp(4000, true);
        frame[offset] = value;
        assert_eq!(send(&tables, &frame).0, Verdict::Drop, "{name}");
        assert_eq!(dropped(&tables, Reason::Malformed), 1, "{name}");
        frame[30] = 99; // for another address: not our business
        assert_eq!(send(&tables, &frame).0, Verdict::Pass, "{name}");
    }
}

#[test]
fn options_move_the_ports() {
    for words in 0..=10u8 {
        let mut frame = tcp(4000, true);
        let extra = usize::from(words) * 4;
        frame.splice(34..34, std::iter::repeat_n(1, extra));
        frame[14] = 0x45 + words;
        let total = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        assert_eq!(sent_to(&tables(Slot::settled(id(1))), &frame), 1, "{extra} bytes of options");
    }
}

#[test]
fn padding_behind_the_packet_is_no_harm() {
    let mut frame = udp(4000);
    frame.resize(60, 0xaa);
    let tables = tables(Slot::settled(id(2)));
    assert_eq!(sent_to(&tables, &frame), 2);
    assert_eq!(tables.forwarded.borrow()[&2].bytes, 20 + 8 + 5, "bytes of the IP packet, not of the frame");
}

#[test]
fn a_settled_slot_uses_no_flow_table() {
    let tables = tables(Slot::settled(id(1)));
    for frame in [tcp(1, true), tcp(2, false), udp(3)] {
        assert_eq!(sent_to(&tables, &frame), 1);
    }
    assert!(tables.flows.borrow().is_empty());
}

#[test]
fn in_a_fresh_slot_new_flows_go_to_the_current_owner_and_older_ones_stay() {
    let tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    assert_eq!(sent_to(&tables, &tcp(1, true)), 2, "SYN: new");
    assert_eq!(sent_to(&tables, &tcp(1, false)), 2, "its next packet: recorded");
    assert_eq!(sent_to(&tables, &tcp(2, false)), 1, "unknown, no SYN: older than the change");
    assert_eq!(sent_to(&tables, &tcp(2, true)), 1, "a repeated SYN of a known flow stays");
    assert_eq!(sent_to(&tables, &udp(3)), 1, "UDP cannot tell: previous");
    assert_eq!(tables.flows.borrow().len(), 3);
    let flows = |n| tables.forwarded.borrow().get(&n).map_or(0, |counted: &BackendCounters| counted.flows);
    assert_eq!((flows(1), flows(2)), (1, 1), "new flows: the UDP one, the SYN");
}

#[test]
fn in_a_late_slot_strays_leave_no_record_and_unknown_udp_is_new() {
    let tables = tables(Slot::settled(id(1)).moved_to(id(2)).late());
    assert_eq!(sent_to(&tables, &tcp(1, false)), 1, "stray: previous");
    assert!(tables.flows.borrow().is_empty(), "unrecorded");
    assert_eq!(sent_to(&tables, &tcp(2, true)), 2);
    assert_eq!(sent_to(&tables, &tcp(2, false)), 2, "recorded by its SYN");
    assert_eq!(sent_to(&tables, &udp(3)), 2, "UDP: current");
    assert_eq!(tables.flows.borrow().len(), 2);
}

#[test]
fn what_is_flooded_to_another_station_passes() {
    let tables = tables(Slot::settled(id(1)));
    let mut frame = tcp(1, true);
    frame[5] = 77;
    assert_eq!(send(&tables, &frame).0, Verdict::Pass);
    let mut arp = [&[2, 0, 0, 0, 0, 77], &CLIENT_MAC[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    arp.extend([&CLIENT_MAC[..], &CLIENT, &[0; 6], &VIP].concat());
    assert_eq!(send(&tables, &arp).0, Verdict::Pass, "another balancer is asked");
    arp[..6].copy_from_slice(&[0xff; 6]);
    assert_eq!(send(&tables, &arp).0, Verdict::Transmit, "everybody is asked");
    assert_eq!(dropped(&tables, Reason::OtherMac), 2);
}

#[test]
fn a_recorded_flow_survives_later_changes() {
    let mut tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    tables.backends.insert(3, backend(3));
    assert_eq!(sent_to(&tables, &tcp(1, true)), 2);
    tables.rings = vec![tables.rings[0].moved_to(id(3)); RING as usize];
    assert_eq!(sent_to(&tables, &tcp(1, false)), 2, "recorded on the owner in between");
    assert_eq!(sent_to(&tables, &tcp(2, false)), 1, "unknown: oldest previous owner");
    assert_eq!(sent_to(&tables, &tcp(3, true)), 3);
}

#[test]
fn a_backend_that_is_down_receives_nothing_and_its_records_are_corrected() {
    let mut tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    assert_eq!(sent_to(&tables, &tcp(1, false)), 1);
    tables.backends.get_mut(&1).unwrap().state = BackendState::Down.to_raw();
    assert_eq!(sent_to(&tables, &tcp(1, false)), 2, "recorded on a dead backend");
    assert_eq!(sent_to(&tables, &tcp(2, false)), 2, "previous is dead");
    tables.backends.get_mut(&1).unwrap().state = BackendState::Up.to_raw();
    assert_eq!(sent_to(&tables, &tcp(1, false)), 2, "corrected, for good");
}

#[test]
fn a_draining_backend_keeps_its_flows() {
    let mut tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    tables.backends.get_mut(&1).unwrap().state = BackendState::Draining.to_raw();
    assert_eq!(sent_to(&tables, &tcp(1, false)), 1);
    assert_eq!(sent_to(&tables, &tcp(2, true)), 2);
}

#[test]
fn another_services_record_is_a_miss() {
    let tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    assert_eq!(sent_to(&tables, &tcp(1, true)), 2);
    for entry in tables.flows.borrow_mut().values_mut() {
        entry.service = SERVICE + 1;
    }
    assert_eq!(sent_to(&tables, &tcp(1, false)), 1);
}

#[test]
fn time_stamps_are_renewed_once_a_second() {
    let tables = tables(Slot::settled(id(1)).moved_to(id(2)));
    let stamp = || tables.flows.borrow().values().next().unwrap().last_seen_ns;
    tables.now_ns.set(100);
    send(&tables, &tcp(1, true));
    tables.now_ns.set(100 + TOUCH_INTERVAL_NS - 1);
    send(&tables, &tcp(1, false));
    assert_eq!(stamp(), 100);
    tables.now_ns.set(100 + TOUCH_INTERVAL_NS);
    send(&tables, &tcp(1, false));
    assert_eq!(stamp(), 100 + TOUCH_INTERVAL_NS);
}

#[test]
fn an_empty_slot_or_an_absent_backend_is_no_backend() {
    for slot in [Slot::default(), Slot::settled(id(9))] {
        let tables = tables(slot);
        assert_eq!(send(&tables, &tcp(1, true)).0, Verdict::Drop);
        assert_eq!(dropped(&tables, Reason::NoBackend), 1);
    }
}

#[test]
fn without_headroom_an_encapsulated_packet_is_dropped_and_counted() {
    let mut tables = tables(Slot::settled(id(1)));
    let entry = tables.backends.get_mut(&1).unwrap();
    entry.method = Method::Ipip.to_raw();
    entry.outer_source = mapped([203, 0, 113, 5]);
    let mut frame = HostFrame::without_headroom(&tcp(1, true));
    assert_eq!(process(&mut frame, &tables), Verdict::Drop);
    assert_eq!(dropped(&tables, Reason::NoHeadroom), 1);
}

const NODE: [u8; 4] = [203, 0, 113, 1];
/// Number of the port that leads to the prober.
const GATE: u16 = 9;

/// Tables as seen at the gate, with a probe of tcp/80 on port 61445 under way to backend 1, which is down.
fn gated() -> HostTables {
    let mut tables = tables(Slot::settled(id(2)));
    tables.ingress = GATE;
    tables.ports.insert(GATE, PortEntry { ifindex: 6, mtu: 1500, mac: PROBE_GATE_MAC, reserved: 0 });
    tables.backends.get_mut(&1).unwrap().state = BackendState::Down.to_raw();
    let entry = ProbeEntry {
        backend: 1,
        gate: GATE,
        service_port: 80u16.to_be_bytes(),
        service_address: mapped(VIP),
        node_address: mapped(NODE),
        protocol: Protocol::Tcp.number(),
        reserved: [0; 7],
    };
    tables.probes.insert(5, entry);
    tables
}

fn syn(source: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(PROBER_MAC, PROBE_GATE_MAC).ipv4(source, VIP, 64);
    builder.tcp(port, 80, 1, 1000).syn().write(&mut frame, &[]).unwrap();
    frame
}

#[test]
fn a_probe_goes_where_its_entry_says_and_leaves_no_trace() {
    let tables = gated();
    let mut frame = HostFrame::new(&syn(NODE, 0xf005));
    assert_eq!(probe(&mut frame, &tables), Verdict::Redirect(1));
    assert_eq!(frame.bytes()[..12], [2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1]);
    assert_eq!(dropped(&tables, Reason::ProbeSent), 1);
    assert!(tables.forwarded.borrow().is_empty() && tables.flows.borrow().is_empty());
    for (source, port) in [(NODE, 0xf006), (NODE, 0x0005), (CLIENT, 0xf005)] {
        assert_eq!(probe(&mut HostFrame::new(&syn(source, port)), &tables), Verdict::Drop);
    }
    assert_eq!(dropped(&tables, Reason::StrayProbe), 3);
}

#[test]
fn a_probe_cut_anywhere_is_a_stray() {
    let (tables, whole) = (gated(), syn(NODE, 0xf005));
    for len in 0..whole.len() {
        assert_eq!(probe(&mut HostFrame::new(&whole[..len]), &tables), Verdict::Drop, "{len} bytes");
    }
    assert_eq!(dropped(&tables, Reason::StrayProbe), whole.len() as u64);
}

#[test]
fn a_probe_that_cannot_be_sent_is_counted_by_its_reason() {
    let mut tables = gated();
    tables.backends.get_mut(&1).unwrap().method = Method::Ipip.to_raw();
    let mut frame = HostFrame::without_headroom(&syn(NODE, 0xf005));
    assert_eq!(probe(&mut frame, &tables), Verdict::Drop);
    tables.backends.clear();
    assert_eq!(probe(&mut HostFrame::new(&syn(NODE, 0xf005)), &tables), Verdict::Drop);
    let counts =
        [Reason::NoHeadroom, Reason::NoBackend, Reason::ProbeSent].map(|reason| dropped(&tables, reason));
    assert_eq!(counts, [1, 1, 0]);
}
