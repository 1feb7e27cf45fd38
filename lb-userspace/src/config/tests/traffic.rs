//! What services take, how their packets travel and whose they are: what configs mean, and readers that take any text.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{many, parse, parse_with};
use crate::config::value::Fault;
use crate::config::value_net::*;
use crate::config::{Loaded, admission, forwarding, quic};
use crate::model::{
    Echo, Encap, Forwarding, GueVariant, Prefix, Protocol, Rate, RateLimits, ServerIdFormat, Tunnel,
    TunnelSource,
};

pub(super) const TRAFFIC: &str = r#"version: 1
vips:
  - {address: 203.0.113.0/28, advertise: none, echo: always, other_ports: pass}
  - {address: 203.0.113.10, echo: false}
  - {address: "2001:db8::/64"}
services:
  - name: web
    addresses: [203.0.113.10, "2001:db8::10", 203.0.113.2]
    protocols: [tcp, udp]
    ports: [443, 80, "8000-8099"]
    quic: {server_id: {format: draft, length: 4}}
    allow: {file: sources.txt}
    deny: [198.51.100.66, "2001:db8:66::/48", 198.51.100.66/32]
    rate_limit: {new_flows: 1000, packets: {rate: 50k, burst: 100k}, per_source: {new_flows: 10, prefix_v4: 24}}
    pool: mixed
  - {name: net, address: "2001:db8::/64", protocol: sctp, port: any, pool: tunnels}
  - {name: katran, address: 203.0.113.11, protocol: udp, port: 443, pool: mixed, quic: {server_id: {format: katran}}}
  - {name: quic, address: 203.0.113.12, protocol: udp, port: 443, pool: tunnels, quic: {}, rate_limit: {new_flows: 5}}
pools:
  - name: mixed
    forwarding: {type: gue, variant: 0, port: 6081, source: 10.0.0.0/8, dscp: 46, ttl: 17}
    backends:
      - {address: 192.0.2.1, server_id: 0x1234}
      - {address: "2001:db8:1::", server_id: 7, forwarding: gre}
      - {address: 192.0.2.2, server_id: 9, vlan: 4094, mac: 02:00:00:00:00:01, forwarding: {type: gue}}
  - {name: tunnels, forwarding: {type: ipip, source: "2001:db8:2::/96", dscp: copy}, backends: [{address: "2001:db8:1::2"}]}
"#;

