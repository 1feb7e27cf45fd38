//! Balancers to measure: their services, and the same balancer as the stopwatch and as the host engine see it.

use std::net::Ipv4Addr;

use lb_common::abi::{Protocol, VipEntry};
use lb_tests::bpf::Bench;
use lb_tests::scene::{FROM_NODE, L2, backend, desired, service};
use lb_userspace::dataplane::Stopwatch;
use lb_userspace::model::Prefix;
use lb_userspace::reconcile::{Desired, DesiredBackend, DesiredService, Size};

/// The first service's address; the others follow it (RFC 2544 section C.2.2: for benchmarks).
pub const FIRST_SERVICE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Backends are reached through tunnels to addresses from here on.
const FIRST_BACKEND: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// Port of the TCP service that every address has.
pub const TCP: u16 = 80;
/// Port of the first address's UDP service.
pub const UDP: u16 = 53;

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
}

impl Scene {
    /// One service, ten backends.
    pub const ORDINARY: Self = Self { services: 1, backends: 10, ring: Some(4093), settled: true };

    fn size(&self) -> Size {
        let ring = self.ring.unwrap_or(100 * self.backends * 2);
        Size {
            services: self.services + 2,
            keys: self.services + 2,
            vips: self.services,
            ring_slots: (self.services + 2) * ring.max(4096),
            backends: (self.services + 2) * self.backends,
            ports: 8,
            flows: if self.settled { 1024 } else { 262_144 },
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
        let flags = VipEntry::ADVERTISED | VipEntry::DROP_OTHER_PORTS;
        let vips = addresses
            .map(|address| (Prefix::host(address.into()), VipEntry { flags, ..VipEntry::default() }))
            .collect();
        Desired { services, vips, ..desired() }
    }
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
