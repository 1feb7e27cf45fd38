//! Whom to believe, which interface and which source, on invented machines.

use super::super::address::InterfaceAddress;
use super::*;
use std::net::Ipv4Addr;

const LB: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const BACKEND: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 21));
const OLD: Mac = [2, 0, 0, 0, 0, 1];
const NEW: Mac = [2, 0, 0, 0, 0, 2];
const HOP: Hop = Hop { ifindex: 2, via: BACKEND };

fn eth0() -> Link {
    Link {
        ifindex: 2,
        name: "eth0".into(),
        mac: Some([2, 0, 0, 0, 0, 9]),
        mtu: 1500,
        up: true,
        lower_up: true,
        noarp: false,
        rx_queues: 1,
        tx_queues: 1,
        xdp: None,
        master: None,
        kind: None,
        vlan: None,
        addresses: vec![InterfaceAddress { address: LB, peer: LB, prefix_len: 24 }],
    }
}

fn target() -> Target {
    Target { address: BACKEND, mac: None, interface: None }
}

fn route() -> Result<Route, RouteError> {
    Ok(Route { ifindex: 2, gateway: None, prefsrc: Some(LB), mtu: None })
}

fn mac_by(target: &Target, neighbour: Option<Neighbour>, learnt: Option<Mac>) -> Option<Mac> {
    let snapshot = Snapshot::from_iter([eth0()]);
    let neighbours = neighbour.map(|n| (HOP, n)).into_iter().collect();
    let path = Path::new(target, &snapshot, route());
    Resolution::decide(&path, &snapshot, &neighbours, |_| learnt).next_hop().map(|n| n.mac)
}

#[test]
fn whom_to_believe() {
    let named = Target { mac: Some(OLD), ..target() };
    assert_eq!(mac_by(&named, Some(Neighbour::Fixed(NEW)), Some(NEW)), Some(OLD), "the operator first");
    assert_eq!(mac_by(&target(), Some(Neighbour::Fixed(OLD)), Some(NEW)), Some(OLD), "then PERMANENT");
    assert_eq!(mac_by(&target(), Some(Neighbour::Learnt(OLD)), Some(NEW)), Some(NEW), "then our asking");
    assert_eq!(mac_by(&target(), Some(Neighbour::Learnt(OLD)), None), Some(OLD), "then the kernel's");
    assert_eq!(mac_by(&target(), Some(Neighbour::Failed), None), None);
    assert_eq!(mac_by(&target(), Some(Neighbour::Failed), Some(NEW)), Some(NEW));
}

#[test]
fn interfaces_that_cannot_send() {
    let cases = [
        (Link { up: false, ..eth0() }, "interface eth0 is down"),
        (Link { lower_up: false, ..eth0() }, "interface eth0 has no carrier"),
    ];
    for (link, words) in cases {
        let snapshot = Snapshot::from_iter([link]);
        let path = Path::new(&target(), &snapshot, route());
        let found = Resolution::decide(&path, &snapshot, &Neighbours::new(), |_| Some(OLD));
        let why = words.to_owned();
        assert_eq!(found, Resolution::Unresolved { ifindex: 2, via: BACKEND, why });
        assert_eq!(path.to_ask(&snapshot, &Neighbours::new()), None);
    }
}

#[test]
fn no_route_because_the_interface_is_down() {
    let snapshot = Snapshot::from_iter([Link { up: false, ..eth0() }]);
    let path = Path::new(&target(), &snapshot, Err(RouteError::NoRoute(BACKEND)));
    assert!(matches!(path, Path::Hop { hop: HOP, source: LB, .. }));
    let up = Snapshot::from_iter([eth0()]);
    let path = Path::new(&target(), &up, Err(RouteError::NoRoute(BACKEND)));
    assert_eq!(path, Path::Unroutable("no route to 192.0.2.21".into()));
}

#[test]
fn a_bridge_port_is_refused_by_name() {
    let bridge = Link { ifindex: 7, name: "br0".into(), kind: Some("bridge".into()), ..eth0() };
    let snapshot = Snapshot::from_iter([Link { master: Some(7), ..eth0() }, bridge]);
    let path = Path::new(&target(), &snapshot, route());
    assert_eq!(path, Path::Unroutable("interface eth0 is a port of br0; name br0 instead".into()));
}

#[test]
fn who_is_asked() {
    let snapshot = Snapshot::from_iter([eth0()]);
    let path = Path::new(&target(), &snapshot, route());
    let ask = |neighbour| path.to_ask(&snapshot, &BTreeMap::from([(HOP, neighbour)]));
    assert_eq!(ask(Neighbour::Learnt(OLD)), Some((HOP, Some(OLD))));
    assert_eq!(ask(Neighbour::Failed), Some((HOP, None)));
    assert_eq!(ask(Neighbour::Fixed(OLD)), None);
}

