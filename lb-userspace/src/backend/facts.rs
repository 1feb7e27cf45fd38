//! What is so on a machine now, as far as a backend is concerned: plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::wanted::Port;
use crate::dataplane::{Clamped, XdpFound};
use crate::model::Prefix;
use crate::netlink::Usable;

/// Values of settings by their path below `/proc/sys`; what is not there has none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings(pub BTreeMap<String, i64>);

impl Settings {
    /// The path of an IPv4 setting of an interface, or of `all`.
    pub fn v4(interface: &str, name: &str) -> String {
        format!("net/ipv4/conf/{interface}/{name}")
    }

    /// The path of an IPv6 setting of an interface.
    pub fn v6(interface: &str, name: &str) -> String {
        format!("net/ipv6/conf/{interface}/{name}")
    }

    /// A setting's own value.
    pub fn get(&self, path: &str) -> Option<i64> {
        self.0.get(path).copied()
    }

    /// What the kernel acts on: the larger of `all` and the interface's own value (`IN_DEV_MAXCONF`,
    /// include/linux/inetdevice.h).
    pub fn effective(&self, interface: &str, name: &str) -> Option<i64> {
        let own = self.get(&Self::v4(interface, name))?;
        Some(own.max(self.get(&Self::v4("all", name)).unwrap_or(0)))
    }
}

/// An address of an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// The interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Length of its prefix, in bits.
    pub prefix_len: u8,
    /// Whether it is in use.
    pub usable: Usable,
}

/// What of a decapsulator cannot be read from its maps.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Manner {
    /// UDP port that GUE comes to, 0 where none does.
    pub gue_port: u16,
    /// Whether it runs in the network stack.
    pub generic: bool,
}

/// The interface that packets come in by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SegmentLink {
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Why nothing comes in by it, in words.
    pub trouble: Option<String>,
    /// Its XDP program.
    pub xdp: Option<XdpFound>,
    /// How the decapsulator runs that `lb backend up` has started, if there is one.
    pub our_decap: Option<Manner>,
}

/// What a server listens on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Listener {
    /// Transport and number.
    pub port: Port,
    /// The address; unspecified for all.
    pub address: IpAddr,
}

/// How a port of a service address is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortState {
    /// Somebody listens on it.
    Served,
    /// Somebody listens on this other address.
    Elsewhere(IpAddr),
    /// Nobody listens.
    Nobody,
}

/// What is so on a machine now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// The interface that packets come in by.
    pub link: SegmentLink,
    /// Interfaces that ARP requests of the segment are answered by, that one first.
    pub segment: Vec<String>,
    /// Addresses of all interfaces.
    pub held: Vec<Held>,
    /// Prefixes whose addresses are all the host's own, by `lo`.
    pub local: Vec<Prefix>,
    /// Settings of the segment's interfaces.
    pub settings: Settings,
    /// Interfaces of the default routes of IPv4.
    pub answers_v4: BTreeSet<String>,
    /// Interfaces of the default routes of IPv6.
    pub answers_v6: BTreeSet<String>,
    /// What is done about the MSS, by interfaces that answers leave through.
    pub clamped: BTreeMap<String, Clamped>,
    /// What servers listen on.
    pub listeners: BTreeSet<Listener>,
}

impl Facts {
    /// Whether packets for a service address come up to a server.
    pub fn is_own(&self, vip: &Prefix) -> bool {
        if !vip.is_host() {
            return self.local.iter().any(|local| local.covers(vip));
        }
        let held =
            |held: &Held| held.interface == "lo" && held.address == vip.network && held.usable == Usable::Yes;
        self.held.iter().any(held) || self.local.iter().any(|local| !local.is_host() && local.covers(vip))
    }

    /// Interfaces that answers may leave through: those of the default routes, and the one that packets come in by.
    pub fn ways_out(&self, v4: bool, v6: bool) -> BTreeSet<String> {
        let own = std::iter::once(&self.link.name);
        let v4 = self.answers_v4.iter().filter(|_| v4);
        let v6 = self.answers_v6.iter().filter(|_| v6);
        own.chain(v4).chain(v6).cloned().collect()
    }

    /// How a port of a service address is. Servers on all addresses of IPv6 serve IPv4 too, unless they ask not to,
    /// which cannot be seen.
    pub fn port(&self, vip: &Prefix, port: Port) -> PortState {
        let there = || self.listeners.iter().filter(|listener| listener.port == port);
        let serves = |address: IpAddr| match address {
            IpAddr::V4(v4) if v4.is_unspecified() => vip.network.is_ipv4(),
            IpAddr::V6(v6) if v6.is_unspecified() => true,
            address => vip.contains(address),
        };
        if there().any(|listener| serves(listener.address)) {
            return PortState::Served;
        }
        there().next().map_or(PortState::Nobody, |listener| PortState::Elsewhere(listener.address))
    }
}
