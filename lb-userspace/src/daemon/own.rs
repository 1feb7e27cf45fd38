//! The host's own connections: a service must not take them away.

use std::net::IpAddr;

use crate::model::{Model, Protocol, Service, ServiceId};
use crate::netlink::Snapshot;
use crate::reconcile::narrow;

use super::Finding;

/// Findings about services whose address the host owns: an error where a program of the host uses the very port (an
/// operator's SSH session, say), otherwise a warning. `sockets` is the content of the kernel's socket table of a
/// protocol (/proc/net/tcp, /proc/net/udp).
pub(super) fn check(model: &Model, links: &Snapshot, sockets: impl Fn(Protocol) -> String) -> Vec<Finding> {
    let own_addresses = links.iter().flat_map(|link| &link.addresses).map(|own| own.address);
    let own_addresses: Vec<IpAddr> = own_addresses.collect();
    let is_local = |service: &&Service| own_addresses.iter().any(|own| service.id.prefix().contains(*own));
    let local = model.services.iter().filter(is_local);
    local
        .map(|service| {
            let id = service.id;
            if uses(&sockets(id.protocol), id) {
                return Finding::error(
                    "LB031",
                    format!("service {} ({id}) would capture connections to this host itself", service.name),
                    "give the service another address or port, or stop the program that listens there",
                );
            }
            let which = if id.is_prefix() { "is within" } else { "is" };
            Finding::warning(
                "LB032",
                format!("an address of this host's own {which} that of service {} ({id})", service.name),
                "the host answers ARP for it, and a missing program means connection resets instead of silence",
            )
        })
        .collect()
}

/// Whether a table has a socket bound to an address (or any) and a port of a service; IPv6 tables have IPv4 connections
/// of dual-stack sockets, IPv4-mapped.
fn uses(table: &str, service: ServiceId) -> bool {
    table.lines().any(|line| {
        let local = line.split_whitespace().nth(1).and_then(|local| local.split_once(':'));
        let Some((bound, port)) = local.and_then(|(bound, port)| Some((address(bound)?, port))) else {
            return false;
        };
        // An unspecified IPv6 address takes IPv4 too, unless its program says otherwise, which is not told here.
        let any = bound.is_unspecified() && (bound.is_ipv6() || service.address.is_ipv4());
        let here = any || service.prefix().contains(bound);
        here && u16::from_str_radix(port, 16).is_ok_and(|port| service.ports().contains(&port))
    })
}

/// An address as the tables have it: words of 32 bits in host order (Documentation/networking/proc_net_tcp.rst).
fn address(digits: &str) -> Option<IpAddr> {
    let word = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let words: Vec<[u8; 4]> = digits.as_bytes().chunks(8).map(word).collect::<Option<_>>()?;
    match *words {
        [v4] => Some(v4.into()),
        [_, _, _, _] => <[u8; 16]>::try_from(words.concat()).ok().map(narrow),
        _ => None,
    }
}

/// The kernel's tables of this namespace, IPv4 and IPv6; empty where they cannot be read.
pub(super) fn sockets(protocol: Protocol) -> String {
    let table = |family: &str| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{protocol}{family}")).unwrap_or_default()
    };
    table("") + &table("6")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st
   0: 0A7100CB:0050 00000000:0000 0A
   1: 00000000:0016 00000000:0000 0A
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A
   1: 0000000000000000FFFF00000A7100CB:01BD 0000000000000000FFFF000001020304:1000 01
   2: B80D0120000000000000000001000000:01BE 00000000000000000000000000000000:0000 0A";

    #[test]
    #[cfg(target_endian = "little")]
    fn bound_addresses_and_wildcards_count() {
        let uses = |table: &str, last: u8, port| {
            super::uses(table, ServiceId::single([203, 0, 113, last], Protocol::Tcp, port))
        };
        assert!(uses(TABLE, 10, 80));
        assert!(uses(TABLE, 10, 22), "wildcard");
        assert!(uses(TABLE, 10, 8080), "dual-stack wildcard");
        assert!(uses(TABLE, 10, 445), "a dual-stack listener's connection");
        assert!(!uses(TABLE, 10, 446), "IPv6 only");
        assert!(!uses(TABLE, 10, 443));
        assert!(!uses(TABLE, 11, 80));
        let v6 = |port| ServiceId::single([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], Protocol::Tcp, port);
        assert!(super::uses(TABLE, v6(446)));
        assert!(!super::uses(TABLE, v6(22)), "an IPv4 wildcard");
        let wide = ServiceId {
            port: 440,
            last_port: 450,
            prefix_len: 24,
            ..ServiceId::single([203, 0, 113, 0], Protocol::Tcp, 0)
        };
        assert!(super::uses(TABLE, wide));
        assert!(!uses("", 10, 80));
    }
}
