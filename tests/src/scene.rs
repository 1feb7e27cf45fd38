//! The services that packet tests send to: one for every way a packet can go, each with a port of its own, so that a
//! test knows where its packet must come out without asking the code under test.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use lb_common::abi::{BackendState, Protocol, VipEntry};
use lb_userspace::model::{Admission, Encap, FlowRules, Prefix, ServiceId};
use lb_userspace::reconcile::{
    Desired, DesiredBackend, DesiredHop, DesiredPort, DesiredService, DesiredTunnel,
};

use crate::bpf::interfaces;
use crate::packets::{Flow, Mac, Packet, Segment};

/// The client's, or its router's, MAC address.
pub const CLIENT: Mac = [0x02, 0, 0, 0, 0, 0xc1];
/// MAC address of port 1, where packets come in; MTU 1500.
pub const NEAR: Mac = [0x02, 0, 0, 0, 0x01, 0x01];
/// MAC address of port 2; MTU 9000.
pub const FAR: Mac = [0x02, 0, 0, 0, 0x01, 0x02];
/// MTU of port 1 in bytes.
pub const NEAR_MTU: usize = 1500;
/// MTU of port 2 in bytes.
pub const FAR_MTU: usize = 9000;

/// Has all services but one; answers ARP, drops other ports.
pub const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// Has one service; does not answer ARP, passes other ports.
pub const QUIET_VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);
/// A host that is no service address.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);

/// The balancer's own address, source of tunnels.
pub const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Prefix of tunnel sources that come from the flow hash, and the number of its free bits.
pub const SOURCES: (Ipv4Addr, u8) = (Ipv4Addr::new(192, 0, 2, 128), 7);

/// TCP: several backends of every kind, behind both ports.
pub const MIXED: u16 = 80;
/// TCP: one L2 backend behind port 1.
pub const L2: u16 = 8001;
/// TCP: one tunnel behind port 1, source [`NODE`].
pub const IPIP: u16 = 8002;
/// TCP: one tunnel behind port 1, source within [`SOURCES`].
pub const IPIP_PREFIX: u16 = 8003;
/// TCP: one L2 backend behind port 2.
pub const L2_FAR: u16 = 8004;
/// TCP: one tunnel behind port 2.
pub const IPIP_FAR: u16 = 8005;
/// TCP: one backend whose next hop is not known.
pub const UNRESOLVED: u16 = 8006;
/// TCP: one backend without weight, so that nobody owns a slot.
pub const EMPTY: u16 = 8007;
/// TCP on [`QUIET_VIP`]: one L2 backend behind port 1.
pub const QUIET: u16 = 81;
/// UDP: one L2 backend behind port 1.
pub const DNS: u16 = 53;
/// UDP: one tunnel behind port 1.
pub const DNS_IPIP: u16 = 54;
/// UDP: several L2 backends behind port 1.
pub const DNS_MIXED: u16 = 55;

/// Size of every ring: a prime.
pub const RING: u32 = 1009;

/// MAC address of the backend (or of the router to it) with this number.
pub const fn mac(number: u8) -> Mac {
    [0x02, 0, 0, 0, 0x02, number]
}

/// Address of the L2 backend with this number.
pub const fn near(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, number)
}

/// Address of the tunnel backend with this number.
pub const fn remote(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, number)
}

/// A backend of weight 1 behind port 1 or 2, reached through [`mac`]`(number)`.
pub fn backend(port: usize, number: u8, tunnel: Option<DesiredTunnel>) -> DesiredBackend {
    let address = if tunnel.is_some() { remote(number) } else { near(number) };
    let mtu = [NEAR_MTU, FAR_MTU][port - 1] as u32;
    let next_hop = Some(DesiredHop { ifindex: interfaces()[port - 1], mac: mac(number), mtu, vlan: None });
    let address = address.into();
    DesiredBackend { address, weight: 1, state: BackendState::Up, tunnel, next_hop, server_id: None }
}

