//! What a bare machine needs, as steps and as text.

use std::collections::BTreeSet;

use super::*;
use crate::dataplane::{Clamped, DecapFound, Mss, XdpFound};
use crate::model::Prefix;

fn prefix(text: &str, length: u8) -> Prefix {
    Prefix::containing(text.parse().unwrap(), length)
}

fn wanted(way: Way) -> Wanted {
    Wanted {
        vips: vec![prefix("203.0.113.10", 32), prefix("2001:db8:10::", 64)],
        way,
        from: vec![prefix("198.18.0.0", 16)],
        interface: "eth0.7".into(),
        gue_port: 6080,
        mss: MssWish::Fit,
        generic: false,
        starts_decap: true,
        ports: Vec::new(),
    }
}

/// Fresh from an installer, with a second interface that answers leave through.
fn bare() -> Facts {
    let v4 = ["all", "eth0.7"].into_iter().flat_map(|interface| {
        [("arp_ignore", 0), ("arp_announce", 0), ("rp_filter", 1)]
            .map(|(name, value)| (Settings::v4(interface, name), value))
    });
    let v6 = ["lo", "eth0.7"].into_iter().map(|interface| (Settings::v6(interface, "disable_ipv6"), 0));
    Facts {
        link: SegmentLink { name: "eth0.7".into(), mtu: 1500, ..SegmentLink::default() },
        segment: vec!["eth0.7".into()],
        settings: Settings(v4.chain(v6).collect()),
        answers_v4: BTreeSet::from(["eth1".into()]),
        ..Facts::default()
    }
}

fn invocation() -> Invocation {
    Invocation { binary: "/usr/local/sbin/lb".into(), interface: "eth0.7".into() }
}

fn needed(wanted: &Wanted, facts: &Facts) -> Vec<String> {
    let steps = plan(wanted, facts).into_iter().filter(|step| step.needed);
    steps.map(|step| step.act.to_string()).collect()
}

#[test]
fn silence_comes_before_the_address() {
    assert_eq!(
        needed(&wanted(Way::L2), &bare()),
        [
            "sysctl -w net/ipv4/conf/eth0.7/arp_ignore=1",
            "sysctl -w net/ipv4/conf/eth0.7/arp_announce=2",
            "sysctl -w net/ipv4/conf/eth0.7/rp_filter=2",
            "ip address replace 203.0.113.10/32 dev lo scope host",
            "ip route replace local 2001:db8:10::/64 dev lo",
        ]
    );
    let decap = "lb decap eth0.7 --vip 203.0.113.10 2001:db8:10::/64 --from 198.18.0.0/16 --clamp-mss --clamp-on \
                 eth0.7 eth1";
    assert_eq!(needed(&wanted(Way::Gue), &bare())[3], decap);
}

#[test]
fn a_value_that_does_the_job_stays() {
    let mut facts = bare();
    facts.settings.0.insert(Settings::v4("all", "arp_ignore"), 2);
    facts.settings.0.insert(Settings::v4("eth0.7", "rp_filter"), 2);
    let steps = needed(&wanted(Way::L2), &facts);
    assert!(!steps.iter().any(|step| step.contains("arp_ignore") || step.contains("rp_filter")), "{steps:?}");
}

#[test]
fn a_decapsulator_must_take_all_and_clamp_everywhere() {
    let wanted = wanted(Way::Ipip);
    let decap = DecapFound { program_id: 7, vips: wanted.vips.clone(), sources: wanted.from.clone() };
    let mut facts = bare();
    facts.link.xdp = Some(XdpFound::Decap(decap));
    let decaps = |facts: &Facts| needed(&wanted, facts).iter().any(|step| step.contains("decap"));
    assert!(decaps(&facts));
    for name in ["eth0.7", "eth1"] {
        facts.clamped.insert(name.into(), Clamped::To(Mss { v4: 1440, v6: 1420 }));
    }
    assert!(!decaps(&facts));
    facts.link.our_decap = Some(Manner { gue_port: 7000, generic: false });
    assert!(decaps(&facts), "GUE comes to another port");
    facts.link.our_decap = Some(Manner { gue_port: 6080, generic: false });
    facts.clamped.insert("eth1".into(), Clamped::Unseen);
    assert!(!decaps(&facts), "an old kernel does not say");
    facts.clamped.insert("eth1".into(), Clamped::To(Mss { v4: 1441, v6: 1420 }));
    assert!(decaps(&facts), "20 bytes of 1500 are the tunnel's, 40 the inner headers'");
}

#[test]
fn the_script_says_why_and_the_unit_does_it_at_boot() {
    let text = script(&wanted(Way::Gre), &bare(), &invocation());
    let commands: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(commands.len(), 6, "{text}");
    assert!(commands[3].starts_with("nohup /usr/local/sbin/lb decap eth0.7 "), "{text}");
    assert!(
        text.contains("gre takes 24 of it: clients' packets up to 1476 bytes fit, MSS 1436 (IPv6 1416)"),
        "{text}"
    );
    let unit = unit(&wanted(Way::Gre), &bare(), &invocation());
    for line in [
        "ExecStartPre=/usr/local/sbin/lb backend up --interface eth0.7 --vip 203.0.113.10 2001:db8:10::/64 --method gre \
         --from 198.18.0.0/16 --no-decap --apply",
        "ExecStart=/usr/local/sbin/lb decap eth0.7 --vip 203.0.113.10 2001:db8:10::/64 --from 198.18.0.0/16 --clamp-mss \
         --clamp-on eth0.7 eth1",
        "ExecStopPost=/usr/local/sbin/lb backend down --interface eth0.7",
    ] {
        assert!(unit.lines().any(|found| found == line), "no {line} in\n{unit}");
    }
}
