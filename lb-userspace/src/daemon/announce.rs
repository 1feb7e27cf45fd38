//! Tells the segment where the service addresses are.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::netlink::{Snapshot, announce};

/// Sends gratuitous ARP for the addresses, each on its interface. Failure is a warning: requests are answered anyway.
pub(super) async fn all(advertised: &BTreeMap<Ipv4Addr, u32>, links: &Snapshot) {
    let mut by_interface: BTreeMap<u32, Vec<Ipv4Addr>> = BTreeMap::new();
    for (address, ifindex) in advertised {
        by_interface.entry(*ifindex).or_default().push(*address);
    }
    for (ifindex, addresses) in by_interface {
        let Some((link, mac)) = links.by_index(ifindex).and_then(|link| Some((link, link.mac?))) else {
            continue;
        };
        match announce(ifindex, mac, &addresses).await {
            Ok(()) => tracing::info!(interface = link.name, ?addresses, "announced"),
            Err(error) => tracing::warn!(interface = link.name, %error, "addresses not announced"),
        }
    }
}
