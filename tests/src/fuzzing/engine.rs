//! The packet engine on raw frames with arbitrary tables: it counts every frame exactly once, does what the reason
//! says, and sends nothing that an independent library cannot read.

use std::net::Ipv6Addr;

use lb_common::abi::*;
use lb_common::datapath::Verdict;
use lb_common::datapath::host::{HostFrame, HostTables, run as engine};
use lb_common::wire::{checksum, ipv4};

use super::oracle::{Depth, GUE_PORT, Layer, read};

/// Bytes of an input that describe the tables; behind them are frames, each behind its length in two bytes.
pub const TABLES: usize = 48;
/// The interface's MAC address: frames that are for it go furthest.
pub const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The service address.
pub const VIP: [u8; 4] = [203, 0, 113, 10];
/// The other one.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
/// An outer IPv6 and a GUE header, and a VLAN tag.
const MOST_ADDED: usize = 40 + 12 + 4;
/// The longest answer that is longer than its question: "packet too big", behind two tags.
const LONGEST_ANSWER: usize = 14 + 8 + 1280;
/// Frames of one input.
const MOST_FRAMES: usize = 8;

/// Reads an input byte by byte; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }
}

/// Runs one input; panics where a law is broken.
pub fn run(input: &[u8]) {
    let (head, mut rest) = input.split_at(input.len().min(TABLES));
    let tables = tables(&mut Input(head));
    for _ in 0..MOST_FRAMES {
        let [l0, l1, behind @ ..] = rest else { break };
        let len = usize::from(u16::from_be_bytes([*l0, *l1])).min(behind.len());
        let (frame, behind) = behind.split_at(len);
        check(&tables, frame);
        tables.now_ns.set(tables.now_ns.get() + 400_000_000);
        rest = behind;
    }
}

/// Everything that has been counted, but for what is only noted beside.
fn counted(tables: &HostTables) -> u64 {
    let forwarded = tables.forwarded.borrow().values().map(|counters| counters.packets).sum::<u64>();
    let drops = tables.drops.borrow();
    let drops = drops.iter().filter(|((_, reason), _)| !Reason::ALL[*reason as usize].is_note());
    tables.reasons.borrow().values().sum::<u64>() + drops.map(|(_, packets)| packets).sum::<u64>() + forwarded
}

/// How often each reason of no service has been counted.
fn reasons(tables: &HostTables) -> Vec<u64> {
    let reasons = tables.reasons.borrow();
    (0..Reason::ALL.len() as u32).map(|number| reasons.get(&number).copied().unwrap_or(0)).collect()
}

fn check(tables: &HostTables, input: &[u8]) {
    let before = (counted(tables), reasons(tables));
    let mut frame = HostFrame::new(input);
    let verdict = engine(&mut frame, tables);
    assert_eq!(counted(tables), before.0 + 1, "every frame is counted once");
    let after = reasons(tables);
    let reason = Reason::ALL.iter().find(|reason| after[**reason as usize] > before.1[**reason as usize]);
    let sent = matches!(verdict, Verdict::Transmit | Verdict::Redirect(_));
    if let Some(reason) = reason {
        let expected = match reason.verdict() {
            VerdictKind::Pass => verdict == Verdict::Pass,
            VerdictKind::Drop => verdict == Verdict::Drop,
            VerdictKind::Transmit => sent,
        };
        assert!(expected, "{reason:?} gave {verdict:?}");
    }
    let output = frame.bytes();
    match verdict {
        Verdict::Pass => assert_eq!(output, input, "what passes is untouched"),
        Verdict::Drop => {}
        Verdict::Transmit | Verdict::Redirect(_) => output_is_sound(tables, input, output, reason),
        Verdict::Slow | Verdict::Sampled => panic!("no last word: {verdict:?}"),
    }
}

