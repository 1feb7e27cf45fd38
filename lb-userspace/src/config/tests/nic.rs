//! Settings of interfaces: what is read, refused, and written back; and that the documentation knows every key.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::parse;
use crate::config::nic::{self, INTERFACE};
use crate::model::{InterfaceSettings, QueueCount, RingSizes, Spread, Steering, Toggle, UdpHash, Waiting};

fn config(settings: &str) -> String {
    format!(
        "version: 1\ninterfaces:\n  - {{name: eth0{settings}}}\nservices:\n  - {{name: web, address: 203.0.113.10, \
         protocol: tcp, port: 80, forwarding: l2, backends: [{{address: 203.0.113.21}}]}}\n"
    )
}

fn settings(text: &str) -> InterfaceSettings {
    let loaded = parse(&config(text)).unwrap_or_else(|errors| panic!("{errors}"));
    loaded.model.interfaces[0].settings.clone()
}

fn codes(text: &str) -> Vec<&'static str> {
    match parse(&config(text)) {
        Ok(loaded) => loaded.warnings.iter().map(|warning| warning.code).collect(),
        Err(errors) => errors.list.iter().map(|error| error.code).collect(),
    }
}

#[test]
fn nothing_named_is_nothing_set() {
    assert_eq!(settings(""), InterfaceSettings::default());
    assert!(settings(", mode: native").is_empty());
    assert!(!settings(", mtu: 9000").is_empty());
}

#[test]
fn every_way_to_write_a_setting() {
    assert_eq!(settings(", queues: auto").queues, Some(QueueCount::Auto));
    assert_eq!(settings(", queues: 4").queues, Some(QueueCount::Exactly(4)));
    assert_eq!(settings(", rss: equal").rss, Some(Spread::Equal));
    assert_eq!(settings(", rss: [0, 2]").rss, Some(Spread::Queues(vec![0, 2])));
    assert_eq!(settings(", rss: {weights: [3, 0, 1]}").rss, Some(Spread::Weights(vec![3, 0, 1])));
    assert_eq!(settings(", coalesce: adaptive").coalesce, Some(Waiting::Adaptive));
    let fixed = Waiting::Fixed { rx_usecs: Some(50), tx_usecs: None };
    assert_eq!(settings(", coalesce: {rx_usecs: 50}").coalesce, Some(fixed));
    assert_eq!(settings(", rps: off").rps, Some(Steering::Off));
    assert_eq!(settings(", symmetric: false").symmetric, Some(Toggle::Off));
    assert_eq!(settings(", udp_hash: ports").udp_hash, Some(UdpHash::Ports));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_code() {
    for (text, code) in [
        (", rss: []", "LB140"),
        (", rss: {weights: [0, 0]}", "LB140"),
        (", queues: 2, rss: [0, 2]", "LB141"),
        (", queues: 2, rss: {weights: [1, 1, 1]}", "LB141"),
        (", mtu: 1000", "LB142"),
        (", keep: true", "LB143"),
        (", rings: {}", "LB144"),
        (", coalesce: {}", "LB144"),
        (", mtu: 70000", "LB108"),
        (", mtu: big", "LB107"),
        (", queues: 0", "LB108"),
        (", queues: all", "LB107"),
        (", rss: even", "LB108"),
        (", rss: {weight: [1]}", "LB104"),
        (", irq_affinity: off", "LB108"),
        (", ring: {rx: 1}", "LB104"),
    ] {
        assert_eq!(codes(text).first(), Some(&code), "{text}: {:?}", codes(text));
    }
    assert_eq!(codes(", queues: auto, rss: [0, 9], keep: true, mtu: 9000"), [""; 0]);
}

#[test]
fn the_documentation_knows_every_key() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let read = |name: &str| fs::read_to_string(examples.join(name)).unwrap();
    let (rules, full) = (read("CONFIG.md"), read("full.yaml"));
    for key in INTERFACE.keys {
        assert!(rules.contains(&format!("| `{key}` |")), "CONFIG.md: {key}");
        assert!(full.contains(&format!(" {key}: ")), "full.yaml: {key}");
    }
}

fn spread() -> impl Strategy<Value = Spread> {
    let some = |weights: &Vec<u32>| weights.iter().any(|weight| *weight > 0);
    prop_oneof![
        Just(Spread::Equal),
        prop::collection::vec(0_u32..1024, 1..6).prop_map(Spread::Queues),
        prop::collection::vec(0_u32..65_536, 1..6).prop_filter("a weight", some).prop_map(Spread::Weights),
    ]
}

fn waiting() -> impl Strategy<Value = Waiting> {
    let usecs = || prop::option::of(0_u32..65_536);
    let fixed = (usecs(), usecs())
        .prop_filter("a time", |(rx, tx)| rx.is_some() || tx.is_some())
        .prop_map(|(rx_usecs, tx_usecs)| Waiting::Fixed { rx_usecs, tx_usecs });
    prop_oneof![Just(Waiting::Adaptive), fixed]
}

fn any_settings() -> impl Strategy<Value = InterfaceSettings> {
    let steering = || prop::option::of(prop_oneof![Just(Steering::Auto), Just(Steering::Off)]);
    let auto = || prop::option::of(Just(Steering::Auto));
    let toggle = prop_oneof![Just(Toggle::On), Just(Toggle::Off)];
    let hash = prop_oneof![Just(UdpHash::Ports), Just(UdpHash::Addresses)];
    let rings = (1_u32..65_536, prop::option::of(1_u32..65_536));
    let rings = rings.prop_map(|(rx, tx)| RingSizes { rx: Some(rx), tx });
    let numbers = (prop::option::of(1280_u32..65_536), prop::option::of(spread()), prop::option::of(rings));
    let words =
        (prop::option::of(hash), prop::option::of(toggle), prop::option::of(waiting()), any::<bool>());
    (numbers, words, (steering(), steering(), auto(), auto())).prop_map(
        |((mtu, rss, rings), (udp_hash, symmetric, coalesce, keep), (rps, xps, irq_affinity, offloads))| {
            let queues = rss.as_ref().map(|_| QueueCount::Auto);

            InterfaceSettings {
                mtu,
                queues,
                rss,
                udp_hash,
                symmetric,
                rings,
                coalesce,
                rps,
                xps,
                irq_affinity,
                offloads,
                keep,
            }
        },
    )
}

proptest! {
    #[test]
    fn the_merged_view_reads_back_as_it_was(wanted in any_settings()) {
        prop_assert_eq!(settings(&nic::effective(&wanted)), wanted);
    }
}
