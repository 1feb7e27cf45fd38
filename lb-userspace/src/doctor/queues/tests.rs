//! NICs that cannot be had here, from what they tell.

use super::*;
use crate::nic::{Channels, Cpu, CpuSet, Feature, Rss, Topology};

/// What is found where something is changed.
type Case = (&'static str, &'static str, &'static str, &'static str, fn(&mut Nic));

fn irq(number: u32, name: &str, cpus: &[u32]) -> Irq {
    Irq { number, name: name.into(), cpus: cpus.iter().copied().collect() }
}

/// So many CPUs, each a core.
fn cpus(count: u32) -> Topology {
    Topology((0..count).map(|id| Cpu { id, node: 0, thread: 0 }).collect())
}

/// A NIC as it should be: four queues, each with an interrupt of its own.
fn good(driver: &str) -> Nic {
    let off = Feature { on: false, fixed: false };
    let names = ["eth0-TxRx-0", "eth0-TxRx-1", "eth0-TxRx-2", "eth0-TxRx-3"];
    let irqs = names.iter().zip(0..).map(|(name, n)| irq(30 + n, name, &[n]));
    let all = Queues { combined: 8, ..Queues::default() };
    let facts = Facts {
        interface: "eth0".into(),
        driver: Some(driver.into()),
        bus: Some("0000:01:00.0".into()),
        mtu: Some(1500),
        channels: Some(Channels { max: all, now: Queues { combined: 4, ..all } }),
        features: Some([("rx-lro".to_owned(), off), ("rx-gro-hw".to_owned(), off)].into()),
        rss: Some(Rss { table: (0..128).map(|slot| slot % 4).collect(), key_bytes: 40, input_xfrm: 0 }),
        udp_hash: Some([(FlowType::UdpV4, fields::ADDRESSES | fields::PORTS)].into()),
        irqs: Some(irqs.chain([irq(29, "eth0-misc", &[0, 1, 2, 3])]).collect()),
        ..Facts::default()
    };
    Nic {
        facts,
        context: Context { cpus: cpus(4), native: true, attached: true },
        release: "6.12.9".into(),
        received: vec![9000.0, 8000.0, 9500.0, 8800.0],
        ..Nic::default()
    }
}

fn bad(nic: &Nic) -> Vec<Diagnosis> {
    nic.findings().into_iter().filter(|found| found.finding.severity > Severity::Ok).collect()
}

fn feature(nic: &mut Nic, name: &str, fixed: bool) {
    nic.facts.features.as_mut().unwrap().insert(name.into(), Feature { on: true, fixed });
}

