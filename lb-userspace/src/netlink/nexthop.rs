//! From a target address to its next hop, given links, a route, neighbour entries and what asking has taught:
//! pure decisions. Must not know where any of these come from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Mac;
use super::address::suits;
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

/// A station that can be asked for its Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The interface it is reached through; a VLAN device as such, for it is asked there.
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
    /// unspecified when the interface has none that suits.
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
        /// The egress interface; a VLAN device as such.
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

    /// Whether an answer could still change it.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Unresolved { .. })
    }

    /// The state of the target behind `path`; `learnt` is what asking has taught about its hop.
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
        let (egress, vlan) = match egress(link, snapshot) {
            Ok(found) => found,
            Err(why) => return Self::Unroutable(why),
        };
        if let Some(why) = link.trouble().or_else(|| egress.trouble()) {
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
                Self::Resolved(NextHop { ifindex: egress.ifindex, vlan, via: hop.via, mac, source, mtu })
            }
            None => unresolved(silence(hop, link)),
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
        let towards = if suits(hop.via, address) { hop.via } else { address };
        let source =
            route.prefsrc.filter(|own| suits(*own, address)).unwrap_or_else(|| link.source_for(towards));
        Self::Hop { hop, source, mac: target.mac, mtu: route.mtu }
    }

    /// Its first step, where there is one.
    pub(super) fn hop(&self) -> Option<Hop> {
        match self {
            Self::Hop { hop, .. } => Some(*hop),
            Self::Local | Self::Unroutable(_) => None,
        }
    }

    /// The hop to ask, with the address to ask first; `None` where asking is needless or impossible.
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

/// The interface that frames for `link` leave by, and their VLAN; in words why there is none.
fn egress<'a>(link: &'a Link, snapshot: &'a Snapshot) -> Result<(&'a Link, Option<u16>), String> {
    let is_vlan = |link: &Link| link.kind.as_deref() == Some("vlan");
    let Some((parent, id)) = link.vlan else {
        let why =
            || format!("interface {} is not an 802.1Q VLAN of an interface in this namespace", link.name);
        return if is_vlan(link) { Err(why()) } else { Ok((link, None)) };
    };
    match snapshot.by_index(parent) {
        Some(parent) if is_vlan(parent) => Err(format!("interface {} is a VLAN within a VLAN", link.name)),
        Some(parent) => Ok((parent, Some(id))),
        None => Err(format!("interface index {parent} under {} is gone", link.name)),
    }
}

/// Why the address of a hop is not known.
fn silence(hop: Hop, link: &Link) -> String {
    match (link.asking_for(hop.via), hop.via) {
        (None, via) => format!("interface {} has no IPv6 address to ask for {via} from", link.name),
        (_, IpAddr::V4(via)) => format!("no ARP answer from {via} on {}", link.name),
        (_, IpAddr::V6(via)) => format!("no neighbour advertisement from {via} on {}", link.name),
    }
}

/// Why frames cannot be built for this interface, in words.
fn unsuitable(link: &Link, snapshot: &Snapshot) -> Option<String> {
    if link.mac.is_none() {
        return Some(format!("interface {} has no Ethernet address", link.name));
    }
    if let Err(why) = egress(link, snapshot) {
        return Some(why);
    }
    let master = snapshot.by_index(link.master?)?;
    // The kernel hands what a port receives to its bridge or bond, so answers never come up there.
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
mod tests;
