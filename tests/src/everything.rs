//! A scene with everything that a packet can meet: both families, every way to a backend, ranges, prefixes, lists,
//! limits, QUIC; and well-formed packets of every kind for all of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{BackendState, Protocol, Rate, RateEntry, VipEntry, mapped};
use lb_userspace::model::{
    Admission, Algorithm, Encap, FlowRules, GueVariant, Prefix, Quic, RateLimits, ServerIdFormat, ServiceId,
    Tracking,
};
use lb_userspace::reconcile::{
    Desired, DesiredBackend, DesiredHop, DesiredPort, DesiredService, DesiredTunnel, FlowSizes, Size,
};

use crate::bpf::interfaces;
use crate::frames::{Body, Build, SERVICE_VLAN, VLAN};
use crate::packets::arp;
use crate::scene::{CLIENT, FAR, FAR_MTU, NEAR, NEAR_MTU, mac};

/// Large enough for all of it.
pub const SIZE: Size = Size {
    services: 192,
    keys: 768,
    vips: 32,
    ring_slots: 131_072,
    backends: 768,
    ports: 8,
    tcp_flows: FLOW_SIZES,
    udp_flows: FLOW_SIZES,
    affinity: 4096,
};

/// Of each protocol's tables, on one CPU.
const FLOW_SIZES: FlowSizes = FlowSizes { half_open: 262_144, established: 262_144, old: 262_144 };

/// Service addresses of both families: advertised, answering echo, nobody else's.
pub const VIPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10)),
];
/// Others, of which nothing is advertised or answered; other ports are the host's.
pub const QUIET: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 11)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x11)),
];
/// Addresses in prefixes with a service.
pub const WITHIN: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 67)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x67)),
];
/// Length of those prefixes.
const WITHIN_LEN: [u8; 2] = [28, 64];

/// Ring size of every service: a prime.
const RING: u32 = 251;

/// Every encapsulation.
const ENCAPS: [Encap; 4] = [
    Encap::Ipip,
    Encap::Gre,
    Encap::Gue { variant: GueVariant::Direct, port: Encap::GUE_PORT },
    Encap::Gue { variant: GueVariant::Header, port: Encap::GUE_PORT },
];

/// A scene under construction: every service has a port of its own, by which its counters are known.
struct Scene {
    services: Vec<DesiredService>,
    next_port: u16,
    next_host: u16,
}

