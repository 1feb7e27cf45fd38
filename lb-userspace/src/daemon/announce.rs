//! Tells the segment where the service addresses are.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::netlink::{Mac, Snapshot, announce};

/// Service addresses, each with the index and the MAC address of the interface it is behind.
pub(super) type Announced = BTreeMap<IpAddr, (u32, Mac)>;

/// Where the advertised addresses are now.
pub(super) fn places(advertised: &BTreeMap<IpAddr, u32>, links: &Snapshot) -> Announced {
    let place = |ifindex: u32| Some((ifindex, links.by_index(ifindex)?.mac?));
    advertised.iter().filter_map(|(address, ifindex)| Some((*address, place(*ifindex)?))).collect()
}

/// Sends gratuitous ARP for the addresses. Failure is a warning: requests are answered anyway.
pub(super) async fn all(announced: Announced) {
    let mut by_place: BTreeMap<(u32, Mac), Vec<IpAddr>> = BTreeMap::new();
    for (address, place) in announced {
        by_place.entry(place).or_default().push(address);
    }
    for ((ifindex, mac), addresses) in by_place {
        match announce(ifindex, mac, &addresses).await {
            Ok(()) => tracing::info!(ifindex, ?addresses, "announced"),
            Err(error) => tracing::warn!(ifindex, %error, "addresses not announced"),
        }
    }
}