fn holds(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

fn prefix(text: &str) -> Prefix {
    (CLIENTS.parse)(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"))
}

#[test]
fn every_combination_is_a_service() {
    let model = holds(TRAFFIC).model;
    let ids: Vec<String> = model.services.iter().map(|service| service.id.to_string()).collect();
    assert_eq!(ids.len(), 3 * 2 * 3 + 3);
    for id in [
        "203.0.113.2:80/tcp",
        "203.0.113.10:8000-8099/udp",
        "[2001:db8::10]:443/tcp",
        "[2001:db8::/64]:any/sctp",
    ] {
        assert!(ids.iter().any(|have| have == id), "{id}: {ids:?}");
    }
    assert!(model.services.is_sorted_by_key(|service| service.id));
    let web: Vec<_> = model.services.iter().filter(|service| service.name == "web").collect();
    assert_eq!(web.len(), 18);
    let format = ServerIdFormat::Draft { config_id: 0, length: 4 };
    for service in &web {
        let quic = service.quic.map(|quic| quic.server_id);
        assert_eq!(quic, (service.id.protocol == Protocol::Udp).then_some(Some(format)), "{}", service.id);
    }
}

#[test]
fn lists_are_sorted_merged_and_shared() {
    let loaded = holds(TRAFFIC);
    let web: Vec<_> = loaded.model.services.iter().filter(|service| service.name == "web").collect();
    let admission = &web[0].admission;
    assert_eq!(*admission.allow, [prefix("198.51.100.0/24"), prefix("2001:db8::/32")]);
    assert_eq!(*admission.deny, [prefix("198.51.100.66"), prefix("2001:db8:66::/48")]);
    assert!(web.iter().all(|service| Arc::ptr_eq(&service.admission.allow, &admission.allow)));
    assert_eq!(loaded.files.allow.get("web").map(String::as_str), Some("sources.txt"));
    let one = |per_second, burst| Some(Rate { per_second, burst });
    let expected = RateLimits {
        new_flows: one(1000, 1000),
        packets: one(50_000, 100_000),
        source_new_flows: one(10, 10),
        source_v4_len: 24,
        ..RateLimits::default()
    };
    assert_eq!(admission.limits, expected);
}

#[test]
fn tunnels_have_their_options() {
    let model = holds(TRAFFIC).model;
    let backends = &model.services[0].backends;
    let forwardings: Vec<_> = backends.iter().map(|backend| backend.forwarding).collect();
    let source = TunnelSource::Prefix(prefix("10.0.0.0/8"));
    let header = Encap::Gue { variant: GueVariant::Header, port: 6081 };
    let direct = Encap::Gue { variant: GueVariant::Direct, port: 6080 };
    assert_eq!(
        forwardings,
        [
            Tunnel { encap: header, source, dscp: Some(46), ttl: 17 },
            Tunnel { encap: direct, source: TunnelSource::Node, dscp: None, ttl: 64 },
            Tunnel { encap: Encap::Gre, source: TunnelSource::Node, dscp: None, ttl: 64 },
        ]
        .map(Forwarding::Tunnel)
    );
    let ids: Vec<_> = backends.iter().map(|backend| (backend.server_id, backend.vlan)).collect();
    assert_eq!(ids, [(Some(0x1234), None), (Some(9), Some(4094)), (Some(7), None)]);
}

#[test]
fn an_address_is_like_the_longest_vip_around_it() {
    let model = holds(TRAFFIC).model;
    let vips: Vec<_> =
        model.vips.iter().map(|vip| (vip.prefix().to_string(), vip.advertise, vip.echo)).collect();
    let vip = |text: &str, advertise, echo| (text.to_owned(), advertise, echo);
    let none = Some(crate::model::Advertise::None);
    assert_eq!(
        vips,
        [
            vip("203.0.113.0/28", none, Echo::Always),
            vip("203.0.113.2/32", none, Echo::Always),
            vip("203.0.113.10/32", None, Echo::Never),
            vip("203.0.113.11/32", none, Echo::Always),
            vip("203.0.113.12/32", none, Echo::Always),
            vip("2001:db8::/64", None, Echo::WhileUp),
            vip("2001:db8::10/128", None, Echo::WhileUp),
        ]
    );
}

#[test]
fn a_vip_is_used_by_whatever_touches_it() {
    let config = |vip: &str, service: &str| {
        format!(
            "version: 1\nvips: [{{address: {vip}}}]\nservices:\n  - {{name: a, address: {service}, protocol: tcp, \
             port: 80, forwarding: ipip, backends: [{{address: 192.0.2.1}}]}}\n"
        )
    };
    for (vip, service, warnings) in [
        ("203.0.113.0/28", "203.0.113.15", 0),
        ("203.0.113.0/28", "203.0.113.16", 1),
        ("203.0.113.0/28", "203.0.113.0/24", 0),
        ("203.0.113.9", "203.0.113.0/24", 0),
        ("203.0.113.9", "203.0.113.10", 1),
        ("203.0.113.0/28", "\"2001:db8::1\"", 1),
    ] {
        assert_eq!(holds(&config(vip, service)).warnings.len(), warnings, "{vip} {service}");
    }
}

#[test]
fn the_longest_list_takes_little_time_and_room() {
    let lists: String = (0..50)
        .map(|i| {
            format!(
                "  - {{name: s{i}, address: 203.0.113.{i}, protocol: tcp, port: 80, forwarding: ipip, \
                 backends: [{{address: 192.0.2.1}}], allow: {{file: many.txt}}}}\n"
            )
        })
        .collect();
    let text = format!("version: 1\nservices:\n{lists}");
    let begun = Instant::now();
    let loaded = parse_with("/etc/lb".as_ref(), "lb.yaml", &text, &|_, _| Ok(many(100_000))).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let first = &loaded.model.services[0].admission.allow;
    assert_eq!(first.len(), 100_000);
    assert!(loaded.model.services.iter().all(|service| Arc::ptr_eq(&service.admission.allow, first)));
    assert!(loaded.effective().len() < 100_000);
}

/// Within a megabyte of text: overlaps are found without comparing each with each.
#[test]
fn combinations_are_bounded() {
    let list = |range: std::ops::Range<u32>| range.map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
    let service = |name: &str, ports: &str| {
        format!(
            "  - {{name: {name}, address: 203.0.113.1, protocol: tcp, ports: [{ports}], forwarding: ipip, \
             backends: [{{address: 192.0.2.1}}]}}\n"
        )
    };
    let begun = Instant::now();
    let text =
        format!("version: 1\nservices:\n{}{}", service("a", &list(1..60_000)), service("b", "1-65535"));
    let loaded = holds(&text);
    assert_eq!((loaded.model.services.len(), loaded.warnings.len()), (60_000, 100));

    let addresses: Vec<String> = (0..2000).map(|i| Ipv4Addr::from(0xcb00_0000 + i).to_string()).collect();
    let mut text = "version: 1\nservices:\n".to_owned();
    let _ = writeln!(text, "  - name: a\n    addresses: [{}]", addresses.join(", "));
    let _ = writeln!(text, "    protocol: tcp\n    ports: [{}]", list(1..2000));
    text += "    forwarding: ipip\n    backends: [{address: 192.0.2.1}]\n";
    let errors = parse(&text).unwrap_err();
    assert_eq!((errors.total, errors.list[0].code), (1, "LB112"));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn every_key_is_documented() {
    let documented = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/CONFIG.md"),
    )
    .unwrap();
    for shape in [
        &forwarding::FORWARDING,
        &admission::LIST,
        &admission::RATE_LIMIT,
        &admission::PER_SOURCE,
        &admission::BUCKET,
        &quic::QUIC,
        &quic::SERVER_ID,
    ] {
        for key in shape.keys {
            assert!(documented.contains(&format!("`{key}`")), "{}: `{key}`", shape.what);
        }
    }
}

#[test]
fn ports_are_one_a_range_or_any() {
    let ports = |first, last| Ok(Ports { first, last });
    for (text, expected) in [
        ("80", ports(80, 80)),
        ("1-65535", ports(1, 65_535)),
        ("80-80", ports(80, 80)),
        ("any", Ok(Ports::ANY)),
        ("0", Err(Fault::Value)),
        ("0-1", Err(Fault::Value)),
        ("1-65536", Err(Fault::Value)),
        ("90-80", Err(Fault::Reversed(80, 90))),
        ("-80", Err(Fault::Value)),
        ("80-", Err(Fault::Type)),
        ("80--90", Err(Fault::Value)),
        ("80 - 90", Err(Fault::Type)),
        ("080", Err(Fault::Type)),
        ("", Err(Fault::Type)),
        ("ayn", Err(Fault::Word(Some("any")))),
        ("http", Err(Fault::Type)),
    ] {
        assert_eq!((PORTS.parse)(text), expected, "{text:?}");
    }
}

#[test]
fn service_prefixes_hold_what_machines_can_have() {
    for good in ["203.0.113.0/28", "10.0.0.0/8", "203.0.113.10/32", "2001:db8::/32", "2001:db8::1/128"] {
        assert_eq!((ADDRESSES.parse)(good), Ok(prefix(good)), "{good}");
    }
    for bad in ["255.0.0.0/8", "0.0.0.0/8", "127.0.0.0/24", "224.0.0.0/8", "::/32", "fe80::/64", "ff00::/32"]
    {
        assert!(matches!((ADDRESSES.parse)(bad), Err(Fault::Address(_))), "{bad}");
        assert_eq!((CLIENTS.parse)(bad), Ok(prefix(bad)), "{bad}");
    }
    assert!(matches!((CLIENTS.parse)("::ffff:0:0/96"), Err(Fault::Address(_))));
}

#[test]
fn tunnel_sources_leave_bits_to_hash() {
    let source = |text: &str| (TUNNEL_SOURCE.parse)(text);
    assert_eq!(source("auto"), Ok(TunnelSource::Node));
    for good in ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/96", "2001:db8::1/128"] {
        assert_eq!(source(good), Ok(TunnelSource::Prefix(prefix(good))), "{good}");
    }
    for bad in
        ["10.0.0.0/7", "2001:db8::/95", "2001:db8::/129", "127.0.0.0/8", "fe80::/96", "::/96", "10.0.0.1", ""]
    {
        assert!(source(bad).is_err(), "{bad}");
    }
    assert_eq!(source("10.1.0.0/8"), Err(Fault::HostBits([10, 0, 0, 0].into(), 8)));
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2048) })]

    #[test]
    fn prefixes_are_read_as_they_are_written(address in address(), length in 0..=128u8) {
        let prefix = Prefix::containing(address, length);
        prop_assert!(prefix.contains(address) && prefix.contains(prefix.last()));
        prop_assert!(Prefix::containing(address, prefix.length / 2).covers(&prefix));
        prop_assert_eq!((CLIENTS.parse)(&prefix.to_string()), Ok(prefix));
        let with_bits = format!("{address}/{}", prefix.length);
        if address != prefix.network {
            prop_assert_eq!((CLIENTS.parse)(&with_bits), Err(Fault::HostBits(prefix.network, prefix.length)));
        }
    }

    #[test]
    fn ports_are_read_as_they_are_written(first in 0..=u16::MAX, last in 0..=u16::MAX) {
        let text = format!("{first}-{last}");
        match (PORTS.parse)(&text) {
            Ok(ports) => {
                prop_assert!(first > 0 && first <= last);
                prop_assert_eq!((PORTS.parse)(&ports.to_string()), Ok(ports));
            }
            Err(Fault::Reversed(low, high)) => prop_assert!(low == last && high == first && low < high),
            Err(fault) => prop_assert!(fault == Fault::Value && (first == 0 || last == 0)),
        }
    }

    #[test]
    fn readers_take_any_text(text in prop_oneof![".{0,40}", "[0-9a-fx:./-]{0,40}"]) {
        if let Ok(prefix) = (ADDRESSES.parse)(&text) {
            prop_assert_eq!((ADDRESSES.parse)(&prefix.to_string()), Ok(prefix));
            prop_assert_eq!((CLIENTS.parse)(&text), Ok(prefix));
        }
        if let Ok(address) = (ADDRESS.parse)(&text) {
            prop_assert_eq!((ADDRESSES.parse)(&text), Ok(Prefix::host(address)));
        }
        if let Ok(TunnelSource::Prefix(prefix)) = (TUNNEL_SOURCE.parse)(&text) {
            prop_assert_eq!((CLIENTS.parse)(&text), Ok(prefix));
        }
        if let Ok(id) = (SERVER_ID.parse)(&text) {
            prop_assert_eq!((SERVER_ID.parse)(&format!("{id:#x}")), Ok(id));
        }
        let _numbers = ((VLAN.parse)(&text), (DSCP.parse)(&text), (TTL.parse)(&text), (VARIANT.parse)(&text));
        let _words = ((PROTOCOL.parse)(&text), (ECHO.parse)(&text));
    }
}
