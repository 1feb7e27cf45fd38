//! Joins the model with what the machine knows: interfaces, routes, neighbours. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::abi::{BackendState, VipEntry};

use crate::health::fleet::Uses;
use crate::health::member::Use;
use crate::model::{
    Advertise, Backend, Echo, Forwarding, Model, OtherPorts, Prefix, Service, TunnelSource, Vip,
};
use crate::netlink::{GATE, Link, Resolution, Resolutions, Snapshot, Target, is_station};
use crate::reconcile::{Desired, DesiredBackend, DesiredHop, DesiredPort, DesiredService, DesiredTunnel};

/// Something about a config on this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Stable code.
    pub code: &'static str,
    /// Whether it refuses the config.
    pub fatal: bool,
    /// What is the matter.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Finding {
    pub(super) fn error(code: &'static str, message: String, help: &str) -> Self {
        Self { code, fatal: true, message, help: help.to_owned() }
    }

    pub(super) fn warning(code: &'static str, message: String, help: &str) -> Self {
        Self { fatal: false, ..Self::error(code, message, help) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.fatal { "error" } else { "warning" };
        write!(f, "{severity}[{}]: {}\n  = help: {}", self.code, self.message, self.help)
    }
}

/// The result.
#[derive(Clone, Debug, Default)]
pub struct Assembled {
    /// What the data plane shall be.
    pub desired: Desired,
    /// Service addresses that the program answers ARP and neighbour solicitations for, with the interface each is
    /// announced on.
    pub advertised: BTreeMap<IpAddr, u32>,
    /// What the operator should know.
    pub findings: Vec<Finding>,
}

/// What next hops are needed.
pub fn next_hops(model: &Model) -> Vec<Target> {
    let backends = model.services.iter().flat_map(|service| &service.backends);
    let mut targets: BTreeMap<IpAddr, Target> = BTreeMap::new();
    for backend in backends {
        let target =
            Target { address: backend.address, mac: backend.mac, interface: backend.interface.clone() };
        targets.entry(backend.address).or_insert(target);
    }
    targets.into_values().collect()
}

/// What the machine knows at a moment.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// Interfaces and addresses.
    pub links: &'a Snapshot,
    /// Next hops of all backends.
    pub resolutions: &'a Resolutions,
}

/// Joins them. `attached` are the interfaces that carry service traffic; `uses` says what backends get by their health
/// and the operator's word.
pub fn assemble(model: &Model, attached: &[&Link], machine: Machine<'_>, uses: &Uses) -> Assembled {
    let Machine { links, resolutions } = machine;
    let mut assembled = Assembled {
        desired: Desired { hash_key: model.hash_key, ..Desired::default() },
        ..Assembled::default()
    };
    let mut ports: BTreeMap<u32, DesiredPort> =
        attached.iter().copied().chain(links.by_name(GATE)).map(|link| (link.ifindex, port(link))).collect();
    for link in attached {
        assembled.findings.extend(interface_findings(link, links));
    }
    assembled.findings.extend(conflicts(model));
    for service in &model.services {
        let backends = service.backends.iter().map(|backend| {
            let resolution = resolutions.get(&backend.address);
            // What is wrong with one that leaves is nobody's mistake any more.
            if !backend.leaving {
                assembled.findings.extend(backend_finding(service, backend, resolution));
            }
            let hop = resolution.and_then(Resolution::next_hop);
            if let Some(link) = hop.and_then(|hop| links.by_index(hop.ifindex)) {
                ports.entry(link.ifindex).or_insert_with(|| port(link));
            }
            let (state, weight) = share(service, backend, uses);
            DesiredBackend {
                address: backend.address,
                weight,
                state,
                tunnel: tunnel(backend, || source(backend.address, resolution, links)),
                next_hop: hop.map(|hop| DesiredHop {
                    ifindex: hop.ifindex,
                    mac: hop.mac,
                    mtu: hop.mtu,
                    vlan: backend.vlan.or(hop.vlan),
                }),
                server_id: backend.server_id,
            }
        });
        let backends = backends.collect();
        assembled.desired.services.push(DesiredService {
            id: service.id,
            ring_size: service.ring_size,
            backends,
            quic: service.quic,
            admission: service.admission.clone(),
            flows: service.flows,
        });
    }
    add_vips(&mut assembled, model, attached, links, uses);
    assembled.desired.ports = ports.into_values().collect();
    assembled
}