#[test]
fn the_smaller_mtu_counts() {
    let snapshot = Snapshot::from_iter([eth0()]);
    for (mtu, expected) in [(None, 1500), (Some(1400), 1400), (Some(9000), 1500)] {
        let route = Route { ifindex: 2, gateway: None, prefsrc: None, mtu };
        let path = Path::new(&target(), &snapshot, Ok(route));
        let found = Resolution::decide(&path, &snapshot, &Neighbours::new(), |_| Some(OLD));
        assert_eq!(found.next_hop().map(|n| (n.mtu, n.source)), Some((expected, LB)));
    }
}

fn v6(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn source_of(address: &str, gateway: Option<&str>, prefsrc: Option<&str>, own: &[&str]) -> IpAddr {
    let addresses =
        own.iter().map(|text| InterfaceAddress { address: v6(text), peer: v6(text), prefix_len: 64 });
    let snapshot = Snapshot::from_iter([Link { addresses: addresses.collect(), ..eth0() }]);
    let route = Route { ifindex: 2, gateway: gateway.map(v6), prefsrc: prefsrc.map(v6), mtu: None };
    let target = Target { address: v6(address), ..target() };
    match Path::new(&target, &snapshot, Ok(route)) {
        Path::Hop { source, hop, .. } => {
            assert_eq!(hop.via, gateway.map_or(target.address, v6));
            source
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_link_local_address_is_no_source_for_a_distant_target() {
    let own = ["fe80::1", "2001:db8::1"];
    let gateway = Some("fe80::fe");
    assert_eq!(source_of("2001:db8:1::7", gateway, None, &own), v6("2001:db8::1"));
    assert_eq!(source_of("2001:db8:1::7", gateway, Some("2001:db8::2"), &own), v6("2001:db8::2"));
    assert_eq!(source_of("2001:db8:1::7", gateway, Some("fe80::1"), &own[..1]), v6("::"));
    assert_eq!(source_of("fe80::7", None, Some("fe80::1"), &own), v6("fe80::1"));
}

#[test]
fn the_gateway_of_an_ipv4_target_may_be_ipv6() {
    assert_eq!(source_of("198.51.100.7", Some("fe80::fe"), None, &["fe80::1", "192.0.2.1"]), LB);
    assert_eq!(source_of("198.51.100.7", Some("fe80::fe"), None, &["fe80::1"]), v6("0.0.0.0"));
}

fn vlan(ifindex: u32, parent: u32, id: u16) -> Link {
    let (name, kind) = (format!("vlan{id}"), Some("vlan".into()));
    Link { ifindex, name, kind, vlan: Some((parent, id)), mtu: 1496, ..eth0() }
}

/// The path out of the first of these interfaces, and what becomes of it.
fn through(links: Vec<Link>) -> (Path, Resolution) {
    let route = Route { ifindex: links[0].ifindex, ..route().unwrap() };
    let snapshot = Snapshot::from_iter(links);
    let path = Path::new(&target(), &snapshot, Ok(route));
    let found = Resolution::decide(&path, &snapshot, &Neighbours::new(), |_| Some(OLD));
    (path, found)
}

#[test]
fn out_of_a_vlan_device_means_tagged_out_of_its_parent() {
    let (path, found) = through(vec![vlan(9, 2, 100), eth0()]);
    assert_eq!(path.hop(), Some(Hop { ifindex: 9, via: BACKEND }), "asked within the VLAN");
    let hop = found.next_hop().unwrap();
    assert_eq!((hop.ifindex, hop.vlan, hop.mac, hop.mtu, hop.source), (2, Some(100), OLD, 1496, LB));
    let (_, found) = through(vec![eth0()]);
    assert_eq!(found.next_hop().map(|hop| (hop.ifindex, hop.vlan)), Some((2, None)));
}

#[test]
fn vlan_devices_that_one_tag_does_not_describe() {
    let unroutable = |links, words: &str| {
        let (path, found) = through(links);
        assert_eq!(path, Path::Unroutable(words.into()));
        assert_eq!(found, Resolution::Unroutable(words.into()));
    };
    let nested = vec![vlan(9, 8, 100), vlan(8, 2, 200), eth0()];
    unroutable(nested, "interface vlan100 is a VLAN within a VLAN");
    let other = vec![Link { vlan: None, ..vlan(9, 2, 100) }, eth0()];
    unroutable(other, "interface vlan100 is not an 802.1Q VLAN of an interface in this namespace");
    unroutable(vec![vlan(9, 7, 100)], "interface index 7 under vlan100 is gone");
    let (_, found) = through(vec![vlan(9, 2, 100), Link { lower_up: false, ..eth0() }]);
    let why = "interface eth0 has no carrier".to_owned();
    assert_eq!(found, Resolution::Unresolved { ifindex: 9, via: BACKEND, why });
}