#[test]
fn each_fault_is_found_with_its_fix_and_nothing_else() {
    let cases: [Case; 14] = [
        ("ice", "LB215", "rx-lro is on", "ethtool -K eth0 rx-lro off", |n| feature(n, "rx-lro", false)),
        ("virtio_net", "LB215", "cannot be switched off", "guest_tso4=off", |n| {
            feature(n, "rx-gro-hw", true)
        }),
        ("ena", "LB214", "MTU 9001, but ena takes 3498", "ip link set dev eth0 mtu 3498", |n| {
            n.facts.mtu = Some(9001)
        }),
        ("virtio_net", "LB214", "takes 4060", "mtu 4060", |n| {
            (n.facts.mtu, n.release) = (Some(9000), "6.1.0".into())
        }),
        ("ena", "LB213", "5 of 8 channels", "ethtool -L eth0 combined 4", |n| {
            n.facts.channels.as_mut().unwrap().now.combined = 5;
            n.facts.rss = None;
        }),
        ("bnxt_en", "LB213", "separate", "combined 8 rx 0 tx 0", |n| {
            n.facts.channels.as_mut().unwrap().now = Queues { rx: 4, tx: 4, combined: 0 };
        }),
        ("ice", "LB216", "2 receive queues, 4 CPUs near it; 4 would be right", "queues: auto", |n| {
            n.facts.channels.as_mut().unwrap().now.combined = 2;
            n.facts.rss = None;
        }),
        (
            "ice",
            "LB222",
            "4 interrupts of queues on 1 CPUs",
            "echo 1 > /proc/irq/31/smp_affinity_list",
            |n| {
                n.facts.irqs.as_mut().unwrap().iter_mut().for_each(|irq| irq.cpus = CpuSet::from_iter([0]));
            },
        ),
        ("ice", "LB222", "4 of 4 interrupts of queues may go to several", "/proc/irq/33/", |n| {
            n.facts.irqs.as_mut().unwrap().iter_mut().for_each(|irq| irq.cpus = CpuSet::from_iter(0..4));
        }),
        ("ice", "LB223", "irqbalance runs", "banirq", |n| n.irqbalance = true),
        ("ice", "LB224", "over 3 of 4 queues", "ethtool -X eth0 equal 4", |n| {
            n.facts.rss.as_mut().unwrap().table = (0..128).map(|slot| slot % 3).collect();
        }),
        ("ice", "LB224", "over 4 of 4 queues", "ethtool -X eth0 equal 4", |n| {
            n.facts.rss.as_mut().unwrap().table =
                (0..128).map(|slot| if slot < 100 { 0 } else { slot % 4 }).collect();
        }),
        ("ice", "LB225", "queue 1 has 97 %", "`queues: auto`", |n| {
            n.received = vec![100.0, 9700.0, 100.0, 100.0]
        }),
        ("ice", "LB226", "addresses only", "udp4 sdfn", |n| {
            n.facts.udp_hash = Some([(FlowType::UdpV4, fields::ADDRESSES)].into())
        }),
    ];
    for (driver, code, words, fix, break_it) in cases {
        let mut nic = good(driver);
        assert_eq!(bad(&nic), [], "{driver}");
        break_it(&mut nic);
        let said: Vec<String> = bad(&nic).iter().map(|found| found.finding.to_string()).collect();
        assert_eq!(said.len(), 1, "{code} {words}: {said:#?}");
        assert!(
            [code, words, fix].iter().all(|part| said[0].contains(part)),
            "{code} {words} {fix}: {said:#?}"
        );
    }
}

/// Each remedy, taken for done, leaves nothing to find.
#[test]
fn remedies_cure() {
    let mut nic = good("ice");
    nic.facts.rss.as_mut().unwrap().table = vec![0; 128];
    feature(&mut nic, "rx-lro", false);
    nic.facts.irqs.as_mut().unwrap().iter_mut().for_each(|irq| irq.cpus = CpuSet::from_iter([0]));
    nic.facts.udp_hash = Some([(FlowType::UdpV4, fields::ADDRESSES)].into());
    assert_eq!(bad(&nic).len(), 4);
    for found in bad(&nic) {
        let Some(Remedy::Set { values, .. }) = found.remedy else { panic!("no remedy: {}", found.finding) };
        for value in values {
            match value {
                Value::Rss(table) => nic.facts.rss.as_mut().unwrap().table = table,
                Value::Feature { name, on } => {
                    nic.facts.features.as_mut().unwrap().insert(name, Feature { on, fixed: false });
                }
                Value::UdpHash { flows, covered } => {
                    nic.facts.udp_hash.as_mut().unwrap().insert(flows, covered);
                }
                Value::Irq { number, cpus } => {
                    let irqs = nic.facts.irqs.as_mut().unwrap();
                    irqs.iter_mut().find(|irq| irq.number == number).unwrap().cpus = cpus;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(bad(&nic), []);
}

/// What the config sets is no fault, and what a NIC does not tell is none either.
#[test]
fn silence_and_wishes_are_no_faults() {
    let untold = Nic {
        facts: Facts { interface: "eth0".into(), ..Facts::default() },
        context: Context { cpus: cpus(2), ..Context::default() },
        ..Nic::default()
    };
    assert_eq!(bad(&untold), []);
    let mut wished = good("ice");
    wished.facts.rss.as_mut().unwrap().table = vec![0; 128];
    wished.settings.rss = Some(crate::model::Spread::Queues(vec![0]));
    assert_eq!(bad(&wished), []);
}
