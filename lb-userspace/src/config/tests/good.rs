//! Configs that hold: what they mean, and that the merged view means the same.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::parse;
use crate::config::{DEFAULT_HASH_KEY, Error, Loaded, load};
use crate::model::{
    Advertise, AllDown, AttachMode, CheckKind, Echo, Encap, FailurePolicy, Forwarding, Limits, OtherPorts,
    Prefix, Protocol, Require, ServiceId, Tunnel, TunnelSource, Via, Vip,
};

/// The example configs, from this crate's directory.
const EXAMPLES: &str = "../examples";

const MINIMAL: &str = "version: 1
services:
  - name: web
    address: 203.0.113.10
    protocol: tcp
    port: 80
    forwarding: l2
    backends:
      - {address: 192.0.2.22}
      - {address: 192.0.2.21, name: a, weight: 10, drain: false}
";

const FULL: &str = r#"version: 1
interfaces: [{name: eth1, mode: generic}, {name: eth0}, {name: lo, mode: native}]
vips:
  - {address: 203.0.113.99}
  - {address: 203.0.113.10, advertise: none, other_ports: pass}
services:
  - &web {name: "web:80#\"x\"é", address: 203.0.113.10, protocol: tcp, port: 80, algorithm: maglev, pool: 'null'}
  - {name: tls, address: 203.0.113.10, protocol: tcp, port: 443, ring_size: 65537, pool: "null"}
  - {name: dns, address: 198.51.100.53, protocol: udp, port: 53, forwarding: ipip, backends: &list [{address: 192.0.2.1}]}
  - {name: "007", address: 198.51.100.54, protocol: udp, port: 53, forwarding: {type: l2}, backends: *list}
pools:
  - name: "null"
    forwarding: {type: ipip, source: 10.20.0.0/16}
    backends:
      - {name: "-", address: 192.0.2.2, weight: 0}
      - {address: 192.0.2.3, mac: 02:00:5E:10:00:01, interface: "eth0.7", forwarding: l2, weight: 65535}
      - {address: 192.0.2.1, drain: true, forwarding: {type: ipip, source: auto}}
  - {name: spare, forwarding: l2, backends: [{address: 192.0.2.9}]}
limits: {ring_slots: 16Mi, services: 10k, backends: 64Ki, flows: 1M}
cluster: {key_file: cluster.key}
"#;

const HEALTH: &str = r#"version: 1
on_change: [/usr/local/bin/tell, --json]
defaults: {health_check: {interval: 4s, timeout: 900ms, type: tcp, send: "x"}, health: {require: any}}
services:
  - name: web
    address: 203.0.113.10
    protocol: tcp
    port: 80
    forwarding: l2
    all_down: reject
    max_failed: 60%
    min_active: 2
    health_check: {type: https, path: /healthz, host: a.example, verify: true, ca_file: ca.pem, headers: {X-A: "b c"},
      expected_status: [200, 300-399], expected_body: {regex: "ok|fine"}}
    health: {hold_down: 0s, trial_share: 20%}
    agent_check: {port: 9777, send: "lb\n"}
    backends:
      - {address: 192.0.2.1}
      - {address: 192.0.2.2, backup: true, health_check: none}
      - {address: 192.0.2.3, group: 9, health_check: {port: 8081, address: 192.0.2.103, interval: 1h}}
      - {address: 192.0.2.4, health_check: [{type: icmp, interface: eth0}, {type: udp, expect: "\x01é"}]}
  - {name: plain, address: 203.0.113.10, protocol: tcp, port: 81, forwarding: l2, backends: [{address: 192.0.2.1}]}
limits: {probes: 500}
"#;

fn holds(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn last_byte(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    }
}

fn codes(loaded: &Loaded) -> Vec<&'static str> {
    loaded.warnings.iter().map(|warning| warning.code).collect()
}

