//! The way from here to the backends: next hops, interfaces, room for packets. Pure: routes and neighbours come as
//! values. Findings are grouped, so that ten thousand backends behind a silent router are one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Diagnosis, Finding, Severity};
use crate::model::{Backend, Model};
use crate::netlink::{NextHop, Resolution, Resolutions, Snapshot};

/// Largest packet that clients across the internet send, in bytes.
const COMMON_MTU: u32 = 1500;
/// Interfaces with this MTU, in bytes, are meant for jumbo frames.
const JUMBO: u32 = 4000;
/// Names in a line, at most.
const NAMED: usize = 4;
/// Headers of TCP over IPv4, in bytes.
const TCP_HEADERS: u32 = 40;

/// What is known about the ways.
#[derive(Clone, Copy, Debug)]
pub struct Ways<'a> {
    /// What the config wants.
    pub model: &'a Model,
    /// Interfaces.
    pub links: &'a Snapshot,
    /// Next hops of all backends.
    pub resolutions: &'a Resolutions,
    /// Indexes of interfaces that the program is on, or shall be.
    pub attached: &'a BTreeSet<u32>,
}

/// Backends of one kind of trouble.
type Group = BTreeSet<IpAddr>;

impl<'a> Ways<'a> {
    /// What is to be said about them.
    pub fn findings(&self) -> Vec<Diagnosis> {
        let mut found = self.hops();
        found.extend(self.egress());
        found.extend(self.room());
        found
    }

    fn backends(&self) -> impl Iterator<Item = &'a Backend> {
        self.model.services.iter().flat_map(|service| &service.backends)
    }

    fn resolved(&self) -> impl Iterator<Item = (&'a Backend, &'a NextHop)> {
        let resolutions = self.resolutions;
        self.backends().filter_map(move |b| Some((b, resolutions.get(&b.address)?.next_hop()?)))
    }

    fn hops(&self) -> Vec<Diagnosis> {
        let (mut silent, mut lost) = (BTreeMap::<&str, Group>::new(), BTreeMap::<&str, Group>::new());
        let (mut own, mut well) = (Group::new(), Group::new());
        for backend in self.backends() {
            let group = match self.resolutions.get(&backend.address) {
                Some(Resolution::Resolved(_)) => &mut well,
                Some(Resolution::Unresolved { why, .. }) => silent.entry(why).or_default(),
                Some(Resolution::Unroutable(why)) => lost.entry(why).or_default(),
                Some(Resolution::Local) => &mut own,
                None => continue,
            };
            group.insert(backend.address);
        }
        let mut found = Vec::new();
        for (why, group) in silent {
            let finding =
                Finding::new("LB230", Severity::Problem, "backends", format!("{}: {why}", names(&group)));
            let fix = "start it, or check address, segment and VLAN (`ip neigh`, `arping`); or set `mac:` and `interface:`";
            found.push(finding.why("packets for them are dropped (no_next_hop)").fix(fix).into());
        }
        for (why, group) in lost {
            let finding = Finding::new(
                "LB231",
                Severity::Problem,
                "backends",
                format!("{}: no way: {why}", names(&group)),
            );
            found.push(
                finding
                    .why("packets for them are dropped (no_next_hop)")
                    .fix("add a route (`ip route get ADDRESS` tests it)")
                    .into(),
            );
        }
        if !own.is_empty() {
            let what = format!("{}: an address of this host", names(&own));
            let finding = Finding::new("LB236", Severity::Problem, "backends", what);
            found.push(
                finding.why("a balancer cannot be its own backend").fix("name the server's address").into(),
            );
        }
        if !well.is_empty() {
            found.push(Finding::ok("LB230", "backends", format!("{} have next hops", well.len())).into());
        }
        found
    }

    /// Interfaces that packets leave by without the program on them.
    fn egress(&self) -> Vec<Diagnosis> {
        let mut by_link: BTreeMap<u32, Group> = BTreeMap::new();
        for (backend, hop) in self.resolved().filter(|(_, hop)| !self.attached.contains(&hop.ifindex)) {
            by_link.entry(hop.ifindex).or_default().insert(backend.address);
        }
        if by_link.is_empty() && self.resolved().next().is_some() {
            return vec![
                Finding::ok("LB232", "backends", "all are reached through attached interfaces").into(),
            ];
        }
        let one = |(index, group): (u32, Group)| {
            let name = self.links.by_index(index).map_or("?", |link| &link.name);
            let what = format!("packets for {} leave by it, but lb is not attached to it", names(&group));
            Finding::new("LB232", Severity::Warning, name, what)
                .why("most drivers send redirected frames only where an XDP program is attached; answers to checks through the service are not heard there")
                .fix(format!("add {{name: {name}}} to `interfaces`"))
                .into()
        };
        by_link.into_iter().map(one).collect()
    }

    /// Whether clients' packets fit the way with what is put before them.
    fn room(&self) -> Vec<Diagnosis> {
        let attached = self.links.iter().filter(|link| self.attached.contains(&link.ifindex));
        let Some(arriving) = attached.map(|link| link.mtu).max() else { return Vec::new() };
        let mut groups: BTreeMap<Tightness, Group> = BTreeMap::new();
        for (backend, hop) in self.resolved() {
            let overhead = backend.forwarding.overhead(backend.address);
            let method = backend.forwarding.name();
            let way = Tightness { ifindex: hop.ifindex, mtu: hop.mtu, overhead, method };
            if way.is_told(arriving) {
                groups.entry(way).or_default().insert(backend.address);
            }
        }
        if groups.is_empty() && self.resolved().next().is_some() {
            let what = format!("packets of {} bytes fit all ways", arriving.min(COMMON_MTU));
            return vec![Finding::ok("LB233", "mtu", what).into()];
        }
        let name = |way: &Tightness| self.links.by_index(way.ifindex).map_or("?", |link| &link.name);
        groups.iter().map(|(way, group)| way.finding(name(way), arriving, group).into()).collect()
    }
}

