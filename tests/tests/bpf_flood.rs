//! Floods of spoofed segments do not disturb connections that are there: none moves, none is dropped. In the kernel,
//! with real tables, at their real size.

use std::collections::BTreeMap;

use lb_common::abi::{FlowKey, SlotState, mapped};
use lb_tests::bpf::{Action, Bench, SIZE};
use lb_tests::packets::*;
use lb_tests::scene::*;
use lb_userspace::dataplane::{Repeated, Stopwatch, Vary, possible_cpus};
use lb_userspace::reconcile::{Desired, DesiredBackend, FlowSizes, Size};

/// Spoofed segments of each kind. All sources differ.
const FLOOD: u32 = 10_000_000;
/// Without optimisation nothing but the set-up is slower: the packets are the kernel's work.
const CHUNK: u32 = 2_500_000;
/// Connections that are there.
const OPEN: u32 = 300;
/// The flood's first source: far from the clients', which begin at 198.51.100.1.
const SPOOFED: u32 = 0xc612_0001;
/// Flows that a table holds: the default of `limits`, and far fewer than the flood's.
const FLOWS: u32 = 20_480;

/// Sources that take turns in a flood that sends everything twice: they fit the tables, so the second packet is known.
const REPEATING: u32 = 10_000;

/// Frames of the flood end here without padding.
const SOURCE_ADDRESS: u16 = ETHERNET as u16 + 12;
const SOURCE_PORT: u16 = ETHERNET as u16 + 20;

fn open(n: u32, segment: Segment) -> Vec<u8> {
    Packet::tcp(INBOUND, Flow::nth(n, (VIP, L2)), segment).bytes()
}

/// Three backends, and a fourth where `grown`.
fn scene(fourth: u32) -> Desired {
    let with = |(number, weight)| DesiredBackend { weight, ..backend(1, number, None) };
    let list = [(61, 1), (62, 1), (63, 1), (64, fourth)];
    desired_with(L2, list.into_iter().filter(|(_, weight)| *weight > 0).map(with).collect())
}

/// Number of the backend a packet goes to; `None` if it is dropped.
fn goes_to(bench: &mut Bench, frame: &[u8]) -> Option<u8> {
    let (action, output) = bench.kernel(frame);
    (action == Action::Transmit).then(|| output[5])
}

/// Ten million of one kind, each source's packet `times` times.
fn flood(bench: &mut Bench, stopwatch: &mut Stopwatch, kind: Segment, times: u32) {
    let (flows, chunk) = if times == 1 { (FLOOD, CHUNK) } else { (REPEATING, REPEATING * times) };
    let before: u64 = forwarded(bench);
    for first in (0..FLOOD).step_by(chunk as usize) {
        // The sources of a flood that repeats begin at another address each time.
        let address = if times == 1 { SPOOFED } else { SPOOFED + first / chunk };
        let from = Flow { from: (address.into(), 1024), to: (VIP, L2) };
        let frame = Packet::tcp(INBOUND, from, kind).padded(64).bytes();
        let vary = Vary {
            flows,
            address_at: SOURCE_ADDRESS,
            first_address: address,
            port_at: SOURCE_PORT,
            ..Vary::default()
        };
        let iterations = chunk - 1;
        let repeated = Repeated { frame: &frame, restore: ETHERNET, vary, first, warm_up: 0, iterations };
        let outcome = stopwatch.run(&repeated).expect("the kernel runs the wrapper");
        assert_eq!(outcome.iterations, chunk);
        assert_eq!(Action::from_raw(outcome.action), Action::Transmit);
    }
    assert_eq!(forwarded(bench) - before, u64::from(FLOOD), "{kind:?}: every packet did its work");
}

fn forwarded(bench: &Bench) -> u64 {
    bench.kernel_counts().iter().filter(|(name, _)| name.ends_with("packets")).map(|(_, n)| n).sum()
}

