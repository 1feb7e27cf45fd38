//! As `bpf_differential`, for everything that the engine knows: both families, every way to a backend, questions,
//! errors, fragments, lists, limits, QUIC, sampling. Each packet comes from a client of its own, so that no limit's clock
//! has a say; what goes well comes out right to the last checksum.

use std::thread::sleep;
use std::time::Duration;

use lb_common::abi::{BackendId, Reason, ServiceEntry, SlotState};
use lb_tests::bpf::{Action, Bench};
use lb_tests::everything::{LIMITS, SIZE, arps, client, desired, limits, others, packets, pings};
use lb_tests::frames::Build;
use lb_tests::mutate::{Random, mutated};
use lb_tests::oracle::layers;
use lb_userspace::reconcile::Step;

/// Mutations of each well-formed packet, per state of the rings.
const MUTATIONS: usize = 12;
/// Packets that must have run, or the corpus has dried up.
const ENOUGH: usize = 100_000;
/// Clients that take turns.
const CLIENTS: u16 = 3000;
/// Between two echo requests, of which a thousand a second are answered.
const BETWEEN_PINGS: Duration = Duration::from_millis(2);

/// A run through kernel and host.
struct Run {
    random: Random,
    client: u16,
    ran: usize,
}

impl Run {
    /// The frame as the next client sends it, and mutations of it.
    fn send(&mut self, bench: &mut Bench, packet: &Build, pause: Duration) {
        for mutation in 0..MUTATIONS {
            self.client = (self.client + 1) % CLIENTS;
            let mut packet = packet.clone();
            packet.from.0 = client(packet.from.0.is_ipv6(), self.client);
            self.frame(bench, &packet.bytes(), mutation, pause);
        }
    }

    /// A frame, or a mutation of it, twice: the second meets what the first has left.
    fn frame(&mut self, bench: &mut Bench, frame: &[u8], mutation: usize, pause: Duration) {
        let input = if mutation == 0 { frame.to_vec() } else { mutated(frame, &mut self.random) };
        for _ in 0..2 {
            sleep(pause);
            let (action, output) = bench.both(&input);
            self.ran += 1;
            if mutation == 0 && matches!(action, Action::Transmit | Action::Redirect) {
                layers(&output);
            }
        }
    }

    /// All packets of the scene.
    fn all(&mut self, bench: &mut Bench, state: &str) {
        for service in desired().services {
            for packet in packets(&service.id, service.quic.is_some()) {
                self.send(bench, &packet, Duration::ZERO);
            }
        }
        for packet in others() {
            self.send(bench, &packet, Duration::ZERO);
        }
        for packet in pings() {
            self.send(bench, &packet, BETWEEN_PINGS);
        }
        for frame in arps() {
            (0..MUTATIONS).for_each(|mutation| self.frame(bench, &frame, mutation, Duration::ZERO));
        }
        assert_eq!(bench.kernel_counts(), bench.host_counts(), "{state}: counters");
        assert_eq!(bench.kernel_flows(), bench.host_flows(), "{state}: recorded flows");
        println!("{state}: {} packets so far", self.ran);
    }
}

/// Limits that no clock reaches, in place of those that a config can ask for.
fn limit(bench: &mut Bench) {
    let limited: Vec<u32> = bench.observed().rates.keys().copied().collect();
    assert_eq!(limited.len(), 2 * LIMITS.len());
    let step = |(n, id): (usize, u32)| Step::PutRates(id, limits(n % LIMITS.len()));
    bench.execute(limited.into_iter().enumerate().map(step).collect());
}

/// Every unsettled slot is late.
fn age(bench: &mut Bench) {
    let observed = bench.observed();
    let entries = observed.entries();
    let steps = observed.rings.iter().map(|(id, slots)| {
        let late = |slot: &lb_common::abi::Slot| (slot.state() == SlotState::Fresh).then_some(slot.late());
        Step::WriteSlots { start: entries[id].ring_start, words: slots.iter().map(late).collect() }
    });
    let steps = steps.collect();
    bench.execute(steps);
}

