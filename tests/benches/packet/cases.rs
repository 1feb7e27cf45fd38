//! What is measured: every row of the table, as data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_tests::bpf::Action;
use lb_tests::frames::{Body, Build};
use lb_tests::packets::{Flow, Packet, Segment};
use lb_tests::scene::{INBOUND, L2, STRANGER};
use lb_userspace::model::Tracking;

use crate::stage::{self, FIRST_SERVICE, SERVER_ID, SERVICE_V6, Scene, TCP, UDP};

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

/// The same, on the balancer that has every way.
const EVERY: Case = Case { scene: Scene::EVERY_WAY, ..ONE };

const MANY: Scene = Scene { services: 10_000, ring: Some(101), ..Scene::ORDINARY };
const HUNDRED: Scene = Scene { services: 100, ..Scene::ORDINARY };
const THOUSAND_BACKENDS: Scene = Scene { backends: 1000, ring: None, ..Scene::ORDINARY };
const UNSETTLED: Scene = Scene { settled: false, ..Scene::ORDINARY };
const TRACKED: Scene = Scene { tracking: Tracking::Always, ..Scene::ORDINARY };

/// All rows, in the table's order.
pub const CASES: &[Case] = &[
    Case { name: "tcp established, ipip", aim: Some(1.9), ..ONE },
    Case { name: "tcp syn, ipip", frame: syn, aim: Some(1.9), ..ONE },
    Case { name: "udp, ipip", frame: udp, aim: Some(2.1), ..ONE },
    Case { name: "tcp established, l2", frame: l2, aim: Some(1.8), ..ONE },
    Case { name: "not a service, v4", frame: stranger, action: Action::Pass, aim: Some(1.4), ..ONE },
    Case { name: "not a service, v6", frame: stranger_v6, action: Action::Pass, aim: Some(1.4), ..EVERY },
    Case { name: "tcp, v6 in v6", frame: v6_in_v6, aim: Some(2.1), ..EVERY },
    Case { name: "tcp, v6 in v4", frame: v6_in_v4, aim: Some(2.1), ..EVERY },
    Case { name: "tcp, gre", frame: gre, aim: Some(2.1), ..EVERY },
    Case { name: "tcp, gue", frame: gue, aim: Some(2.4), ..EVERY },
    Case { name: "tcp, gue with its header", frame: gue_header, aim: Some(2.4), ..EVERY },
    Case { name: "quic, by server id", frame: quic, ..EVERY },
    Case { name: "tcp, one vlan tag", frame: tagged, ..EVERY },
    Case { name: "tcp, list of 1000 sources", frame: listed, ..EVERY },
    Case { name: "tcp, three rate limits", frame: limited, ..EVERY },
    // Of 10,000 addresses: fewer would soon be over the rate at which each of them answers.
    Case { name: "icmp echo, 10k addresses in turn", scene: MANY, frame: ping, services: 10_000, ..ONE },
    Case { name: "tcp, 1k flows", flows: 1_000, ..ONE },
    Case { name: "tcp, 10k flows", flows: 10_000, aim: Some(2.3), ..ONE },
    Case { name: "tcp, 100k flows", flows: 100_000, aim: Some(2.3), ..ONE },
    Case { name: "tcp, 1M flows", flows: 1_000_000, aim: Some(2.3), ..ONE },
    Case { name: "tcp syn, 1M flows", frame: syn, flows: 1_000_000, aim: Some(2.3), ..ONE },
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
    Case { name: "tcp, all flows tracked, 100k flows", scene: TRACKED, flows: 100_000, ..ONE },
    Case {
        name: "tcp syn, unsettled slots, 1M flows",
        scene: UNSETTLED,
        frame: syn,
        flows: 1_000_000,
        ..ONE
    },
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

const ACK: u8 = 16;
const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 200, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 9, 0, 0, 0, 7);

fn to(address: IpAddr, port: u16, body: Body) -> Build {
    let from = match address {
        IpAddr::V4(_) => CLIENT_V4.into(),
        IpAddr::V6(_) => CLIENT_V6.into(),
    };
    Build::new(INBOUND, (from, 40_000), (address, port), body).payload(16)
}

fn v4(port: u16) -> Vec<u8> {
    to(FIRST_SERVICE.into(), port, Body::Tcp(ACK)).bytes()
}

fn v6_in_v6() -> Vec<u8> {
    to(SERVICE_V6.into(), stage::SAME_FAMILY, Body::Tcp(ACK)).bytes()
}

fn v6_in_v4() -> Vec<u8> {
    to(SERVICE_V6.into(), stage::OTHER_FAMILY, Body::Tcp(ACK)).bytes()
}

fn stranger_v6() -> Vec<u8> {
    to(CLIENT_V6.into(), TCP, Body::Tcp(ACK)).bytes()
}

fn gre() -> Vec<u8> {
    v4(stage::GRE)
}

fn gue() -> Vec<u8> {
    v4(stage::GUE)
}

fn gue_header() -> Vec<u8> {
    v4(stage::GUE_HEADER)
}

fn listed() -> Vec<u8> {
    v4(stage::LISTED)
}

fn limited() -> Vec<u8> {
    v4(stage::LIMITED)
}

fn tagged() -> Vec<u8> {
    to(FIRST_SERVICE.into(), TCP, Body::Tcp(ACK)).tags(&[(0x8100, 100)]).bytes()
}

fn ping() -> Vec<u8> {
    to(FIRST_SERVICE.into(), TCP, Body::Icmp(8, 0, [0, 1, 0, 1])).bytes()
}

/// A short header whose connection ID names the server (configuration 0).
fn quic() -> Vec<u8> {
    let mut packet = to(FIRST_SERVICE.into(), stage::QUIC, Body::Udp);
    let id = [&[0x00], &SERVER_ID.to_be_bytes()[..], &[9; 3]].concat();
    packet.payload = [&[0x40], &id[..], &[7; 24]].concat();
    packet.bytes()
}
