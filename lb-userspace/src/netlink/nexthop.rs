//! From a target address to its next hop, given links, a route, neighbour entries and what ARP has taught:
//! pure decisions. Must not know where any of these come from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Mac;
use super::error::RouteError;
use super::links::{Link, Snapshot};
use super::neighbours::{Neighbour, Neighbours};
use super::route::Route;

/// An address to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The backend's address.
    pub address: IpAddr,
    /// Its Ethernet address where the operator named it; then nobody is asked.
    pub mac: Option<Mac>,
    /// The interface to reach it through where the operator named it; otherwise routes decide.
    pub interface: Option<String>,
}

/// A station ARP can be done for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The interface it is reached through.
    pub ifindex: u32,
    /// Its on-link address.
    pub via: IpAddr,
}

/// How a packet gets to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The egress interface; where the route leads out of a VLAN device, its parent.
    pub ifindex: u32,
    /// The VLAN the frame belongs to, where the route leads out of a VLAN device.
    pub vlan: Option<u16>,
    /// The on-link address that is asked for: the target itself or its gateway, which may be of the other family.
    pub via: IpAddr,
    /// Destination of the frame.
    pub mac: Mac,
    /// The host's own address the kernel would use towards the target (outer source of a tunnel);
    /// unspecified when the interface has no address.
    pub source: IpAddr,
    /// Largest layer-3 packet towards the target, in bytes: the interface's MTU or the route's smaller one.
    pub mtu: u32,
}

/// What is known about a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Packets can be sent.
    Resolved(NextHop),
    /// There is a way, but nobody answers at its first step, or the interface cannot send.
    Unresolved {
        /// The egress interface.
        ifindex: u32,
        /// The on-link address that is being asked for.
        via: IpAddr,
        /// The reason in words.
        why: String,
    },
    /// There is no way; the reason in words.
    Unroutable(String),
    /// The address is this host's own.
    Local,
}

/// The state of every target, by its address.
pub type Resolutions = BTreeMap<IpAddr, Resolution>;

/// The way to a target as far as routes know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Local,
    Unroutable(String),
    Hop { hop: Hop, source: IpAddr, mac: Option<Mac>, mtu: Option<u32> },
}

impl Resolution {
    /// The next hop, if packets can be sent.
    pub fn next_hop(&self) -> Option<&NextHop> {
        match self {
            Self::Resolved(next_hop) => Some(next_hop),
            Self::Unresolved { .. } | Self::Unroutable(_) | Self::Local => None,
        }
    }

    /// Whether an ARP answer could still change it.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Unresolved { .. })
    }

    /// The state of the target behind `path`; `learnt` is what ARP itself has taught about its hop.
    pub(super) fn decide(
        path: &Path,
        snapshot: &Snapshot,
        neighbours: &Neighbours,
        learnt: impl Fn(Hop) -> Option<Mac>,
    ) -> Self {
        let (hop, source, named, mtu) = match path {
            Path::Local => return Self::Local,
            Path::Unroutable(why) => return Self::Unroutable(why.clone()),
            Path::Hop { hop, source, mac, mtu } => (*hop, *source, *mac, *mtu),
        };
        let unresolved = |why| Self::Unresolved { ifindex: hop.ifindex, via: hop.via, why };
        let Some(link) = snapshot.by_index(hop.ifindex) else {
            return unresolved(format!("interface index {} is gone", hop.ifindex));
        };
        if let Some(why) = link.trouble() {
            return unresolved(why);
        }
        let neighbour = neighbours.get(&hop).copied();
        let mac = named
            .or(neighbour.and_then(Neighbour::fixed))
            .or_else(|| learnt(hop))
            .or(neighbour.and_then(Neighbour::mac));
        let mtu = mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        match mac {
            Some(mac) => {
                Self::Resolved(NextHop { ifindex: hop.ifindex, vlan: None, via: hop.via, mac, source, mtu })
            }
            None => unresolved(format!("no ARP answer from {} on {}", hop.via, link.name)),
        }
    }
}

impl Path {
    /// The path by the answer to the route look-up for `target` (through its named interface, if any).
    pub(super) fn new(target: &Target, snapshot: &Snapshot, route: Result<Route, RouteError>) -> Self {
        let address = target.address;
        if snapshot.is_local(address) {
            return Self::Local;
        }
        let route = match (route, &target.interface) {
            (Ok(route), _) => route,
            (Err(RouteError::Local(_)), _) => return Self::Local,
            (Err(error), name) => {
                let link = match name {
                    Some(name) => snapshot.by_name(name),
                    None => snapshot.on_link(address),
                };
                // The kernel forgets the routes of an interface that is down; its addresses stay.
                let Some(link) = link.filter(|link| !link.up) else {
                    return Self::Unroutable(words(&error));
                };
                Route { ifindex: link.ifindex, gateway: None, prefsrc: None, mtu: None }
            }
        };
        let hop = Hop { ifindex: route.ifindex, via: route.gateway.unwrap_or(address) };
        let Some(link) = snapshot.by_index(hop.ifindex) else {
            return Self::Unroutable(format!("interface index {} is gone", hop.ifindex));
        };
        if let Some(why) = unsuitable(link, snapshot) {
            return Self::Unroutable(why);
        }
        let source = route.prefsrc.unwrap_or_else(|| link.source_for(hop.via));
        Self::Hop { hop, source, mac: target.mac, mtu: route.mtu }
    }

    /// Its first step, where there is one.
    pub(super) fn hop(&self) -> Option<Hop> {
        match self {
            Self::Hop { hop, .. } => Some(*hop),
            Self::Local | Self::Unroutable(_) => None,
        }
    }

    /// The hop to do ARP for, with the address to ask first; `None` where asking is needless or impossible.
    pub(super) fn to_ask(&self, snapshot: &Snapshot, neighbours: &Neighbours) -> Option<(Hop, Option<Mac>)> {
        let Self::Hop { hop, mac: None, .. } = self else { return None };
        let link = snapshot.by_index(hop.ifindex)?;
        let neighbour = neighbours.get(hop).copied();
        let fixed = neighbour.and_then(Neighbour::fixed).is_some();
        if fixed || link.noarp || link.trouble().is_some() {
            return None;
        }
        Some((*hop, neighbour.and_then(Neighbour::mac)))
    }
}

/// Why frames cannot be built for this interface, in words.
fn unsuitable(link: &Link, snapshot: &Snapshot) -> Option<String> {
    if link.mac.is_none() {
        return Some(format!("interface {} has no Ethernet address", link.name));
    }
    let master = snapshot.by_index(link.master?)?;
    // The kernel hands what a port receives to its bridge or bond, so ARP answers never come up there.
    (master.kind.as_deref() != Some("vrf")).then(|| {
        format!("interface {} is a port of {}; name {} instead", link.name, master.name, master.name)
    })
}

fn words(error: &RouteError) -> String {
    match error {
        RouteError::Lookup { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::links::InterfaceAddress;
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
        assert_eq!(mac_by(&target(), Some(Neighbour::Learnt(OLD)), Some(NEW)), Some(NEW), "then our ARP");
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
}
