//! Faults one by one: from facts that are right, one is changed, and exactly its finding appears.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::*;
use crate::backend::{Held, Listener, Manner, MssWish, Port, SegmentLink, Transport, Way};
use crate::dataplane::{Clamped, DecapFound, Mss, XdpFound};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn host(text: &str) -> Prefix {
    Prefix::host(ip(text))
}

fn wanted(way: Way) -> Wanted {
    Wanted {
        vips: vec![host("203.0.113.10"), host("2001:db8::10")],
        way,
        from: if way.is_tunnel() { vec![host("203.0.113.5")] } else { Vec::new() },
        interface: "eth0".into(),
        gue_port: 6080,
        mss: MssWish::Fit,
        generic: false,
        starts_decap: true,
        ports: vec![Port { transport: Transport::Tcp, number: 80 }],
    }
}

fn held(interface: &str, address: &str, usable: Usable) -> Held {
    let address = ip(address);
    let prefix_len = if address.is_ipv4() { 32 } else { 128 };
    Held { interface: interface.into(), address, prefix_len, usable }
}

/// A machine on which nothing is wrong.
fn right() -> Facts {
    let settings = [
        ("net/ipv4/conf/all/arp_ignore", 0),
        ("net/ipv4/conf/all/arp_announce", 0),
        ("net/ipv4/conf/all/rp_filter", 0),
        ("net/ipv4/conf/eth0/arp_ignore", 1),
        ("net/ipv4/conf/eth0/arp_announce", 2),
        ("net/ipv4/conf/eth0/rp_filter", 2),
        ("net/ipv6/conf/lo/disable_ipv6", 0),
        ("net/ipv6/conf/eth0/disable_ipv6", 0),
    ];
    let decap = DecapFound {
        program_id: 7,
        vips: vec![host("203.0.113.10"), host("2001:db8::10")],
        sources: vec![Prefix::containing(ip("203.0.113.0"), 24)],
    };
    Facts {
        link: SegmentLink {
            name: "eth0".into(),
            mtu: 1500,
            trouble: None,
            xdp: Some(XdpFound::Decap(decap)),
            our_decap: Some(Manner { gue_port: 6080, generic: false }),
        },
        segment: vec!["eth0".into()],
        held: vec![held("lo", "203.0.113.10", Usable::Yes), held("lo", "2001:db8::10", Usable::Yes)],
        local: Vec::new(),
        settings: Settings(settings.map(|(path, value)| (path.to_owned(), value)).into()),
        answers_v4: BTreeSet::from(["eth0".into()]),
        answers_v6: BTreeSet::from(["eth0".into()]),
        clamped: BTreeMap::from([("eth0".into(), Clamped::To(Mss { v4: 1428, v6: 1408 }))]),
        listeners: BTreeSet::from([Listener {
            port: Port { transport: Transport::Tcp, number: 80 },
            address: ip("::"),
        }]),
    }
}

/// Codes of what is wrong, with how bad it is.
fn wrong(way: Way, facts: &Facts) -> Vec<(&'static str, Severity)> {
    let findings = backend(&wanted(way), facts);
    let wrong = findings.into_iter().filter(|finding| finding.severity != Severity::Ok);
    let checked = wrong.inspect(|finding| {
        assert!(!finding.why.is_empty() && !finding.fix.is_empty(), "no reason or remedy: {finding}");
    });
    checked.map(|finding| (finding.code, finding.severity)).collect()
}

fn changed(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = right();
    change(&mut facts);
    facts
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    for way in [Way::L2, Way::Ipip, Way::Gre, Way::Gue] {
        assert_eq!(wrong(way, &right()), []);
        assert!(plan(&wanted(way), &right()).iter().all(|step| !step.needed));
    }
}

#[test]
fn each_fault_has_its_finding() {
    let set = |path: &'static str, value| {
        move |facts: &mut Facts| facts.settings.0.extend([(path.to_owned(), value)])
    };
    let cases: Vec<(&str, Severity, Facts)> = vec![
        ("LB250", Severity::Problem, changed(|f| f.link.trouble = Some("interface eth0 is down".into()))),
        ("LB251", Severity::Problem, changed(|f| drop(f.held.remove(0)))),
        ("LB252", Severity::Problem, changed(|f| f.held.push(held("eth0", "203.0.113.10", Usable::Yes)))),
        ("LB254", Severity::Problem, changed(set("net/ipv4/conf/eth0/arp_ignore", 0))),
        ("LB254", Severity::Problem, changed(set("net/ipv4/conf/all/arp_ignore", 3))),
        ("LB255", Severity::Problem, changed(set("net/ipv4/conf/eth0/arp_announce", 1))),
        ("LB256", Severity::Notice, changed(set("net/ipv4/conf/eth0/rp_filter", 1))),
        ("LB257", Severity::Problem, changed(set("net/ipv6/conf/eth0/disable_ipv6", 1))),
        ("LB258", Severity::Warning, changed(|f| f.answers_v6.clear())),
        ("LB259", Severity::Problem, changed(|f| f.listeners.clear())),
        ("LB261", Severity::Problem, changed(|f| f.link.xdp = None)),
        ("LB265", Severity::Warning, changed(|f| f.clamped.clear())),
        (
            "LB265",
            Severity::Warning,
            changed(|f| f.clamped.extend([("eth0".into(), Clamped::To(Mss { v4: 1460, v6: 1440 }))])),
        ),
    ];
    for (code, severity, facts) in cases {
        let found = wrong(Way::Ipip, &facts);
        let all = found.iter().all(|finding| *finding == (code, severity));
        assert!(all && !found.is_empty(), "{code}: {found:?}");
    }
}

