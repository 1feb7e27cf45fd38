//! Ways of every kind, from values.

use super::*;
use crate::config;
use crate::netlink::Link;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn link(ifindex: u32, mtu: u32) -> Link {
    Link {
        ifindex,
        name: format!("eth{ifindex}"),
        mac: Some(MAC),
        mtu,
        up: true,
        lower_up: true,
        noarp: false,
        rx_queues: 1,
        tx_queues: 1,
        xdp: None,
        master: None,
        kind: None,
        vlan: None,
        addresses: vec![],
    }
}

fn model(forwarding: &str, backends: &[&str]) -> Model {
    let backends: String =
        backends.iter().map(|address| format!("      - {{address: {address}}}\n")).collect();
    let text = format!(
        "version: 1\ninterfaces: [{{name: eth1}}]\nservices:\n  - name: web\n    address: 192.0.2.10\n    \
         protocol: tcp\n    port: 80\n    forwarding: {forwarding}\n    backends:\n{backends}"
    );
    config::parse("test", &text).unwrap().model
}

fn by(ifindex: u32, mtu: u32) -> Resolution {
    let here = "192.0.2.1".parse().unwrap();
    Resolution::Resolved(NextHop { ifindex, vlan: None, via: here, mac: MAC, source: here, mtu })
}

/// Findings about backends `(address, resolution)` behind eth1 (attached, MTU as given) and eth2.
fn found(forwarding: &str, mtu: u32, backends: &[(&str, Resolution)]) -> Vec<Finding> {
    let addresses: Vec<&str> = backends.iter().map(|(address, _)| *address).collect();
    let model = model(forwarding, &addresses);
    let links: Snapshot = [link(1, mtu), link(2, 1500)].into_iter().collect();
    let resolutions: Resolutions =
        backends.iter().map(|(address, found)| (address.parse().unwrap(), found.clone())).collect();
    let attached = BTreeSet::from([1]);
    let ways = Ways { model: &model, links: &links, resolutions: &resolutions, attached: &attached };
    let bad = ways.findings().into_iter().map(|found| found.finding);
    bad.filter(|finding| finding.severity > Severity::Ok).collect()
}

fn only(mut findings: Vec<Finding>) -> Finding {
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

#[test]
fn all_is_well() {
    assert_eq!(found("l2", 1500, &[("192.0.2.21", by(1, 1500))]), []);
    assert_eq!(found("ipip", 1500, &[("192.0.2.21", by(1, 9000))]), []);
}

#[test]
fn silence_is_told_once_for_all_behind_it() {
    let silent = || Resolution::Unresolved {
        ifindex: 1,
        via: "192.0.2.254".parse().unwrap(),
        why: "no ARP answer from 192.0.2.254 on eth1".into(),
    };
    let names: Vec<String> = (1..=7).map(|n| format!("198.51.100.{n}")).collect();
    let backends: Vec<_> = names.iter().map(|name| (name.as_str(), silent())).collect();
    let finding = only(found("ipip", 1500, &backends));
    assert_eq!((finding.code, finding.severity), ("LB230", Severity::Problem));
    assert!(
        finding.what.contains("198.51.100.4 and 3 more: no ARP answer from 192.0.2.254"),
        "{}",
        finding.what
    );
}

#[test]
fn no_way_and_ourselves() {
    let lost = Resolution::Unroutable("no route to 198.51.100.1".into());
    assert_eq!(only(found("ipip", 1500, &[("198.51.100.1", lost)])).code, "LB231");
    assert_eq!(only(found("ipip", 1500, &[("192.0.2.1", Resolution::Local)])).code, "LB236");
}

#[test]
fn an_egress_without_the_program() {
    let finding = only(found("l2", 1500, &[("192.0.2.21", by(1, 1500)), ("192.0.2.22", by(2, 1500))]));
    assert_eq!((finding.code, finding.place.as_str()), ("LB232", "eth2"));
    assert!(finding.what.contains("192.0.2.22") && !finding.what.contains("192.0.2.21"), "{}", finding.what);
}

/// The numbers of every tunnel, and what would save it.
#[test]
fn headers_take_room() {
    let cases = [
        ("ipip", "192.0.2.21", 1480, 1520, 1440),
        ("gre", "192.0.2.21", 1476, 1524, 1436),
        ("gue", "192.0.2.21", 1472, 1528, 1432),
        ("ipip", "2001:db8::21", 1460, 1540, 1420),
    ];
    for (method, backend, fits, mtu, mss) in cases {
        let finding = only(found(method, 1500, &[(backend, by(1, 1500))]));
        assert_eq!((finding.code, finding.severity), ("LB233", Severity::Warning));
        assert!(
            finding.what.contains(&format!("client packets of {fits} bytes; up to 1500")),
            "{}",
            finding.what
        );
        let fix = format!("MTU of {mtu} or more on the whole way to the backends (jumbo: 9000)");
        assert!(finding.fix.contains(&fix) && finding.fix.contains(&format!("MSS {mss}")), "{}", finding.fix);
    }
}

/// Who sends jumbo frames loses some of it in a tunnel; clients across the internet do not notice.
#[test]
fn jumbo_clients_are_a_matter_of_taste() {
    let finding = only(found("ipip", 9000, &[("192.0.2.21", by(1, 9000))]));
    assert_eq!((finding.code, finding.severity), ("LB233", Severity::Notice));
    assert!(finding.what.contains("packets of 8980 bytes; up to 9000"), "{}", finding.what);
}

/// An MTU that was raised to make room for tunnels is no jumbo MTU.
#[test]
fn room_that_was_made_is_enough() {
    assert_eq!(found("gue", 1600, &[("192.0.2.21", by(1, 1600))]), []);
}

/// A config that names its interfaces' MTU shows it before anything is deployed.
#[test]
fn a_config_shows_it_beforehand() {
    let mut model = model("ipip", &["192.0.2.21", "192.0.2.22"]);
    assert_eq!(foreseen(&model), [], "the MTU is not known");
    model.interfaces[0].settings.mtu = Some(1500);
    let finding = only(foreseen(&model));
    assert!(finding.what.contains("by eth1: MTU 1500 less 20 bytes"), "{}", finding.what);
    model.interfaces[0].settings.mtu = Some(1520);
    assert_eq!(foreseen(&model), []);
}