/// Connections that are elsewhere than `owners` says after a flood of each kind.
fn disturbed(bench: &mut Bench, owners: &BTreeMap<u32, u8>, times: u32) -> Vec<String> {
    let mut stopwatch = Stopwatch::balancer(bench.program()).expect("the wrapper loads");
    let mut disturbed = Vec::new();
    for kind in [Segment::Syn, Segment::Ack, Segment::SynAck] {
        flood(bench, &mut stopwatch, kind, times);
        let now = owners.iter().map(|(n, owner)| (Some(*owner), goes_to(bench, &open(*n, Segment::Ack))));
        let (mut moved, mut dropped) = (0, 0);
        for (owner, now) in now {
            moved += u32::from(now.is_some() && now != owner);
            dropped += u32::from(now.is_none());
        }
        println!(
            "{FLOOD} × {kind:?}, {times} from a source: of {} connections {moved} moved, {dropped} dropped",
            owners.len()
        );
        if moved + dropped > 0 {
            disturbed.push(format!("{kind:?}: {moved} moved, {dropped} dropped"));
        }
    }
    disturbed
}

fn bench(desired: &Desired) -> Bench {
    // The kernel divides a table among all CPUs, and this test is on one of them.
    let flows = FLOWS * possible_cpus() as u32;
    let tables = FlowSizes { half_open: flows / 2, established: flows, old: flows };
    Bench::sized(desired, Size { tcp_flows: tables, ..SIZE })
}

#[test]
fn a_flood_leaves_settled_slots_alone() {
    let mut bench = bench(&scene(0));
    let owners: BTreeMap<u32, u8> =
        (0..OPEN).map(|n| (n, goes_to(&mut bench, &open(n, Segment::Syn)).expect("a backend"))).collect();
    assert_eq!(disturbed(&mut bench, &owners, 1), Vec::<String>::new());
    assert!(bench.kernel_flows().is_empty(), "settled slots record nothing");
}

/// The ring changes; then there are connections that are older than the change, and recorded on the previous owner,
/// and connections that began after it, recorded on the current one.
fn recorded() -> (Bench, BTreeMap<u32, u8>) {
    let mut bench = bench(&scene(0));
    let mut owners: BTreeMap<u32, u8> =
        (0..OPEN).map(|n| (n, goes_to(&mut bench, &open(n, Segment::Syn)).expect("a backend"))).collect();
    bench.apply(&scene(3));
    for n in OPEN..2 * OPEN {
        owners.insert(n, goes_to(&mut bench, &open(n, Segment::Syn)).expect("a backend"));
    }
    // Each has its packets, as open connections do.
    for _ in 0..2 {
        for (n, owner) in &owners {
            assert_eq!(goes_to(&mut bench, &open(*n, Segment::Ack)), Some(*owner));
        }
    }
    let recorded = bench.kernel_flows().len();
    assert!(recorded > OPEN as usize / 2, "{recorded} recorded");
    let unsettled = bench.observed().rings.values().flatten().filter(|s| s.state() != SlotState::Settled);
    println!("{recorded} connections recorded, {} slots unsettled", unsettled.count());
    (bench, owners)
}

/// Records of clients, not of the flood's sources.
fn clients(bench: &Bench) -> usize {
    let vip = mapped(VIP.octets());
    let flows = bench.kernel_flows();
    println!("{} flows recorded in tables of {FLOWS}", flows.len());
    let is_client = |key: &FlowKey| key.destination == vip && key.source[12..15] == [198, 51, 100];
    flows.into_keys().filter(|(_, key)| is_client(key)).count()
}

#[test]
fn a_flood_does_not_disturb_recorded_connections_in_unsettled_slots() {
    let (mut bench, owners) = recorded();
    let before = clients(&bench);
    assert_eq!(disturbed(&mut bench, &owners, 1), Vec::<String>::new());
    assert_eq!(clients(&bench), before, "nobody's record was taken away for a spoofed one");
}

/// A record that has been looked up once is dearer to an LRU table than a new one: so the flood's are looked up too.
#[test]
fn a_flood_that_repeats_itself_does_not_disturb_them_either() {
    let (mut bench, owners) = recorded();
    assert_eq!(disturbed(&mut bench, &owners, 2), Vec::<String>::new());
}
