//! The engine on the host: tables of cases, whole output packets read back by an independent library, exact counters.

mod admission;
mod errors;
mod flows;
mod fragments;
mod links;
mod lookups;
mod parse;
mod policies;
mod probes;
mod questions;
mod quic;
mod too_big;
mod tunnels;

#[path = "../../../../tests/src/frames.rs"]
mod frames;
#[path = "../../../../tests/src/oracle.rs"]
mod oracle;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::host::{HostFrame, HostTables, run};
use super::{Verdict, Work};
use crate::abi::*;
use crate::wire::{checksum, ipv4};
use frames::{Body, Build};
use oracle::{Layer, layers};

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FAR: [u8; 6] = [2, 0, 0, 0, 0, 2];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const CLIENT: [u8; 4] = [198, 51, 100, 7];
const VIP: [u8; 4] = [203, 0, 113, 10];
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
const RING: u32 = 7;
const SERVICE: u32 = 3;
/// TCP flags.
const SYN: u8 = 2;
const ACK: u8 = 16;
/// Port 2's MTU; port 1 has 1500.
const FAR_MTU: u32 = 9000;

fn id(n: u32) -> BackendId {
    BackendId::new(n).unwrap()
}

/// An L2 backend behind port 1 whose MAC address ends in `n`.
fn backend(n: u8) -> BackendEntry {
    BackendEntry {
        next_hop: NextHop::new([2, 0, 0, 0, 1, n], 1).0,
        service: SERVICE,
        state: BackendState::Up.to_raw(),
        method: Method::L2.to_raw(),
        egress: Egress::new(OWN, 1500).0,
        address: mapped([203, 0, 113, 20 + n]),
        ..BackendEntry::default()
    }
}

/// The entry of any service of these tests.
fn service() -> ServiceEntry {
    ServiceEntry { ring_start: 0, ring_size: RING, id: SERVICE, ..ServiceEntry::default() }
}

fn key(address: [u8; 16], protocol: Protocol, port: u16) -> ServiceKey {
    ServiceKey { address, port: port.to_be_bytes(), protocol: protocol.number(), ..ServiceKey::default() }
}

/// Services tcp/80, udp/53 and sctp/5060 on one address of each family whose slots all hold `slot`; backends 1 and 2
/// are up. Ingress is port 1.
fn tables(slot: Slot) -> HostTables {
    let mut tables = HostTables { ingress: 1, rings: vec![slot; RING as usize], ..HostTables::default() };
    tables.control.flags = Control::VIP_POLICY;
    let flags = VipEntry::ADVERTISED | VipEntry::DROP_OTHER_PORTS | VipEntry::ECHO;
    for address in [mapped(VIP), VIP6.octets()] {
        for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53), (Protocol::Sctp, 5060)] {
            tables.services.insert(key(address, protocol, port), service());
        }
        tables.vips.insert(VipKey { address }, VipEntry { flags, reserved: 0 });
    }
    tables.ports.insert(1, PortEntry { ifindex: 5, mtu: 1500, mac: OWN, reserved: 0 });
    tables.ports.insert(2, PortEntry { ifindex: 6, mtu: FAR_MTU, mac: FAR, reserved: 0 });
    tables.backends.insert(1, backend(1));
    tables.backends.insert(2, backend(2));
    tables
}

/// The same with this backend as the only one, in settled slots.
fn tables_with(entry: BackendEntry) -> HostTables {
    let mut tables = tables(Slot::settled(id(1)));
    tables.backends.insert(1, entry);
    tables
}

/// A client's packet over IPv4.
fn v4(body: Body, port: u16) -> Build {
    Build::new(
        (CLIENT_MAC, OWN),
        (Ipv4Addr::from(CLIENT).into(), 4000),
        (Ipv4Addr::from(VIP).into(), port),
        body,
    )
}

/// A client's packet over IPv6.
fn v6(body: Body, port: u16) -> Build {
    Build::new((CLIENT_MAC, OWN), (CLIENT6.into(), 4000), (VIP6.into(), port), body)
}

/// A client's packet over either family.
fn of(is_v6: bool, body: Body, port: u16) -> Build {
    if is_v6 { v6(body, port) } else { v4(body, port) }
}

fn tcp(port: u16, syn: bool) -> Vec<u8> {
    let mut packet = v4(Body::Tcp(if syn { SYN } else { ACK }), 80).payload(3);
    packet.from.1 = port;
    packet.bytes()
}

fn udp(port: u16) -> Vec<u8> {
    let mut packet = v4(Body::Udp, 53).payload(5);
    packet.from.1 = port;
    packet.bytes()
}

/// What has been counted, by names.
type Counts = BTreeMap<String, u64>;

fn counts(tables: &HostTables) -> Counts {
    let name = |number: &u32| Reason::ALL[*number as usize].name();
    let mut counts = Counts::new();
    counts.extend(tables.reasons.borrow().iter().map(|(number, n)| (name(number).to_owned(), *n)));
    for ((service, number), n) in tables.drops.borrow().iter() {
        counts.insert(format!("service {service} {}", name(number)), *n);
    }
    for (id, entry) in tables.forwarded.borrow().iter() {
        for (what, n) in [("packets", entry.packets), ("bytes", entry.bytes), ("flows", entry.flows)] {
            counts.insert(format!("backend {id} {what}"), n);
        }
    }
    counts
}

/// Exactly one packet with this reason, of no service.
fn reason(reason: Reason) -> Counts {
    Counts::from([(reason.name().to_owned(), 1)])
}

