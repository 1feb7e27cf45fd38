//! Input that nobody wrote in good faith: bounded time, bounded output, never a panic.

use std::fmt::Debug;
use std::fs;

use proptest::prelude::*;

use super::parse;
use crate::config::value::Reader;
use crate::config::{Error, MAX_TEXT_BYTES, health_value as health, load};

const SEED: &str = "version: 1
interfaces: [{name: eth0, mode: auto}]
vips: [{address: 203.0.113.10, advertise: arp}]
services:
  - {name: a, address: 203.0.113.10, protocol: tcp, port: 80, pool: web}
  - name: b
    address: 203.0.113.11
    protocol: udp
    port: 53
    ring_size: 1009
    forwarding: {type: ipip, source: 10.0.0.0/8}
    backends: [{address: 192.0.2.1, mac: 02:00:00:00:00:01, weight: 5, vlan: 7, server_id: 0x1}]
    quic: {server_id: {format: draft, length: 1}}
    allow: {file: sources.txt}
    deny: [198.51.100.66, '2001:db8::/64']
    rate_limit: {packets: {rate: 5, burst: 7}, per_source: {packets: 1k}}
  - {name: c, addresses: [203.0.113.0/24, '2001:db8::1'], protocols: [tcp, sctp], ports: [any, 1-9], pool: mixed}
pools:
  - name: web
    forwarding: l2
    health_check: {type: http, host: a, headers: {a: b}, expected_body: {regex: 'a|b'}, expected_status: [200, 204-299]}
    health: {require: any, hold_down: 5s, max_hold_down: 1m, trial_share: 5%}
    agent_check: {port: 1, send: lb}
    backends: &b
      - {address: 192.0.2.21, drain: true}
      - {address: 192.0.2.22, backup: true, health_check: {type: tcp}}
      - {address: 192.0.2.23, group: 2, health_check: [{type: icmp, via: direct}, {type: udp, send: a, expect: b}]}
      - {address: 192.0.2.24, health_check: {type: https, sni: a.example, verify: true, timeout: 500ms, address: 192.0.2.99}}
  - {name: mixed, forwarding: {type: gue, variant: 0, dscp: 1}, backends: [{address: 'fd00::1', forwarding: gre}], health_check: none}
defaults: {health_check: &d {interval: 1s, interface: eth0}, health: {flap_window: 1h}}
limits: {flows: 64Ki, probes: 500}
on_change: [/bin/tell, x]
cluster: {key_file: cluster.key}
";

const WORDS: [&str; 78] = [
    "\n",
    " ",
    "  ",
    ":",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&b ",
    "*b",
    "!!str ",
    "\"",
    "'",
    "#",
    "\t",
    "\r",
    "\0",
    "|\n",
    "? ",
    "<<: ",
    "---\n",
    "null",
    "-1",
    "99999999999999999999",
    "é\u{202e}",
    "pool",
    "health_check",
    "health",
    "agent_check",
    "defaults",
    "none",
    "type: ",
    "icmp",
    "https",
    "udp",
    "via: ",
    "service",
    "direct",
    "interval: ",
    "timeout: ",
    "0s",
    "1ms",
    "1h",
    "2",
    "10%",
    "101%",
    "200-599",
    "599-100",
    "expected_status: ",
    "expected_body: ",
    "regex: ",
    "(",
    "headers: ",
    "Host: ",
    "verify: ",
    "true",
    "host: ",
    "192.0.2.1",
    "group: ",
    "backup: ",
    "*d",
    "max_hold_down: ",
    "any",
    "1-9",
    "sctp",
    "'::/0'",
    "0.0.0.0/0",
    "203.0.113.0/24",
    "2001:db8::1",
    "{file: sources.txt}",
    "allow: ",
    "quic: ",
    "l2",
    "gre",
    "ports: [",
    "0x1",
];

fn first_code(text: &str) -> &'static str {
    parse(text).unwrap_err().list[0].code
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_text_gets_an_answer(text in ".{0,400}") {
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.list.is_empty());
            prop_assert!(errors.to_string().lines().count() > 1);
        }
    }

    #[test]
    fn mutated_configs_get_an_answer(
        edits in prop::collection::vec((0..SEED.len(), 0..12usize, 0..WORDS.len()), 1..6),
    ) {
        let mut text = SEED.to_owned();
        for (at, cut, word) in edits {
            let chars: Vec<char> = text.chars().collect();
            let (at, end) = (at.min(chars.len()), (at + cut).min(chars.len()));
            text = chars[..at].iter().chain(&chars[end..]).collect();
            let byte = text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
            text.insert_str(byte, WORDS[word]);
        }
        match parse(&text) {
            Ok(loaded) => prop_assert_eq!(&parse(&loaded.effective()).unwrap().model, &loaded.model),
            Err(errors) => {
                let lines = text.split('\n').count();
                for error in &errors.list {
                    prop_assert!(error.place.line >= 1 && error.place.line <= lines, "{}", error);
                    prop_assert!(!error.to_string().chars().any(|c| c.is_control() && c != '\n'), "{}", error);
                }
            }
        }
    }
}

