//! Balancers to measure: their services, and the same balancer as the stopwatch and as the host engine see it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use lb_common::abi::{Protocol, VipEntry};
use lb_tests::bpf::Bench;
use lb_tests::scene::{FROM_NODE, L2, backend, desired, service};
use lb_userspace::dataplane::Stopwatch;
use lb_userspace::model::{
    Admission, Encap, GueVariant, Prefix, Quic, Rate, RateLimits, ServerIdFormat, Tracking,
};
use lb_userspace::reconcile::{Desired, DesiredBackend, DesiredService, DesiredTunnel, FlowSizes, Size};

/// The first service's address; the others follow it (RFC 2544 section C.2.2: for benchmarks).
pub const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Backends are reached through tunnels to addresses from here on.
const FIRST_BACKEND: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// Port of the TCP service that every address has.
pub const TCP: u16 = 80;
/// Port of the first address's UDP service.
pub const UDP: u16 = 53;

/// The IPv6 service's address.
pub const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const BACKEND_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x21);
const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
/// Ports of [`SERVICE_V6`]: tunnels of the same family, and of the other one.
pub const SAME_FAMILY: u16 = 80;
pub const OTHER_FAMILY: u16 = 81;
/// Ports of the first address, by what their packets go through.
pub const GRE: u16 = 82;
pub const GUE: u16 = 83;
pub const GUE_HEADER: u16 = 84;
pub const QUIC: u16 = 443;
pub const LISTED: u16 = 85;
pub const LIMITED: u16 = 86;
/// The server id that [`QUIC`]'s only backend has.
pub const SERVER_ID: u32 = 0x0102_0304;
/// How many services [`Scene::EVERY_WAY`] has besides the ordinary ones.
const WAYS: u32 = 8;

/// What a balancer has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scene {
    /// Addresses with a TCP service.
    pub services: u32,
    /// Backends of each.
    pub backends: u32,
    /// Ring size of each; `None`: the default.
    pub ring: Option<u32>,
    /// Whether flow tables are left alone.
    pub settled: bool,
    /// Which flows the services record.
    pub tracking: Tracking,
    /// Whether there is also a service for every other way that a packet can go.
    pub every_way: bool,
}

const SMALL: FlowSizes = FlowSizes { half_open: 1024, established: 1024, old: 1024 };
/// Room for all flows of a row on one CPU of two.
const LARGE: FlowSizes = FlowSizes { half_open: 262_144, established: 262_144, old: 262_144 };

impl Scene {
    /// One service, ten backends.
    pub const ORDINARY: Self = Self {
        services: 1,
        backends: 10,
        ring: Some(4093),
        settled: true,
        tracking: Tracking::Auto,
        every_way: false,
    };
    /// With a service for every way that a packet can go.
    pub const EVERY_WAY: Self = Self { every_way: true, ..Self::ORDINARY };

    fn size(&self) -> Size {
        let ring = self.ring.unwrap_or(100 * self.backends * 2);
        Size {
            services: self.services + 2 + WAYS,
            keys: self.services + 2 + WAYS,
            vips: self.services + 1,
            ring_slots: (self.services + 2 + WAYS) * ring.max(4096),
            backends: (self.services + 2 + WAYS) * self.backends,
            ports: 8,
            tcp_flows: if self.settled && self.tracking == Tracking::Auto { SMALL } else { LARGE },
            udp_flows: SMALL,
            affinity: 1,
        }
    }

