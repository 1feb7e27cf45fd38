//! A machine that is not there: interfaces, next hops and MAC addresses that stand in for what a simulation cannot know.
//! Pure, and the same for the same config.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::health::fleet::Uses;
use crate::health::member::Use;
use crate::model::{Backend, Forwarding, Interface, Model, TunnelSource};
use crate::netlink::{InterfaceAddress, Link, NextHop, Resolution, Resolutions, Snapshot};
use crate::simulate::language::Mac;

/// The interface of a config that names none.
const INTERFACE: &str = "eth0";
/// The node's own addresses, from the ranges for benchmarks (RFC 2544, RFC 5180).
const NODE_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1);
/// Index of the first interface; its number means nothing.
const FIRST_INDEX: u32 = 101;

/// What is known of the machine after all.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// MAC address of the interface that packets come in by.
    pub mac: Mac,
    /// Where that is from, in words.
    pub mac_origin: &'static str,
    /// MTU of all interfaces, in bytes.
    pub mtu: u32,
}

/// The machine.
pub(super) struct StandIns {
    pub(super) interfaces: Vec<Interface>,
    pub(super) links: Snapshot,
    pub(super) resolutions: Resolutions,
    /// What stands in, in words; for single backends by address.
    pub(super) of_all: Vec<String>,
    pub(super) of_backends: BTreeMap<IpAddr, Vec<String>>,
}

impl StandIns {
    pub(super) fn new(model: &Model, known: &Known) -> Self {
        let mut interfaces = model.interfaces.clone();
        if interfaces.is_empty() {
            interfaces.push(Interface::named(INTERFACE));
        }
        let backends: Vec<&Backend> = model.services.iter().flat_map(|service| &service.backends).collect();
        let mut names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
        for name in backends.iter().filter_map(|backend| backend.interface.as_deref()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut of_all = Vec::new();
        let links: Vec<Link> =
            names.iter().enumerate().map(|(n, name)| link(n, name, model, known, &mut of_all)).collect();
        let mut of_backends = BTreeMap::new();
        let mut resolutions = Resolutions::new();
        for backend in backends {
            resolutions.entry(backend.address).or_insert_with(|| {
                let number = of_backends.len();
                let (hop, words) = hop(backend, &links, number, known.mtu);
                of_backends.insert(backend.address, words);
                Resolution::Resolved(hop)
            });
        }
        Self { interfaces, links: Snapshot::from_links(links), resolutions, of_all, of_backends }
    }

    /// What backends get where nothing has been probed: all are up, and backups wait.
    pub(super) fn uses(model: &Model) -> Uses {
        let backends = model.services.iter().flat_map(|s| s.backends.iter().map(move |b| (s.id, b)));
        let waiting = backends.filter(|(_, backend)| backend.group > 0);
        waiting.map(|(id, backend)| ((id, backend.address), Use::Draining)).collect()
    }
}

fn link(number: usize, name: &str, model: &Model, known: &Known, words: &mut Vec<String>) -> Link {
    let first = number == 0;
    let mac = if first { known.mac } else { Mac([0x02, 0x6c, 0x62, 0, 0x01, number as u8]) };
    let origin = if first { known.mac_origin } else { "made up" };
    words.push(format!("interface {name}: MAC {mac} ({origin}), MTU {}", known.mtu));
    let addresses = if first { subnets(model) } else { Vec::new() };
    for subnet in &addresses {
        words.push(format!(
            "interface {name}: taken to be in the subnet of {}/{}",
            subnet.address, subnet.prefix_len
        ));
    }
    Link {
        ifindex: FIRST_INDEX + number as u32,
        name: name.to_owned(),
        mac: Some(mac.0),
        mtu: known.mtu,
        up: true,
        lower_up: true,
        noarp: false,
        rx_queues: 1,
        tx_queues: 1,
        xdp: None,
        master: None,
        kind: None,
        vlan: None,
        addresses,
    }
}

/// An address of the host in the subnet of each service address that is to be announced where its subnet is.
fn subnets(model: &Model) -> Vec<InterfaceAddress> {
    let taken = |address: IpAddr| {
        let backends = model.services.iter().flat_map(|service| &service.backends);
        model.vips.iter().any(|vip| vip.prefix().contains(address))
            || backends.into_iter().any(|backend| backend.address == address)
    };
    let mut subnets: Vec<InterfaceAddress> = Vec::new();
    for vip in model.vips.iter().filter(|vip| vip.advertise.is_none()) {
        if subnets.iter().any(|subnet| subnet.contains(vip.address)) {
            continue;
        }
        let own = (1..=254).rev().map(|host| neighbour(vip.address, host)).find(|own| !taken(*own));
        let prefix_len = if vip.address.is_ipv4() { 24 } else { 64 };
        subnets.extend(own.map(|address| InterfaceAddress { address, peer: address, prefix_len }));
    }
    subnets
}

/// Another address of the same subnet.
fn neighbour(address: IpAddr, host: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, host).into()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0xff, host.into()).into()
        }
    }
}

/// The way to a backend, and what of it is made up.
fn hop(backend: &Backend, links: &[Link], number: usize, mtu: u32) -> (NextHop, Vec<String>) {
    let mut words = Vec::new();
    let named = backend.interface.as_deref().and_then(|name| links.iter().find(|link| link.name == name));
    let link = named.or(links.first());
    let (ifindex, name) = link.map_or((0, INTERFACE), |link| (link.ifindex, link.name.as_str()));
    if backend.interface.is_none() {
        words.push(format!("{} is taken to be behind {name}", backend.address));
    }
    let [high, low] = (number as u16).to_be_bytes();
    let mac = backend.mac.unwrap_or([0x02, 0x6c, 0x62, 0x02, high, low]);
    if backend.mac.is_none() {
        words.push(format!("{} is taken to have the next hop {}", backend.address, Mac(mac)));
    }
    let source = match backend.address {
        IpAddr::V4(_) => NODE_V4.into(),
        IpAddr::V6(_) => NODE_V6.into(),
    };
    if matches!(&backend.forwarding, Forwarding::Tunnel(tunnel) if tunnel.source == TunnelSource::Node) {
        words.push(format!("this node is taken to have the address {source}"));
    }
    let hop = NextHop { ifindex, vlan: backend.vlan, via: backend.address, mac, source, mtu };
    (hop, words)
}