impl Scene {
    fn port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }

    fn address(&mut self, is_v6: bool) -> IpAddr {
        self.next_host += 1;
        let [high, low] = self.next_host.to_be_bytes();
        match is_v6 {
            true => Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, self.next_host).into(),
            false => Ipv4Addr::new(198, 18, high, low).into(),
        }
    }

    /// A backend of this family behind port 1 or 2.
    fn backend(&mut self, is_v6: bool, port: usize, vlan: Option<u16>) -> DesiredBackend {
        let mtu = [NEAR_MTU, FAR_MTU][port - 1] as u32;
        let hop = DesiredHop { ifindex: interfaces()[port - 1], mac: mac(self.next_host as u8), mtu, vlan };
        DesiredBackend {
            address: self.address(is_v6),
            weight: 1,
            state: BackendState::Up,
            tunnel: None,
            next_hop: Some(hop),
            server_id: None,
        }
    }

    /// A tunnel with an outer header of this family.
    fn tunnel(&mut self, outer_v6: bool, encap: Encap, source_bits: u8, dscp: Option<u8>) -> DesiredBackend {
        let source: IpAddr = match outer_v6 {
            true => Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0x100, 0).into(),
            false => Ipv4Addr::new(192, 0, 2, 128).into(),
        };
        let tunnel = DesiredTunnel { encap, source, source_bits, dscp, ttl: 61 };
        DesiredBackend { tunnel: Some(tunnel), ..self.backend(outer_v6, 1, None) }
    }

    fn add(&mut self, id: ServiceId, backends: Vec<DesiredBackend>) -> &mut DesiredService {
        let quic = None;
        let admission = Admission::default();
        let flows = FlowRules::of(id.protocol);
        self.services.push(DesiredService { id, ring_size: Some(RING), backends, quic, admission, flows });
        self.services.last_mut().expect("just pushed")
    }

    fn tcp(&mut self, address: IpAddr, backends: Vec<DesiredBackend>) -> &mut DesiredService {
        let port = self.port();
        self.add(ServiceId::single(address, Protocol::Tcp, port), backends)
    }

    fn udp(&mut self, address: IpAddr, backends: Vec<DesiredBackend>) -> &mut DesiredService {
        let port = self.port();
        self.add(ServiceId::single(address, Protocol::Udp, port), backends)
    }

    /// All of one family.
    fn family(&mut self, family: usize) {
        let (vip, v6) = (VIPS[family], family == 1);
        for encap in ENCAPS {
            for outer_v6 in [false, true] {
                let backend = self.tunnel(outer_v6, encap, 0, None);
                self.tcp(vip, vec![backend]);
                let backend = self.tunnel(outer_v6, encap, 7, Some(46));
                self.udp(vip, vec![backend]);
            }
        }
        let ways = [(1, None), (1, Some(100)), (2, None), (2, Some(4094))];
        for (port, vlan) in ways {
            let backend = self.backend(v6, port, vlan);
            self.tcp(vip, vec![backend]);
        }
        let mut in_vlan = self.tunnel(!v6, Encap::Gre, 0, None);
        in_vlan.next_hop = in_vlan.next_hop.map(|hop| DesiredHop { vlan: Some(7), mtu: 1400, ..hop });
        self.tcp(vip, vec![in_vlan]);
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let mixed = vec![
                self.backend(v6, 1, None),
                self.backend(v6, 2, None),
                self.tunnel(false, Encap::Ipip, 0, None),
                self.tunnel(true, ENCAPS[3], 0, None),
            ];
            let port = self.port();
            self.add(ServiceId::single(vip, protocol, port), mixed);
        }
        self.odd_ones(vip, v6);
        self.wide(family, v6);
        self.guarded(vip, v6);
        self.picked(vip, v6);
    }

    /// Backends for new flows by other rules than the ring's.
    fn picked(&mut self, vip: IpAddr, v6: bool) {
        use Algorithm::{LeastBandwidth, LeastConnections, Maglev, RoundRobin, SourceHash};
        let (never, hour) = (None, Some(Duration::from_secs(3600)));
        let rules = [
            (SourceHash, Tracking::Auto, never),
            (Maglev, Tracking::Always, never),
            (Maglev, Tracking::Auto, hour),
            (RoundRobin, Tracking::Auto, never),
            (RoundRobin, Tracking::Auto, hour),
            (LeastConnections, Tracking::Auto, never),
            (LeastBandwidth, Tracking::Auto, never),
        ];
        for (algorithm, tracking, affinity) in rules {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let backends = vec![
                    self.backend(v6, 1, None),
                    DesiredBackend { weight: 3, ..self.backend(v6, 2, None) },
                    self.tunnel(v6, Encap::Ipip, 0, None),
                ];
                let port = self.port();
                let added = self.add(ServiceId::single(vip, protocol, port), backends);
                added.flows = FlowRules { algorithm, tracking, affinity, ..added.flows };
            }
        }
    }

    /// Not resolved, without weight, on the quiet address.
    fn odd_ones(&mut self, vip: IpAddr, v6: bool) {
        let unresolved = DesiredBackend { next_hop: None, ..self.backend(v6, 1, None) };
        self.tcp(vip, vec![unresolved]);
        let weightless = DesiredBackend { weight: 0, ..self.backend(v6, 1, None) };
        self.tcp(vip, vec![weightless]);
        let quiet = self.backend(v6, 1, None);
        self.tcp(QUIET[usize::from(v6)], vec![quiet]);
    }

    /// Ranges of ports, prefixes of addresses, both.
    fn wide(&mut self, family: usize, v6: bool) {
        let Prefix { network, length } = Prefix::containing(WITHIN[family], WITHIN_LEN[family]);
        let whole = ServiceId { prefix_len: length, ..ServiceId::single(network, Protocol::Tcp, 0) };
        let backend = self.backend(v6, 1, None);
        let first = 9000 + family as u16 * 200;
        let range = ServiceId {
            port: first,
            last_port: first + 99,
            ..ServiceId::single(VIPS[family], Protocol::Tcp, 0)
        };
        self.add(range, vec![backend]);
        let backend = self.backend(v6, 1, None);
        let port = self.port();
        self.add(ServiceId { port, last_port: port, ..whole }, vec![backend]);
        let backend = self.tunnel(v6, Encap::Gre, 0, None);
        let first = first + 1000;
        self.add(ServiceId { port: first, last_port: first + 99, ..whole }, vec![backend]);
    }

    /// Lists, limits, QUIC.
    fn guarded(&mut self, vip: IpAddr, v6: bool) {
        let from = |n| Prefix::containing(client(v6, n), if v6 { 127 } else { 31 });
        let lists: [(&[Prefix], &[Prefix]); 2] =
            [(&[from(0), from(4)], &[]), (&[from(2)], &[from(6), Prefix::containing(client(v6, 0), 8)])];
        for (allow, deny) in lists {
            let backend = self.backend(v6, 1, None);
            let admission =
                Admission { allow: allow.into(), deny: deny.into(), limits: RateLimits::default() };
            self.tcp(vip, vec![backend]).admission = admission;
        }
        for _ in LIMITS {
            // What they are is written over these by `limits`.
            let rate = Some(lb_userspace::model::Rate { per_second: 10_000_000, burst: 10_000_000 });
            let limits = RateLimits {
                new_flows: rate,
                packets: rate,
                source_new_flows: rate,
                source_packets: rate,
                ..RateLimits::default()
            };
            let backend = self.backend(v6, 1, None);
            let admission = Admission { limits, allow: Arc::from([]), deny: Arc::from([]) };
            self.tcp(vip, vec![backend]).admission = admission;
        }
        for format in [ServerIdFormat::Draft { config_id: 2, length: 2 }, ServerIdFormat::Katran] {
            let backends =
                (1..=3).map(|n| DesiredBackend { server_id: Some(n), ..self.backend(v6, 1, None) });
            let backends = backends.collect();
            self.udp(vip, backends).quic = Some(Quic { server_id: Some(format) });
        }
    }
}

