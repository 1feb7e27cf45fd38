//! Which service a packet is for, and that looking costs no more than it must.

use core::cell::RefCell;

use super::*;
use crate::datapath::{Recorded, Tables};

fn vip6() -> [u8; 16] {
    VIP6.octets()
}

/// Tables in which each service leads to a backend of its own, the number in its entry's ring.
fn numbered() -> HostTables {
    let mut tables = tables(Slot::settled(id(1)));
    tables.services.clear();
    tables.vips.clear();
    tables.rings = (0..20).map(|n| Slot::settled(id(n + 1))).collect();
    for n in 1..=20 {
        tables.backends.insert(n.into(), backend(n));
    }
    tables
}

/// A service all of whose packets go to backend `n`.
fn to(n: u32) -> ServiceEntry {
    ServiceEntry { ring_start: n - 1, ring_size: 1, ..service() }
}

/// Adds a range of ports, `bits` of which are given.
fn range(tables: &mut HostTables, address: [u8; 16], port: u16, bits: u32, n: u32) {
    let key = RangeKey::new(address, Protocol::Tcp, port.to_be_bytes());
    tables.ranges.push((key, RangeKey::PORT_AT + bits, to(n)));
    tables.control.flags |= Control::RANGES;
}

/// Adds a prefix of addresses.
fn prefix(tables: &mut HostTables, address: [u8; 16], bits: u32, number: u32, flags: u32) {
    tables.prefixes.push((address, bits, PrefixEntry { number, flags }));
    tables.control.flags |= Control::PREFIXES;
}

fn exact(tables: &mut HostTables, address: [u8; 16], port: u16, n: u32) {
    tables.services.insert(key(address, Protocol::Tcp, port), to(n));
}

#[test]
fn the_most_specific_service_wins() {
    for is_v6 in [false, true] {
        let address = if is_v6 { vip6() } else { mapped(VIP) };
        let mut tables = numbered();
        exact(&mut tables, address, 80, 1);
        range(&mut tables, address, 80, 16, 9); // an exact one is looked up first
        range(&mut tables, address, 8000, 12, 2); // 8000–8015
        range(&mut tables, address, 8004, 14, 3); // 8004–8007
        range(&mut tables, address, 0, 0, 4); // any
        prefix(&mut tables, address, 124, 1, 0);
        exact(&mut tables, prefix_address(1), 443, 5);
        exact(&mut tables, prefix_address(1), 80, 6);
        range(&mut tables, prefix_address(1), 9000, 10, 7); // 8960–9023
        prefix(&mut tables, address, 112, 2, 0);
        range(&mut tables, prefix_address(2), 0, 0, 8);
        let send = |tables: &HostTables, last: u16, port: u16| {
            let mut packet = of(is_v6, Body::Tcp(SYN), port);
            packet.to.0 = match packet.to.0 {
                IpAddr::V4(_) => {
                    let [a, b, ..] = VIP;
                    Ipv4Addr::new(a, b, (last >> 8) as u8, last as u8).into()
                }
                IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, last).into(),
            };
            super::send(tables, &packet.bytes()).1
        };
        let vip = if is_v6 { 0x10 } else { 113 << 8 | 10 };
        let cases = [
            (vip, 80, Some(1), "exact"),
            (vip, 8000, Some(2), "range"),
            (vip, 8004, Some(3), "range within a range"),
            (vip, 8008, Some(2), "behind it"),
            (vip, 8016, Some(4), "any"),
            (vip, 443, Some(4), "any port of the address, before a port of its prefix"),
            (vip ^ 1, 443, Some(5), "prefix"),
            (vip ^ 1, 80, Some(6), "prefix"),
            (vip ^ 1, 8960, Some(7), "range of a prefix"),
            (vip ^ 1, 9024, None, "the longest prefix has no such port"),
            (vip ^ 16, 9024, Some(8), "a shorter prefix"),
        ];
        for (last, port, expected, what) in cases {
            assert_eq!(send(&tables, last, port), expected, "{what}, IPv6: {is_v6}");
        }
        tables.control.flags = 0;
        assert_eq!(send(&tables, vip, 8004), None, "not looked up while nobody has them");
    }
}

