//! Links, routes and neighbours of the current network namespace: which Ethernet address a packet for a
//! backend must be sent to, and through which interface. Knows nothing of services, maps or configuration.
//!
//! [`Watcher`] keeps the answer current, [`resolve`] gives it once, [`announce`] tells the neighbours who
//! answers for a service address. Sockets are opened in the namespace of the calling thread.
//!
//! Asking is done by ourselves, by ARP and by neighbour discovery: packets that XDP forwards never pass the kernel's
//! neighbour code, so the kernel does not notice a next hop that changed its Ethernet address; and it never answers for
//! addresses the host does not own.

mod address;
mod announce;
mod arp;
mod attempt;
mod client;
mod cookie;
mod error;
mod event;
mod groups;
mod links;
mod ndp;
mod neighbours;
mod nexthop;
mod own;
mod ports;
mod probe_net;
mod prober;
mod route;
mod socket;
mod statistics;
mod watcher;

pub use address::InterfaceAddress;
pub use announce::announce;
pub use attempt::refusal;
pub use client::{Netlink, links};
pub use cookie::namespace_cookie;
pub use error::{Error, RouteError};
pub use groups::{Membership, groups, keep as keep_groups, leave as leave_group};
pub use links::{Link, Snapshot, Xdp, XdpMode};
pub use neighbours::{Neighbour, Neighbours};
pub use nexthop::{Hop, NextHop, Resolution, Resolutions, Target};
pub use own::{DefaultRoutes, LocalPrefix, OwnAddress, Usable};
pub use probe_net::{GATE, ProbeNet, ProbeNetError, remove_gate};
pub use route::Route;
pub use statistics::Statistics;
pub use watcher::{Watcher, resolve};

/// An Ethernet address, first byte on the wire first.
pub type Mac = [u8; 6];

/// Every station of the segment.
const BROADCAST: Mac = [0xff; 6];

/// Whether `mac` can be one station's own address: neither zero nor a group address (bit 0 of byte 0).
pub fn is_station(mac: Mac) -> bool {
    mac != [0; 6] && mac[0] & 1 == 0
}
