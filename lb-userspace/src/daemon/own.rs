//! The host's own connections: a service must not take them away.

use std::net::Ipv4Addr;

use crate::model::{Model, Protocol};
use crate::netlink::Snapshot;

use super::Finding;

/// Findings about services whose address the host owns: an error where a program of the host uses the very port (an
/// operator's SSH session, say), otherwise a warning. `sockets` is the content of the kernel's socket table of a
/// protocol (/proc/net/tcp, /proc/net/udp).
pub(super) fn check(model: &Model, links: &Snapshot, sockets: impl Fn(Protocol) -> String) -> Vec<Finding> {
    let local = model.services.iter().filter(|service| links.is_local(service.id.address));
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

/// Whether the table has a socket bound to `address` (or any) and `port`. Format: Documentation/networking/proc_net_tcp.rst.
fn uses(table: &str, address: Ipv4Addr, port: u16) -> bool {
    let own = u32::from_ne_bytes(address.octets());
    table.lines().skip(1).any(|line| {
        let Some((bound, bound_port)) =
            line.split_whitespace().nth(1).and_then(|local| local.split_once(':'))
        else {
            return false;
        };
        let bound = u32::from_str_radix(bound, 16);
        u16::from_str_radix(bound_port, 16) == Ok(port) && (bound == Ok(own) || bound == Ok(0))
    })
}

/// The kernel's table of this namespace; empty where it cannot be read.
pub(super) fn sockets(protocol: Protocol) -> String {
    std::fs::read_to_string(format!("/proc/thread-self/net/{protocol}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st
   0: 0A7100CB:0050 00000000:0000 0A
   1: 00000000:0016 00000000:0000 0A";

    #[test]
    #[cfg(target_endian = "little")]
    fn bound_addresses_and_wildcards_count() {
        let vip = Ipv4Addr::new(203, 0, 113, 10);
        assert!(uses(TABLE, vip, 80));
        assert!(uses(TABLE, vip, 22), "wildcard");
        assert!(!uses(TABLE, vip, 443));
        assert!(!uses(TABLE, Ipv4Addr::new(203, 0, 113, 11), 80));
        assert!(!uses("", vip, 80));
    }
}