/// All of it.
pub fn desired() -> Desired {
    let port =
        |index: usize, mtu: usize, mac| DesiredPort { ifindex: interfaces()[index], mtu: mtu as u32, mac };
    let mut scene = Scene { services: Vec::new(), next_port: 2000, next_host: 0 };
    scene.family(0);
    scene.family(1);
    let ours = VipEntry::ADVERTISED | VipEntry::DROP_OTHER_PORTS | VipEntry::ECHO;
    let mut vips = BTreeMap::new();
    for family in [0, 1] {
        let entry = |flags| VipEntry { flags, ..VipEntry::default() };
        vips.insert(Prefix::host(VIPS[family]), entry(ours));
        vips.insert(Prefix::host(QUIET[family]), entry(0));
        vips.insert(Prefix::containing(WITHIN[family], WITHIN_LEN[family]), entry(ours));
    }
    Desired {
        generation: 1,
        hash_key: *b"a key of tests..",
        ports: vec![port(0, NEAR_MTU, NEAR), port(1, FAR_MTU, FAR)],
        vips,
        services: scene.services,
    }
}

/// The `n`th client's address.
pub fn client(v6: bool, n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    match v6 {
        true => Ipv6Addr::new(0x2001, 0xdb8, 0xc, n >> 4, 0, 0, 0, n).into(),
        false => Ipv4Addr::new(198, 51, high, low).into(),
    }
}