/// What a reader takes, it takes again as this module would write it.
fn again<T: Debug + PartialEq>(reader: &Reader<T>, text: &str, write: impl Fn(&T) -> String) {
    if let Ok(value) = (reader.parse)(text) {
        let written = write(&value);
        assert_eq!((reader.parse)(&written), Ok(value), "{text:?}, written {written:?}");
    }
}

fn read_by_all(text: &str) {
    for reader in [
        &health::INTERVAL,
        &health::FAST_INTERVAL,
        &health::TIMEOUT,
        &health::UP_TO_HOUR,
        &health::UP_TO_DAY,
        &health::SECOND_TO_DAY,
    ] {
        again(reader, text, |value| health::written(*value));
    }
    for reader in [&health::THRESHOLD, &health::MIN_ACTIVE, &health::PROBES] {
        again(reader, text, u32::to_string);
    }
    again(&health::GROUP, text, u8::to_string);
    again(&health::PERCENT, text, |share| format!("{share}%"));
    again(&health::STATUS, text, |range| format!("{}-{}", range.start(), range.end()));
    again(&health::TYPE, text, |kind| kind.name().to_owned());
    for reader in [
        &health::TEXT,
        &health::ARGUMENT,
        &health::METHOD,
        &health::TARGET,
        &health::HOST,
        &health::SNI,
        &health::HEADER_VALUE,
    ] {
        again(reader, text, String::clone);
        assert!((reader.parse)(text).is_ok_and(|value| value == text) || (reader.parse)(text).is_err());
    }
    let _words = ((health::VIA.parse)(text), (health::REQUIRE.parse)(text), (health::ALL_DOWN.parse)(text));
    let _parts = (health::is_name(text), health::is_token(text));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4096) })]

    #[test]
    fn readers_of_health_take_any_text(text in prop_oneof![".{0,40}", "[-0-9smh%. ]{0,12}", "[!-~]{0,20}"]) {
        read_by_all(&text);
    }

    #[test]
    fn readers_of_health_take_what_is_almost_right(
        number in prop_oneof![0..700u64, any::<u64>()],
        other in 0..700u64,
        unit in prop::sample::select(vec!["", "ms", "s", "m", "h", "%", "-", " s", "S"]),
    ) {
        read_by_all(&format!("{number}{unit}"));
        read_by_all(&format!("{number}-{other}"));
        read_by_all(&format!("-{number}{unit}"));
    }
}

/// Else most mutations would only find what is wrong with it.
#[test]
fn the_seed_holds() {
    let loaded = parse(SEED).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(parse(&loaded.effective()).unwrap().model, loaded.model);
}

#[test]
fn alias_bomb_is_refused() {
    let mut bomb = "version: 1\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    let errors = parse(&bomb).unwrap_err();
    assert_eq!(errors.total, 1);
    assert_eq!(errors.list[0].code, "LB103");
    assert!(errors.list[0].message.contains("aliases expand to more than"), "{errors}");
}

#[test]
fn alias_to_itself_is_refused() {
    assert_eq!(first_code("version: 1\nservices: &s [*s]\n"), "LB103");
}

#[test]
fn deep_nesting_is_refused() {
    assert_eq!(first_code(&"[".repeat(100_000)), "LB101");
    assert_eq!(first_code(&"- ".repeat(100_000)), "LB101");
    assert_eq!(first_code(&"{a: ".repeat(100_000)), "LB101");
}

#[test]
fn many_errors_are_counted_not_printed() {
    let text = format!("version: 1\nservices:\n{}", "  - {port: 0}\n".repeat(1000));
    let errors = parse(&text).unwrap_err();
    assert_eq!((errors.list.len(), errors.total), (100, 5000));
    assert!(errors.to_string().ends_with("lb.yaml: 5000 errors, the first 100 shown"));
}

#[test]
fn long_lines_are_shown_in_part() {
    let text = format!("{{version: {}, {}: 1, portx: 2}}", "1".repeat(100_000), "k".repeat(1_000));
    let errors = parse(&text).unwrap_err();
    assert_eq!(errors.total, 3);
    assert!(errors.to_string().len() < 2_000, "{errors}");
}

#[test]
fn oversized_configs_are_refused() {
    let text = " ".repeat(MAX_TEXT_BYTES + 1);
    assert_eq!(first_code(&text), "LB110");
    assert_eq!(first_code(&text[1..]), "LB106");

    let file = tempfile::NamedTempFile::new().unwrap();
    // Not even text, and cut within a character: it is the size that is talked about.
    fs::write(file.path(), "é".repeat(MAX_TEXT_BYTES)).unwrap();
    assert!(matches!(load(file.path()), Err(Error::Invalid(errors)) if errors.list[0].code == "LB110"));
}

#[test]
fn bytes_that_are_not_text_are_located() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), b"version: 1\nname: \xff\n").unwrap();
    let Err(Error::Invalid(errors)) = load(file.path()) else { panic!("accepted") };
    let place = &errors.list[0].place;
    assert_eq!((errors.list[0].code, place.line, place.column), ("LB101", 2, 7));
}

#[test]
fn a_missing_file_is_named() {
    let error = load("absent/lb.yaml".as_ref()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read absent/lb.yaml");
}