fn output_is_sound(tables: &HostTables, input: &[u8], output: &[u8], reason: Option<&Reason>) {
    assert!(output.len() <= (input.len() + MOST_ADDED).max(LONGEST_ANSWER), "{} bytes", output.len());
    match reason {
        Some(Reason::TooBigAnswered) => {
            let layers = read(output, Depth::Outermost);
            let Some(Layer::Icmp(_, _, rest, quote)) = layers.last() else { panic!("{layers:?}") };
            let len = match quote.first().map(|first| first >> 4) {
                Some(4) => u32::from(u16::from_be_bytes([quote[2], quote[3]])),
                _ => 40 + u32::from(u16::from_be_bytes([quote[4], quote[5]])),
            };
            assert!(
                u32::from_be_bytes(*rest) < len,
                "the MTU told is smaller than the packet: {rest:?}, {len}"
            );
        }
        Some(Reason::NdpAnswered | Reason::ArpAnswered) => {
            read(output, Depth::Outermost);
        }
        // In place: as right or wrong as it came.
        Some(Reason::EchoAnswered | Reason::ProbeReply) => assert_eq!(output.len(), input.len()),
        Some(Reason::IcmpForwarded) | None => {
            let to = output.get(5).and_then(|id| tables.backends.get(&u32::from(*id)));
            let method =
                to.and_then(|entry| Method::from_raw(entry.method)).expect("a backend with a method");
            let packet = behind_link(input);
            if method == Method::L2 {
                assert_eq!(behind_link(output), packet, "only the link header changes");
            } else {
                read(output, Depth::Outermost);
                assert!(output.ends_with(packet), "the inner packet is untouched");
            }
        }
        Some(other) => panic!("{other:?} sends nothing"),
    }
}

/// The frame without its link header, which has at most two tags.
fn behind_link(frame: &[u8]) -> &[u8] {
    let tag = |at: usize| matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]));
    let start = match (tag(12), tag(12) && tag(16)) {
        (_, true) => 22,
        (true, _) => 18,
        _ => 14,
    };
    frame.get(start..).unwrap_or_default()
}

/// What services are made of.
const FLAGS: u32 = ServiceEntry::ACL
    | ServiceEntry::ACL_ONLY
    | ServiceEntry::RATES
    | ServiceEntry::QUIC
    | ServiceEntry::TRACKED
    | ServiceEntry::BY_SOURCE
    | ServiceEntry::POLICY;

/// Tables that an input's beginning describes; what userspace computes is right in them.
fn tables(input: &mut Input<'_>) -> HostTables {
    let mut tables = HostTables { ingress: 1, ..HostTables::default() };
    tables.control.flags = u32::from(input.byte());
    tables.now_ns.set(1_000_000_000);
    for (number, last) in [(1, 1), (2, 2)] {
        tables.ports.insert(
            number,
            PortEntry { ifindex: 4 + u32::from(last), mtu: 1500, mac: [2, 0, 0, 0, 0, last], reserved: 0 },
        );
    }
    for (family, address) in [mapped(VIP), VIP6.octets()].into_iter().enumerate() {
        let first = family as u32 * 2 + 1;
        let service = family as u32 + 3;
        for id in [first, first + 1] {
            let entry = backend(input, id as u8, service, family == 1);
            tables.backends.insert(id, entry);
        }
        tables.rings.extend([slot(input.byte(), first); 4]);
        let shape = u32::from(input.byte());
        let flags = shape & FLAGS;
        let quic = u32::from_be_bytes([0, input.byte() % 9, input.byte() % 8, input.byte() % 3]);
        // Its schedule is its ring, or a part of it.
        let policy = PolicyEntry {
            schedule_start: family as u32 * 4,
            schedule_size: (quic >> 8 & 0xff) % 5,
            kind: quic >> 16 & 3,
            affinity_ms: if shape & 128 != 0 { 500 } else { 0 },
        };
        tables.policies.insert(service, policy);
        let entry = ServiceEntry {
            ring_start: family as u32 * 4,
            ring_size: 4,
            id: service,
            flags,
            acl: 7,
            quic,
            ..ServiceEntry::default()
        };
        for (protocol, port) in [(Protocol::Tcp, 80u16), (Protocol::Udp, 53), (Protocol::Sctp, 5060)] {
            let key = ServiceKey {
                address,
                port: port.to_be_bytes(),
                protocol: protocol.number(),
                ..ServiceKey::default()
            };
            tables.services.insert(key, entry);
            tables.ranges.push((RangeKey::new(address, protocol, [0x20, 0]), RangeKey::PORT_AT + 8, entry));
            tables.ranges.push((
                RangeKey::new(prefix_address(1 + family as u32), protocol, [0, 0]),
                RangeKey::PORT_AT,
                entry,
            ));
        }
        let flags = u32::from(input.byte());
        tables.vips.insert(VipKey { address }, VipEntry { flags, reserved: 0 });
        tables.prefixes.push((address, 120, PrefixEntry { number: 1 + family as u32, flags }));
        let rate = |input: &mut Input<'_>| Rate {
            interval_ns: u64::from(input.byte()) * 10_000_000,
            tolerance_ns: 20_000_000,
        };
        let rates = RateEntry {
            new_flows: rate(input),
            packets: rate(input),
            source_new_flows: rate(input),
            source_packets: rate(input),
            source_v4_bits: 120,
            source_v6_bits: 64,
        };
        tables.rates.insert(service, rates);
        tables.quic.insert(QuicKey { server: 0x55, service, reserved: 0 }, first + 1);
    }
    tables.acl.push((
        AclKey::new(7, [0; 16]),
        AclKey::LIST_BITS + 1,
        AclVerdict::from_raw(u32::from(input.byte() & 1)),
    ));
    tables
}

