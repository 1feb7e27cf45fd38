//! Interfaces in every bad state, from facts.

use super::*;

/// What is found where something is changed.
type Case = (&'static str, &'static str, fn(&mut Interface));

fn link() -> Link {
    Link {
        ifindex: 2,
        name: "eth0".into(),
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
        lower_up: true,
        noarp: false,
        rx_queues: 4,
        tx_queues: 4,
        xdp: None,
        master: None,
        kind: None,
        vlan: None,
        addresses: vec![],
    }
}

/// An interface as it should be, watched for two seconds.
fn good() -> Interface {
    Interface {
        link: link(),
        master: None,
        parent: None,
        occupant: Occupant::Ours(XdpMode::Native),
        counted: Statistics { rx_packets: 1_000_000, tx_packets: 1_000_000, ..Statistics::default() },
        total: Statistics { rx_missed: 7, ..Statistics::default() },
        span: Duration::from_secs(2),
    }
}

fn bad(interface: &Interface) -> Vec<Diagnosis> {
    interface.findings().into_iter().filter(|found| found.finding.severity > Severity::Ok).collect()
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    let cases: [Case; 11] = [
        ("LB210", "no Ethernet address", |i| i.link.mac = None),
        ("LB219", "is a port of br0", |i| i.master = Some("br0".into())),
        ("LB219", "VLAN device of eth1", |i| i.parent = Some("eth1".into())),
        ("LB211", "is down", |i| i.link.up = false),
        ("LB211", "has no carrier", |i| i.link.lower_up = false),
        ("LB218", "generic mode", |i| i.occupant = Occupant::Ours(XdpMode::Generic)),
        ("LB212", "id 9, fence", |i| {
            let foreign = Foreign { program: 9, name: Some("fence".into()), ..Foreign::default() };
            i.occupant = Occupant::Other(foreign, vec!["fenced (4711)".into()]);
        }),
        ("LB217", "500 packets/s missed", |i| i.counted.rx_missed = 1000),
        ("LB217", "wrong checksum", |i| (i.counted.rx_crc_errors, i.counted.rx_errors) = (50, 50)),
        ("LB217", "dropped on receipt (50.00 %", |i| i.counted.rx_dropped = 1_000_000),
        ("LB217", "dropped on sending", |i| i.counted.tx_dropped = 3),
    ];
    assert_eq!(bad(&good()), []);
    for (code, words, break_it) in cases {
        let mut interface = good();
        break_it(&mut interface);
        let found = bad(&interface);
        let said: Vec<String> = found.iter().map(|found| found.finding.to_string()).collect();
        assert!(said.len() == 1 && said[0].contains(code) && said[0].contains(words), "{words}: {said:#?}");
    }
}

#[test]
fn only_an_interface_that_is_down_is_mended() {
    let down = Interface { link: Link { up: false, ..link() }, ..good() };
    let remedies: Vec<_> = bad(&down).into_iter().filter_map(|found| found.remedy).collect();
    assert_eq!(remedies, [Remedy::BringUp { ifindex: 2, name: "eth0".into() }]);
}

#[test]
fn one_packet_in_millions_is_no_loss() {
    let counted = Statistics { rx_packets: 5_000_000, rx_missed: 1, ..Statistics::default() };
    assert_eq!(bad(&Interface { counted, ..good() }), []);
}

/// The remedy depends on how the other program was attached.
#[test]
fn another_program_is_told_how_to_end() {
    let fix = |links: Vec<u32>, pins: Vec<std::path::PathBuf>| {
        let foreign = Foreign { program: 9, links, pins, ..Foreign::default() };
        bad(&Interface { occupant: Occupant::Other(foreign, vec![]), ..good() })[0].finding.fix.clone()
    };
    assert!(fix(vec![], vec![]).contains("ip link set dev eth0 xdp off"));
    assert!(fix(vec![5], vec![]).contains("bpftool link detach id 5"));
    assert!(fix(vec![5], vec!["/sys/fs/bpf/fence".into()]).contains("rm /sys/fs/bpf/fence"));
}
