//! Health checking: what is inherited and what is dropped on the way, strings that the merged view must quote, and
//! that the documentation knows every key.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::parse;
use crate::config::{Loaded, NamedFiles, effective, health, policy};
use crate::model::{BodyMatch, Check, CheckKind, Exchange, HttpCheck, Timing, TlsCheck, Via};

/// A config with these lines before and in its only service.
fn config(before: &str, service: &str) -> String {
    let common = "    address: 203.0.113.10\n    protocol: tcp\n    port: 80\n    forwarding: l2\n";
    format!("version: 1\n{before}\nservices:\n  - name: web\n{common}{service}\n")
}

fn holds(before: &str, service: &str) -> Loaded {
    let text = config(before, service);
    parse(&text).unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// Checks of the only backend.
fn checks(before: &str, service: &str) -> Arc<[Check]> {
    let service = format!("{service}\n    backends: [{{address: 192.0.2.21}}]");
    Arc::clone(&holds(before, &service).model.services[0].backends[0].checks)
}

#[test]
fn inherited_keys_that_do_not_fit_are_dropped() {
    let all = "type: tcp, via: service, interface: eth0, path: /x, send: a, sni: a, verify: true";
    let defaults = format!("defaults: {{health_check: {{{all}}}}}");
    // Where the defaults alone apply, and where a pool lays its own mapping over them.
    for own in ["", "    health_check: {}", "    health_check: {type: tcp}"] {
        let check = &checks(&defaults, own)[0];
        assert_eq!((check.via, check.interface.as_deref()), (Via::Service, None), "{own}");
        let CheckKind::Tcp(exchange) = &check.kind else { panic!("{check:?}") };
        assert_eq!(exchange.send.as_deref(), Some(&b"a"[..]));
    }
    let icmp = defaults.replace("tcp", "icmp");
    for (defaults, own) in
        [(&icmp, ""), (&icmp, "    health_check: {}"), (&defaults, "    health_check: [{type: icmp}]")]
    {
        let check = &checks(defaults, own)[0];
        assert_eq!((&check.kind, check.via), (&CheckKind::Icmp, Via::Direct), "{own}");
        assert_eq!(check.interface.as_deref(), Some("eth0"), "an icmp check is direct");
    }
    let CheckKind::Http(http) = &checks(&defaults, "    health_check: {type: http}")[0].kind else {
        panic!("http")
    };
    assert_eq!((http.path.as_str(), &http.tls), ("/x", &None));
}

#[test]
fn defaults_may_leave_the_certificates_name_to_the_pools() {
    let defaults = "defaults: {health_check: {type: https, verify: true}}";
    for own in ["{host: a.example}", "{sni: a.example}", "{verify: false}", "{type: tcp}", "none"] {
        let checks = checks(defaults, &format!("    health_check: {own}"));
        assert_eq!(checks.len(), usize::from(own != "none"), "{own}");
    }
    let errors = parse(&config(defaults, "    backends: [{address: 192.0.2.21}]")).unwrap_err();
    assert_eq!((errors.total, errors.list[0].code), (1, "LB111"));
}

#[test]
fn an_alias_is_written_where_it_stands() {
    let defaults = "defaults: {health_check: &d {type: tcp, path: /}}";
    let aliased = config(defaults, "    health_check: *d\n    backends: [{address: 192.0.2.21}]");
    assert_eq!(parse(&aliased).unwrap_err().list[0].code, "LB111");
    assert_eq!(checks(defaults, "").len(), 1, "nobody has written it for this pool");
}

#[test]
fn a_backends_list_or_none_replaces_whatever_the_pool_has() {
    for pool in ["[{type: tcp}, {type: icmp}]", "{type: http, path: /x}", "none"] {
        for (own, count) in [("none", 0), ("[{type: tcp}]", 1), ("[{type: tcp}, {type: udp}]", 2)] {
            let lines = format!(
                "    health_check: {pool}\n    backends: [{{address: 192.0.2.21, health_check: {own}}}]"
            );
            assert_eq!(holds("", &lines).model.services[0].backends[0].checks.len(), count, "{pool} {own}");
        }
    }
}

/// The part of the documentation under a heading.
fn documented(heading: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/CONFIG.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    section.split("\n## ").next().unwrap_or(section).to_owned()
}

#[test]
fn every_key_is_documented() {
    let section = documented("Health checks");
    for shape in [&health::CHECK, &policy::HEALTH, &policy::AGENT] {
        for key in shape.keys {
            assert!(section.contains(&format!("`{key}`")), "{}: `{key}`", shape.what);
        }
    }
    // And nothing is documented that does not exist.
    let shapes = [&health::CHECK, &policy::HEALTH, &policy::AGENT];
    let known = |key: &str| shapes.iter().any(|shape| shape.keys.contains(&key));
    let tables = section.split("\n\n").filter(|part| part.trim_start().starts_with("| key"));
    for row in tables.flat_map(str::lines).filter(|line| line.starts_with("| `")) {
        let keys = row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2);
        keys.for_each(|key| assert!(known(key), "{key}"));
    }
}

