//! IPv6 for a lab that has it: pure text, run by the topology after the rest of the network stands.
//!
//! Addresses are there at once (`nodad`), or servers could not bind to them.

use std::net::Ipv6Addr;

use super::address::{
    self, BALANCER_V6, CLIENT_V6, ROUTER_CLIENT_SIDE_V6, ROUTER_SERVER_SIDE_V6, VIP_IPIP_V6, VIP_L2_V6,
};
use super::topology::Role;

/// The script that gives one namespace its IPv6 addresses and routes.
pub(super) fn bring_up(role: Role) -> String {
    let lines = match role {
        // A switch has no addresses, and is not to say anything either.
        Role::Fabric => {
            return "for all in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $all; done".to_owned();
        }
        Role::Client => vec![on(CLIENT_V6, "eth0"), default_route(ROUTER_CLIENT_SIDE_V6)],
        Role::Router => vec![on(ROUTER_CLIENT_SIDE_V6, "eth0"), on(ROUTER_SERVER_SIDE_V6, "eth1")],
        Role::Balancer => vec![on(BALANCER_V6, "eth0"), default_route(ROUTER_SERVER_SIDE_V6)],
        Role::Backend(number) => vec![
            on(address::backend_v6(number), "eth0"),
            // Neighbour discovery for an address on `lo` is not answered elsewhere.
            format!("addr add {VIP_L2_V6}/128 dev lo nodad"),
            format!("addr add {VIP_IPIP_V6}/128 dev lo nodad"),
            default_route(ROUTER_SERVER_SIDE_V6),
        ],
    };
    let forward = if role == Role::Router { "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding\n" } else { "" };
    format!("{forward}ip -6 -batch - <<'END'\n{}\nEND\n", lines.join("\n"))
}

fn on(address: Ipv6Addr, device: &str) -> String {
    format!("addr add {address}/64 dev {device} nodad")
}

fn default_route(via: Ipv6Addr) -> String {
    format!("route add default via {via}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_but_the_switch_has_an_address() {
        for role in [Role::Client, Role::Router, Role::Balancer, Role::Backend(1)] {
            assert!(bring_up(role).contains("addr add 2001:db8:"), "{role:?}");
        }
        assert!(!bring_up(Role::Fabric).contains("addr"));
    }
}