/// A backend's state and weight, the latter in hundredths of the config's. One that nobody has decided about yet waits
/// for its first probe, unless the service has nobody else.
fn share(service: &Service, backend: &Backend, uses: &Uses) -> (BackendState, u32) {
    let get = |backend: &Backend| uses.get(&(service.id, backend.address)).copied();
    let others_serve = || service.backends.iter().any(|b| get(b).is_some_and(Use::serves));
    let waits = || !backend.checks.is_empty() && others_serve();
    let weight = u32::from(backend.effective_weight());
    match get(backend) {
        Some(Use::Out) => (BackendState::Down, 0),
        Some(Use::Draining) => (BackendState::Draining, 0),
        Some(Use::Serving { percent }) if weight > 0 => (BackendState::Up, weight.saturating_mul(percent)),
        Some(Use::LastKnown) if weight > 0 => (BackendState::Up, weight * 100),
        None if weight > 0 && !waits() => (BackendState::Up, weight * 100),
        Some(Use::Serving { .. } | Use::LastKnown) | None => (BackendState::Draining, 0),
    }
}

/// Backends whose way is set by hand differently in different places: neighbours are resolved once per address.
fn conflicts(model: &Model) -> Vec<Finding> {
    let backends =
        model.services.iter().flat_map(|service| service.backends.iter().map(move |b| (service, b)));
    let backends = backends.filter(|(_, backend)| !backend.leaving);
    let mut first: BTreeMap<IpAddr, (&Service, &Backend)> = BTreeMap::new();
    let differing = backends.filter_map(|(service, backend)| {
        let (other, before) = *first.entry(backend.address).or_insert((service, backend));
        let same = (&before.mac, &before.interface) == (&backend.mac, &backend.interface);
        (!same).then(|| {
            let who = format!(
                "backend {} has another mac or interface in service {}",
                backend.address, service.name
            );
            Finding::error(
                "LB040",
                format!("{who} than in {}", other.name),
                "give it the same in all its pools",
            )
        })
    });
    differing.collect()
}

fn port(link: &Link) -> DesiredPort {
    DesiredPort { ifindex: link.ifindex, mtu: link.mtu, mac: link.mac.unwrap_or_default() }
}

/// Adds the service addresses and what holds for each.
fn add_vips(assembled: &mut Assembled, model: &Model, attached: &[&Link], links: &Snapshot, uses: &Uses) {
    // Those that are tried because nobody is up are not up for that.
    let is_up = |service: &DesiredService, backend: &DesiredBackend| {
        backend.state == BackendState::Up && uses.get(&(service.id, backend.address)) != Some(&Use::LastKnown)
    };
    let serves = |service: &&DesiredService| service.backends.iter().any(|b| is_up(service, b));
    let serving = assembled.desired.services.iter().filter(serves).map(|service| service.id.prefix());
    let serving: BTreeSet<Prefix> = serving.collect();
    for vip in &model.vips {
        let announced = advertised_on(vip, attached, links);
        if let Some(link) = announced {
            assembled.advertised.extend(addresses(vip.prefix()).map(|address| (address, link.ifindex)));
        }
        let entry = vip_entry(vip, announced.is_some(), &serving, links);
        assembled.desired.vips.insert(vip.prefix(), entry);
    }
    // What comes for an address of the host's own is the host's, also within a prefix.
    let own = links.iter().flat_map(|link| &link.addresses).map(|own| own.address);
    let wide: Vec<Prefix> = model.vips.iter().map(Vip::prefix).filter(|prefix| !prefix.is_host()).collect();
    for address in own.filter(|own| wide.iter().any(|prefix| prefix.contains(*own))) {
        assembled.desired.vips.entry(Prefix::host(address)).or_default();
    }
}

/// Prefixes with more host bits are not announced address by address.
const ANNOUNCED_BITS: u32 = 8;

/// The addresses of a small prefix; none of a large one.
fn addresses(prefix: Prefix) -> impl Iterator<Item = IpAddr> {
    let bits = if prefix.network.is_ipv4() { 32 } else { 128 } - u32::from(prefix.length);
    let count = if bits <= ANNOUNCED_BITS { 1u32 << bits } else { 0 };
    (0..count).map(move |n| match prefix.network {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() | n).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() | u128::from(n)).into(),
    })
}

/// Where an address is announced, if the program answers for it: on the attached interface whose subnet has it, or on
/// the first one where the config insists. The host's own addresses are left to the host; a prefix that has one of them
/// is likely to have those of other hosts too.
fn advertised_on<'a>(vip: &Vip, attached: &[&'a Link], links: &Snapshot) -> Option<&'a Link> {
    if links.is_local(vip.address) {
        return None;
    }
    let prefix = vip.prefix();
    let is_in = |link: &&&Link| {
        let subnet = link.addresses.iter().any(|own| own.contains(vip.address));
        subnet && !link.addresses.iter().any(|own| prefix.contains(own.address))
    };
    let in_subnet = attached.iter().find(is_in);
    match vip.advertise {
        Some(Advertise::None) => None,
        Some(Advertise::Arp) => in_subnet.or(attached.first()).copied(),
        None => in_subnet.copied(),
    }
}