fn slot(shape: u8, first: u32) -> Slot {
    let id = |n| BackendId::new(n).unwrap_or_default();
    let moved = Slot::settled(id(first)).moved_to(id(first + 1));
    match shape % 6 {
        0 | 1 => Slot::settled(id(first)),
        2 => moved,
        3 => moved.late(),
        4 => moved.moved_to(id(first)),
        _ => Slot::default(),
    }
}

fn backend(input: &mut Input<'_>, id: u8, service: u32, inner_v6: bool) -> BackendEntry {
    let (method, options) = (input.byte() % 7, input.byte());
    let outer_v6 = options & 1 != 0;
    let source_bits = if options & 2 == 0 { 0 } else { options >> 3 & 15 };
    let low = (1u32 << source_bits) - 1;
    let mtu = u32::from(input.word());
    let (address, source) = match outer_v6 {
        true => {
            ((VIP6.to_bits() ^ 0xff << 64).to_be_bytes(), (VIP6.to_bits() & !u128::from(low)).to_be_bytes())
        }
        false => (mapped([192, 0, 2, 77]), mapped((0xc000_0200 & !low).to_be_bytes())),
    };
    let protocol = match Method::from_raw(method) {
        Some(Method::Gre) => 47,
        Some(Method::GueDirect | Method::GueHeader) => 17,
        _ if inner_v6 => 41,
        _ => 4,
    };
    let sum = match outer_v6 {
        true => checksum::fold(checksum::sum(&address) + checksum::sum(&source)),
        false => {
            let (source, destination) = (low_half(source), low_half(address));
            ipv4::OuterTemplate { ttl: 64, protocol, source, destination }.partial_checksum()
        }
    };
    let tag = if options & 4 == 0 { Tag::Kept } else { Tag::Vlan(100) };
    let state = input.byte();
    BackendEntry {
        next_hop: NextHop::new([2, 0, 0, 0, 2, id], u16::from(state >> 4) % 4).0,
        service,
        state: state % 5,
        method,
        flags: tag.flags() | if outer_v6 { BackendEntry::OUTER_V6 } else { 0 },
        egress: Egress::new([2, 0, 0, 0, 3, id], mtu).0,
        address,
        outer_source: source,
        source_bits,
        ttl: 64,
        dscp: if options & 0x80 == 0 { BackendEntry::COPY_DSCP } else { 0xb8 },
        reserved: 0,
        checksum: sum,
        encap_port: GUE_PORT.to_be_bytes(),
    }
}
