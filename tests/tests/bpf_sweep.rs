//! Sweeps of flow tables in the kernel: in batches, complete, and deleting nothing that lives.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Instant;

use aya::maps::{HashMap, Map, MapData};
use lb_common::abi::names::AFFINITY;
use lb_common::abi::{AffinityEntry, AffinityKey, BackendState, FlowEntry, FlowKey, FlowTable, mapped};
use lb_tests::bpf::TestPins;
use lb_userspace::dataplane::{Brought, DataPlane, FlowReader, KernelPlane, Resize, monotonic_ns};
use lb_userspace::model::{Admission, FlowRules, Protocol, ServiceId};
use lb_userspace::reconcile::{
    Desired, DesiredBackend, DesiredPort, DesiredService, FlowSizes, History, Memo, Size, Step, Sweep, plan,
};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

const SERVICE: [u8; 4] = [203, 0, 113, 10];
const BACKEND: u32 = 1;

fn size(established: u32) -> Size {
    let few = FlowSizes { half_open: 1024, established: 1024, old: 1024 };
    Size {
        services: 4,
        keys: 16,
        vips: 4,
        ring_slots: 8192,
        backends: 8,
        ports: 4,
        tcp_flows: FlowSizes { established, ..few },
        udp_flows: few,
        affinity: 1,
    }
}

/// One service with one backend that no packet gets to.
fn desired() -> Desired {
    let backend = DesiredBackend {
        address: IpAddr::from([198, 51, 100, 1]),
        weight: 1,
        state: BackendState::Up,
        tunnel: None,
        next_hop: None,
        server_id: None,
    };
    let service = DesiredService {
        id: ServiceId::single(SERVICE, Protocol::Tcp, 80),
        ring_size: None,
        backends: vec![backend],
        quic: None,
        admission: Admission::default(),
        flows: FlowRules::of(Protocol::Tcp),
    };
    Desired { generation: 1, services: vec![service], ..Desired::default() }
}

fn plane(pins: &TestPins, size: &Size) -> KernelPlane {
    let lock = pins.lock().expect("nobody else has this directory");
    let mut plane = KernelPlane::open_or_create(pins, size).expect("maps");
    drop(lock);
    let empty = plane.observe().expect("a snapshot");
    let steps = plan(&empty, &desired(), &mut Memo::default(), &History::default()).expect("a plan");
    plane.run(&steps).expect("every step works");
    plane
}

fn key(n: u32) -> FlowKey {
    let [a, b, c, d] = n.to_be_bytes();
    FlowKey {
        source: mapped([198, 18, a, b]),
        destination: mapped(SERVICE),
        source_port: [c, d],
        destination_port: 80u16.to_be_bytes(),
        protocol: Protocol::Tcp.number(),
        reserved: [0; 3],
    }
}

/// Records flows, some thousands at a time.
fn fill(reader: &mut FlowReader, numbers: std::ops::Range<u32>, entry: impl Fn(u32) -> FlowEntry) {
    let numbers: Vec<u32> = numbers.collect();
    for chunk in numbers.chunks(1 << 14) {
        let keys: Vec<FlowKey> = chunk.iter().map(|n| key(*n)).collect();
        let entries: Vec<FlowEntry> = chunk.iter().map(|n| entry(*n)).collect();
        reader.record((FlowTable::Established, true), &keys, &entries).expect("batches of updates");
    }
}

/// Flows in all tables.
fn count(plane: &KernelPlane) -> u64 {
    plane.flow_use().expect("counting").iter().map(|table| table.entries as u64).sum()
}