fn vip_entry(vip: &Vip, advertised: bool, serving: &BTreeSet<Prefix>, links: &Snapshot) -> VipEntry {
    // What else comes for an address of the host's own is the host's, whatever the config says: dropping it would cut
    // off every connection to the host, the operator's among them.
    if links.is_local(vip.address) && vip.prefix().is_host() {
        return VipEntry::default();
    }
    let prefix = vip.prefix();
    let echo = match vip.echo {
        Echo::Always => true,
        Echo::Never => false,
        Echo::WhileUp => {
            let around = (0..=prefix.length).any(|n| serving.contains(&Prefix::containing(vip.address, n)));
            around
                || serving.range(prefix..).take_while(|inner| prefix.contains(inner.network)).next().is_some()
        }
    };
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    let flags = flag(advertised, VipEntry::ADVERTISED)
        | flag(vip.other_ports == OtherPorts::Drop, VipEntry::DROP_OTHER_PORTS)
        | flag(echo, VipEntry::ECHO);
    VipEntry { flags, reserved: 0 }
}

/// A backend's outer header; `node` is the node's own address on the way there.
fn tunnel(backend: &Backend, node: impl FnOnce() -> IpAddr) -> Option<DesiredTunnel> {
    let Forwarding::Tunnel(tunnel) = backend.forwarding else { return None };
    let (source, source_bits) = match tunnel.source {
        TunnelSource::Node => (node(), 0),
        TunnelSource::Prefix(Prefix { network, length }) => {
            let bits = if network.is_ipv4() { 32 } else { 128 } - length.min(128);
            (network, bits)
        }
    };
    Some(DesiredTunnel { encap: tunnel.encap, source, source_bits, dscp: tunnel.dscp, ttl: tunnel.ttl })
}

/// The node's own address on the way to a backend. While the way is not known any address of ours holds the place: no
/// packet leaves with it, and the entry is made anew with the next hop.
fn source(backend: IpAddr, resolution: Option<&Resolution>, links: &Snapshot) -> IpAddr {
    let own = match resolution {
        Some(Resolution::Resolved(hop)) => Some(hop.source),
        Some(Resolution::Unresolved { ifindex, .. }) => {
            links.by_index(*ifindex).map(|link| link.source_for(backend))
        }
        Some(Resolution::Unroutable(_) | Resolution::Local) | None => None,
    };
    let same_family = |own: &IpAddr| own.is_ipv4() == backend.is_ipv4();
    let all = || links.iter().flat_map(|link| &link.addresses).map(|own| own.address);
    let any = || all().filter(same_family).find(|own| !own.is_loopback());
    let none = if backend.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    own.filter(same_family).or_else(any).unwrap_or(none)
}

fn interface_findings(link: &Link, links: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(master) = link.master.and_then(|master| links.by_index(master)) {
        findings.push(Finding::warning(
            "LB033",
            format!(
                "{} is a port of {}: packets that lb does not take go to {}",
                link.name, master.name, master.name
            ),
            "next hops must lead out of the port itself (interface: per backend), not of its master",
        ));
    }
    if !link.mac.is_some_and(is_station) {
        findings.push(Finding::error(
            "LB034",
            format!("{} has no Ethernet address", link.name),
            "attach to an Ethernet interface",
        ));
    }
    findings
}

/// What is wrong with a backend on this machine. An unresolved next hop is a state, not a mistake: it may come.
fn backend_finding(service: &Service, backend: &Backend, resolution: Option<&Resolution>) -> Option<Finding> {
    let who = format!("service {}: backend {}", service.name, backend.address);
    match resolution {
        Some(Resolution::Local) => Some(Finding::error(
            "LB035",
            format!("{who} is this balancer itself"),
            "a balancer cannot be its own backend; use another host's address",
        )),
        Some(Resolution::Resolved(hop))
            if backend.forwarding == Forwarding::L2 && hop.via != backend.address =>
        {
            Some(Finding::error(
                "LB036",
                format!(
                    "{who} is not on a segment of this host (it is behind {}), but forwarding is l2",
                    hop.via
                ),
                "l2 only rewrites MAC addresses and cannot cross a router; use a tunnel (forwarding: ipip, gre or gue)",
            ))
        }
        Some(Resolution::Resolved(_)) => None,
        Some(Resolution::Unresolved { via, why, .. }) => Some(Finding::warning(
            "LB037",
            format!("{who}: next hop {via} does not answer: {why}"),
            "packets for it are dropped (no_next_hop) until it does; is it up?",
        )),
        Some(Resolution::Unroutable(why)) => Some(Finding::warning(
            "LB038",
            format!("{who}: no way to it: {why}"),
            "packets for it are dropped (no_next_hop) until there is one",
        )),
        None => None,
    }
}