#[test]
fn what_stands_for_a_prefix_is_no_address() {
    let mut tables = numbered();
    tables.control.flags = Control::VIP_POLICY;
    prefix(&mut tables, vip6(), 124, 1, VipEntry::DROP_OTHER_PORTS);
    exact(&mut tables, prefix_address(1), 80, 1);
    range(&mut tables, prefix_address(1), 9000, 10, 2);
    tables.vips.insert(
        VipKey { address: prefix_address(1) },
        VipEntry { flags: VipEntry::DROP_OTHER_PORTS, reserved: 0 },
    );
    for port in [80, 9000, 1] {
        let mut packet = v6(Body::Tcp(SYN), port);
        packet.to.0 = Ipv6Addr::from(prefix_address(1)).into();
        see(&tables, &packet.bytes()).is("forged", Verdict::Pass, reason(Reason::NotAService));
    }
}

#[test]
fn udp_and_tcp_ranges_are_different_services() {
    let mut tables = numbered();
    range(&mut tables, mapped(VIP), 0, 0, 1);
    assert_eq!(send(&tables, &v4(Body::Tcp(SYN), 53).bytes()).1, Some(1));
    assert_eq!(send(&tables, &v4(Body::Udp, 53).bytes()), (Verdict::Pass, None));
}

#[test]
fn what_holds_for_a_prefix_holds_for_its_addresses() {
    for is_v6 in [false, true] {
        let address = if is_v6 { vip6() } else { mapped(VIP) };
        let mut tables = numbered();
        tables.control.flags = Control::VIP_POLICY;
        prefix(&mut tables, address, 120, 1, VipEntry::DROP_OTHER_PORTS);
        let input = of(is_v6, Body::Tcp(SYN), 81).bytes();
        see(&tables, &input).is("prefix", Verdict::Drop, reason(Reason::OtherPort));
        tables.vips.insert(VipKey { address }, VipEntry::default());
        see(&tables, &input).is("an address of its own", Verdict::Pass, reason(Reason::NotAService));
        tables.vips.clear();
        tables.control.flags &= !Control::VIP_POLICY;
        see(&tables, &input).is("nobody wants drops", Verdict::Pass, reason(Reason::NotAService));
    }
}

/// Tables that note what is looked up.
struct Noted(HostTables, RefCell<Vec<&'static str>>);

impl Noted {
    fn note(&self, what: &'static str) -> &HostTables {
        self.1.borrow_mut().push(what);
        &self.0
    }
}

macro_rules! noted {
    ($($name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?;)+) => {
        impl Tables for Noted {
            $(fn $name(&self, $($argument: $kind),*) $(-> $result)? {
                self.note(stringify!($name)).$name($($argument),*)
            })+
        }
    };
}

noted! {
    control() -> Option<&Control>;
    service(key: &ServiceKey) -> Option<&ServiceEntry>;
    range(key: &RangeKey) -> Option<&ServiceEntry>;
    prefix(address: &[u8; 16]) -> Option<PrefixEntry>;
    vip(key: &VipKey) -> Option<VipEntry>;
    slot(index: u32) -> Option<Slot>;
    backend(id: BackendId) -> Option<&BackendEntry>;
    port(number: u16) -> Option<&PortEntry>;
    probe(slot: u32) -> Option<&ProbeEntry>;
    quic_backend(key: &QuicKey) -> Option<BackendId>;
    ingress() -> u16;
    acl(key: &AclKey) -> Option<AclVerdict>;
    rates(service: u32) -> Option<&RateEntry>;
    service_bucket(index: u32) -> Option<u64>;
    set_service_bucket(index: u32, time_ns: u64);
    add_service_bucket(index: u32, time_ns: u64);
    bucket(key: &BucketKey) -> Option<u64>;
    set_bucket(key: &BucketKey, time_ns: u64);
    add_bucket(key: &BucketKey, time_ns: u64);
    flow(table: FlowTable, key: &FlowKey) -> Option<FlowEntry>;
    record_flow(table: FlowTable, key: &FlowKey, entry: &FlowEntry) -> Recorded;
    correct_flow(table: FlowTable, key: &FlowKey, entry: &FlowEntry);
    touch_flow(table: FlowTable, key: &FlowKey, now_ns: u64);
    forget_flow(table: FlowTable, key: &FlowKey);
    policy(service: u32) -> Option<PolicyEntry>;
    turn(service: u32) -> u64;
    load(backend: BackendId) -> Option<LoadEntry>;
    add_load(backend: BackendId, flows: i64);
    affinity(key: &AffinityKey) -> Option<AffinityEntry>;
    set_affinity(key: &AffinityKey, entry: &AffinityEntry);
    fragment(key: &FragmentKey) -> Option<FragmentEntry>;
    record_fragment(key: &FragmentKey, entry: &FragmentEntry);
    now_ns() -> u64;
    count(reason: Reason);
    count_drop(service: u32, reason: Reason);
    count_note(service: u32, reason: Reason);
    count_forward(backend: BackendId, bytes: u32, flows: u64);
}

/// What a frame looks up, but for the number of its port, which is a constant in the kernel.
fn cost(tables: HostTables, input: &[u8]) -> Vec<&'static str> {
    let noted = Noted(tables, RefCell::default());
    run(&mut HostFrame::new(input), &noted);
    noted.1.into_inner().into_iter().filter(|what| *what != "ingress").collect()
}

