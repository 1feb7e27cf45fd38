//! What is measured: every row of the table, as data.

use std::net::Ipv4Addr;

use lb_tests::bpf::Action;
use lb_tests::packets::{Flow, Packet, Segment};
use lb_tests::scene::{INBOUND, L2, STRANGER};

use crate::stage::{FIRST_SERVICE, Scene, TCP, UDP};

/// A row.
pub struct Case {
    /// Stable: a baseline is compared by it.
    pub name: &'static str,
    pub scene: Scene,
    /// The first flow's frame.
    pub frame: fn() -> Vec<u8>,
    /// Flows that take turns.
    pub flows: u32,
    /// Service addresses that take turns.
    pub services: u32,
    pub action: Action,
    /// The most it shall cost, in multiples of the encapsulating floor.
    pub aim: Option<f64>,
}

/// One packet of one flow to the first service of an ordinary balancer, sent on.
const ONE: Case = Case {
    name: "",
    scene: Scene::ORDINARY,
    frame: tcp,
    flows: 1,
    services: 1,
    action: Action::Transmit,
    aim: None,
};

const MANY: Scene = Scene { services: 10_000, ring: Some(101), ..Scene::ORDINARY };
const HUNDRED: Scene = Scene { services: 100, ..Scene::ORDINARY };
const THOUSAND_BACKENDS: Scene = Scene { backends: 1000, ring: None, ..Scene::ORDINARY };
const UNSETTLED: Scene = Scene { settled: false, ..Scene::ORDINARY };

/// All rows, in the table's order.
pub const CASES: &[Case] = &[
    Case { name: "tcp established, ipip", aim: Some(2.1), ..ONE },
    Case { name: "tcp syn, ipip", frame: syn, aim: Some(2.1), ..ONE },
    Case { name: "udp, ipip", frame: udp, aim: Some(2.1), ..ONE },
    Case { name: "tcp established, l2", frame: l2, aim: Some(1.8), ..ONE },
    Case { name: "not a service, v4", frame: stranger, action: Action::Pass, aim: Some(1.4), ..ONE },
    Case { name: "tcp, 1k flows", flows: 1_000, ..ONE },
    Case { name: "tcp, 10k flows", flows: 10_000, ..ONE },
    Case { name: "tcp, 100k flows", flows: 100_000, ..ONE },
    Case { name: "tcp, 1M flows", flows: 1_000_000, ..ONE },
    Case { name: "tcp, 1000 backends, 1 flow", scene: THOUSAND_BACKENDS, ..ONE },
    Case { name: "tcp, 1000 backends, 100k flows", scene: THOUSAND_BACKENDS, flows: 100_000, ..ONE },
    Case { name: "tcp, 100 services, one hot", scene: HUNDRED, ..ONE },
    Case { name: "tcp, 100 services in turn", scene: HUNDRED, services: 100, ..ONE },
    Case { name: "tcp, 10k services, one hot", scene: MANY, aim: Some(2.8), ..ONE },
    Case { name: "tcp, 10k services in turn", scene: MANY, services: 10_000, ..ONE },
    Case {
        name: "tcp, 10k services in turn, 100k flows",
        scene: MANY,
        services: 10_000,
        flows: 100_000,
        ..ONE
    },
    Case { name: "tcp, unsettled slot, 1 recorded flow", scene: UNSETTLED, ..ONE },
    Case { name: "tcp, unsettled slots, 100k recorded flows", scene: UNSETTLED, flows: 100_000, ..ONE },
];

fn flow(to: (Ipv4Addr, u16)) -> Flow {
    Flow::nth(0, to)
}

fn tcp() -> Vec<u8> {
    Packet::tcp(INBOUND, flow((FIRST_SERVICE, TCP)), Segment::Ack).bytes()
}

fn syn() -> Vec<u8> {
    Packet::tcp(INBOUND, flow((FIRST_SERVICE, TCP)), Segment::Syn).bytes()
}

fn udp() -> Vec<u8> {
    Packet::udp(INBOUND, flow((FIRST_SERVICE, UDP))).bytes()
}

fn l2() -> Vec<u8> {
    Packet::tcp(INBOUND, flow((FIRST_SERVICE, L2)), Segment::Ack).bytes()
}

fn stranger() -> Vec<u8> {
    Packet::tcp(INBOUND, flow((STRANGER, TCP)), Segment::Ack).bytes()
}