#[test]
fn a_sweep_sees_every_flow_and_deletes_the_dead_ones() {
    const FLOWS: u32 = 20_000;
    let pins = TestPins::new();
    let mut plane = plane(&pins, &size(200_000));
    let mut reader = FlowReader::open(&pins).expect("the tables");
    // The machine may have been up for less than an idle time: so the clock is moved on, and the live ones with it.
    let mut observed = plane.observe().expect("a snapshot");
    let now = observed.now_ns;
    let later = now + 3600 * 1_000_000_000;
    observed.now_ns = later;
    let entry = |n: u32| {
        let last_seen_ns = if n.is_multiple_of(3) { now } else { later };
        FlowEntry { service: 0, backend: BACKEND, last_seen_ns, ..FlowEntry::default() }
    };
    fill(&mut reader, 0..FLOWS, entry);
    let number = |key: &FlowKey| {
        u32::from_be_bytes([key.source[14], key.source[15], key.source_port[0], key.source_port[1]])
    };
    let flows = plane.flows().expect("reading").expect("all of them");
    let numbers: BTreeSet<u32> = flows.iter().map(|flow| number(&flow.key)).collect();
    assert_eq!((flows.len(), numbers), (FLOWS as usize, (0..FLOWS).collect()));
    assert!(flows.iter().all(|flow| flow.entry == entry(number(&flow.key))));

    let live = u64::from(FLOWS - FLOWS.div_ceil(3));
    let mut sweep = Sweep::begin(&observed);
    assert!(reader.read(&mut sweep).expect("reading"));
    assert_eq!(count(&plane), live);
    let (_, census) = sweep.finish(&observed, &mut History::default());
    assert_eq!((census.entries(), census.flows.get(&BACKEND)), (live, Some(&live)));

    // What lives on between the look and the deletion stays.
    plane.execute(&Step::DeleteFlow(FlowTable::Established, key(1), now)).expect("a step");
    assert_eq!(count(&plane), live);
    plane.execute(&Step::DeleteFlow(FlowTable::Established, key(1), later)).expect("a step");
    assert_eq!(count(&plane), live - 1);
}

/// Each CPU fills a part of its own: more flows than one part holds are brought to the parts of all.
#[test]
fn maps_of_another_size_get_the_flows_of_all_cpus() {
    const EACH: u32 = 15_000;
    let pins = TestPins::new();
    let cpus = cpus();
    let all = EACH * cpus.len() as u32;
    // With room beside them: parts fill unevenly.
    let old = plane(&pins, &size(all / 2 * 3));
    let now = monotonic_ns();
    let entry = |_| FlowEntry { service: 0, backend: BACKEND, last_seen_ns: now, ..FlowEntry::default() };
    for (n, cpu) in (0..).zip(cpus.iter().copied()) {
        let mut reader = FlowReader::open(&pins).expect("the tables");
        thread::scope(|scope| {
            scope.spawn(|| {
                stay_on(cpu);
                fill(&mut reader, n * EACH..(n + 1) * EACH, entry);
            });
        });
    }
    assert_eq!(count(&old), u64::from(all));
    // A process that is kept on one CPU: of a part that it cannot fill nothing would be known.
    let brought = thread::scope(|scope| {
        let moving = scope.spawn(|| {
            stay_on(cpus[0]);
            moved(&pins, &size(all / 2 * 3 + 1024))
        });
        moving.join().expect("a move")
    });
    assert_eq!((brought.entries, brought.closed_cpus), ((all as usize, all as usize), 0));
    assert!(!brought.is_less(), "{brought}");
    let new = KernelPlane::open(&pins).expect("the other maps");
    assert_eq!(count(&new), u64::from(all));

    // What does not fit is lost, and told.
    let brought = moved(&pins, &size(all / 2));
    assert!(brought.is_less() && brought.smaller, "{brought}");
    let new = KernelPlane::open(&pins).expect("the smaller maps");
    assert_eq!(brought.entries, (all as usize, count(&new) as usize));
    assert!(brought.to_string().contains(&format!("of {all} recorded flows")), "{brought}");
}

/// As of a prober's namespace that went with its daemon.
#[test]
fn a_port_whose_interface_is_gone_stops_no_move() {
    let pins = TestPins::new();
    let mut old = plane(&pins, &size(1024));
    let gone = DesiredPort { ifindex: 0x7fff_0000, mtu: 1500, mac: [2; 6] };
    let observed = old.observe().expect("a snapshot");
    let with_port = Desired { ports: vec![gone], ..desired() };
    let steps = plan(&observed, &with_port, &mut Memo::default(), &History::default()).expect("a plan");
    old.run_without_devices(&steps).expect("every step works");
    moved(&pins, &size(2048));
    let new = KernelPlane::open(&pins).expect("the other maps");
    assert_eq!(new.glance().expect("a snapshot").ports, old.glance().expect("a snapshot").ports);
}

fn moved(pins: &TestPins, size: &Size) -> Brought {
    let mut resize = Resize::prepare(pins, size).expect("other maps");
    resize.switch().expect("nothing is attached");
    resize.finish().expect("the pins change places")
}