#[test]
fn kernel_and_host_agree_about_everything() {
    let mut bench = Bench::sized(&desired(), SIZE);
    limit(&mut bench);
    let mut run = Run { random: Random::new(11), client: 0, ran: 0 };
    run.all(&mut bench, "settled");
    let observed = bench.observed();
    let all_recorded = |service: u32| observed.entries()[&service].flags & ServiceEntry::TRACKED != 0;
    let untracked =
        bench.kernel_flows().into_values().filter(|(service, ..)| !all_recorded(*service)).count();
    assert_eq!(untracked, 0, "settled rings record nothing, unless a service wants it");

    let mut reweighted = desired();
    for service in &mut reweighted.services {
        if let [first, second, ..] = service.backends.as_mut_slice() {
            (first.weight, second.weight) = (5, 0);
        }
    }
    bench.apply(&reweighted);
    limit(&mut bench);
    run.all(&mut bench, "fresh");
    assert!(bench.kernel_flows().len() > 100, "unsettled rings record flows");

    // A backend of every service with several dies; packets are sampled meanwhile.
    let mut dead = Vec::new();
    for service in bench.observed().entries().keys() {
        let mut ids = bench.observed().backends.iter().filter(|(_, entry)| entry.service == *service);
        if let (Some((first, _)), Some(_)) = (ids.next(), ids.next()) {
            dead.push(Step::RetireBackend(BackendId::new(*first).expect("ids are valid")));
        }
    }
    bench.execute(dead);
    age(&mut bench);
    let _sampling = bench.sample();
    run.all(&mut bench, "late, backends down, sampled");
    everything_was_met(&bench);
    println!("{} packets through kernel and host: verdicts, bytes, counters and flows are the same", run.ran);
    assert!(run.ran >= ENOUGH, "{}", run.ran);
}

/// Every reason but those that no packet from the network can have here.
fn everything_was_met(bench: &Bench) {
    use Reason::{
        EchoLimited, FlowNotRecorded, NoEgress, NoHeadroom, NoStage, ProbeReply, ProbeSent, StrayProbe,
    };
    let others =
        [EchoLimited, FlowNotRecorded, NoEgress, NoHeadroom, NoStage, ProbeReply, ProbeSent, StrayProbe];
    let counts = bench.kernel_counts();
    let met = |reason: &Reason| {
        let kind = if reason.is_note() { "note" } else { "drop" };
        let of_service = format!(" {kind} {}", reason.name());
        counts.keys().any(|name| name == reason.name() || name.ends_with(&of_service))
    };
    let missed: Vec<&str> =
        Reason::ALL.iter().filter(|reason| !met(reason)).map(|reason| reason.name()).collect();
    let expected: Vec<&str> =
        Reason::ALL.iter().filter(|reason| others.contains(reason)).map(|reason| reason.name()).collect();
    assert_eq!(missed, expected, "{counts:#?}");
}

#[test]
fn answers_are_limited_in_the_kernel_too() {
    let mut bench = Bench::sized(&desired(), SIZE);
    let pings: Vec<Vec<u8>> = pings().iter().map(Build::bytes).collect();
    let answered = (0..400).filter(|_| bench.kernel(&pings[0]).0 == Action::Transmit).count();
    assert!((100..400).contains(&answered), "{answered} of 400 echo requests at once");
    let services = desired().services;
    let big = packets(&services[0].id, false).into_iter().map(|packet| packet.ip_len(1501).bytes());
    let big: Vec<Vec<u8>> = big.take(1).collect();
    let told = (0..400).filter(|_| bench.kernel(&big[0]).0 == Action::Transmit).count();
    assert!((10..200).contains(&told), "{told} of 400 packets that are too big were answered");
}
