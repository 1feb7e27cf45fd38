//! Plans from made-up machines.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::nic::cpus::Cpu;
use crate::nic::ethtool::{Channels, Feature, Rings, Rss};

fn machine(cpus: u32) -> Context {
    let cpus = (0..cpus).map(|id| Cpu { id, node: id / 4, thread: 0 }).collect();
    Context { cpus: Topology(cpus), native: true, attached: false }
}

fn nic(combined: u32, max: u32) -> Facts {
    let queues = |combined| Queues { rx: 0, tx: 0, combined };
    Facts {
        mtu: Some(1500),
        channels: Some(Channels { max: queues(max), now: queues(combined) }),
        rings: Some(Rings { max: RingSizes { rx: 4096, tx: 4096 }, now: RingSizes { rx: 256, tx: 256 } }),
        rss: Some(Rss { table: equal(128, combined), key_bytes: 40, input_xfrm: 0 }),
        rps: Some(vec![CpuSet::default(); combined as usize]),
        xps: Some(vec![CpuSet::default(); combined as usize]),
        ..Facts::default()
    }
}

fn auto_queues(facts: &Facts, context: &Context) -> Value {
    let settings = InterfaceSettings { queues: Some(QueueCount::Auto), ..InterfaceSettings::default() };
    Setting::Queues.wanted(&settings, facts, context).unwrap().remove(0)
}

fn combined(combined: u32) -> Value {
    Value::Queues(Queues { rx: 0, tx: 0, combined })
}

#[test]
fn nothing_is_planned_for_what_is_not_named() {
    let settings = InterfaceSettings { keep: true, ..InterfaceSettings::default() };
    assert!(settings.is_empty());
    for setting in Setting::ORDER {
        assert!(!setting.is_named(&settings));
        assert_eq!(setting.wanted(&settings, &Facts::default(), &machine(4)), Ok(Vec::new()), "{setting:?}");
    }
}

#[test]
fn nothing_is_changed_that_is_right_already() {
    let settings = InterfaceSettings { mtu: Some(1500), ..InterfaceSettings::default() };
    assert_eq!(Setting::Mtu.plan(&settings, &nic(4, 8), &machine(4)), Ok(Vec::new()));
    let settings = InterfaceSettings { mtu: Some(9000), ..InterfaceSettings::default() };
    let planned = Setting::Mtu.plan(&settings, &nic(4, 8), &machine(4)).unwrap();
    assert_eq!(planned, [Change { before: Value::Mtu(1500), after: Value::Mtu(9000) }]);
}

#[test]
fn queues_are_as_many_as_near_cpus_and_leave_room_for_xdp() {
    assert_eq!(auto_queues(&nic(1, 16), &machine(4)), combined(4));
    assert_eq!(auto_queues(&nic(1, 3), &machine(4)), combined(3));
    let near = Facts { numa_node: Some(1), ..nic(1, 16) };
    assert_eq!(auto_queues(&near, &machine(6)), combined(2), "CPUs 4 and 5 are near");
    let ena = Facts { driver: Some("ena".to_owned()), ..nic(8, 8) };
    assert_eq!(auto_queues(&ena, &machine(8)), combined(4));
    assert_eq!(auto_queues(&ena, &Context { native: false, ..machine(8) }), combined(8));
    let virtio = Facts { driver: Some("virtio_net".to_owned()), ..nic(1, 6) };
    assert_eq!(auto_queues(&virtio, &machine(4)), combined(2));
    assert_eq!(
        auto_queues(&Facts { driver: Some("virtio_net".to_owned()), ..nic(1, 4) }, &machine(4)),
        combined(4)
    );
    let queues = |rx| Queues { rx, tx: rx, combined: 0 };
    let veth = Facts { channels: Some(Channels { max: queues(8), now: queues(1) }), ..Facts::default() };
    assert_eq!(auto_queues(&veth, &machine(4)), Value::Queues(queues(4)));
}

#[test]
fn what_a_driver_does_not_tell_cannot_be_set() {
    let settings = InterfaceSettings {
        queues: Some(QueueCount::Exactly(2)),
        rss: Some(Spread::Equal),
        udp_hash: Some(UdpHash::Ports),
        symmetric: Some(Toggle::On),
        rings: Some(crate::model::RingSizes { rx: Some(512), tx: None }),
        coalesce: Some(Waiting::Adaptive),
        irq_affinity: Some(Steering::Auto),
        offloads: Some(Steering::Auto),
        ..InterfaceSettings::default()
    };
    for setting in Setting::ORDER.into_iter().filter(|setting| setting.is_named(&settings)) {
        assert!(setting.wanted(&settings, &Facts::default(), &machine(2)).is_err(), "{setting:?}");
    }
    let rings = Setting::Rings.wanted(&settings, &nic(1, 1), &machine(2)).unwrap();
    assert_eq!(rings, [Value::Rings(RingSizes { rx: 512, tx: 256 })], "what is not named stays");
}