#[test]
fn minimal_gets_defaults() {
    let loaded = holds(MINIMAL);
    let model = &loaded.model;
    assert!(loaded.warnings.is_empty());
    assert_eq!(
        (model.interfaces.len(), model.limits, model.hash_key),
        (0, Limits::default(), DEFAULT_HASH_KEY)
    );
    let address = IpAddr::from([203, 0, 113, 10]);
    let (advertise, echo, other_ports) = (None, Echo::WhileUp, OtherPorts::Drop);
    assert_eq!(model.vips, [Vip { address, prefix_len: 32, advertise, echo, other_ports }]);

    let service = &model.services[0];
    assert_eq!(service.id, ServiceId::single(address, Protocol::Tcp, 80));
    assert_eq!((service.pool.as_str(), service.ring_size), ("web", None));
    let backends: Vec<_> = service
        .backends
        .iter()
        .map(|b| (last_byte(b.address), b.weight, b.drain, b.name.as_deref()))
        .collect();
    assert_eq!(backends, [(21, 10, false, Some("a")), (22, 1, false, None)]);
}

#[test]
fn full_means_what_it_says() {
    let loaded = holds(FULL);
    let model = &loaded.model;
    assert_eq!(codes(&loaded), ["LB130", "LB131"]);
    let interfaces: Vec<_> = model.interfaces.iter().map(|i| (i.name.as_str(), i.mode)).collect();
    assert_eq!(
        interfaces,
        [("eth1", AttachMode::Generic), ("eth0", AttachMode::Auto), ("lo", AttachMode::Native)]
    );
    assert_eq!(model.hash_key[..3], [0x00, 0x11, 0x22]);
    let ports: Vec<_> = model.services.iter().map(|s| (s.id.port, s.name.as_str())).collect();
    assert_eq!(ports, [(53, "dns"), (53, "007"), (80, "web:80#\"x\"é"), (443, "tls")]);
    let vips: Vec<_> =
        model.vips.iter().map(|vip| (last_byte(vip.address), vip.advertise, vip.other_ports)).collect();
    let default = |last| (last, None, OtherPorts::Drop);
    let written = (10, Some(Advertise::None), OtherPorts::Pass);
    assert_eq!(vips, [default(53), default(54), written, default(99)]);
    assert_eq!(
        model.limits,
        Limits {
            ring_slots: Some(16 << 20),
            services: Some(10_000),
            backends: Some(65_536),
            flows: Some(1_000_000),
            ..Limits::default()
        }
    );

    let web = &model.services[2];
    let prefix = TunnelSource::Prefix(Prefix::containing([10, 20, 0, 0].into(), 16));
    let forwardings: Vec<_> = web.backends.iter().map(|backend| backend.forwarding).collect();
    let ipip = |source| Forwarding::Tunnel(Tunnel { source, ..Tunnel::new(Encap::Ipip) });
    assert_eq!(forwardings, [ipip(TunnelSource::Node), ipip(prefix), Forwarding::L2]);
    assert_eq!(web.backends[2].mac, Some([0x02, 0x00, 0x5e, 0x10, 0x00, 0x01]));
    assert_eq!(web.backends[2].interface.as_deref(), Some("eth0.7"));
    assert_eq!(web.backends, model.services[3].backends);
    assert_eq!(model.services[1].backends[0].forwarding, Forwarding::L2);
}

#[test]
fn effective_means_the_same() {
    for text in [MINIMAL, FULL, HEALTH, super::traffic::TRAFFIC, "version: 1\n"] {
        let loaded = holds(text);
        let effective = loaded.effective();
        let again = holds(&effective);
        assert_eq!(again.model, loaded.model, "{effective}");
        assert_eq!(again.files, loaded.files);
        assert_eq!(again.effective(), effective);
    }
}

#[test]
fn vip_without_advertise_stays_undecided() {
    let loaded = holds(&format!("{MINIMAL}vips: [{{address: 203.0.113.10, advertise: arp}}]\n"));
    assert_eq!(loaded.model.vips[0].advertise, Some(Advertise::Arp));
    assert_eq!(holds(MINIMAL).model.vips[0].advertise, None);
}

