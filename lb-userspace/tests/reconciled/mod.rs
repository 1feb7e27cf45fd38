//! A small data plane in memory and the way its states are written down, for tests of `reconcile`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lb_common::abi::{
    BackendId, BackendState, FlowEntry, FlowKey, FlowTable, ServiceEntry, Slot, SlotState, VipEntry, mapped,
};
use lb_userspace::dataplane::{DataPlane, MemoryPlane};
use lb_userspace::model::{Admission, Encap, FlowRules, IdleTimes, Protocol, ServiceId};
use lb_userspace::reconcile::{
    Census, Desired, DesiredBackend, DesiredHop, DesiredPort, DesiredService, DesiredTunnel, Flow, FlowSizes,
    History, Memo, Observed, Plan, Size, Step, Sweep, plan,
};

const FLOWS: FlowSizes = FlowSizes { half_open: 100, established: 100, old: 100 };
pub const SIZE: Size = Size {
    services: 64,
    keys: 1024,
    vips: 64,
    ring_slots: 1000,
    backends: 256,
    ports: 4,
    tcp_flows: FLOWS,
    udp_flows: FLOWS,
    affinity: 1,
};
pub const RING: u32 = 101;
pub const SECOND_NS: u64 = 1_000_000_000;
/// Idle time of all services, shorter than in life.
pub const IDLE: Duration = Duration::from_secs(60);
pub const IDLE_NS: u64 = 60 * SECOND_NS;

pub fn service_id(n: u8) -> ServiceId {
    ServiceId::single([203, 0, 113, n], Protocol::Tcp, 80)
}

/// The service's id and place in the pool.
pub fn entry(state: &Observed, id: ServiceId) -> ServiceEntry {
    state.services()[&id]
}

pub fn ring(state: &Observed, n: u8) -> Vec<Slot> {
    state.rings[&entry(state, service_id(n)).id].clone()
}

pub fn hop(mac: [u8; 6]) -> Option<DesiredHop> {
    Some(DesiredHop { ifindex: 7, mac, mtu: 1500, vlan: None })
}

fn tunnel() -> DesiredTunnel {
    let source = Ipv4Addr::new(192, 0, 2, 1).into();
    DesiredTunnel { encap: Encap::Ipip, source, source_bits: 0, dscp: None, ttl: 64 }
}

/// A configuration: for each service its backends' numbers, weights and whether they are tunnelled and down.
pub type Spec = BTreeMap<u8, BTreeMap<u8, (u32, bool, bool)>>;

fn state(weight: u32, down: bool) -> BackendState {
    match (weight, down) {
        (_, true) => BackendState::Down,
        (0, false) => BackendState::Draining,
        (_, false) => BackendState::Up,
    }
}

pub fn rules() -> FlowRules {
    let idle =
        IdleTimes { established: IDLE, half_open: Duration::from_secs(10), closing: Duration::from_secs(20) };
    FlowRules { idle, ..FlowRules::of(Protocol::Tcp) }
}

pub fn desired(spec: &Spec, generation: u64) -> Desired {
    let services = spec.iter().map(|(service, backends)| DesiredService {
        id: service_id(*service),
        ring_size: Some(RING),
        backends: backends
            .iter()
            .map(|(n, (weight, tunnelled, down))| DesiredBackend {
                address: IpAddr::from([198, 51, 100, *n]),
                weight: *weight,
                state: state(*weight, *down),
                tunnel: tunnelled.then(tunnel),
                next_hop: hop([2, 0, 0, 0, 0, *n]),
                server_id: None,
            })
            .collect(),
        quic: None,
        admission: Admission::default(),
        flows: rules(),
    });
    Desired {
        generation,
        hash_key: [1; 16],
        ports: vec![DesiredPort { ifindex: 7, mtu: 1500, mac: [2; 6] }],
        vips: spec
            .keys()
            .map(|n| (service_id(*n).prefix(), VipEntry { flags: VipEntry::ADVERTISED, reserved: 0 }))
            .collect(),
        services: services.collect(),
    }
}

pub fn two_services() -> Spec {
    let backends = BTreeMap::from([(1, (1, false, false)), (2, (1, false, false))]);
    BTreeMap::from([(1, backends.clone()), (2, backends)])
}

/// The same with another weight of the first service's first backend.
pub fn weighted(weight: u32) -> Spec {
    let mut spec = two_services();
    spec.get_mut(&1).unwrap().insert(1, (weight, false, false));
    spec
}

/// A data plane, who writes it, and a clock.
#[derive(Clone)]
pub struct World {
    pub plane: MemoryPlane,
    pub history: History,
    pub now_ns: u64,
}

impl World {
    pub fn new() -> Self {
        let now_ns = 1000 * SECOND_NS;
        let mut plane = MemoryPlane::new(SIZE);
        plane.set_clock(now_ns);
        Self { plane, history: History::default(), now_ns }
    }

