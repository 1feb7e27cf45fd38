//! Time per packet through the program in the kernel (`BPF_PROG_TEST_RUN`), through the engine on the host, and time
//! to build a ring. Nanoseconds depend on the machine; the ratios to the floor, a packet that is no service's, should
//! not. Run with `cargo bench -p lb-tests --bench datapath`.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lb_common::abi::Protocol;
use lb_tests::bpf::{Action, Bench};
use lb_tests::packets::*;
use lb_tests::scene::*;
use lb_userspace::model::ServiceId;
use lb_userspace::model::ring::{self, Member, Seed};
use lb_userspace::reconcile::{Desired, DesiredBackend, DesiredHop};

/// Runs per measurement.
const REPEAT: u32 = 1_000_000;
/// Measurements per row, the fastest of which counts: everything else is somebody else's work on the machine.
const ROUNDS: usize = 7;
/// Single runs, and runs per measurement on the host.
const SINGLE: u32 = 20_000;
/// What building the largest common ring may take.
const RING_LIMIT: Duration = Duration::from_millis(10);

fn main() {
    let mut bench = Bench::new(&scene(1));
    println!("{:<58} {:>9} {:>7}", "kernel, per packet", "ns", "× floor");
    let floor_frame = Packet::tcp(INBOUND, Flow::nth(7, (STRANGER, 80)), Segment::Ack).bytes();
    let floor = repeated(&mut bench, &floor_frame, Action::Pass);
    let row = |what: &str, ns: f64| println!("{what:<58} {ns:>9.1} {:>7.2}", ns / floor);
    row("floor: TCP for no service, passed", floor);

    let frame = tcp(L2, Segment::Ack).bytes();
    row("L2, settled slot", repeated(&mut bench, &frame, Action::Transmit));
    bench.apply(&scene(2));
    let unsettled = flow_in_moved_slot(&mut bench);
    row("L2, unsettled slot, recorded flow", repeated(&mut bench, &unsettled, Action::Transmit));

    // A tunnel's packet grows with every run: it is measured one by one, and so are those it is compared with.
    let ipip = tcp(IPIP, Segment::Ack).bytes();
    let single_floor = single(&mut bench, &floor_frame);
    println!(
        "\n{:<58} {:>9} {:>7}",
        "kernel, median of single runs (clock, cold caches included)", "ns", "- floor"
    );
    for (what, frame) in
        [("floor", &floor_frame), ("L2, settled slot", &frame), ("IPIP, settled slot", &ipip)]
    {
        let ns = single(&mut bench, frame);
        println!("{what:<58} {ns:>9.1} {:>7.1}", ns - single_floor);
    }

    println!("\n{:<58} {:>9}", "host engine, per packet (tables are B-trees)", "ns");
    for (what, frame) in
        [("floor", &floor_frame), ("L2, settled slot", &frame), ("IPIP, settled slot", &ipip)]
    {
        println!("{what:<58} {:>9.1}", on_host(&mut bench, frame));
    }
    rings();
}

/// Rewriting must be idempotent, because the kernel does not restore the packet between runs: the backends of [`L2`]
/// have the balancer's own MAC address.
fn scene(weight: u32) -> Desired {
    let mut desired = desired();
    let service =
        desired.services.iter_mut().find(|service| service.id.port == L2).expect("a service of the scene");
    let with = |number: u8, weight: u32| {
        let plain = backend(1, number, None);
        DesiredBackend {
            weight,
            next_hop: plain.next_hop.map(|hop| DesiredHop { mac: NEAR, ..hop }),
            ..plain
        }
    };
    service.backends = vec![with(41, 1), with(42, weight)];
    desired
}

/// A packet whose flow the change of weights has had recorded.
fn flow_in_moved_slot(bench: &mut Bench) -> Vec<u8> {
    let frames = (0..1000).map(|n| Packet::tcp(INBOUND, Flow::nth(n, (VIP, L2)), Segment::Ack).bytes());
    for frame in frames {
        bench.kernel(&frame);
        if !bench.kernel_flows().is_empty() {
            return frame;
        }
    }
    panic!("no slot has moved")
}

fn fastest(measure: impl FnMut() -> f64) -> f64 {
    std::iter::repeat_with(measure).take(ROUNDS).fold(f64::INFINITY, f64::min)
}

fn repeated(bench: &mut Bench, frame: &[u8], expected: Action) -> f64 {
    fastest(|| {
        let (action, mean) = bench.program().time(frame, REPEAT).expect("the kernel runs the program");
        assert_eq!(Action::from_raw(action), expected);
        mean.as_nanos() as f64
    })
}

fn per_run(runs: u32, mut run: impl FnMut()) -> f64 {
    fastest(|| {
        let start = Instant::now();
        (0..runs).for_each(|_| run());
        start.elapsed().as_nanos() as f64 / f64::from(runs)
    })
}

fn single(bench: &mut Bench, frame: &[u8]) -> f64 {
    let mut run = || bench.program().time(frame, 1).expect("the kernel runs the program").1.as_nanos();
    let mut times: Vec<u128> = (0..SINGLE).map(|_| run()).collect();
    times.sort_unstable();
    times[times.len() / 2] as f64
}

fn on_host(bench: &mut Bench, frame: &[u8]) -> f64 {
    per_run(SINGLE, || {
        black_box(bench.host(black_box(frame)));
    })
}

fn rings() {
    println!("\n{:<58} {:>9}", "ring of 65,537 slots", "ms");
    let service = ServiceId::single(VIP, Protocol::Tcp, 80);
    let seed = Seed { service, key: [7; 16] };
    for backends in [10u32, 100, 1000] {
        let member = |n| Member { address: Ipv4Addr::from(0xc612_0000 + n).into(), weight: 1 };
        let members: Vec<Member> = (0..backends).map(member).collect();
        let ns = per_run(5, || {
            black_box(ring::build(&seed, black_box(&members), 65_537));
        });
        println!("{:<58} {:>9.2}", format!("{backends} backends"), ns / 1e6);
        assert!(ns < RING_LIMIT.as_nanos() as f64, "{backends} backends: over {RING_LIMIT:?}");
    }
}