#[test]
fn examples_hold() {
    for name in [
        "l2.yaml",
        "ipip.yaml",
        "gue.yaml",
        "ipv6.yaml",
        "quic.yaml",
        "full.yaml",
        "health.yaml",
        "policies.yaml",
        "tuning.yaml",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLES).join(name);
        let loaded = load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert!(loaded.warnings.is_empty(), "{name}");
        let again = holds(&loaded.effective());
        assert_eq!(again.model.services, loaded.model.services);
        assert_eq!(again.model.vips, loaded.model.vips);
        assert_eq!(again.model.interfaces, loaded.model.interfaces);
    }
}

#[test]
fn no_services_is_a_warning() {
    for text in ["version: 1\n", "version: 1\nservices:\n", "version: 1\nservices: []\n"] {
        assert_eq!(codes(&holds(text)), ["LB132"]);
    }
}

#[test]
fn windows_line_ends_and_a_byte_order_mark() {
    let text = format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n"));
    assert_eq!(holds(&text).model, holds(MINIMAL).model);
    let errors = parse(&text.replace("tcp", "tpc")).unwrap_err();
    let place = &errors.list[0].place;
    assert_eq!((place.line, place.column, place.snippet.as_str()), (5, 15, "    protocol: tpc"));
}

#[test]
fn key_files_are_found_beside_the_config() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("lb.yaml");
    let key = directory.path().join("k");
    fs::write(&config, format!("{MINIMAL}cluster: {{key_file: k}}\n")).unwrap();

    for (bytes, expected) in [
        (&b"0123456789abcdef"[..], *b"0123456789abcdef"),
        (b" 000102030405060708090A0b0c0d0e0f\n", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
    ] {
        fs::write(&key, bytes).unwrap();
        assert_eq!(load(&config).unwrap().model.hash_key, expected);
    }
    fs::write(&key, "too short").unwrap();
    assert!(matches!(load(&config), Err(Error::Invalid(errors)) if errors.list[0].code == "LB127"));
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert!(matches!(load(&config), Err(Error::Invalid(errors)) if errors.list[0].code == "LB127"));
}

#[test]
fn checks_inherit_key_by_key() {
    let loaded = holds(HEALTH);
    assert!(loaded.warnings.is_empty());
    let web = &loaded.model.services[0];
    let backends = &web.backends;
    let seconds = Duration::from_secs;

    let first = &backends[0].checks[0];
    assert_eq!(
        (first.via, first.timing.interval, first.timing.max_interval),
        (Via::Service, seconds(4), seconds(30))
    );
    assert_eq!(first.timing.fast_interval, Duration::from_millis(200));
    let CheckKind::Http(http) = &first.kind else { panic!("{first:?}") };
    assert_eq!(http.expected_status, [200..=200, 300..=399]);
    assert_eq!(http.tls.as_ref().unwrap().ca_file.as_deref(), Some("/etc/lb/ca.pem"));

    assert!(backends[1].checks.is_empty());
    let third = &backends[2].checks[0];
    assert_eq!((&third.kind, third.via, third.port), (&first.kind, Via::Direct, Some(8081)));
    assert_eq!((third.timing.interval, third.timing.max_interval), (seconds(3600), seconds(3600)));
    let kinds: Vec<_> = backends[3].checks.iter().map(|check| (check.kind.name(), check.via)).collect();
    assert_eq!(kinds, [("icmp", Via::Direct), ("udp", Via::Service)]);
    let CheckKind::Udp(udp) = &backends[3].checks[1].kind else { panic!("{kinds:?}") };
    assert_eq!(udp.send.as_deref(), Some(&b"x"[..]));

    assert_eq!(backends.iter().map(|backend| backend.group).collect::<Vec<_>>(), [0, 1, 9, 0]);
    assert_eq!(
        (web.health.require, web.health.hold_down, web.health.trial_share),
        (Require::Any, seconds(0), 20)
    );
    assert_eq!(web.failure, FailurePolicy { all_down: AllDown::Reject, max_failed: 60, min_active: 2 });
    assert_eq!(web.agent.as_ref().unwrap().interval, seconds(5));
    // A pool that says nothing gets the check of the defaults, since that has a type.
    assert_eq!(loaded.model.services[1].backends[0].checks[0].kind.name(), "tcp");
    assert_eq!((loaded.model.limits.probes, loaded.model.on_change.len()), (Some(500), 2));
}