/// Bits of a limit's four rates that are set, and how many packets or flows pass before the first is refused: for a
/// year, so that no clock has a say.
pub const LIMITS: [(u8, u64); 6] = [(1, 3), (2, 60), (4, 1), (8, 1), (15, 50), (15, 0)];

/// The limits of these services: none is near its edge at any time.
pub fn limits(n: usize) -> RateEntry {
    const YEAR_NS: u64 = 1 << 55;
    let (bits, burst) = LIMITS[n];
    let rate = |bit: u8| match (bits & bit, burst) {
        (0, _) => Rate::default(),
        // Never refused.
        (_, 0) => Rate { interval_ns: 1, tolerance_ns: u64::MAX },
        _ => Rate { interval_ns: YEAR_NS, tolerance_ns: YEAR_NS * (burst - 1) },
    };
    RateEntry {
        new_flows: rate(1),
        packets: rate(2),
        source_new_flows: rate(4),
        source_packets: rate(8),
        source_v4_bits: 128,
        source_v6_bits: 64,
    }
}

/// The 16-byte form of an address.
pub fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Well-formed packets for a service, as one client sends them.
pub fn packets(id: &ServiceId, quic: bool) -> Vec<Build> {
    let v6 = id.address.is_ipv6();
    let address = if id.is_prefix() { WITHIN[usize::from(v6)] } else { id.address };
    let of = |body: Body| Build::new((CLIENT, NEAR), (client(v6, 1), 4000), (address, id.port), body);
    let mut all = Vec::new();
    let main = match id.protocol {
        Protocol::Tcp => {
            all.push(of(Body::Tcp(2)));
            all.extend([1, 4, 18].map(|flags| of(Body::Tcp(flags))));
            Body::Tcp(16)
        }
        Protocol::Udp => {
            all.push(of(Body::UdpUnsummed).payload(3));
            Body::Udp
        }
        Protocol::Sctp => Body::Sctp,
    };
    let plain = of(main.clone()).payload(31);
    all.extend([&[][..], &[(VLAN, 5)], &[(SERVICE_VLAN, 7), (VLAN, 5)]].map(|tags| plain.clone().tags(tags)));
    all.push(Build { tos: 0xbb, shortest: 100, ..plain.clone() });
    all.push(Build { to: (address, id.last_port.max(id.port)), ..plain.clone() });
    for len in [1440, 1460, 1480, 1500, 1501, 2500] {
        all.push(plain.clone().ip_len(len));
    }
    all.push(plain.clone().ip_len(1499).tags(&[(VLAN, 5)]));
    all.extend(plain.clone().payload(200).fragments(80, 77));
    // A backend's answer, quoted by a router.
    let answer = Build { from: plain.to, to: plain.from, ..plain.clone() }.packet();
    for kind in if v6 { [1, 2, 4] } else { [3, 11, 12] } {
        for len in [answer.len().min(48), answer.len()] {
            all.push(Build { payload: answer[..len].to_vec(), ..of(Body::Icmp(kind, 0, [0, 0, 5, 0])) });
        }
    }
    // One that does not fit the way to its backend: about errors nobody is told.
    let long = [answer.as_slice(), &[0; 1600]].concat();
    all.push(Build { payload: long, ..of(Body::Icmp(if v6 { 1 } else { 3 }, 0, [0; 4])) });
    if v6 {
        all.push(plain.clone().padding_extension(0, 0).padding_extension(60, 2).fragment_header(0, false, 9));
        all.push(plain.clone().padding_extension(43, 0));
    } else {
        all.push(Build { options: 12, dont_fragment: true, ..plain.clone() });
        all.push(plain.clone().ip_len(8000));
    }
    if quic {
        all.extend(quic_packets(&plain));
    }
    all
}