#[test]
fn a_strict_reverse_path_matters_where_answers_leave_elsewhere() {
    let facts = changed(|facts| {
        facts.settings.0.insert("net/ipv4/conf/all/rp_filter".into(), 1);
        facts.settings.0.insert("net/ipv4/conf/eth0/rp_filter".into(), 0);
        facts.answers_v4 = BTreeSet::from(["eth1".into()]);
    });
    assert_eq!(wrong(Way::L2, &facts), [("LB256", Severity::Problem)]);
    // The larger value counts: a loose interface is loose, whatever `all` says.
    let loose = changed(|facts| facts.settings.0.extend([("net/ipv4/conf/all/rp_filter".into(), 1)]));
    assert_eq!(wrong(Way::L2, &loose), []);
}

#[test]
fn an_address_that_another_host_has_is_not_ours() {
    let facts = changed(|facts| {
        facts.held.pop();
        facts.held.push(held("eth0", "2001:db8::10", Usable::Taken));
    });
    let codes: Vec<_> = wrong(Way::L2, &facts).into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["LB251", "LB252", "LB253"]);
}

#[test]
fn the_decapsulators_lists_are_compared() {
    let with = |change: fn(&mut DecapFound)| {
        changed(|facts| {
            if let Some(XdpFound::Decap(found)) = &mut facts.link.xdp {
                change(found);
            }
        })
    };
    let without_vip = with(|found| found.vips.truncate(1));
    assert_eq!(wrong(Way::Gue, &without_vip), [("LB263", Severity::Problem)]);
    let without_balancer = with(|found| found.sources.clear());
    assert_eq!(wrong(Way::Gue, &without_balancer), [("LB264", Severity::Problem)]);
    assert_eq!(wrong(Way::L2, &without_balancer), [], "nothing comes by a tunnel");
    let fixable = |facts: &Facts| backend(&wanted(Way::Gue), facts).iter().any(|finding| finding.fixable);
    assert!(fixable(&without_balancer));
    let foreign = Facts { link: SegmentLink { our_decap: None, ..without_vip.link.clone() }, ..without_vip };
    assert!(!fixable(&foreign), "another's process is not ended");
    let other = XdpFound::Other { program_id: 3, name: "xdp_pass".into() };
    let facts = changed(|facts| facts.link.xdp = Some(other));
    assert_eq!(wrong(Way::Ipip, &facts), [("LB262", Severity::Problem)]);
}

#[test]
fn what_every_host_may_send_must_fit() {
    let facts = |mtu| {
        changed(|facts| {
            facts.link.mtu = mtu;
            facts.clamped.insert("eth0".into(), Clamped::To(Mss { v4: 500, v6: 500 }));
        })
    };
    // 1280 bytes of IPv6, and 20 or 32 of the tunnel.
    assert_eq!(wrong(Way::Ipip, &facts(1300)), []);
    assert_eq!(wrong(Way::Ipip, &facts(1299)), [("LB260", Severity::Problem)]);
    assert_eq!(wrong(Way::Gue, &facts(1311)), [("LB260", Severity::Problem)]);
}

#[test]
fn a_server_elsewhere_is_named() {
    let listen = |address: &str| {
        let port = Port { transport: Transport::Tcp, number: 80 };
        changed(|facts| facts.listeners = BTreeSet::from([Listener { port, address: ip(address) }]))
    };
    assert_eq!(wrong(Way::L2, &listen("203.0.113.10")), [("LB259", Severity::Problem)], "not on the other");
    assert_eq!(wrong(Way::L2, &listen("0.0.0.0")).len(), 1, "IPv4 only");
    let text =
        backend(&wanted(Way::L2), &listen("203.0.113.21")).iter().map(Finding::to_string).collect::<String>();
    assert!(text.contains("the server listens on 203.0.113.21 only"), "{text}");
}