#[test]
fn a_settled_packet_costs_five_lookups_and_a_counter() {
    const SETTLED: [&str; 6] = ["control", "port", "service", "slot", "backend", "count_forward"];
    for is_v6 in [false, true] {
        for body in [Body::Tcp(SYN), Body::Tcp(ACK)] {
            for entry in
                [backend(1), tunnel(Method::GueHeader, true, is_v6), tunnel(Method::Ipip, false, is_v6)]
            {
                let input = of(is_v6, body.clone(), 80).bytes();
                assert_eq!(cost(tables_with(entry), &input), SETTLED);
            }
        }
        for (body, port) in [(Body::Udp, 53), (Body::Sctp, 5060)] {
            assert_eq!(cost(tables(Slot::settled(id(1))), &of(is_v6, body, port).bytes()), SETTLED);
        }
    }
}

#[test]
fn what_is_nobodys_costs_little() {
    let mut tables = tables(Slot::settled(id(1)));
    tables.control.flags = 0;
    let input = v4(Body::Tcp(SYN), 81).bytes();
    assert_eq!(cost(tables.clone(), &input), ["control", "port", "service", "count"]);
    tables.control.flags = Control::VIP_POLICY;
    assert_eq!(cost(tables.clone(), &input), ["control", "port", "service", "vip", "count"]);
    let other = Build { link: (CLIENT_MAC, CLIENT_MAC), ..v4(Body::Tcp(SYN), 80) }.bytes();
    assert_eq!(cost(tables, &other), ["control", "port", "count"]);
}

#[test]
fn only_services_with_lists_or_limits_look_them_up() {
    let with = |flags| {
        let mut tables = tables(Slot::settled(id(1)));
        let service = tables.services.get_mut(&key(mapped(VIP), Protocol::Tcp, 80)).unwrap();
        service.flags = flags;
        tables.rates.insert(SERVICE, RateEntry::default());
        cost(tables, &v4(Body::Tcp(SYN), 80).bytes())
    };
    let behind = ["slot", "backend", "count_forward"];
    let before = ["control", "port", "service"];
    for (flags, expected) in [
        (0, vec![]),
        (ServiceEntry::ACL, vec!["acl"]),
        (ServiceEntry::RATES, vec!["rates", "now_ns"]),
        (ServiceEntry::ACL | ServiceEntry::RATES, vec!["acl", "rates", "now_ns"]),
    ] {
        assert_eq!(with(flags), [&before[..], &expected, &behind].concat(), "flags {flags}");
    }
}