    fn desired(&self) -> Desired {
        let addresses = (0..self.services).map(|n| Ipv4Addr::from_bits(FIRST_SERVICE.to_bits() + n));
        let tunnels: Vec<DesiredBackend> = (0..self.backends)
            .map(|n| DesiredBackend {
                address: Ipv4Addr::from_bits(FIRST_BACKEND.to_bits() + n).into(),
                ..backend(1, 31, FROM_NODE)
            })
            .collect();
        let plain: Vec<DesiredBackend> =
            (1..=self.backends.min(10) as u8).map(|n| backend(1, n, None)).collect();
        let first = |protocol, port, backends: &[DesiredBackend]| {
            let mut one =
                DesiredService { ring_size: self.ring, ..service(protocol, port, backends.to_vec()) };
            one.flows.tracking = self.tracking;
            one.id.address = FIRST_SERVICE.into();
            one
        };
        let mut services: Vec<DesiredService> = Vec::new();
        for address in addresses.clone() {
            let mut one = first(Protocol::Tcp, TCP, &tunnels);
            one.id.address = address.into();
            services.push(one);
        }
        services.push(first(Protocol::Udp, UDP, &tunnels));
        services.push(first(Protocol::Tcp, L2, &plain));
        if self.every_way {
            services.extend(every_way());
        }
        let flags = VipEntry::ADVERTISED | VipEntry::DROP_OTHER_PORTS | VipEntry::ECHO;
        let vips = addresses
            .map(IpAddr::from)
            .chain(self.every_way.then_some(SERVICE_V6.into()))
            .map(|address| (Prefix::host(address), VipEntry { flags, ..VipEntry::default() }))
            .collect();
        Desired { services, vips, ..desired() }
    }
}

/// A service with one backend for every way but the ordinary ones.
fn every_way() -> Vec<DesiredService> {
    let gue = |variant| Encap::Gue { variant, port: 6080 };
    let v4 = |encap| DesiredBackend {
        tunnel: FROM_NODE.map(|tunnel| DesiredTunnel { encap, ..tunnel }),
        ..backend(1, 31, FROM_NODE)
    };
    let tunnel_v6 =
        DesiredTunnel { encap: Encap::Ipip, source: NODE_V6.into(), source_bits: 0, dscp: None, ttl: 64 };
    let v6 =
        DesiredBackend { address: BACKEND_V6.into(), tunnel: Some(tunnel_v6), ..backend(1, 31, FROM_NODE) };
    let at = |address: IpAddr, protocol, port, backend| {
        let mut one = service(protocol, port, vec![backend]);
        one.id = lb_userspace::model::ServiceId::single(address, protocol, port);
        one
    };
    let first = IpAddr::from(FIRST_SERVICE);
    let tcp = |port, backend| at(first, Protocol::Tcp, port, backend);
    let mut quic = at(first, Protocol::Udp, QUIC, v4(Encap::Ipip));
    quic.quic = Some(Quic { server_id: Some(ServerIdFormat::Draft { config_id: 0, length: 4 }) });
    quic.backends[0].server_id = Some(SERVER_ID.into());
    let mut listed = tcp(LISTED, v4(Encap::Ipip));
    let deny: Vec<Prefix> = (0..1000)
        .map(|n| Prefix { network: Ipv4Addr::from_bits(0xc612_8000 + (n << 4)).into(), length: 28 })
        .collect();
    listed.admission = Admission { deny: Arc::from(deny), ..Admission::default() };
    let mut limited = tcp(LIMITED, v4(Encap::Ipip));
    // Never reached: what counting costs is measured.
    let rate = Some(Rate { per_second: 10_000_000, burst: 10_000_000 });
    let limits = RateLimits { new_flows: rate, packets: rate, source_packets: rate, ..RateLimits::default() };
    limited.admission = Admission { limits, ..Admission::default() };
    vec![
        at(SERVICE_V6.into(), Protocol::Tcp, SAME_FAMILY, v6),
        at(SERVICE_V6.into(), Protocol::Tcp, OTHER_FAMILY, v4(Encap::Ipip)),
        tcp(GRE, v4(Encap::Gre)),
        tcp(GUE, v4(gue(GueVariant::Direct))),
        tcp(GUE_HEADER, v4(gue(GueVariant::Header))),
        quic,
        listed,
        limited,
    ]
}

/// A balancer that is ready.
pub struct Stage {
    pub scene: Scene,
    pub bench: Bench,
    pub stopwatch: Stopwatch,
}

impl Stage {
    pub fn new(scene: Scene) -> Self {
        let mut bench = Bench::sized(&scene.desired(), scene.size());
        if !scene.settled {
            bench.unsettle();
        }
        let stopwatch = Stopwatch::balancer(bench.program()).expect("the wrapper loads");
        Self { scene, bench, stopwatch }
    }
}
