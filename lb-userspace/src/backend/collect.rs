//! Collects the facts: asks the kernel, changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::error::Error;
use super::facts::{Facts, Held, Listener, SegmentLink, Settings};
use super::wanted::{Port, Transport, Wanted};
use super::{process, settings, state};
use crate::dataplane::{clamped, xdp_program};
use crate::model::Prefix;
use crate::netlink::{InterfaceAddress, Link, Netlink, Snapshot};

/// IPv4 settings that are looked at.
const V4: [&str; 3] = ["arp_ignore", "arp_announce", "rp_filter"];

/// The interface that packets come in by: the one named, or the one on the way to the balancer, or in whose subnet a
/// service address lies, or the only one.
pub async fn incoming(
    netlink: &Netlink,
    named: Option<&str>,
    from: &[Prefix],
    vips: &[Prefix],
) -> Result<String, Error> {
    let links = netlink.links().await?;
    if let Some(name) = named {
        let found = links.by_name(name).map(|link| link.name.clone());
        return found.ok_or_else(|| Error::NoInterface(name.to_owned()));
    }
    if let Some(prefix) = from.first()
        && let Ok(route) = netlink.route_to(prefix.network, None).await
        && let Some(link) = links.by_index(route.ifindex)
    {
        return Ok(link.name.clone());
    }
    let all: Vec<&Link> = links.iter().filter(|link| link.mac.is_some()).collect();
    let near = |link: &&Link| {
        let fits = |vip: &Prefix| {
            link.addresses.iter().any(|own| !vip.contains(own.address) && own.contains(vip.network))
        };
        vips.iter().any(fits)
    };
    let some =
        |fit: &dyn Fn(&&Link) -> bool| all.iter().filter(|link| fit(link)).copied().collect::<Vec<_>>();
    let tiers = [some(&near), some(&|link| link.up), all.clone()];
    let best = tiers.into_iter().find(|tier| !tier.is_empty()).unwrap_or_default();
    match best.as_slice() {
        [only] => Ok(only.name.clone()),
        [] => Err(Error::WhichInterface("none with an Ethernet address".to_owned())),
        several => {
            let names: Vec<&str> = several.iter().map(|link| link.name.as_str()).collect();
            Err(Error::WhichInterface(names.join(", ")))
        }
    }
}

/// What is so now.
pub async fn collect(netlink: &Netlink, wanted: &Wanted) -> Result<Facts, Error> {
    let links = netlink.links().await?;
    let link =
        links.by_name(&wanted.interface).ok_or_else(|| Error::NoInterface(wanted.interface.clone()))?;
    let name = |ifindex: u32| links.by_index(ifindex).map(|link| link.name.clone()).unwrap_or_default();
    let own = netlink.own_addresses().await?;
    let local = netlink.local_prefixes().await?;
    let through = netlink.default_routes().await?;
    let segment = segment(&links, link, &wanted.vips);
    let mut facts = Facts {
        link: facts_of(link)?,
        settings: read_settings(&segment)?,
        segment,
        held: own
            .into_iter()
            .map(|own| Held {
                interface: name(own.ifindex),
                address: own.address,
                prefix_len: own.prefix_len,
                usable: own.usable,
            })
            .collect(),
        local: local
            .into_iter()
            .filter(|(_, _, ifindex)| name(*ifindex) == "lo")
            .map(|(network, length, _)| Prefix::containing(network, length))
            .collect(),
        answers_v4: through.v4.into_iter().map(name).collect(),
        answers_v6: through.v6.into_iter().map(name).collect(),
        clamped: BTreeMap::new(),
        listeners: listeners()?,
    };
    if wanted.way.is_tunnel() {
        for interface in facts.ways_out(wanted.has_v4(), wanted.has_v6()) {
            let found = clamped(&interface)?;
            facts.clamped.insert(interface, found);
        }
    }
    Ok(facts)
}

fn facts_of(link: &Link) -> Result<SegmentLink, Error> {
    let xdp = link.xdp.map(|xdp| xdp_program(xdp.program_id)).transpose()?.flatten();
    Ok(SegmentLink {
        name: link.name.clone(),
        mtu: link.mtu,
        trouble: link.trouble(),
        xdp,
        our_decap: state::started(&link.name)?.filter(process::runs).map(|started| started.manner),
    })
}

