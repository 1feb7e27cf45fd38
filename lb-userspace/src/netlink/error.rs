//! What can go wrong between us and the kernel, told apart as far as a caller acts differently.

use std::io;
use std::net::IpAddr;

/// A request the kernel refused, or a socket it did not give.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket to be had.
    #[error("cannot open a netlink socket")]
    Open(#[source] io::Error),
    /// A table could not be read.
    #[error("cannot list the kernel's {table}")]
    List {
        /// Which table, in words.
        table: &'static str,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// An interface does not come up.
    #[error("interface index {ifindex}: cannot bring it up")]
    BringUp {
        /// The interface.
        ifindex: u32,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// An address of the host's own could not be changed.
    #[error("interface index {ifindex}: cannot {action} {address}")]
    Address {
        /// What was attempted, in a word.
        action: &'static str,
        /// The interface.
        ifindex: u32,
        /// The address, or a prefix's first one.
        address: IpAddr,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// No socket to ask neighbours on an interface.
    #[error("interface index {ifindex}: cannot open {kind} socket")]
    Socket {
        /// The interface.
        ifindex: u32,
        /// What it asks by, in words.
        kind: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The multicast groups could not be read.
    #[error("cannot read the interfaces' multicast groups")]
    Groups(#[source] io::Error),
    /// A multicast group could not be joined or left.
    #[error("interface index {ifindex}: cannot change its multicast groups")]
    Group {
        /// The interface.
        ifindex: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// An announcement did not get out.
    #[error("interface index {ifindex}: cannot announce {address}")]
    Announce {
        /// The interface.
        ifindex: u32,
        /// The service address that was to be announced.
        address: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why there is no next hop for an address.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The address is this host's own.
    #[error("{0} is an address of this host")]
    Local(IpAddr),
    /// No route matches.
    #[error("no route to {0}")]
    NoRoute(IpAddr),
    /// A route of type `unreachable` matches.
    #[error("the route to {0} says unreachable")]
    Unreachable(IpAddr),
    /// A route of type `prohibit` matches.
    #[error("the route to {0} says prohibit")]
    Prohibited(IpAddr),
    /// A route of type `blackhole` matches, or the address can have no route at all (`0.0.0.0/8`).
    #[error("the route to {0} is a blackhole")]
    Blackhole(IpAddr),
    /// A broadcast or multicast address.
    #[error("{0} is a broadcast or multicast address")]
    NotUnicast(IpAddr),
    /// The kernel answered something we cannot use.
    #[error("the kernel's answer about {0} names no interface")]
    NoInterface(IpAddr),
    /// The look-up itself failed.
    #[error("cannot look up the route to {address}")]
    Lookup {
        /// The destination.
        address: IpAddr,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
}
