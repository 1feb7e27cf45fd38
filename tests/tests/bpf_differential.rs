//! The gate of every change of the data plane: well-formed packets and thousands of mutations of them through the
//! program in the kernel and through the engine on the host, identical in verdict, bytes, counters and recorded flows.

use std::net::Ipv4Addr;

use lb_common::abi::{BackendId, Protocol, Slot, SlotState, mapped};
use lb_tests::bpf::Bench;
use lb_tests::mutate::{Random, mutated};
use lb_tests::packets::*;
use lb_tests::scene::*;
use lb_userspace::model::Prefix;
use lb_userspace::reconcile::Step;

/// Mutations of each well-formed packet, per state of the rings.
const MUTATIONS: usize = 100;
/// Packets that must have run, or the corpus has dried up.
const ENOUGH: usize = 5_000;

/// Well-formed packets of every kind the engine tells apart.
fn corpus() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for port in [MIXED, L2, IPIP, IPIP_PREFIX, L2_FAR, IPIP_FAR, UNRESOLVED, EMPTY, 9] {
        for (n, segment) in [Segment::Syn, Segment::Ack, Segment::Fin, Segment::Rst].into_iter().enumerate() {
            let flow = Flow::nth(n as u32 * 31, (VIP, port));
            frames.push(
                Packet::tcp(INBOUND, flow, segment).tos(n as u8).payload(n * 11).padded(SHORTEST).bytes(),
            );
        }
    }
    // Flows enough to meet slots in every state.
    for n in 0..24 {
        let segment = if n % 2 == 0 { Segment::Syn } else { Segment::Ack };
        frames.push(Packet::tcp(INBOUND, Flow::nth(1000 + n, (VIP, MIXED)), segment).payload(5).bytes());
        frames.push(Packet::udp(INBOUND, Flow::nth(1000 + n, (VIP, DNS_MIXED))).payload(5).bytes());
    }
    for port in [DNS, DNS_IPIP, 9] {
        frames.push(udp(port).payload(33).bytes());
        frames.push(udp(port).options(12).payload(1).bytes());
        frames.push(udp(port).fragment(0, true).payload(64).bytes());
    }
    for options in [4, 20, 40] {
        frames.push(tcp(IPIP, Segment::Ack).options(options).payload(options).bytes());
        frames.push(tcp(L2_FAR, Segment::Ack).options(options).bytes());
    }
    let to = |address, port| Flow::nth(7, (address, port));
    frames.push(Packet::tcp(INBOUND, to(STRANGER, 80), Segment::Syn).bytes());
    frames.push(Packet::tcp(INBOUND, to(QUIET_VIP, QUIET), Segment::Syn).bytes());
    frames.push(Packet::udp(INBOUND, to(QUIET_VIP, 9)).bytes());
    frames.push(Packet::raw(INBOUND, to(VIP, 0), 1).payload(64).bytes());
    frames.push(tunnelled(&tcp(L2, Segment::Ack).bytes(), INBOUND, NODE, VIP));
    frames.push(tcp(L2, Segment::Ack).to_mac(FAR).bytes());
    frames.push(ethernet(INBOUND, 0x86dd, &[0x60; 60]));
    frames.push(ethernet(INBOUND, 0x8100, &tcp(L2, Segment::Ack).bytes()[12..]));
    let broadcast = (CLIENT, [0xff; 6]);
    for target in [VIP, QUIET_VIP, STRANGER] {
        for request in [true, false] {
            frames.push(arp(broadcast, request, (CLIENT, Ipv4Addr::new(203, 0, 113, 5)), ([0; 6], target)));
        }
    }
    frames
}

