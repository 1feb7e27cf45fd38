//! Reports of packets through tables made by hand.

use std::collections::BTreeMap;

use lb_common::abi::*;
use lb_common::datapath::host::HostTables;

use super::language::{Link, parse};
use super::{Facts, Names, Overlay, Report, decide};

const MTU: u32 = 1500;

fn id(number: u32) -> BackendId {
    BackendId::new(number).unwrap()
}

fn backend(method: Method, last: u8) -> BackendEntry {
    BackendEntry {
        next_hop: NextHop::new([2, 0, 0, 0, 2, last], 1).0,
        service: 1,
        state: BackendState::Up.to_raw(),
        method: method.to_raw(),
        egress: Egress::new(Link::default().destination.0, MTU).0,
        address: mapped([192, 0, 2, last]),
        outer_source: mapped([192, 0, 2, 1]),
        ttl: 64,
        dscp: BackendEntry::COPY_DSCP,
        ..BackendEntry::default()
    }
}

/// A service on 203.0.113.10: TCP port 80 settled on an l2 backend, port 81 on one behind a tunnel, port 82 unsettled.
fn tables() -> HostTables {
    let key = |port| ServiceKey::v4([203, 0, 113, 10], Protocol::Tcp, port);
    let service = |id| ServiceEntry { ring_start: id - 1, ring_size: 1, id, ..ServiceEntry::default() };
    HostTables {
        control: Control { abi_version: ABI_VERSION, flags: Control::VIP_POLICY, ..Control::default() },
        services: (0..3u16).map(|n| (key(80 + n), service(u32::from(n) + 1))).collect(),
        vips: BTreeMap::from([(
            VipKey::v4([203, 0, 113, 10]),
            VipEntry { flags: VipEntry::DROP_OTHER_PORTS | VipEntry::ADVERTISED, ..VipEntry::default() },
        )]),
        rings: vec![Slot::settled(id(1)), Slot::settled(id(2)), Slot::settled(id(1)).moved_to(id(2))],
        backends: BTreeMap::from([(1, backend(Method::L2, 21)), (2, backend(Method::Ipip, 22))]),
        ports: BTreeMap::from([(
            1,
            PortEntry { ifindex: 7, mtu: MTU, mac: Link::default().destination.0, ..PortEntry::default() },
        )]),
        ingress: 1,
        ..HostTables::default()
    }
}

fn names() -> Names {
    Names {
        services: (1..4).map(|n| (n, ("web".to_owned(), format!("203.0.113.10:{}/tcp", 79 + n)))).collect(),
        backends: BTreeMap::from([(1, Some("a".to_owned())), (2, None)]),
        addresses: BTreeMap::from([(1, [192, 0, 2, 21].into()), (2, [192, 0, 2, 22].into())]),
        ports: BTreeMap::from([(1, "eth0".to_owned())]),
        stand_ins: BTreeMap::new(),
    }
}

fn report(tables: &impl lb_common::datapath::Tables, line: &str) -> Report {
    let frame = parse(line).unwrap();
    let outcome = decide(tables, &frame);
    let facts = Facts {
        index: 0,
        engine: "host",
        verdict: outcome.verdict,
        before: &frame,
        after: &outcome.frame,
        noted: &outcome.noted,
        link: &Link::default(),
        ingress: 1,
    };
    Report::new(&facts, &names())
}

#[test]
fn a_forwarded_packet_is_told_from_service_to_way_out() {
    let text = report(&tables(), "tcp 198.51.100.7:4000 > 203.0.113.10:80 syn").text();
    let expected = "#0 tx  tcp 198.51.100.7:4000 > 203.0.113.10:80 syn
    service: web 203.0.113.10:80/tcp
    slot: 0 of 1, settled on 192.0.2.21: no flow table is asked
    flow: begins with this packet
    backend: 192.0.2.21 (a), up
    action: l2: only the MAC addresses are rewritten; MAC 02:6c:62:00:00:01 > 02:00:00:00:02:15
    mtu: 40 bytes of 1500: fits
    leaves by: eth0, where it came in
    reason: forwarded - Sent to its backend, and counted there.
    sent: mac 02:6c:62:00:00:01 > 02:00:00:00:02:15 tcp 198.51.100.7:4000 > 203.0.113.10:80 syn
";
    assert_eq!(text, expected);
}

#[test]
fn what_is_sent_is_described_with_its_outer_headers() {
    let tunnelled = report(&tables(), "tcp 198.51.100.7:4000 > 203.0.113.10:81 ack len 100");
    let output = tunnelled.output.unwrap();
    assert!(output.contains("ipip 192.0.2.1 > 192.0.2.22") && output.contains(" carrying tcp"), "{output}");
    let mtu = tunnelled.mtu.unwrap();
    assert_eq!((mtu.packet, mtu.overhead, mtu.mtu, mtu.fits), (140, 20, MTU, true));
    let big = report(&tables(), "tcp 198.51.100.7:4000 > 203.0.113.10:81 ack len 1441");
    assert_eq!((big.verdict, big.reason), ("tx", "too_big_answered"));
    assert!(big.explanation.iter().any(|line| line.contains("too big: 1480 would fit")), "{big:?}");
    assert!(big.output.unwrap().contains("unreachable frag-needed mtu 1480 "));
    assert!(big.action.is_none());
}

#[test]
fn what_is_not_forwarded_has_its_reason() {
    let cases = [
        ("tcp 198.51.100.7:4000 > 203.0.113.10:443 syn", "drop", "other_port", None),
        ("tcp 198.51.100.7:4000 > 203.0.113.99:443 syn", "pass", "not_a_service", None),
        ("tcp [2001:db8::7]:1 > [2001:db8::1]:2 syn", "pass", "not_a_service", None),
        ("arp who-has 203.0.113.10 tell 203.0.113.1", "tx", "arp_answered", None),
        ("ether 0x88cc len 40", "pass", "not_ip", None),
        ("tcp 198.51.100.7:4000 > 203.0.113.10:80 syn", "tx", "forwarded", Some("192.0.2.21")),
    ];
    for (line, verdict, reason, backend) in cases {
        let report = report(&tables(), line);
        let found = report.backend.map(|backend| backend.to_string());
        assert_eq!((report.verdict, report.reason, found.as_deref()), (verdict, reason, backend), "{line}");
    }
}

/// An unsettled slot: a later packet goes to the previous owner, which is recorded and found again.
#[test]
fn writes_stay_in_the_overlay_and_are_found_again() {
    let below = tables();
    let overlay = Overlay::new(&below);
    let line = "tcp 198.51.100.7:4000 > 203.0.113.10:82 ack";
    let first = report(&overlay, line);
    assert_eq!(first.slot.as_ref().map(|slot| slot.state), Some("fresh"));
    assert!(first.text().contains("was not known, and is recorded now"), "{}", first.text());
    assert!(report(&overlay, line).text().contains("flow: recorded (older than a change), at 192.0.2.21"));
    assert!(below.flows.borrow().is_empty() && below.forwarded.borrow().is_empty());
}