/// Before the programs change places the old tables are right, afterwards the new ones.
#[test]
fn flows_that_change_while_the_maps_move_are_brought_as_they_are() {
    let pins = TestPins::new();
    let large = |established| Size { affinity: 1024, ..size(established) };
    let _old = plane(&pins, &large(20_000));
    let mut reader = FlowReader::open(&pins).expect("the tables");
    let mut clients = clients(&pins);
    let client = |n: u8| AffinityKey { source: [n; 16], service: 0, reserved: 0 };
    let mut record = |numbers: std::ops::Range<u32>, backend: u32| {
        let last_seen_ns = monotonic_ns();
        for n in numbers.clone() {
            let entry = AffinityEntry { backend, reserved: 0, last_seen_ns };
            clients.insert(client(n as u8), entry, 0).expect("a client");
        }
        fill(&mut reader, numbers, |_| FlowEntry { backend, last_seen_ns, ..FlowEntry::default() });
    };
    record(0..4, 1);
    let mut resize = Resize::prepare(&pins, &large(30_000)).expect("other maps");
    record(1..2, 2); // a backend went
    record(4..5, 2); // a flow began
    resize.switch().expect("nothing is attached");
    record(2..3, 3); // a program that is late: the new tables' word counts
    record(5..6, 3); // and one of a flow that they do not know
    assert!(!resize.finish().expect("the pins change places").is_less());
    let new = KernelPlane::open(&pins).expect("the other maps");
    let flows = new.flows().expect("reading").expect("all of them");
    let found = |n| flows.iter().find(|flow| flow.key == key(n)).map(|flow| flow.entry.backend);
    let expected = [1, 2, 1, 1, 2, 3].map(Some);
    assert_eq!([0, 1, 2, 3, 4, 5].map(found), expected);
    let clients = self::clients(&pins);
    assert_eq!([0, 1, 2, 3, 4, 5].map(|n| clients.get(&client(n), 0).ok().map(|c| c.backend)), expected);
}

fn clients(pins: &TestPins) -> HashMap<MapData, AffinityKey, AffinityEntry> {
    let pin = pins.directory().join(AFFINITY);
    let map = MapData::from_pin(pin).expect("a pin");
    HashMap::try_from(Map::LruHashMap(map)).expect("its types")
}

fn cpus() -> Vec<usize> {
    let may = sched_getaffinity(Pid::from_raw(0)).expect("every kernel tells");
    (0..CpuSet::count()).filter(|cpu| may.is_set(*cpu).unwrap_or(false)).collect()
}

fn stay_on(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu).expect("a CPU's number");
    sched_setaffinity(Pid::from_raw(0), &one).expect("staying on a CPU");
}

/// How long a sweep of ten million flows takes: `cargo test -p lb-tests --test bpf_sweep -- --ignored --nocapture`.
#[test]
#[ignore = "takes gigabytes: for measurements"]
fn ten_million_flows() {
    const FLOWS: u32 = 10_000_000;
    let pins = TestPins::new();
    // Every CPU has a part of the table of its own, and does not borrow.
    let plane = plane(&pins, &size(FLOWS + FLOWS / 4));
    let now = monotonic_ns();
    let cpus = cpus();
    let begun = Instant::now();
    thread::scope(|scope| {
        for (index, cpu) in cpus.iter().enumerate() {
            let (pins, part) = (&pins, FLOWS / cpus.len() as u32);
            scope.spawn(move || {
                stay_on(*cpu);
                let mut reader = FlowReader::open(pins).expect("the tables");
                let first = index as u32 * part;
                fill(&mut reader, first..first + part, |_| FlowEntry {
                    backend: BACKEND,
                    last_seen_ns: now,
                    ..FlowEntry::default()
                });
            });
        }
    });
    println!("filled by {} CPUs in {:?}", cpus.len(), begun.elapsed());

    // As if every slot were unsettled: then each flow's slot is looked for.
    let mut observed = plane.observe().expect("a snapshot");
    for slot in observed.rings.values_mut().flatten() {
        *slot = slot.marked();
    }
    let mut reader = FlowReader::open(&pins).expect("the tables");
    for what in ["a sweep that finds all alive", "another"] {
        let begun = Instant::now();
        let mut sweep = Sweep::begin(&observed);
        assert!(reader.read(&mut sweep).expect("reading"));
        let read = begun.elapsed();
        let (_, census) = sweep.finish(&observed, &mut History::default());
        println!(
            "{what}: {} flows read in {read:?}, ended in {:?}",
            census.entries(),
            begun.elapsed() - read
        );
    }
    observed.now_ns += 3600 * 1_000_000_000;
    let begun = Instant::now();
    let mut sweep = Sweep::begin(&observed);
    assert!(reader.read(&mut sweep).expect("reading"));
    println!("all dead, read and deleted in {:?}", begun.elapsed());
    assert_eq!(count(&plane), 0);
    println!("an empty table, counted in {:?}", {
        let begun = Instant::now();
        count(&plane);
        begun.elapsed()
    });
    let status = std::fs::read_to_string("/proc/self/status").expect("our own status");
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default());
}
