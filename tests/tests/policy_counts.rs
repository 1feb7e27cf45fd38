//! Live counts of least-connections: whatever becomes of flows (they close, fall silent, are pushed out of a full
//! table, lose their backend), after a sweep the counts are right, and without flows they are zero.

use std::collections::BTreeMap;

use lb_common::abi::{BackendState, FlowKey, FlowTable, Protocol};
use lb_common::datapath::host::{HostFrame, HostTables, run};
use lb_tests::packets::{Flow as Connection, Packet, Segment};
use lb_tests::scene::{self, INBOUND, VIP};
use lb_userspace::dataplane::{DataPlane, MemoryPlane};
use lb_userspace::model::{Algorithm, FlowRules};
use lb_userspace::reconcile::{
    Desired, DesiredService, Flow, FlowSizes, History, Memo, Size, Step, Sweep, corrections, plan,
};
use proptest::prelude::*;

const FLOWS: FlowSizes = FlowSizes { half_open: 64, established: 64, old: 64 };
const SIZE: Size = Size {
    services: 4,
    keys: 16,
    vips: 16,
    ring_slots: 4096,
    backends: 16,
    ports: 4,
    tcp_flows: FLOWS,
    udp_flows: FLOWS,
    affinity: 16,
};
const SECOND_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A segment of a flow.
    Send(u16, Segment),
    /// A full table pushes out a record.
    Lose(usize),
    /// Seconds go by.
    Wait(u64),
    /// The second backend goes down, or comes back.
    Fail(bool),
    Sweep,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let segment = prop::sample::select(vec![
        Segment::Syn,
        Segment::Syn,
        Segment::Ack,
        Segment::Ack,
        Segment::Fin,
        Segment::Rst,
    ]);
    let event = prop_oneof![
        12 => (0u16..12, segment).prop_map(|(flow, segment)| Event::Send(flow, segment)),
        1 => any::<usize>().prop_map(Event::Lose),
        2 => (1u64..400).prop_map(Event::Wait),
        1 => any::<bool>().prop_map(Event::Fail),
        2 => Just(Event::Sweep),
    ];
    prop::collection::vec(event, 1..120)
}

/// The engine on the host and the control plane's part of it.
struct World {
    plane: MemoryPlane,
    tables: HostTables,
    history: History,
    now_ns: u64,
}

impl World {
    fn new() -> Self {
        let plane = MemoryPlane::new(SIZE);
        let tables = plane.tables();
        let mut world = Self { plane, tables, history: History::default(), now_ns: SECOND_NS };
        world.apply(&desired(true));
        world
    }

    fn apply(&mut self, desired: &Desired) {
        loop {
            self.plane.set_clock(self.now_ns);
            let observed = self.plane.observe().unwrap();
            let plan = plan(&observed, desired, &mut Memo::default(), &self.history).unwrap();
            self.history.note(&observed, &plan);
            plan.steps.iter().for_each(|step| self.plane.execute(step).unwrap());
            self.refresh();
            let Some(due_ns) = plan.due_ns else { return };
            self.now_ns = self.now_ns.max(due_ns);
        }
    }

    /// What programs write is theirs, but for weights.
    fn refresh(&mut self) {
        let fresh = self.plane.tables();
        for (id, entry) in fresh.loads.borrow().iter() {
            self.tables.loads.borrow_mut().entry(*id).or_insert(*entry).weight = entry.weight;
        }
        let old = std::mem::take(&mut self.tables);
        self.tables = HostTables { flows: old.flows, loads: old.loads, ingress: 1, ..fresh };
    }

    fn send(&mut self, n: u16, segment: Segment) {
        self.tables.now_ns.set(self.now_ns);
        let connection = Connection::nth(n.into(), (VIP, 80));
        run(&mut HostFrame::new(&Packet::tcp(INBOUND, connection, segment).bytes()), &self.tables);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Send(flow, segment) => self.send(flow, segment),
            Event::Lose(n) => {
                let mut flows = self.tables.flows.borrow_mut();
                let lost: Option<(FlowTable, FlowKey)> = flows.keys().nth(n % flows.len().max(1)).copied();
                lost.map(|place| flows.remove(&place));
            }
            Event::Wait(seconds) => self.now_ns += seconds * SECOND_NS,
            Event::Fail(fails) => self.apply(&desired(!fails)),
            Event::Sweep => {
                self.sweep();
                assert_eq!(self.loads(), self.living(), "after a sweep");
            }
        }
    }

    fn sweep(&mut self) {
        self.plane.set_clock(self.now_ns);
        let observed = self.plane.observe().unwrap();
        let before = observed.counted().into_iter().map(|id| (id, self.load(id.get()))).collect();
        let mut sweep = Sweep::begin(&observed);
        let flows: Vec<Flow> = {
            let flows = self.tables.flows.borrow();
            flows
                .iter()
                .map(|((table, key), entry)| Flow { table: *table, key: *key, entry: *entry })
                .collect()
        };
        for step in flows.iter().filter_map(|flow| sweep.take(flow)) {
            let Step::DeleteFlow(table, key, _) = step else { panic!("{step}") };
            self.tables.flows.borrow_mut().remove(&(table, key));
        }
        let (plan, census) = sweep.finish(&observed, &mut self.history);
        plan.steps.iter().for_each(|step| self.plane.execute(step).unwrap());
        for (id, by) in corrections(&before, &census.open) {
            let mut loads = self.tables.loads.borrow_mut();
            let entry = loads.entry(id.get()).or_default();
            entry.load = entry.load.wrapping_add_signed(by);
        }
        self.refresh();
    }

    fn load(&self, id: u32) -> i64 {
        self.tables.loads.borrow().get(&id).map_or(0, |entry| entry.load as i64)
    }

    fn loads(&self) -> BTreeMap<u32, i64> {
        let loads = self.tables.loads.borrow();
        loads.iter().map(|(id, entry)| (*id, entry.load as i64)).filter(|(_, load)| *load != 0).collect()
    }

    /// Recorded flows that are not closing, by backend.
    fn living(&self) -> BTreeMap<u32, i64> {
        let mut living = BTreeMap::new();
        for entry in self.tables.flows.borrow().values().filter(|entry| !entry.is_closing()) {
            *living.entry(entry.backend).or_default() += 1;
        }
        living
    }
}

fn desired(second_is_up: bool) -> Desired {
    let backends = [21, 22, 23].map(|number| scene::backend(1, number, None));
    let flows = FlowRules { algorithm: Algorithm::LeastConnections, ..FlowRules::of(Protocol::Tcp) };
    let mut service = DesiredService { flows, ..scene::service(Protocol::Tcp, 80, backends.to_vec()) };
    if !second_is_up {
        (service.backends[1].state, service.backends[1].weight) = (BackendState::Down, 0);
    }
    Desired { services: vec![service], ..scene::desired() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn counts_are_right_after_every_sweep_and_zero_in_the_end(events in events()) {
        let mut world = World::new();
        for event in events {
            world.happen(event);
        }
        world.happen(Event::Sweep);
        // Longer than any flow lives.
        world.happen(Event::Wait(3600));
        world.happen(Event::Sweep);
        prop_assert_eq!(world.loads(), BTreeMap::new());
        prop_assert!(world.tables.flows.borrow().is_empty());
    }

    /// Where nothing is lost and no backend fails, counts are right without any sweep.
    #[test]
    fn counts_are_right_at_once_where_nothing_is_lost(events in events()) {
        let mut world = World::new();
        for event in events {
            if let Event::Send(..) = event {
                world.happen(event);
            }
            prop_assert_eq!(world.loads(), world.living());
        }
    }
}