#[test]
fn harmful_offloads_go_off_by_mode_and_only_where_they_can_be_on() {
    let feature = |on, fixed| Feature { on, fixed };
    let features = BTreeMap::from([
        ("rx-lro".to_owned(), feature(true, false)),
        ("rx-gro-hw".to_owned(), feature(false, true)),
        ("rx-vlan-hw-parse".to_owned(), feature(true, true)),
        ("tx-checksum-ip-generic".to_owned(), feature(true, false)),
    ]);
    let facts = Facts { features: Some(features), ..Facts::default() };
    let settings = InterfaceSettings { offloads: Some(Steering::Auto), ..InterfaceSettings::default() };
    let parts = |context: &Context| -> Vec<String> {
        let wanted = Setting::Offloads.wanted(&settings, &facts, context).unwrap();
        wanted.iter().map(Value::part).collect()
    };
    assert_eq!(parts(&machine(2)), ["offloads rx-lro", "offloads rx-vlan-hw-parse"]);
    assert_eq!(parts(&Context { native: false, ..machine(2) }), ["offloads rx-lro"]);
}

#[test]
fn cpus_share_queues_and_enough_queues_need_no_packet_steering() {
    let settings = InterfaceSettings {
        rps: Some(Steering::Auto),
        xps: Some(Steering::Auto),
        ..InterfaceSettings::default()
    };
    let said = |setting: Setting, facts: &Facts, cpus| -> Vec<String> {
        let wanted = setting.wanted(&settings, facts, &machine(cpus)).unwrap();
        wanted.iter().map(|value| format!("{}: {value}", value.part())).collect()
    };
    assert_eq!(said(Setting::Rps, &nic(2, 2), 4), ["rps rx-0: CPUs 0,2", "rps rx-1: CPUs 1,3"]);
    assert_eq!(said(Setting::Rps, &nic(1, 1), 4), ["rps rx-0: CPUs 0-3"]);
    assert_eq!(said(Setting::Rps, &nic(2, 2), 2), ["rps rx-0: CPUs none", "rps rx-1: CPUs none"]);
    assert_eq!(said(Setting::Xps, &nic(2, 2), 2), ["xps tx-0: CPUs 0", "xps tx-1: CPUs 1"]);
    assert_eq!(said(Setting::Xps, &nic(4, 4), 2).len(), 4);
    assert!(Setting::Xps.wanted(&settings, &nic(1, 1), &machine(2)).is_err());
}

#[test]
fn interrupts_of_queues_get_a_cpu_each() {
    let names = [
        "virtio0-config",
        "virtio0-input.0",
        "virtio0-output.0",
        "virtio0-input.1",
        "mlx5_comp2@pci:0000:01:00.0",
    ];
    let irq = |(number, name): (u32, &str)| Irq { number, name: name.to_owned(), cpus: CpuSet::default() };
    let irqs: Vec<Irq> = (30..).zip(names).map(irq).collect();
    let placed: Vec<String> =
        affinity(&irqs, &[0, 1]).iter().map(|value| format!("{} {value}", value.part())).collect();
    let wanted = ["31 CPUs 0", "32 CPUs 0", "33 CPUs 1", "34 CPUs 0"];
    assert_eq!(placed, wanted.map(|rest| format!("irq_affinity {rest}")));
    assert_eq!(queue_of("mlx5_async0@pci:0000:01:00.0"), None);
    assert_eq!(queue_of("i40e-eth0-TxRx-11"), Some(11));
}

proptest! {
    #[test]
    fn tables_follow_their_weights(
        slots in 1_usize..512,
        weights in prop::collection::vec(0_u32..100, 1..16).prop_filter("some weight", |all| all.iter().any(|w| *w > 0)),
    ) {
        let table = weighted(slots, &weights);
        prop_assert_eq!(table.len(), slots);
        let sum: u32 = weights.iter().sum();
        for (queue, weight) in (0..).zip(&weights) {
            let got = table.iter().filter(|slot| **slot == queue).count() as f64;
            let due = slots as f64 * f64::from(*weight) / f64::from(sum);
            prop_assert!((got - due).abs() <= 1.0, "queue {}: {} of {}", queue, got, due);
        }
    }

    #[test]
    fn planning_what_is_wanted_again_gives_nothing(queues in 1_u32..32, cpus in 1_u32..32, mtu in 1280_u32..9000) {
        let settings = InterfaceSettings {
            mtu: Some(mtu),
            rss: Some(Spread::Equal),
            rps: Some(Steering::Auto),
            ..InterfaceSettings::default()
        };
        let mut facts = nic(queues, 32);
        let context = machine(cpus);
        facts.mtu = Some(mtu);
        facts.rss.as_mut().unwrap().table = equal(128, queues);
        let masks = Setting::Rps.wanted(&settings, &facts, &context).unwrap();
        facts.rps = Some(masks.into_iter().filter_map(|value| match value {
            Value::Rps { cpus, .. } => Some(cpus),
            _ => None,
        }).collect());
        for setting in [Setting::Mtu, Setting::Rss, Setting::Rps] {
            prop_assert_eq!(setting.plan(&settings, &facts, &context), Ok(Vec::new()));
        }
    }

    #[test]
    fn every_cpu_sends_through_exactly_one_queue(queues in 2_u32..32, cpus in 1_u32..64) {
        let cpus: Vec<u32> = (0..cpus).collect();
        let shares = steer(Steering::Auto, queues as usize, &cpus, |queue, cpus| Value::Xps { queue, cpus });
        let mut all: Vec<u32> = shares.iter().flat_map(|value| match value {
            Value::Xps { cpus, .. } => cpus.0.iter().copied().collect(),
            _ => Vec::new(),
        }).collect();
        all.sort_unstable();
        all.dedup();
        prop_assert_eq!(all, cpus);
    }
}
