//! Admission: lists and limits, in their order.

use super::*;

/// Tables whose services have these flags and limits.
fn guarded(flags: u32, rates: RateEntry) -> HostTables {
    let mut tables = tables(Slot::settled(id(1)));
    for service in tables.services.values_mut() {
        (service.flags, service.acl) = (flags, 8);
    }
    tables.rates.insert(SERVICE, rates);
    tables.now_ns.set(1_000_000_000_000);
    tables
}

fn list(tables: &mut HostTables, number: u32, address: [u8; 16], bits: u32, verdict: AclVerdict) {
    tables.acl.push((AclKey::new(number, address), AclKey::LIST_BITS + bits, verdict));
}

/// One every `interval_ms`, of which `burst` may come at once.
fn rate(interval_ms: u64, burst: u64) -> Rate {
    let interval_ns = interval_ms * 1_000_000;
    Rate { interval_ns, tolerance_ns: (burst - 1) * interval_ns }
}

fn from(is_v6: bool, last: u16, body: Body) -> Vec<u8> {
    let port = if matches!(body, Body::Tcp(_)) { 80 } else { 53 };
    let mut packet = of(is_v6, body, port);
    packet.from.0 = match is_v6 {
        true => Ipv6Addr::new(0x2001, 0xdb8, 0xc, last >> 8, 0, 0, 0, last & 0xff).into(),
        false => Ipv4Addr::new(198, 51, (last >> 8) as u8, last as u8).into(),
    };
    packet.bytes()
}

#[test]
fn the_longest_prefix_decides_and_without_one_the_default() {
    use AclVerdict::{Allow, Deny};
    for is_v6 in [false, true] {
        let network = |last: u16| match is_v6 {
            true => Ipv6Addr::new(0x2001, 0xdb8, 0xc, last >> 8, 0, 0, 0, last & 0xff).octets(),
            false => mapped([198, 51, (last >> 8) as u8, last as u8]),
        };
        let subnet = if is_v6 { 64 } else { 120 };
        for only in [0, ServiceEntry::ACL_ONLY] {
            let mut tables = guarded(ServiceEntry::ACL | only, RateEntry::default());
            list(&mut tables, 8, network(0x6400), subnet, Allow);
            list(&mut tables, 8, network(0x6407), 128, Deny);
            list(&mut tables, 8, network(0x6500), subnet, Deny);
            list(&mut tables, 8, network(0x6509), 128, Allow);
            list(&mut tables, 9, network(0x6409), 128, Deny); // another service's
            let cases = [
                (0x6401, true),
                (0x6407, false),
                (0x6409, true),
                (0x6501, false),
                (0x6509, true),
                (0x6601, only == 0),
            ];
            for (last, admitted) in cases {
                for body in [Body::Tcp(SYN), Body::Tcp(ACK), Body::Udp] {
                    let seen = see(&tables, &from(is_v6, last, body));
                    let what = format!("{last:#x}, only listed: {only}");
                    match admitted {
                        true => assert_eq!(seen.verdict, Verdict::Transmit, "{what}"),
                        false => seen.is(&what, Verdict::Drop, drop_of(Reason::Denied)),
                    }
                }
            }
        }
    }
}

#[test]
fn a_list_that_denies_everybody() {
    for is_v6 in [false, true] {
        let mut tables = guarded(ServiceEntry::ACL, RateEntry::default());
        list(&mut tables, 8, [0; 16], 0, AclVerdict::Deny);
        see(&tables, &from(is_v6, 7, Body::Udp)).is("all", Verdict::Drop, drop_of(Reason::Denied));
    }
}

#[test]
fn each_limit_has_its_reason_and_counts_what_it_says() {
    let none = RateEntry { source_v4_bits: 128, source_v6_bits: 64, ..RateEntry::default() };
    let two = rate(1000, 2);
    let cases = [
        (RateEntry { new_flows: two, ..none }, Reason::FlowLimit, true, false),
        (RateEntry { packets: two, ..none }, Reason::PacketLimit, false, false),
        (RateEntry { source_new_flows: two, ..none }, Reason::SourceFlowLimit, true, true),
        (RateEntry { source_packets: two, ..none }, Reason::SourcePacketLimit, false, true),
    ];
    for is_v6 in [false, true] {
        for (rates, expected, flows_only, per_source) in cases {
            let what = expected.name();
            let tables = guarded(ServiceEntry::RATES, rates);
            let syn = from(is_v6, 0x6401, Body::Tcp(SYN));
            for _ in 0..2 {
                assert_eq!(sent_to(&tables, &syn), 1, "{what}");
            }
            see(&tables, &syn).is(what, Verdict::Drop, drop_of(expected));
            for body in [Body::Tcp(ACK), Body::Udp] {
                let seen = see(&tables, &from(is_v6, 0x6401, body));
                match flows_only {
                    true => assert_eq!(seen.verdict, Verdict::Transmit, "{what}: not a new flow"),
                    false => seen.is(what, Verdict::Drop, drop_of(expected)),
                }
            }
            let seen = see(&tables, &from(is_v6, 0x6501, Body::Tcp(SYN)));
            match per_source {
                true => assert_eq!(seen.verdict, Verdict::Transmit, "{what}: another source"),
                false => seen.is(what, Verdict::Drop, drop_of(expected)),
            }
            tables.now_ns.set(tables.now_ns.get() + 1_000_000_000);
            assert_eq!(sent_to(&tables, &syn), 1, "{what}: a second later");
            see(&tables, &syn).is(what, Verdict::Drop, drop_of(expected));
        }
    }
}