/// An IPIP tunnel from this address.
pub const fn ipip(source: Ipv4Addr, source_bits: u8) -> DesiredTunnel {
    DesiredTunnel { encap: Encap::Ipip, source: IpAddr::V4(source), source_bits, dscp: None, ttl: 64 }
}

/// A tunnel from [`NODE`].
pub const FROM_NODE: Option<DesiredTunnel> = Some(ipip(NODE, 0));
/// A tunnel from [`SOURCES`].
pub const FROM_PREFIX: Option<DesiredTunnel> = Some(ipip(SOURCES.0, SOURCES.1));

/// A service on [`VIP`].
pub fn service(protocol: Protocol, port: u16, backends: Vec<DesiredBackend>) -> DesiredService {
    DesiredService {
        id: ServiceId::single(VIP, protocol, port),
        ring_size: Some(RING),
        backends,
        quic: None,
        admission: Admission::default(),
        flows: FlowRules::of(protocol),
    }
}

/// Backends of [`MIXED`].
pub fn mixed() -> Vec<DesiredBackend> {
    vec![
        backend(1, 21, None),
        backend(1, 22, None),
        backend(2, 23, None),
        backend(1, 31, FROM_NODE),
        backend(2, 32, FROM_PREFIX),
    ]
}

/// All of it.
pub fn desired() -> Desired {
    let port =
        |index: usize, mtu: usize, mac| DesiredPort { ifindex: interfaces()[index], mtu: mtu as u32, mac };
    let tcp = |port, backends| service(Protocol::Tcp, port, backends);
    let udp = |port, backends| service(Protocol::Udp, port, backends);
    let unresolved = DesiredBackend { next_hop: None, ..backend(1, 46, None) };
    let weightless = DesiredBackend { weight: 0, state: BackendState::Draining, ..backend(1, 47, None) };
    let mut quiet = tcp(QUIET, vec![backend(1, 48, None)]);
    quiet.id.address = QUIET_VIP.into();
    Desired {
        generation: 1,
        hash_key: *b"a key of tests..",
        ports: vec![port(0, NEAR_MTU, NEAR), port(1, FAR_MTU, FAR)],
        vips: BTreeMap::from([
            (
                Prefix::host(VIP.into()),
                VipEntry { flags: VipEntry::ADVERTISED | VipEntry::DROP_OTHER_PORTS, ..VipEntry::default() },
            ),
            (Prefix::host(QUIET_VIP.into()), VipEntry::default()),
        ]),
        services: vec![
            tcp(MIXED, mixed()),
            tcp(L2, vec![backend(1, 41, None)]),
            tcp(IPIP, vec![backend(1, 42, FROM_NODE)]),
            tcp(IPIP_PREFIX, vec![backend(1, 43, FROM_PREFIX)]),
            tcp(L2_FAR, vec![backend(2, 44, None)]),
            tcp(IPIP_FAR, vec![backend(2, 45, FROM_NODE)]),
            tcp(UNRESOLVED, vec![unresolved]),
            tcp(EMPTY, vec![weightless]),
            quiet,
            udp(DNS, vec![backend(1, 51, None)]),
            udp(DNS_IPIP, vec![backend(1, 52, FROM_NODE)]),
            udp(DNS_MIXED, vec![backend(1, 53, None), backend(1, 54, None), backend(1, 55, None)]),
        ],
    }
}

/// The same, with other backends for one service.
pub fn desired_with(port: u16, backends: Vec<DesiredBackend>) -> Desired {
    let mut desired = desired();
    let service = desired.services.iter_mut().find(|service| service.id.port == port);
    service.expect("a service of the scene").backends = backends;
    desired
}

/// From client to balancer.
pub const INBOUND: (Mac, Mac) = (CLIENT, NEAR);

/// A client's segment to a TCP service of [`VIP`].
pub fn tcp(port: u16, segment: Segment) -> Packet {
    Packet::tcp(INBOUND, Flow::nth(7, (VIP, port)), segment)
}

/// A client's datagram to a UDP service of [`VIP`].
pub fn udp(port: u16) -> Packet {
    Packet::udp(INBOUND, Flow::nth(7, (VIP, port)))
}