/// Packets about as long as the ways to the backends take.
fn long() -> Vec<Packet> {
    let lengths = [
        NEAR_MTU - 21,
        NEAR_MTU - 20,
        NEAR_MTU - 19,
        NEAR_MTU,
        NEAR_MTU + 1,
        3505,
        3506,
        FAR_MTU - 20,
        FAR_MTU,
    ];
    let both = |len| [L2, IPIP_FAR].map(|port| tcp(port, Segment::Ack).ip_len(len));
    lengths.into_iter().flat_map(both).collect()
}

/// A run through kernel and host.
struct Run {
    random: Random,
    client: u32,
    ran: usize,
}

impl Run {
    /// Sends all packets, and compares everything.
    fn all(&mut self, bench: &mut Bench, state: &str) {
        for frame in corpus() {
            self.send(bench, |_| frame.clone());
        }
        // Each from a client of its own, so that the clock of the limit of messages to one has no say.
        for packet in long() {
            self.send(bench, |client| packet.clone().client(Ipv4Addr::from(0xc612_0000 + client)).bytes());
        }
        assert_eq!(bench.kernel_flows(), bench.host_flows(), "{state}: recorded flows");
        assert_eq!(bench.kernel_counts(), bench.host_counts(), "{state}: counters");
    }

    /// A frame and mutations of it, each twice: the second meets what the first recorded.
    fn send(&mut self, bench: &mut Bench, frame: impl Fn(u32) -> Vec<u8>) {
        for mutation in 0..MUTATIONS {
            self.client += 1;
            let frame = frame(self.client);
            let input = if mutation == 0 { frame } else { mutated(&frame, &mut self.random) };
            for _ in 0..2 {
                bench.both(&input);
                self.ran += 1;
            }
        }
    }
}

/// Every fresh slot of a service becomes late, as the daemon will have it an idle time after a change.
fn age(bench: &mut Bench) {
    let observed = bench.observed();
    let entries = observed.entries();
    let mut steps = Vec::new();
    for (id, slots) in &observed.rings {
        let late = |slot: &Slot| (slot.state() == SlotState::Fresh).then_some(slot.late());
        let words: Vec<Option<Slot>> = slots.iter().map(late).collect();
        steps.push(Step::WriteSlots { start: entries[id].ring_start, words });
    }
    bench.execute(steps);
}

/// A backend dies with flows on it and slots that name it.
fn kill(bench: &mut Bench, address: Ipv4Addr) {
    let dead =
        bench.observed().backends.iter().find(|(_, backend)| backend.address == mapped(address.octets()));
    let id = BackendId::new(*dead.expect("a backend of the scene").0).expect("ids are valid");
    bench.execute(vec![Step::RetireBackend(id)]);
}

#[test]
fn kernel_and_host_agree() {
    let mut bench = Bench::new(&desired());
    let mut run = Run { random: Random::new(1), client: 0, ran: 0 };
    run.all(&mut bench, "settled");
    assert!(bench.kernel_flows().is_empty(), "settled rings record nothing");

    let mut reweighted = desired_with(MIXED, mixed());
    for service in &mut reweighted.services {
        if let [first, second, ..] = service.backends.as_mut_slice() {
            (first.weight, second.weight) = (5, 0);
        }
    }
    bench.apply(&reweighted);
    run.all(&mut bench, "fresh");
    assert!(bench.kernel_flows().len() > 20, "unsettled rings record flows");

    kill(&mut bench, near(22));
    kill(&mut bench, near(53));
    run.all(&mut bench, "fresh, backends down");

    age(&mut bench);
    bench.apply(&desired_with(MIXED, mixed().split_off(2)));
    age(&mut bench);
    run.all(&mut bench, "late, backends removed");

    let mut without = desired();
    without.services.retain(|service| service.id.protocol == Protocol::Tcp);
    without.vips.remove(&Prefix::host(QUIET_VIP.into()));
    bench.apply(&without);
    bench.apply(&desired());
    run.all(&mut bench, "services removed and made anew");
    println!("{} packets through kernel and host: verdicts, bytes, counters and flows are the same", run.ran);
    assert!(run.ran >= ENOUGH);
}