    pub fn with(desired: &Desired) -> Self {
        let mut world = Self::new();
        world.apply(desired);
        world
    }

    pub fn state(&self) -> Observed {
        self.plane.observe().unwrap()
    }

    pub fn wait(&mut self, time_ns: u64) {
        self.now_ns += time_ns;
        self.plane.set_clock(self.now_ns);
    }

    pub fn plan(&self, desired: &Desired) -> Plan {
        plan(&self.state(), desired, &mut Memo::default(), &self.history).unwrap()
    }

    /// Executes one plan, with a look after every step.
    pub fn part(&mut self, desired: &Desired, mut look: impl FnMut(&Observed, &Step)) -> Plan {
        let (observed, planned) = (self.state(), self.plan(desired));
        for step in &planned.steps {
            self.plane.execute(step).unwrap();
            look(&self.state(), step);
        }
        self.history.note(&observed, &planned);
        planned
    }

    /// Executes plans until none is due.
    pub fn apply_looking(&mut self, desired: &Desired, mut look: impl FnMut(&Observed, &Step)) {
        for _ in 0..10 {
            let Some(due_ns) = self.part(desired, &mut look).due_ns else { return };
            assert!(due_ns > self.now_ns, "what is due now is done now");
            self.wait(due_ns - self.now_ns);
        }
        panic!("there is no end of it");
    }

    pub fn apply(&mut self, desired: &Desired) {
        self.apply_looking(desired, |_, _| ());
    }

    /// Everything but the maps is lost.
    pub fn restart(&mut self) {
        self.history = History::default();
    }

    pub fn begin(&self) -> Sweep {
        Sweep::begin(&self.state())
    }

    /// Shows a sweep all flows, and deletes those that are dead.
    pub fn read(&mut self, sweep: &mut Sweep) -> Vec<Step> {
        let flows = self.plane.flows().unwrap().unwrap();
        let steps: Vec<Step> = flows.iter().filter_map(|flow| sweep.take(flow)).collect();
        steps.iter().for_each(|step| self.plane.execute(step).unwrap());
        steps
    }

    pub fn finish(&mut self, sweep: Sweep) -> (Vec<Step>, Census) {
        let (plan, census) = sweep.finish(&self.state(), &mut self.history);
        self.plane.run(&plan).unwrap();
        (plan.steps, census)
    }

    pub fn sweep(&mut self) -> (Vec<Step>, Census) {
        let mut sweep = self.begin();
        let mut steps = self.read(&mut sweep);
        let (more, census) = self.finish(sweep);
        steps.extend(more);
        (steps, census)
    }

    /// Waits for so many idle times, sweeping as often as the daemon does.
    pub fn sweep_for(&mut self, idle_times: u64) -> Census {
        let mut census = Census::default();
        for _ in 0..idle_times * 4 {
            self.wait(IDLE_NS / 4 + 1);
            census = self.sweep().1;
        }
        census
    }

    /// How many slots of the first service are in each state: settled, fresh, late.
    pub fn states(&self) -> [usize; 3] {
        let ring = ring(&self.state(), 1);
        [SlotState::Settled, SlotState::Fresh, SlotState::Late]
            .map(|state| ring.iter().filter(|slot| slot.state() == state).count())
    }

    /// The number of a backend of the first service.
    pub fn backend(&self, n: u8) -> u32 {
        let state = self.state();
        let service = entry(&state, service_id(1)).id;
        let ours = |(_, b): &(&u32, &lb_common::abi::BackendEntry)| {
            (b.service, b.address) == (service, mapped([198, 51, 100, n]))
        };
        state.backends.iter().filter(ours).map(|(id, _)| *id).next_back().unwrap()
    }

    pub fn retired(&self) -> Vec<u32> {
        let state = self.state();
        let retired = state.backends.iter().filter(|(_, b)| b.state == BackendState::Retired.to_raw());
        retired.map(|(id, _)| *id).collect()
    }

    /// Records a flow of the first service in the established table, seen now.
    pub fn record(&mut self, port: u16, backend: u32) -> Flow {
        let state = self.state();
        let service = entry(&state, service_id(1)).id;
        let entry = FlowEntry { service, backend, last_seen_ns: self.now_ns, ..FlowEntry::default() };
        let flow = Flow { table: FlowTable::Established, key: key(port), entry };
        self.plane.record_flow(flow);
        flow
    }
}

/// A flow to the first service.
pub fn key(port: u16) -> FlowKey {
    FlowKey {
        source: mapped([192, 0, 2, 9]),
        destination: mapped([203, 0, 113, 1]),
        source_port: port.to_be_bytes(),
        destination_port: 80u16.to_be_bytes(),
        protocol: 6,
        reserved: [0; 3],
    }
}

pub fn id(n: u32) -> BackendId {
    BackendId::new(n).unwrap()
}