/// QUIC headers around connection IDs of both formats, of backends that there are and others.
fn quic_packets(plain: &Build) -> Vec<Build> {
    let ids = [
        [2 << 5, 0, 1, 9, 9, 9, 9, 9],
        [2 << 5, 0, 3, 9, 9, 9, 9, 9],
        [0x40, 0, 0x80, 9, 9, 9, 9, 9],
        [0x80, 0, 0, 2, 9, 9, 9, 9],
        [7; 8],
    ];
    let heads: [&[u8]; 6] = [
        &[0x40],
        &[0xc0, 0, 0, 0, 1, 8],
        &[0xe0, 0, 0, 0, 1, 8],
        &[0xf0, 0x6b, 0x33, 0x43, 0xcf, 8],
        &[0xd0, 0, 0, 0, 1, 8],
        &[0xe0, 1, 2, 3, 4, 8],
    ];
    let with = |head: &[u8], id: &[u8]| Build { payload: [head, id, &[5; 24]].concat(), ..plain.clone() };
    heads.iter().flat_map(|head| ids.iter().map(|id| with(head, id))).collect()
}

/// Packets that are for no service, and questions.
pub fn others() -> Vec<Build> {
    let mut all = Vec::new();
    for family in [0, 1] {
        let v6 = family == 1;
        for address in [VIPS[family], QUIET[family], WITHIN[family], client(v6, 77)] {
            let of = |body: Body| Build::new((CLIENT, NEAR), (client(v6, 1), 4000), (address, 9), body);
            all.extend([Body::Tcp(2), Body::Udp, Body::Sctp, Body::Raw(47)].map(|body| of(body).payload(24)));
            all.extend(of(Body::Udp).payload(64).fragments(32, 5));
            let plain = of(Body::Tcp(16));
            all.push(Build { link: (CLIENT, FAR), ..plain.clone() });
            all.push(plain.clone().tags(&[(VLAN, 1), (VLAN, 2), (VLAN, 3)]));
            if v6 {
                all.push((0..6).fold(plain, |packet, _| packet.padding_extension(60, 0)));
            }
            if let IpAddr::V6(target) = address {
                let [.., a, b, c] = target.octets();
                let group =
                    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
                for option in [&[][..], &[1, 1, 2, 0, 0, 0, 0, 0xc1]] {
                    let mut asks = of(Body::Icmp(135, 0, [0; 4]));
                    asks.payload = [&target.octets()[..], option].concat();
                    (asks.ttl, asks.to.0, asks.link.1) = (255, group.into(), [0x33, 0x33, 0xff, a, b, c]);
                    all.extend([asks.clone(), asks.tags(&[(VLAN, 5)])]);
                }
            }
        }
    }
    all
}

/// ARP of every kind.
pub fn arps() -> Vec<Vec<u8>> {
    let asker = (CLIENT, Ipv4Addr::new(203, 0, 113, 5));
    let mut all = Vec::new();
    for address in [VIPS[0], QUIET[0], WITHIN[0], client(false, 77)] {
        let IpAddr::V4(target) = address else { continue };
        for (to, request) in [([0xff; 6], true), ([0xff; 6], false), (NEAR, true), (FAR, true)] {
            let plain = arp((CLIENT, to), request, asker, ([0; 6], target));
            all.push([&plain[..12], &[0x81, 0, 0, 5], &plain[12..]].concat());
            all.push(plain);
        }
    }
    all
}

/// Echo requests: few at a time, or the limit's clock decides about them.
pub fn pings() -> Vec<Build> {
    let mut all = Vec::new();
    for family in [0, 1] {
        for address in [VIPS[family], QUIET[family], WITHIN[family]] {
            let v6 = family == 1;
            let body = Body::Icmp(if v6 { 128 } else { 8 }, 0, [0, 1, 0, 2]);
            let ping = Build::new((CLIENT, NEAR), (client(v6, 1), 0), (address, 0), body).payload(33);
            all.extend([ping.clone(), ping.clone().tags(&[(SERVICE_VLAN, 7), (VLAN, 5)])]);
            if v6 {
                all.push(ping.padding_extension(60, 0));
            } else {
                all.push(Build { options: 8, ..ping });
            }
        }
    }
    all
}