/// Exactly one packet of the service, dropped.
fn drop_of(reason: Reason) -> Counts {
    Counts::from([(format!("service {SERVICE} {}", reason.name()), 1)])
}

/// Exactly one packet to a backend.
fn forwarded(id: u32, bytes: usize, flows: u64) -> Counts {
    let counts = [("packets", 1), ("bytes", bytes as u64), ("flows", flows)];
    counts.into_iter().filter(|(_, n)| *n > 0).map(|(what, n)| (format!("backend {id} {what}"), n)).collect()
}

/// What became of a frame.
#[derive(Debug)]
struct Seen {
    verdict: Verdict,
    bytes: Vec<u8>,
    counts: Counts,
}

impl Seen {
    /// The last byte of the MAC address that it was sent to: the number of a backend.
    fn to(&self) -> Option<u8> {
        let sent = matches!(self.verdict, Verdict::Transmit | Verdict::Redirect(_));
        self.bytes.get(5).copied().filter(|_| sent)
    }

    #[track_caller]
    fn layers(&self) -> Vec<Layer> {
        layers(&self.bytes)
    }

    /// Checks verdict and counters.
    #[track_caller]
    fn is(&self, what: &str, verdict: Verdict, counts: Counts) {
        assert_eq!((self.verdict, &self.counts), (verdict, &counts), "{what}");
    }
}

/// Runs a frame through all stages. What passes is as it came.
#[track_caller]
fn see(tables: &HostTables, bytes: &[u8]) -> Seen {
    let before = counts(tables);
    let mut frame = HostFrame::new(bytes);
    let verdict = run(&mut frame, tables);
    let grown = |(name, n): (String, u64)| {
        let n = n - before.get(&name).copied().unwrap_or(0);
        (n > 0).then_some((name, n))
    };
    if verdict == Verdict::Pass {
        assert_eq!(frame.bytes(), bytes, "what passes is untouched");
    }
    let counts = counts(tables).into_iter().filter_map(grown).collect();
    Seen { verdict, bytes: frame.bytes().to_vec(), counts }
}

/// Runs a frame; its verdict and the number of the backend it was sent to.
fn send(tables: &HostTables, bytes: &[u8]) -> (Verdict, Option<u8>) {
    let seen = see(tables, bytes);
    (seen.verdict, seen.to())
}

fn sent_to(tables: &HostTables, bytes: &[u8]) -> u8 {
    send(tables, bytes).1.expect("transmitted")
}

fn dropped(tables: &HostTables, reason: Reason) -> u64 {
    let of_services =
        tables.drops.borrow().iter().filter(|((_, r), _)| *r == reason as u32).map(|(_, n)| n).sum::<u64>();
    of_services + tables.reasons.borrow().get(&(reason as u32)).copied().unwrap_or(0)
}

/// What the engine must not have touched: the packet behind its link header.
fn packet_in(frame: &[u8], tags: usize) -> &[u8] {
    &frame[14 + 4 * tags..]
}

/// A tunnel's outer source and destination.
const NODE: [u8; 4] = [192, 0, 2, 1];
const FAR_END: [u8; 4] = [192, 0, 2, 77];
const NODE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1);
const FAR_END6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x77);

/// A tunnel behind port 1, as userspace writes its entry: source the node, DSCP copied, TTL 64.
fn tunnel(method: Method, outer_v6: bool, inner_v6: bool) -> BackendEntry {
    tunnel_from(method, outer_v6, inner_v6, 0)
}

/// The same with this many bits of the source from the flow hash.
fn tunnel_from(method: Method, outer_v6: bool, inner_v6: bool, source_bits: u8) -> BackendEntry {
    let low = (1u32 << source_bits) - 1;
    let (source, destination) = match outer_v6 {
        true => (u128::from(NODE6) & !u128::from(low), u128::from(FAR_END6)),
        false => {
            let source = mapped((u32::from_be_bytes(NODE) & !low).to_be_bytes());
            (u128::from_be_bytes(source), u128::from_be_bytes(mapped(FAR_END)))
        }
    };
    let entry = BackendEntry {
        method: method.to_raw(),
        flags: if outer_v6 { BackendEntry::OUTER_V6 } else { 0 },
        address: destination.to_be_bytes(),
        outer_source: source.to_be_bytes(),
        source_bits,
        ttl: 64,
        dscp: BackendEntry::COPY_DSCP,
        encap_port: oracle::GUE_PORT.to_be_bytes(),
        ..backend(1)
    };
    sealed(entry, inner_v6)
}

/// The entry with its checksum.
fn sealed(entry: BackendEntry, inner_v6: bool) -> BackendEntry {
    let protocol = match Method::from_raw(entry.method).unwrap() {
        Method::Gre => 47,
        Method::GueDirect | Method::GueHeader => 17,
        _ if inner_v6 => 41,
        _ => 4,
    };
    let checksum = match entry.flags & BackendEntry::OUTER_V6 != 0 {
        true => checksum::fold(checksum::sum(&entry.outer_source) + checksum::sum(&entry.address)),
        false => {
            let (source, destination) = (low_half(entry.outer_source), low_half(entry.address));
            ipv4::OuterTemplate { ttl: entry.ttl, protocol, source, destination }.partial_checksum()
        }
    };
    BackendEntry { checksum, ..entry }
}

/// All methods that put something in front.
const TUNNELS: [Method; 4] = [Method::Ipip, Method::Gre, Method::GueDirect, Method::GueHeader];

/// Every family pair: outer IPv6, inner IPv6.
const FAMILIES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];