/// What a config alone shows of packets that do not fit: where it names the MTU of all its interfaces, the best that a
/// tunnel can have.
pub fn foreseen(model: &Model) -> Vec<Finding> {
    let mtus: Option<Vec<u32>> = model.interfaces.iter().map(|interface| interface.settings.mtu).collect();
    let best = model.interfaces.iter().max_by_key(|interface| interface.settings.mtu);
    let (Some(mtu), Some(best)) = (mtus.and_then(|mtus| mtus.into_iter().max()), best) else {
        return Vec::new();
    };
    let mut groups: BTreeMap<Tightness, Group> = BTreeMap::new();
    for backend in model.services.iter().flat_map(|service| &service.backends) {
        let overhead = backend.forwarding.overhead(backend.address);
        let way = Tightness { ifindex: 0, mtu, overhead, method: backend.forwarding.name() };
        if overhead > 0 && way.is_told(mtu) {
            groups.entry(way).or_default().insert(backend.address);
        }
    }
    groups.iter().map(|(way, group)| way.finding(&best.name, mtu, group)).collect()
}

/// A way that is narrower than the one that packets come by.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Tightness {
    ifindex: u32,
    mtu: u32,
    overhead: u32,
    method: &'static str,
}

impl Tightness {
    /// The largest client packet, in bytes.
    fn fits(&self) -> u32 {
        self.mtu.saturating_sub(self.overhead)
    }

    /// Whether it is worth a word where packets of `arriving` bytes may come.
    fn is_told(&self, arriving: u32) -> bool {
        let fits = self.fits();
        fits < arriving.min(COMMON_MTU) || (fits < arriving && arriving >= JUMBO)
    }

    fn finding(&self, name: &str, arriving: u32, group: &Group) -> Finding {
        let Self { mtu, overhead, method, .. } = self;
        let fits = self.fits();
        let wanted = arriving.min(COMMON_MTU);
        let severity = if fits < wanted { Severity::Warning } else { Severity::Notice };
        let largest = if fits < wanted { wanted } else { arriving };
        let what = format!(
            "{method} to {} by {name}: MTU {mtu} less {overhead} bytes of headers leaves client packets of {fits} bytes; \
             up to {largest} may come",
            names(group)
        );
        let mss = fits.saturating_sub(TCP_HEADERS);
        let clamp = match overhead {
            0 => format!("an MSS of {mss} (IPv6: {}) from the backends", mss.saturating_sub(20)),
            _ => {
                format!("`lb decap --clamp-mss` on the backends (MSS {mss}, IPv6 {})", mss.saturating_sub(20))
            }
        };
        Finding::new("LB233", severity, "mtu", what)
            .why("larger ones cost a round trip: they are answered with ICMP (too_big), and lost where clients do not hear it")
            .fix(format!(
                "an MTU of {} or more on the whole way to the backends (jumbo: 9000); or {clamp}; or clients with an MTU of {fits}",
                largest + overhead
            ))
    }
}

/// The first of them, and how many more.
fn names(group: &Group) -> String {
    let first: Vec<String> = group.iter().take(NAMED).map(ToString::to_string).collect();
    match group.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests;
