//! A balancer without interfaces: the same plan in the kernel's maps and in the host's tables, and packets through
//! either (`BPF_PROG_TEST_RUN`). What a packet should experience is for the tests to say.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use lb_common::abi::{
    BackendEntry, BackendId, BackendState, FlowEntry, FlowKey, FlowTable, LoadEntry, PROBE_SLOTS, PortEntry,
    PrefixEntry, PrefixKey, ProbeEntry, Reason, SampleFilter, Slot,
};
use lb_common::datapath::host::{HostFrame, HostTables, run};
use lb_common::datapath::{Verdict, Work, probe};
use lb_userspace::dataplane::{DataPlane, KernelPlane, Pins, ProbeTable, Sampling, TestProgram};
use lb_userspace::reconcile::{
    Desired, FlowSizes, History, Memo, Observed, Plan, Size, Step, TrieKey, narrow, plan,
};
use nix::sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, unshare};
use nix::time::{ClockId, clock_gettime};

/// Where the BPF file system is.
const BPFFS: &str = "/sys/fs/bpf";

/// Large enough for every test; flows so many that the LRU never evicts.
pub const SIZE: Size = Size {
    services: 16,
    keys: 256,
    vips: 16,
    ring_slots: 131_072,
    backends: 128,
    ports: 8,
    tcp_flows: FLOW_SIZES,
    udp_flows: FLOW_SIZES,
    affinity: 4096,
};

/// Of each protocol's tables.
const FLOW_SIZES: FlowSizes = FlowSizes { half_open: 65_536, established: 65_536, old: 65_536 };

/// XDP's answer to a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`.
    Pass,
    /// `XDP_TX`.
    Transmit,
    /// `XDP_REDIRECT`.
    Redirect,
}

impl Action {
    /// From the kernel's number (enum xdp_action, include/uapi/linux/bpf.h).
    pub fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Transmit,
            4 => Self::Redirect,
            _ => panic!("the program returned {raw}, which is no verdict of ours"),
        }
    }
}

impl From<Verdict> for Action {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Drop => Self::Drop,
            Verdict::Slow | Verdict::Sampled => panic!("stages follow each other inside the engine"),
            Verdict::Transmit => Self::Transmit,
            Verdict::Redirect(_) => Self::Redirect,
        }
    }
}

/// Where packets come in, and so which program sees them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entrance {
    /// From the network, on port 1: the balancer.
    Network,
    /// From the prober's namespace: the probes' program.
    Gate,
}

impl Entrance {
    /// Number of the port.
    pub fn port(self) -> u16 {
        match self {
            Self::Network => 1,
            Self::Gate => 3,
        }
    }
}

/// Counters that are not zero, by a name that says whose they are.
pub type Counts = BTreeMap<String, u64>;

/// Recorded flows without their time stamps: service, backend and marks by table and key.
pub type Flows = BTreeMap<(FlowTable, FlowKey), (u32, u32, u32)>;

/// Pins that vanish with the test, also when it panics.
pub struct TestPins(Pins);

impl TestPins {
    /// A directory that no other test has.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(Pins::new(Path::new(BPFFS), &name).expect("bpffs is mounted"))
    }
}

impl std::ops::Deref for TestPins {
    type Target = Pins;

    fn deref(&self) -> &Pins {
        &self.0
    }
}

