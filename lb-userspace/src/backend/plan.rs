//! What there is to do so that a machine can do what is wanted: single steps in an order that is safe, each with whether
//! it is needed. Pure: the same facts give the same plan, and after it is done there is nothing left to do.

use std::collections::BTreeSet;
use std::fmt;

use super::facts::{Facts, Manner, Settings};
use super::room::Room;
use super::wanted::{MssWish, Wanted};
use crate::dataplane::{Clamped, DecapFound, XdpFound};
use crate::model::Prefix;

/// A setting below `/proc/sys`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// Its path there.
    pub path: String,
    /// The value that does the job.
    pub value: i64,
}

/// How the decapsulator is started.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DecapCommand {
    /// The interface.
    pub interface: String,
    /// Inner destinations.
    pub vips: Vec<Prefix>,
    /// Outer sources.
    pub from: Vec<Prefix>,
    /// UDP port that GUE comes to.
    pub gue_port: u16,
    /// What is done about the MSS.
    pub mss: MssWish,
    /// Interfaces that answers leave through, besides that interface.
    pub clamp_on: Vec<String>,
    /// In the network stack.
    pub generic: bool,
}

/// One thing that can be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Act {
    /// Write a setting.
    Set(Setting),
    /// Put an address on `lo`.
    Hold(Prefix),
    /// Make a prefix local.
    Local(Prefix),
    /// Run the decapsulator.
    Decap(DecapCommand),
}

/// One thing that must be so.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// What makes it so.
    pub act: Act,
    /// Whether it is still to be done.
    pub needed: bool,
    /// What for.
    pub why: &'static str,
}

/// What there is to do. Silence comes first: from the moment `lo` has the address, the host would answer ARP for it.
pub fn plan(wanted: &Wanted, facts: &Facts) -> Vec<Step> {
    let mut steps = Vec::new();
    if wanted.has_v4() {
        steps.extend(facts.segment.iter().flat_map(|name| quiet(facts, name)));
    }
    if wanted.has_v6() {
        steps.extend(["lo", &wanted.interface].into_iter().filter_map(|name| speaks_v6(facts, name)));
    }
    if wanted.way.is_tunnel() && wanted.starts_decap {
        let command = decap_command(wanted, facts);
        let needed = !takes_all(wanted, facts, &command);
        let why = "strips the outer header of what the balancer sends";
        steps.push(Step { act: Act::Decap(command), needed, why });
    }
    for vip in &wanted.vips {
        let act = if vip.is_host() { Act::Hold(*vip) } else { Act::Local(*vip) };
        let needed = !facts.is_own(vip);
        steps.push(Step {
            act,
            needed,
            why: "the host takes packets for the service, and never speaks of it",
        });
    }
    steps
}

/// The three settings of an interface of the segment.
fn quiet(facts: &Facts, interface: &str) -> Vec<Step> {
    let settings = [
        (
            "arp_ignore",
            1,
            &[1, 2, 8][..],
            "ARP is answered for its own addresses only: the balancer answers for the service's",
        ),
        ("arp_announce", 2, &[2][..], "no ARP request names a service address as its sender"),
        ("rp_filter", 2, &[0, 2][..], "what is answered through another interface is accepted"),
    ];
    let step = |(name, value, enough, why): (&str, i64, &[i64], &'static str)| {
        let now = facts.settings.effective(interface, name)?;
        let act = Act::Set(Setting { path: Settings::v4(interface, name), value });
        Some(Step { act, needed: !enough.contains(&now), why })
    };
    settings.into_iter().filter_map(step).collect()
}

/// Where IPv6 is switched off, a service address of it is nobody's.
fn speaks_v6(facts: &Facts, interface: &str) -> Option<Step> {
    let path = Settings::v6(interface, "disable_ipv6");
    let needed = facts.settings.get(&path)? != 0;
    Some(Step { act: Act::Set(Setting { path, value: 0 }), needed, why: "IPv6 is on" })
}

fn decap_command(wanted: &Wanted, facts: &Facts) -> DecapCommand {
    let ways = facts.ways_out(wanted.has_v4(), wanted.has_v6());
    let others = ways.iter().filter(|name| **name != wanted.interface).cloned();
    DecapCommand {
        interface: wanted.interface.clone(),
        vips: wanted.vips.clone(),
        from: wanted.from.clone(),
        gue_port: wanted.gue_port,
        mss: wanted.mss,
        clamp_on: if wanted.mss == MssWish::Leave { Vec::new() } else { others.collect() },
        generic: wanted.generic,
    }
}