/// Interfaces whose ARP is about the service addresses: the one that packets come in by, the bridge or bond over it, VLANs
/// on it, others with an address of the same subnet, and those in whose subnet a service address lies: there somebody
/// asks for it.
fn segment(links: &Snapshot, link: &Link, vips: &[Prefix]) -> Vec<String> {
    let asked = |other: &Link| {
        let subnets = other.addresses.iter().filter(|own| own.address.is_ipv4() && own.prefix_len < 32);
        let near: Vec<_> = subnets.filter(|own| !vips.iter().any(|vip| vip.contains(own.address))).collect();
        let beside = |own: &InterfaceAddress| link.addresses.iter().any(|one| own.contains(one.address));
        near.iter().any(|own| beside(own) || vips.iter().any(|vip| own.contains(vip.network)))
    };
    let belongs = |other: &&Link| {
        other.mac.is_some()
            && other.ifindex != link.ifindex
            && (link.master == Some(other.ifindex)
                || other.vlan.is_some_and(|(parent, _)| parent == link.ifindex)
                || asked(other))
    };
    std::iter::once(link).chain(links.iter().filter(belongs)).map(|link| link.name.clone()).collect()
}

fn read_settings(segment: &[String]) -> Result<Settings, Error> {
    let v4 = std::iter::once("all").chain(segment.iter().map(String::as_str));
    let v4 = v4.flat_map(|interface| V4.map(|name| Settings::v4(interface, name)));
    let v6 = std::iter::once("lo").chain(segment.iter().map(String::as_str));
    let v6 = v6.map(|interface| Settings::v6(interface, "disable_ipv6"));
    let mut found = BTreeMap::new();
    for path in v4.chain(v6) {
        if let Some(value) = settings::read(&path)? {
            found.insert(path, value);
        }
    }
    Ok(Settings(found))
}

/// What servers in this network namespace listen on (proc_pid_net(5)).
fn listeners() -> Result<BTreeSet<Listener>, Error> {
    let tables = [
        ("tcp", Transport::Tcp),
        ("tcp6", Transport::Tcp),
        ("udp", Transport::Udp),
        ("udp6", Transport::Udp),
    ];
    let mut found = BTreeSet::new();
    for (table, transport) in tables {
        let path = PathBuf::from("/proc/self/net").join(table);
        match fs::read_to_string(&path) {
            Ok(text) => found.extend(text.lines().filter_map(|line| listener(line, transport))),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::File { action: "reading", path, source }),
        }
    }
    Ok(found)
}

/// A line of a socket table, if it is of a server: `0: 0A7100CB:0050 00000000:0000 0A …`. Addresses are in words of the
/// machine's byte order.
fn listener(line: &str, transport: Transport) -> Option<Listener> {
    // TCP_LISTEN and TCP_CLOSE (include/net/tcp_states.h): a UDP socket that is not connected has the latter.
    let wanted = match transport {
        Transport::Tcp => "0A",
        Transport::Udp => "07",
    };
    let mut fields = line.split_whitespace().skip(1);
    let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
    let (address, port) = local.split_once(':')?;
    let number = u16::from_str_radix(port, 16).ok()?;
    let words: Vec<[u8; 4]> = address
        .as_bytes()
        .chunks(8)
        .map(|word| Some(u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<_>>()?;
    let address = match words.as_slice() {
        [v4] => IpAddr::from(Ipv4Addr::from(*v4)),
        [a, b, c, d] => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from([*a, *b, *c, *d].concat()).ok()?)),
        _ => return None,
    };
    let address = address.to_canonical();
    (state == wanted).then_some(Listener { port: Port { transport, number }, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_found_in_the_kernels_tables() {
        let tcp = |line: &str| listener(line, Transport::Tcp).map(|l| format!("{} {}", l.address, l.port));
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let line = |address: &str, state: &str| format!("  0: {address}:0050 00000000:0000 {state} 0 0");
        assert_eq!(tcp(&line(&word([203, 0, 113, 10]), "0A")).as_deref(), Some("203.0.113.10 80/tcp"));
        assert_eq!(tcp(&line(&word([203, 0, 113, 10]), "01")), None, "a connection");
        assert_eq!(tcp(&line(&"0".repeat(32), "0A")).as_deref(), Some(":: 80/tcp"));
        let v6: String = [[0x20, 1, 0xd, 0xb8], [0; 4], [0; 4], [0, 0, 0, 0x10]].map(word).concat();
        assert_eq!(tcp(&line(&v6, "0A")).as_deref(), Some("2001:db8::10 80/tcp"));
        assert_eq!(tcp("  sl  local_address rem_address   st"), None);
    }
}