impl Default for TestPins {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestPins {
    fn drop(&mut self) {
        self.0.discard();
    }
}

/// Interfaces that exist, in a network namespace of this thread's own: the redirect map takes no others.
pub fn interfaces() -> [u32; 3] {
    thread_local!(static FOUND: Cell<Option<[u32; 3]>> = const { Cell::new(None) });
    if let Some(found) = FOUND.get() {
        return found;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (root is needed)");
    for [name, peer] in [["lb0", "lb1"], ["lb2", "lb3"]] {
        let made = Command::new("ip")
            .args(["link", "add", name, "type", "veth", "peer", "name", peer])
            .status()
            .expect("ip (package iproute2) runs");
        assert!(made.success(), "a veth pair");
    }
    let index = |name| nix::net::if_::if_nametoindex(name).expect("the interface just made");
    let found = [index("lb0"), index("lb1"), index("lb2")];
    FOUND.set(Some(found));
    found
}

/// The balancer twice.
pub struct Bench {
    plane: KernelPlane,
    balancer: TestProgram,
    probe: TestProgram,
    probes: ProbeTable,
    host: HostTables,
    observed: Observed,
    size: Size,
    // Last: the pins go when nothing uses them any more.
    pins: TestPins,
}

impl Bench {
    /// Loads the programs of both entrances, and brings both tables to this state.
    pub fn new(desired: &Desired) -> Self {
        Self::sized(desired, SIZE)
    }

    /// The same with maps of this size.
    pub fn sized(desired: &Desired, size: Size) -> Self {
        stay_here();
        let pins = TestPins::new();
        let lock = pins.0.lock().expect("nobody else has this directory");
        let plane = KernelPlane::open_or_create(&pins.0, &size).expect("maps");
        drop(lock);
        let accepted = "the verifier accepts the program";
        let balancer = TestProgram::balancer(&pins.0, &size, Entrance::Network.port()).expect(accepted);
        let probe = TestProgram::probe(&pins.0, &size, Entrance::Gate.port()).expect(accepted);
        let probes = plane.probe_table().expect("the table of probes");
        let host = HostTables {
            probes: (0..PROBE_SLOTS).map(|slot| (slot, ProbeEntry::default())).collect(),
            ..HostTables::default()
        };
        let observed = Observed::default();
        let mut bench = Self { plane, balancer, probe, probes, host, observed, size, pins };
        bench.refresh();
        bench.apply(desired);
        bench
    }

    /// Moves both to another state, with all steps that planned changes take.
    pub fn apply(&mut self, desired: &Desired) {
        let mut history = History::default();
        loop {
            let plan = plan(&self.observed, desired, &mut Memo::default(), &history).expect("a plan");
            history.note(&self.observed, &plan);
            let due_ns = plan.due_ns;
            self.execute(plan.steps);
            let Some(due_ns) = due_ns else { break };
            // Nobody sends meanwhile: there is nothing to wait for.
            self.observed.now_ns = self.observed.now_ns.max(due_ns);
        }
    }

    /// Has every packet sampled until the value is dropped.
    pub fn sample(&mut self) -> Sampling {
        let sampling = Sampling::start(&self.pins.0, &SampleFilter::default()).expect("sampling");
        self.refresh();
        sampling
    }

    /// Takes these steps in both.
    pub fn execute(&mut self, steps: Vec<Step>) {
        for step in &steps {
            match step {
                Step::PutAcl { entries, .. } => {
                    self.host.acl.extend(entries.iter().map(|(key, verdict)| (key.data, key.bits, *verdict)));
                }
                Step::KeepAcl(lists) => {
                    self.host.acl.retain(|(key, _, _)| lists.contains(&u32::from_be_bytes(key.list)));
                }
                _ => {}
            }
        }
        self.plane.run(&Plan { steps, ..Plan::default() }).expect("every step works");
        self.refresh();
    }

    /// Makes every slot fresh and leaves it with its owner: flows are recorded, and none moves.
    pub fn unsettle(&mut self) {
        let touched = |slot: &Slot| Some(slot.moved_to(BackendId::NONE).moved_to(slot.current()));
        let observed = &self.observed;
        let entries = observed.entries();
        let steps = observed.rings.iter().map(|(id, slots)| Step::WriteSlots {
            start: entries[id].ring_start,
            words: slots.iter().map(touched).collect(),
        });
        self.execute(steps.collect());
    }

    /// Writes an entry for a probe's source port into both.
    pub fn arm(&mut self, slot: u32, entry: &ProbeEntry) {
        self.probes.arm(slot, entry);
        self.host.probes.insert(slot, *entry);
    }

    /// Brings the host's tables to what the kernel's maps hold; flows and counters are each side's own.
    fn refresh(&mut self) {
        let observed = self.plane.observe().expect("a snapshot");
        let host = &mut self.host;
        host.control = observed.control;
        host.services = observed.exact.clone();
        host.ranges = observed.ranges.iter().map(|(key, entry)| (key.data, key.bits, *entry)).collect();
        let prefix = |(key, entry): (&TrieKey<PrefixKey>, &PrefixEntry)| {
            (key.data.address, key.bits - PrefixKey::ADDRESS_AT, *entry)
        };
        host.prefixes = observed.prefixes.iter().map(prefix).collect();
        host.rates = observed.rates.clone();
        host.quic = observed.quic.clone();
        host.vips = observed.vips.clone();
        host.rings = vec![Slot::default(); self.size.ring_slots as usize];
        let entries = observed.entries();
        for (id, slots) in &observed.rings {
            let start = entries[id].ring_start as usize;
            host.rings[start..start + slots.len()].copy_from_slice(slots);
        }
        for (id, turns) in &observed.schedules {
            let start = observed.policies[id].schedule_start as usize;
            host.rings[start..start + turns.len()].copy_from_slice(turns);
        }
        host.policies = observed.policies.clone();
        let ids: Vec<BackendId> = observed.weights.keys().filter_map(|id| BackendId::new(*id)).collect();
        let loads = self.plane.loads(&ids).into_iter().map(|(id, load)| {
            let weight = observed.weights[&id.get()];
            (id.get(), LoadEntry { load: load as u64, weight })
        });
        host.loads = RefCell::new(loads.collect());
        // Arrays have all their elements from the beginning.
        host.backends = (0..=self.size.backends).map(|id| (id, BackendEntry::default())).collect();
        host.backends.extend(&observed.backends);
        host.ports = (0..=self.size.ports as u16).map(|number| (number, PortEntry::default())).collect();
        host.ports.extend(&observed.ports);
        self.observed = observed;
    }

    /// What the maps held after the last change.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Runs a frame from the network through the program in the kernel.
    pub fn kernel(&mut self, frame: &[u8]) -> (Action, Vec<u8>) {
        self.kernel_at(Entrance::Network, frame)
    }

    /// Runs a frame through the program in the kernel that stands at this entrance.
    pub fn kernel_at(&mut self, entrance: Entrance, frame: &[u8]) -> (Action, Vec<u8>) {
        let program = match entrance {
            Entrance::Network => &mut self.balancer,
            Entrance::Gate => &mut self.probe,
        };
        let (action, bytes) = program.run(frame).expect("the kernel runs the program");
        (Action::from_raw(action), bytes)
    }

    /// Runs a frame from the network through the engine on the host.
    pub fn host(&mut self, frame: &[u8]) -> (Action, Vec<u8>) {
        let (verdict, bytes) = self.host_at(Entrance::Network, frame);
        (verdict.into(), bytes)
    }

    /// Runs a frame through the engine on the host, as at this entrance.
    pub fn host_at(&mut self, entrance: Entrance, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.host.ingress = entrance.port();
        self.host.now_ns.set(monotonic_ns());
        let mut frame = HostFrame::new(frame);
        let verdict = match entrance {
            Entrance::Network => run(&mut frame, &self.host),
            Entrance::Gate => probe(&mut frame, &self.host, &mut Work::new()),
        };
        (verdict, frame.bytes().to_vec())
    }

    /// Runs a frame from the network through both, which must agree.
    pub fn both(&mut self, frame: &[u8]) -> (Action, Vec<u8>) {
        let (verdict, bytes) = self.both_at(Entrance::Network, frame);
        (verdict.into(), bytes)
    }

    /// Runs a frame through both, which must agree. The kernel does not tell to which port it redirects.
    pub fn both_at(&mut self, entrance: Entrance, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let (kernel, (verdict, bytes)) = (self.kernel_at(entrance, frame), self.host_at(entrance, frame));
        let host = (Action::from(verdict), bytes);
        assert!(kernel == host, "kernel {kernel:02x?}\n  host {host:02x?}\n input {frame:02x?}");
        (verdict, kernel.1)
    }

    /// The balancer's program, for timing.
    pub fn program(&mut self) -> &mut TestProgram {
        &mut self.balancer
    }

    /// The address of the backend with this id, and its service.
    fn backend_name(&self, id: u32) -> String {
        let Some(backend) = self.observed.backends.get(&id) else { return format!("backend {id}") };
        let name = format!("{} {}", self.service_name(backend.service), narrow(backend.address));
        // An address that came back has another id.
        match BackendState::from_raw(backend.state) {
            BackendState::Down | BackendState::Retired | BackendState::Absent => {
                format!("{name} (id {id}, down)")
            }
            BackendState::Up | BackendState::Draining => name,
        }
    }

    fn service_name(&self, id: u32) -> String {
        let services = self.observed.services();
        let found = services.iter().find(|(_, service)| service.id == id);
        found.map_or_else(|| format!("service {id}"), |(service, _)| service.port.to_string())
    }

    /// The kernel's counters: `PORT ADDRESS packets|bytes|flows`, `PORT drop|note REASON`, and `REASON`.
    pub fn kernel_counts(&self) -> Counts {
        let counters = self.plane.counters().expect("counters");
        let mut counts = Counts::new();
        for (id, backend) in counters.backends {
            self.add_backend(&mut counts, id, [backend.packets, backend.bytes, backend.flows]);
        }
        for (kind, services) in [("drop", counters.drops), ("note", counters.notes)] {
            for (service, counted) in services {
                let name = self.service_name(service);
                counts.extend(counted.iter().map(|(reason, n)| (format!("{name} {kind} {reason}"), *n)));
            }
        }
        counts.extend(counters.reasons.into_iter().map(|(name, n)| (name.to_owned(), n)));
        counts.retain(|_, n| *n > 0);
        counts
    }

    /// The host's counters, by the same names.
    pub fn host_counts(&self) -> Counts {
        let reason = |number: &u32| Reason::ALL[*number as usize].name();
        let mut counts = Counts::new();
        for (id, backend) in self.host.forwarded.borrow().iter() {
            self.add_backend(&mut counts, *id, [backend.packets, backend.bytes, backend.flows]);
        }
        for ((service, number), n) in self.host.drops.borrow().iter() {
            let kind = if Reason::ALL[*number as usize].is_note() { "note" } else { "drop" };
            counts.insert(format!("{} {kind} {}", self.service_name(*service), reason(number)), *n);
        }
        counts.extend(self.host.reasons.borrow().iter().map(|(number, n)| (reason(number).to_owned(), *n)));
        counts.retain(|_, n| *n > 0);
        counts
    }

    fn add_backend(&self, counts: &mut Counts, id: u32, values: [u64; 3]) {
        let name = self.backend_name(id);
        for (what, value) in ["packets", "bytes", "flows"].into_iter().zip(values) {
            counts.insert(format!("{name} {what}"), value);
        }
    }

    /// The kernel's loads of backends whose live flows are counted, by id.
    pub fn loads(&self) -> BTreeMap<u32, i64> {
        let loads = self.plane.loads(&self.observed.counted());
        loads.into_iter().map(|(id, load)| (id.get(), load)).collect()
    }

    /// Sets the load of the backend whose address ends like this, of a service whose backends are measured.
    pub fn set_load(&mut self, last: u8, load: u64) {
        let ours = |id: &BackendId| self.observed.backends[&id.get()].address[15] == last;
        let loads = self.observed.measured().into_iter().filter(ours).map(|id| (id, load));
        self.plane.set_loads(&loads.collect::<Vec<_>>());
        self.refresh();
    }

    /// Flows recorded in the kernel.
    pub fn kernel_flows(&self) -> Flows {
        let flows = self.plane.flows().expect("reading the tables").expect("nobody changes them meanwhile");
        flows.iter().map(|flow| ((flow.table, flow.key), without_time(&flow.entry))).collect()
    }

    /// Flows recorded on the host.
    pub fn host_flows(&self) -> Flows {
        self.host.flows.borrow().iter().map(|(place, entry)| (*place, without_time(entry))).collect()
    }
}

fn without_time(entry: &FlowEntry) -> (u32, u32, u32) {
    (entry.service, entry.backend, entry.marks)
}

/// Keeps this thread, and so the programs it runs, on one CPU: each CPU gives its own turns.
fn stay_here() {
    let mut here = CpuSet::new();
    here.set(sched_getcpu().expect("every kernel tells")).expect("a CPU's number");
    sched_setaffinity(nix::unistd::Pid::from_raw(0), &here).expect("staying on a CPU");
}

/// The clock that programs read.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every kernel has it");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// What has been counted between two readings.
pub fn delta(before: &Counts, after: &Counts) -> Counts {
    let grown = |(name, n): (&String, &u64)| (name.clone(), n - before.get(name).unwrap_or(&0));
    after.iter().map(grown).filter(|(_, n)| *n > 0).collect()
}
