//! A backend's entry in the maps.

use std::net::IpAddr;

use lb_common::abi::{BackendEntry, Egress, Method, Protocol, Tag};
use lb_common::wire::{
    checksum,
    ipv4::{IPIP, OuterTemplate},
    ipv6, shim,
};

use super::ports::Ports;
use super::{DesiredBackend, DesiredTunnel, wide};
use crate::model::Encap;

/// The entry of a backend of a service with this id and, for IP in IP, inner packets of this family.
pub(super) fn entry(backend: &DesiredBackend, service: u32, inner_v6: bool, ports: &Ports) -> BackendEntry {
    let egress = backend.next_hop.map_or(Egress::default(), |hop| {
        let (mac, mtu) = ports.way_out(hop.ifindex).unwrap_or(([0; 6], hop.mtu));
        Egress::new(mac, mtu.min(hop.mtu))
    });
    let vlan = backend.next_hop.and_then(|hop| hop.vlan);
    let plain = BackendEntry {
        next_hop: ports.next_hop(backend.next_hop).0,
        service,
        state: backend.state.to_raw(),
        method: Method::L2.to_raw(),
        flags: vlan.map_or(Tag::Kept, Tag::Vlan).flags(),
        egress: egress.0,
        address: wide(backend.address),
        ..BackendEntry::default()
    };
    match &backend.tunnel {
        None => plain,
        Some(tunnel) => with_tunnel(plain, backend.address, tunnel, inner_v6),
    }
}

fn with_tunnel(plain: BackendEntry, address: IpAddr, tunnel: &DesiredTunnel, inner_v6: bool) -> BackendEntry {
    let method = tunnel.encap.method();
    let encap_port = match tunnel.encap {
        Encap::Ipip | Encap::Gre => 0,
        Encap::Gue { port, .. } => port,
    };
    let outer_source = wide(tunnel.source);
    let checksum = match (address, tunnel.source) {
        (IpAddr::V4(destination), IpAddr::V4(source)) => {
            let protocol = match method {
                Method::L2 | Method::Ipip if inner_v6 => ipv6::IPV6,
                Method::L2 | Method::Ipip => IPIP,
                Method::Gre => shim::GRE,
                Method::GueDirect | Method::GueHeader => Protocol::Udp.number(),
            };
            let (source, destination) = (source.to_bits(), destination.to_bits());
            OuterTemplate { ttl: tunnel.ttl, protocol, source, destination }.partial_checksum()
        }
        _ => checksum::fold(checksum::address(outer_source) + checksum::address(wide(address))),
    };
    BackendEntry {
        method: method.to_raw(),
        flags: plain.flags | if address.is_ipv6() { BackendEntry::OUTER_V6 } else { 0 },
        outer_source,
        source_bits: tunnel.source_bits,
        ttl: tunnel.ttl,
        dscp: tunnel.dscp.map_or(BackendEntry::COPY_DSCP, |dscp| dscp << 2),
        checksum,
        encap_port: encap_port.to_be_bytes(),
        ..plain
    }
}