#[test]
fn sources_are_counted_by_prefix() {
    for (is_v6, bits, neighbour, stranger) in [
        (false, 120, 0x6402, 0x6502),
        (true, 64, 0x6402, 0x6502),
        (false, 112, 0x6502, 0),
        (true, 48, 0x6502, 0),
    ] {
        let rates = RateEntry {
            source_packets: rate(1000, 1),
            source_v4_bits: bits,
            source_v6_bits: bits,
            ..RateEntry::default()
        };
        let tables = guarded(ServiceEntry::RATES, rates);
        assert_eq!(sent_to(&tables, &from(is_v6, 0x6401, Body::Udp)), 1);
        let seen = see(&tables, &from(is_v6, neighbour, Body::Udp));
        seen.is("the same prefix", Verdict::Drop, drop_of(Reason::SourcePacketLimit));
        if stranger != 0 {
            assert_eq!(sent_to(&tables, &from(is_v6, stranger, Body::Udp)), 1, "another prefix");
        }
    }
}

#[test]
fn lists_come_first_then_sources_then_the_service() {
    let all = RateEntry {
        new_flows: rate(1000, 3),
        packets: rate(1000, 4),
        source_new_flows: rate(1000, 1),
        source_packets: rate(1000, 2),
        source_v4_bits: 128,
        source_v6_bits: 128,
    };
    let mut tables = guarded(ServiceEntry::RATES | ServiceEntry::ACL, all);
    list(&mut tables, 8, mapped([198, 51, 0x66, 0]), 120, AclVerdict::Deny);
    for _ in 0..9 {
        let seen = see(&tables, &from(false, 0x6601, Body::Tcp(SYN)));
        seen.is("denied", Verdict::Drop, drop_of(Reason::Denied));
    }
    let steps = [
        (1, SYN, None),
        (1, SYN, Some(Reason::SourceFlowLimit)), // costs neither the source's packets nor the service
        (1, ACK, None),
        (1, ACK, Some(Reason::SourcePacketLimit)),
        (2, SYN, None),
        (3, SYN, None),
        (4, SYN, Some(Reason::FlowLimit)),
        (5, ACK, Some(Reason::PacketLimit)),
    ];
    for (n, (last, flags, expected)) in steps.into_iter().enumerate() {
        let seen = see(&tables, &from(false, 0x6400 + last, Body::Tcp(flags)));
        match expected {
            None => assert_eq!(seen.verdict, Verdict::Transmit, "step {n}: {seen:?}"),
            Some(reason) => seen.is(&format!("step {n}"), Verdict::Drop, drop_of(reason)),
        }
    }
}

#[test]
fn rare_packets_are_admitted_too_and_none_of_them_twice() {
    let rates = RateEntry { packets: rate(1000, 2), ..RateEntry::default() };
    for is_v6 in [false, true] {
        // Too big: admitted once in front of both stages.
        let mut tables = guarded(ServiceEntry::RATES, rates);
        tables.backends.insert(1, tunnel(Method::Ipip, false, is_v6));
        let big = of(is_v6, Body::Tcp(ACK), 80).ip_len(1490).bytes();
        for _ in 0..2 {
            see(&tables, &big).is("told", Verdict::Transmit, reason(Reason::TooBigAnswered));
        }
        see(&tables, &big).is("too many", Verdict::Drop, drop_of(Reason::PacketLimit));
        // First fragments.
        let tables = guarded(ServiceEntry::RATES, rates);
        let [first, later] = of(is_v6, Body::Udp, 53).payload(64).fragments(32, 9);
        for part in [&first, &later, &first, &later] {
            assert_eq!(sent_to(&tables, &part.bytes()), 1);
        }
        see(&tables, &first.bytes()).is("too many", Verdict::Drop, drop_of(Reason::PacketLimit));
    }
    let tables = guarded(ServiceEntry::RATES, rates);
    let extended = v6(Body::Tcp(ACK), 80).padding_extension(60, 0).bytes();
    for _ in 0..2 {
        assert_eq!(sent_to(&tables, &extended), 1);
    }
    see(&tables, &extended).is("too many", Verdict::Drop, drop_of(Reason::PacketLimit));
}
