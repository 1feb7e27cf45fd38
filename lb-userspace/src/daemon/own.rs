//! The host's own connections: a service must not take them away.

use std::net::Ipv4Addr;

use crate::model::{Model, Protocol};
use crate::netlink::Snapshot;

use super::Finding;

/// Findings about services whose address the host owns: an error where a program of the host uses the very port (an
/// operator's SSH session, say), otherwise a warning. `sockets` is the content of the kernel's socket table of a
/// protocol (/proc/net/tcp, /proc/net/udp).
pub(super) fn check(model: &Model, links: &Snapshot, sockets: impl Fn(Protocol) -> String) -> Vec<Finding> {
    let local = model.services.iter().filter(|service| links.is_local(service.id.address.into()));
    local
        .map(|service| {
            let id = service.id;
            if uses(&sockets(id.protocol), id.address, id.port) {
                return Finding::error(
                    "LB031",
                    format!("service {} ({id}) would capture connections to this host itself", service.name),
                    "give the service another address or port, or stop the program that listens there",
                );
            }
            Finding::warning(
                "LB032",
                format!("the address of service {} ({id}) is this host's own", service.name),
                "the host answers ARP for it, and a missing program means connection resets instead of silence",
            )
        })
        .collect()
}

/// Whether a table has a socket bound to `address` (or any) and `port`; IPv6 tables have IPv4 connections of dual-stack
/// sockets, IPv4-mapped. Format: Documentation/networking/proc_net_tcp.rst, addresses as host-order 32-bit words.
fn uses(table: &str, address: Ipv4Addr, port: u16) -> bool {
    let own = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let mapped = format!("0000000000000000{:08X}{own}", u32::from_ne_bytes([0, 0, 0xff, 0xff]));
    table.lines().any(|line| {
        let local = line.split_whitespace().nth(1).and_then(|local| local.split_once(':'));
        let Some((bound, bound_port)) = local else {
            return false;
        };
        let here = bound == own || bound == mapped || bound.bytes().all(|digit| digit == b'0');
        here && u16::from_str_radix(bound_port, 16) == Ok(port)
    })
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
        let vip = Ipv4Addr::new(203, 0, 113, 10);
        assert!(uses(TABLE, vip, 80));
        assert!(uses(TABLE, vip, 22), "wildcard");
        assert!(uses(TABLE, vip, 8080), "dual-stack wildcard");
        assert!(uses(TABLE, vip, 445), "a dual-stack listener's connection");
        assert!(!uses(TABLE, vip, 446), "IPv6 only");
        assert!(!uses(TABLE, vip, 443));
        assert!(!uses(TABLE, Ipv4Addr::new(203, 0, 113, 11), 80));
        assert!(!uses("", vip, 80));
    }
}