/// Whether the decapsulator that is there does.
fn takes_all(wanted: &Wanted, facts: &Facts, command: &DecapCommand) -> bool {
    let Some(XdpFound::Decap(found)) = &facts.link.xdp else { return false };
    let manner = Manner { gue_port: command.gue_port, generic: command.generic };
    facts.link.our_decap.is_none_or(|ours| ours == manner)
        && missing(&command.vips, &found.vips).is_empty()
        && missing(&command.from, &found.sources).is_empty()
        && unclamped(wanted, facts).is_empty()
}

/// Those of `wanted` that no prefix of `there` covers.
pub fn missing(wanted: &[Prefix], there: &[Prefix]) -> Vec<Prefix> {
    wanted.iter().filter(|prefix| !there.iter().any(|other| other.covers(prefix))).copied().collect()
}

/// Interfaces through which answers leave with a larger MSS than is wanted.
pub fn unclamped(wanted: &Wanted, facts: &Facts) -> BTreeSet<String> {
    let fits = Room::of(wanted, facts.link.mtu).mss();
    let (v4, v6) = match wanted.mss {
        MssWish::Leave => return BTreeSet::new(),
        MssWish::To(value) => (value, value),
        MssWish::Fit => (fits.v4, fits.v6),
    };
    let small = |name: &String| match facts.clamped.get(name) {
        Some(Clamped::To(mss)) => (!wanted.has_v4() || mss.v4 <= v4) && (!wanted.has_v6() || mss.v6 <= v6),
        // `lb decap` has said so if it could not.
        Some(Clamped::Unseen) => true,
        Some(Clamped::Open) | None => false,
    };
    let ways = facts.ways_out(wanted.has_v4(), wanted.has_v6());
    ways.into_iter().filter(|name| name != "lo" && !small(name)).collect()
}

/// The decapsulator that is there, if it is one.
pub fn decap_found(facts: &Facts) -> Option<&DecapFound> {
    match &facts.link.xdp {
        Some(XdpFound::Decap(found)) => Some(found),
        _ => None,
    }
}

impl DecapCommand {
    /// Takes what another decapsulator takes as well.
    pub(super) fn join(&mut self, found: &DecapFound) {
        let new_vips = missing(&found.vips, &self.vips);
        self.vips.extend(new_vips);
        let new_sources = missing(&found.sources, &self.from);
        self.from.extend(new_sources);
    }

    /// The arguments of `lb`.
    pub fn arguments(&self) -> Vec<String> {
        let mut words = vec!["decap".to_owned(), self.interface.clone()];
        let mut list = |option: &str, values: Vec<String>| {
            if !values.is_empty() {
                words.push(option.to_owned());
                words.extend(values);
            }
        };
        list("--vip", self.vips.iter().map(short).collect());
        list("--from", self.from.iter().map(short).collect());
        if self.gue_port != crate::model::Encap::GUE_PORT {
            list("--gue-port", vec![self.gue_port.to_string()]);
        }
        match self.mss {
            MssWish::Leave => {}
            MssWish::Fit => words.push("--clamp-mss".to_owned()),
            MssWish::To(value) => words.extend(["--clamp-mss".to_owned(), value.to_string()]),
        }
        if !self.clamp_on.is_empty() {
            words.extend(["--clamp-on".to_owned(), self.interface.clone()]);
            words.extend(self.clamp_on.iter().cloned());
        }
        if self.generic {
            words.push("--generic".to_owned());
        }
        words
    }
}

/// A prefix, or the address alone where it is one.
pub fn short(prefix: &Prefix) -> String {
    if prefix.is_host() { prefix.network.to_string() } else { prefix.to_string() }
}

impl fmt::Display for DecapCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lb {}", self.arguments().join(" "))
    }
}

impl fmt::Display for Act {
    /// As a command for a shell. A path with slashes, because interface names may have dots.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(Setting { path, value }) => write!(f, "sysctl -w {path}={value}"),
            Self::Hold(vip) if vip.network.is_ipv4() => {
                write!(f, "ip address replace {vip} dev lo scope host")
            }
            Self::Hold(vip) => write!(f, "ip address replace {vip} dev lo nodad preferred_lft 0"),
            Self::Local(vip) => write!(f, "ip route replace local {vip} dev lo"),
            Self::Decap(command) => command.fmt(f),
        }
    }
}