/// A text of every sort of character: what YAML would take for something else, and what no terminal shows.
fn text() -> impl Strategy<Value = String> {
    let odd = "[\"'\\\\#:{}\\[\\],&*!|>%@`?~ \t\n\r\u{1}\u{7f}\u{85}\u{a0}\u{2028}\u{202e}\u{feff}é𝄞-]{1,12}";
    let words = [
        "null",
        "true",
        "no",
        "~",
        "1",
        "0x1f",
        "1.5",
        "2026-01-01",
        "<<",
        "- a",
        "a: b",
        "---",
        "*a",
        " a ",
    ];
    prop_oneof![odd, ".{1,20}", prop::sample::select(words.to_vec()).prop_map(str::to_owned)]
}

fn body() -> impl Strategy<Value = Option<BodyMatch>> {
    prop_oneof![
        Just(None),
        text().prop_map(|text| Some(BodyMatch::Contains(text))),
        text().prop_map(|text| Some(BodyMatch::Regex(regex::escape(&text)))),
    ]
}

fn http() -> impl Strategy<Value = CheckKind> {
    let headers = prop::collection::btree_map("[a-z!#$%&'*+.^_`|~-]{3,9}", "[ -~é]{0,12}", 0..4);
    let file = text().prop_map(|text| format!("/{}x", text.replace(['/', '\0'], "")));
    let tls = (prop::option::of("[a-z][a-z0-9._-]{0,9}"), prop::option::of(file))
        .prop_map(|(sni, ca_file)| TlsCheck { verify: sni.is_some(), sni, ca_file });
    let request = ("[A-Z!#$%&'*+.^_`|~-]{1,9}", "/[!-~]{0,12}", prop::option::of("[a-z0-9.:\\[\\]-]{1,12}"));
    let status = (100..=599u16, 0..=20u16).prop_map(|(from, more)| from..=(from + more).min(599));
    (request, headers, prop::collection::vec(status, 1..4), body(), prop::option::of(tls)).prop_map(
        |((method, path, host), headers, expected_status, expected_body, tls)| {
            let headers =
                headers.into_iter().filter(|(name, _)| name != "host" && name != "connection").collect();
            CheckKind::Http(HttpCheck { tls, method, path, host, headers, expected_status, expected_body })
        },
    )
}

fn kind() -> impl Strategy<Value = CheckKind> {
    let bytes = || prop::option::of(text().prop_map(String::into_bytes));
    let exchange = || (bytes(), bytes()).prop_map(|(send, expect)| Exchange { send, expect });
    prop_oneof![
        Just(CheckKind::Icmp),
        exchange().prop_map(CheckKind::Tcp),
        exchange().prop_map(CheckKind::Udp),
        http(),
    ]
}

fn timing() -> impl Strategy<Value = Timing> {
    let ms = Duration::from_millis;
    (100..=3_600_000u64, 0..=1000u64, 1..=100u32, 1..=100u32).prop_map(move |(interval, share, up, down)| {
        Timing {
            interval: ms(interval),
            fast_interval: ms((interval * share / 1000).max(10)),
            timeout: ms((interval * share / 1000).clamp(10, 60_000)),
            healthy_threshold: up,
            unhealthy_threshold: down,
            max_interval: ms(interval + (3_600_000 - interval) * share / 1000),
        }
    })
}

fn check() -> impl Strategy<Value = Check> {
    let port = prop::option::of(1..=65535u16);
    let interface =
        prop::option::of("[a-z0-9.@é~-]{1,6}".prop_filter("a name", |name| name != "." && name != ".."));
    (kind(), any::<bool>(), port, interface, timing()).prop_map(|(kind, direct, port, interface, timing)| {
        let silent = matches!(&kind, CheckKind::Udp(exchange) if exchange.expect.is_none());
        let via = if direct || silent || kind == CheckKind::Icmp { Via::Direct } else { Via::Service };
        let port = port.filter(|_| kind != CheckKind::Icmp);
        let interface = interface.filter(|_| via == Via::Direct);
        Check { kind, via, address: None, port, source: None, interface, timing }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn the_merged_view_quotes_whatever_checks_hold(
        checks in prop::collection::vec(check(), 0..4),
        send in text(),
        on_change in prop::collection::vec(text().prop_map(|text| text.replace('\0', "x")), 1..3),
    ) {
        let lines = "    agent_check: {port: 1}\n    backends: [{address: 192.0.2.21}]";
        let mut model = holds("", lines).model;
        model.services[0].backends[0].checks = checks.into();
        model.services[0].agent.as_mut().unwrap().send = Some(send.into_bytes());
        model.on_change = on_change;
        let text = effective::render(&model, &NamedFiles::default());
        let again = parse(&text).unwrap_or_else(|errors| panic!("{text}\n{errors}"));
        prop_assert_eq!(&again.model, &model, "{}", text);
        prop_assert!(text.is_ascii(), "{}", text);
    }
}
