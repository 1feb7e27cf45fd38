//! Which commands make the lab's network: pure text, run by the topology.
//!
//! Two things are needed for XDP on veth and easily missed:
//! - a frame sent with XDP_TX arrives only if the receiving peer, the switch's port, has an XDP program too
//!   (see the stub; the topology attaches it);
//! - XDP knows no "checksum still to be filled in" and no oversized TCP segments: every sender computes
//!   checksums and segments in software, or packets arrive broken after a rewrite.

use std::fmt::Write;

use super::address::{self, BALANCER, CLIENT, ROUTER_CLIENT_SIDE, ROUTER_SERVER_SIDE, VIP_IPIP, VIP_L2};
use super::builder::Builder;
use super::topology::Role;

/// MTU of the client's link: what the internet delivers.
pub(super) const CLIENT_MTU: u16 = 1500;

/// Kernel settings that must be there before the interfaces are: new interfaces inherit `default`.
pub(super) fn sysctls(role: Role, ipv6: bool) -> String {
    let no_ipv6 = if ipv6 { "0" } else { "1" };
    let mut settings = vec![
        // Silence: no router solicitations, no duplicate address detection.
        ("net/ipv6/conf/all/disable_ipv6", no_ipv6),
        ("net/ipv6/conf/default/disable_ipv6", no_ipv6),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        // Requests and replies take different ways here: that is the point of direct server return.
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ];
    match role {
        Role::Router => settings.extend([
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/default/send_redirects", "0"),
        ]),
        // Backends own the service addresses but must neither answer ARP for them nor mention them.
        Role::Backend(_) => settings.extend([
            ("net/ipv4/conf/all/arp_ignore", "1"),
            ("net/ipv4/conf/default/arp_ignore", "1"),
            ("net/ipv4/conf/all/arp_announce", "2"),
            ("net/ipv4/conf/default/arp_announce", "2"),
        ]),
        // A host firewall must not see bridged frames; the setting exists only with br_netfilter.
        Role::Fabric => settings.extend([
            ("net/bridge/bridge-nf-call-iptables", "0"),
            ("net/bridge/bridge-nf-call-arptables", "0"),
        ]),
        Role::Client | Role::Balancer => {}
    }
    settings.iter().fold(String::new(), |mut script, (key, value)| {
        let _ = writeln!(script, "if [ -e /proc/sys/{key} ]; then echo {value} > /proc/sys/{key}; fi");
        script
    })
}

/// `ip -batch` lines that make all cables, run from any namespace.
pub(super) fn cables(netns: impl Fn(Role) -> String, wanted: &Builder) -> Vec<String> {
    let Builder { backends, mtu, client_mtu, queues, .. } = *wanted;
    let cable = |name: &str, role: Role, peer: &str, peer_role: Role, mtu: u16| {
        let queues = format!("numtxqueues {queues} numrxqueues {queues}");
        format!(
            "link add {name} netns {} mtu {mtu} {queues} type veth peer name {peer} netns {} mtu {mtu} {queues}",
            netns(role),
            netns(peer_role)
        )
    };
    let mut lines = vec![
        cable("eth0", Role::Client, "eth0", Role::Router, client_mtu),
        cable("eth1", Role::Router, "router", Role::Fabric, mtu),
        cable("eth0", Role::Balancer, "lb", Role::Fabric, mtu),
    ];
    for number in 1..=backends {
        lines.push(cable("eth0", Role::Backend(number), &format!("b{number}"), Role::Fabric, mtu));
    }
    lines
}

/// The script that brings one namespace's interfaces, addresses and routes up.
pub(super) fn bring_up(role: Role, backends: u8, mtu: u16) -> String {
    let (devices, lines) = match role {
        Role::Fabric => return switch(backends, mtu),
        Role::Client => (
            vec!["eth0"],
            vec![format!("addr add {CLIENT}/24 dev eth0"), up("eth0"), default_route(ROUTER_CLIENT_SIDE)],
        ),
        Role::Router => (
            vec!["eth0", "eth1"],
            vec![
                format!("addr add {ROUTER_CLIENT_SIDE}/24 dev eth0"),
                format!("addr add {ROUTER_SERVER_SIDE}/24 dev eth1"),
                up("eth0"),
                up("eth1"),
            ],
        ),
        Role::Balancer => (
            vec!["eth0"],
            vec![format!("addr add {BALANCER}/24 dev eth0"), up("eth0"), default_route(ROUTER_SERVER_SIDE)],
        ),
        Role::Backend(number) => (
            vec!["eth0"],
            vec![
                format!("addr add {}/24 dev eth0", address::backend(number)),
                format!("addr add {VIP_L2}/32 dev lo"),
                format!("addr add {VIP_IPIP}/32 dev lo"),
                up("eth0"),
                default_route(ROUTER_SERVER_SIDE),
            ],
        ),
    };
    script(&devices, &lines)
}

fn switch(backends: u8, mtu: u16) -> String {
    let ports: Vec<String> = ["router", "lb"]
        .map(str::to_owned)
        .into_iter()
        .chain((1..=backends).map(|n| format!("b{n}")))
        .collect();
    let mut lines = vec![
        "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0".to_owned(),
        format!("link set br0 mtu {mtu}"),
        up("br0"),
    ];
    for port in &ports {
        lines.push(format!("link set {port} master br0"));
        lines.push(up(port));
    }
    let devices: Vec<&str> = ports.iter().map(String::as_str).collect();
    script(&devices, &lines)
}

fn script(devices: &[&str], lines: &[String]) -> String {
    let mut script = String::new();
    for device in devices {
        // Said twice on purpose: `tx off` alone leaves segmentation of tunnelled traffic on.
        let _ = writeln!(script, "ethtool -K {device} tx off tso off gso off >/dev/null");
    }
    let _ = writeln!(script, "ip -batch - <<'END'\n{}\n{}\nEND", up("lo"), lines.join("\n"));
    script
}

fn up(device: &str) -> String {
    format!("link set {device} up")
}

fn default_route(via: std::net::Ipv4Addr) -> String {
    format!("route add default via {via}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_computes_its_checksums() {
        for role in [Role::Client, Role::Router, Role::Balancer, Role::Backend(1), Role::Fabric] {
            assert!(bring_up(role, 3, 1600).contains("tx off tso off"), "{role:?}");
        }
    }

    #[test]
    fn the_client_link_keeps_the_internets_mtu() {
        let wanted = Builder::new("lab".to_owned()).backends(1).mtu(9000);
        let lines = cables(|role| format!("{role:?}"), &wanted);
        assert!(lines[0].contains("mtu 1500"));
        assert!(lines[1..].iter().all(|line| line.contains("mtu 9000")));
    }
}
