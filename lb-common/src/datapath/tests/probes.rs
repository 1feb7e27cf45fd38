//! What health probes may do.

use super::*;
use crate::datapath::probe;
use etherparse::PacketBuilder;

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
    assert_eq!(probe(&mut frame, &tables, &mut Work::new()), Verdict::Redirect(1));
    assert_eq!(frame.bytes()[..12], [2, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1]);
    assert_eq!(dropped(&tables, Reason::ProbeSent), 1);
    assert!(tables.forwarded.borrow().is_empty() && tables.flows.borrow().is_empty());
    for (source, port) in [(NODE, 0xf006), (NODE, 0x0005), (CLIENT, 0xf005)] {
        assert_eq!(probe(&mut HostFrame::new(&syn(source, port)), &tables, &mut Work::new()), Verdict::Drop);
    }
    assert_eq!(dropped(&tables, Reason::StrayProbe), 3);
}

#[test]
fn a_probe_cut_anywhere_is_a_stray() {
    let (tables, whole) = (gated(), syn(NODE, 0xf005));
    for len in 0..whole.len() {
        assert_eq!(
            probe(&mut HostFrame::new(&whole[..len]), &tables, &mut Work::new()),
            Verdict::Drop,
            "{len} bytes"
        );
    }
    assert_eq!(dropped(&tables, Reason::StrayProbe), whole.len() as u64);
}

#[test]
fn a_probe_that_cannot_be_sent_is_counted_by_its_reason() {
    let mut tables = gated();
    tables.backends.get_mut(&1).unwrap().method = Method::Ipip.to_raw();
    let mut frame = HostFrame::without_headroom(&syn(NODE, 0xf005));
    assert_eq!(probe(&mut frame, &tables, &mut Work::new()), Verdict::Drop);
    tables.backends.clear();
    assert_eq!(probe(&mut HostFrame::new(&syn(NODE, 0xf005)), &tables, &mut Work::new()), Verdict::Drop);
    let counts =
        [Reason::NoHeadroom, Reason::NoBackend, Reason::ProbeSent].map(|reason| dropped(&tables, reason));
    assert_eq!(counts, [1, 1, 0]);
}
