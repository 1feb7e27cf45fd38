//! What operators, health checks and daemons do to the balancer: the control plane as the daemon runs it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lb_common::abi::{BackendState, VipEntry};
use lb_userspace::model::{
    Admission, Algorithm, Encap, FlowRules, IdleTimes, Prefix, Quic, ServiceId, Tracking,
};
use lb_userspace::reconcile::{
    Desired, DesiredBackend, DesiredHop, DesiredPort, DesiredService, DesiredTunnel, Flow, FlowSizes,
    History, Memo, Size, Step, Sweep, plan,
};

use super::packet::{NEAR, Speech, VIP, mac};
use super::world::World;
use super::{Action, CLOSING, HALF_OPEN, IDLE, Rule, SWEEP, Setup};

/// The kernel's index of the only interface.
const IFINDEX: u32 = 7;
const MTU: u32 = 1500;

/// A backend in the config, and how it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Member {
    weight: u32,
    draining: bool,
    /// Whether it does not answer.
    pub failed: bool,
}

impl Default for Member {
    fn default() -> Self {
        Self { weight: 2, draining: false, failed: false }
    }
}

impl Member {
    fn state(&self) -> BackendState {
        match (self.failed, self.draining) {
            (true, _) => BackendState::Down,
            (false, true) => BackendState::Draining,
            (false, false) => BackendState::Up,
        }
    }
}

/// What a daemon keeps in its own memory.
#[derive(Default)]
pub struct Daemon {
    memo: Memo,
    history: History,
    due_ns: Option<u64>,
    /// A sweep that has begun, with flows that it has not been given yet.
    sweep: Option<(Sweep, Vec<Flow>)>,
}

/// Capacities in which histories have to get along: ids are scarce, so that they are used again.
pub fn size(setup: &Setup) -> Size {
    let services = setup.services.len() as u32;
    let capacity = setup.capacity as u32;
    let flows = FlowSizes { half_open: capacity, established: capacity, old: capacity };
    Size {
        services: services + 1,
        keys: 16,
        vips: 4,
        ring_slots: setup.ring.max(RINGS[2]) * services * 3,
        backends: (u32::from(setup.backends) + 2) * services,
        ports: 4,
        tcp_flows: flows,
        udp_flows: flows,
        affinity: 16,
    }
}

/// Sizes that rings can have besides the first one.
const RINGS: [u32; 3] = [31, 37, 43];

impl World {
    /// What the config and health checks want.
    fn desired(&self) -> Desired {
        let services = self.setup.services.iter().map(|speech| self.service(*speech)).collect();
        let flags = VipEntry::ADVERTISED | VipEntry::DROP_OTHER_PORTS;
        Desired {
            generation: 1,
            hash_key: *b"a key of models.",
            ports: vec![DesiredPort { ifindex: IFINDEX, mtu: MTU, mac: NEAR }],
            vips: BTreeMap::from([(Prefix::host(VIP.into()), VipEntry { flags, reserved: 0 })]),
            services,
        }
    }

    fn service(&self, speech: Speech) -> DesiredService {
        let backend = |(number, member): (&u8, &Member)| DesiredBackend {
            address: IpAddr::V4(Ipv4Addr::new(198, 51, 100, *number)),
            weight: member.weight,
            state: member.state(),
            tunnel: self.tunnel,
            next_hop: Some(DesiredHop { ifindex: IFINDEX, mac: mac(*number), mtu: MTU, vlan: None }),
            server_id: None,
        };
        let protocol = speech.protocol();
        let seconds = Duration::from_secs;
        DesiredService {
            id: ServiceId::single(VIP, protocol, speech.port()),
            ring_size: Some(self.ring),
            backends: self.members.iter().map(backend).collect(),
            quic: (speech == Speech::Quic).then_some(Quic { server_id: None }),
            admission: Admission::default(),
            flows: FlowRules {
                algorithm: self.algorithm,
                tracking: self.tracking,
                idle: IdleTimes {
                    established: seconds(IDLE),
                    half_open: seconds(HALF_OPEN),
                    closing: seconds(CLOSING),
                },
                ..FlowRules::of(protocol)
            },
        }
    }

    /// What is none of the clients' doing.
    pub(super) fn operate(&mut self, action: Action) {
        let all = self.setup.backends;
        let number = |n: u8| 1 + n % all;
        match action {
            Action::Weigh(n, weight) => self.change(|members| {
                let member = members.entry(number(n)).or_default();
                (member.weight, member.draining) = (1 + u32::from(weight % 4), false);
            }),
            Action::Drain(n) => self.drain(number(n)),
            Action::Remove(n) => {
                let number = number(n);
                match self.clients.iter().any(|client| client.backend == number) {
                    true => self.drain(number),
                    false => self.leave(number),
                }
            }
            Action::Drop(n) => self.leave(number(n)),
            Action::Fail(n) => self.set_failed(number(n), true),
            Action::Recover(n) => self.set_failed(number(n), false),
            Action::Resize(n) => {
                self.ring = RINGS[usize::from(n) % RINGS.len()];
                self.replan();
            }
            Action::Settings(n) => {
                self.algorithm = [Algorithm::Maglev, Algorithm::SourceHash][usize::from(n & 1)];
                self.tracking = [Tracking::Auto, Tracking::Always][usize::from(n >> 1 & 1)];
                self.replan();
            }
            Action::Tunnel(n) => {
                self.tunnel = match n % 4 {
                    0 => None,
                    n => Some(DesiredTunnel {
                        encap: [Encap::Ipip, Encap::Gre][usize::from(n & 1)],
                        source: IpAddr::V4(Ipv4Addr::new(192, 0, 2, n)),
                        source_bits: 0,
                        dscp: None,
                        ttl: 64,
                    }),
                };
                self.replan();
            }
            Action::Restart => self.kill(0),
            Action::Absence(seconds) => self.kill(1 + u64::from(seconds % 90)),
            Action::KillAfter(steps) => self.fuse = Some(steps),
            _ => {}
        }
    }

    fn drain(&mut self, number: u8) {
        self.change(|members| {
            if let Some(member) = members.get_mut(&number) {
                member.draining = true;
            }
        });
    }

    fn leave(&mut self, number: u8) {
        self.change(|members| {
            members.remove(&number);
        });
    }

    fn set_failed(&mut self, number: u8, failed: bool) {
        self.change(|members| {
            if let Some(member) = members.get_mut(&number) {
                member.failed = failed;
            }
        });
    }

    /// Changes backends. Flows of those that fail or leave are no more. A change that the balancer refuses is taken back.
    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<u8, Member>)) {
        let before = self.members.clone();
        change(&mut self.members);
        if self.members == before {
            return;
        }
        if !self.replan() {
            self.members = before;
            return;
        }
        let members = &self.members;
        let lives = |number: &u8| members.get(number).is_some_and(|member| !member.failed);
        self.clients.retain(|client| lives(&client.backend));
    }

    /// Has the daemon plan, if there is one; whether the config can be had.
    fn replan(&mut self) -> bool {
        self.daemon.is_none() || self.plan()
    }

    /// The daemon is no more; the next one comes in so many seconds.
    fn kill(&mut self, seconds: u64) {
        self.daemon = None;
        self.back_at = self.now + seconds;
        if seconds == 0 {
            self.start();
        }
    }

    fn start(&mut self) {
        self.daemon = Some(Daemon::default());
        self.plan();
    }

    /// What the daemon does by itself as time passes.
    pub(super) fn work(&mut self) {
        let now_ns = self.plane.tables.host.now_ns.get();
        match &self.daemon {
            None if self.now >= self.back_at => self.start(),
            Some(Daemon { due_ns: Some(due_ns), .. }) if *due_ns <= now_ns => drop(self.plan()),
            _ => {}
        }
        // A sweep goes beside everything else: traffic and changes come in between.
        match self.now % SWEEP {
            0 => self.begin_sweep(),
            1 => self.read_flows(),
            3 => self.finish_sweep(),
            _ => {}
        }
    }

    /// One round of planning and executing; whether there was a plan.
    pub(super) fn plan(&mut self) -> bool {
        let mut later_ns = None;
        loop {
            let mut observed = self.plane.observe();
            // Where nobody waits between two steps, it is later at once.
            observed.now_ns = later_ns.unwrap_or(observed.now_ns);
            let desired = self.desired();
            let Some(daemon) = &mut self.daemon else { return false };
            let planned = match plan(&observed, &desired, &mut daemon.memo, &daemon.history) {
                Ok(planned) => planned,
                Err(_) => {
                    self.outcome.refused += 1;
                    return false;
                }
            };
            if let Some(steps) = self.fuse.take_if(|_| !planned.steps.is_empty()) {
                let done = usize::from(steps) % (planned.steps.len() + 1);
                self.execute(planned.steps.iter().take(done));
                self.daemon = Some(Daemon::default());
                continue;
            }
            daemon.history.note(&observed, &planned);
            daemon.due_ns = planned.due_ns;
            self.execute(planned.steps.iter());
            later_ns = planned.due_ns.filter(|_| self.setup.broken == Some(Rule::TwoSteps));
            if later_ns.is_none() {
                return true;
            }
        }
    }

    fn execute<'a>(&mut self, steps: impl Iterator<Item = &'a Step>) {
        for step in steps {
            self.plane.execute(step);
            if !self.moves(step) {
                self.check(&step.to_string());
            }
        }
    }

    /// Whether a step takes flows from backends that are no more; the model does not know of that yet.
    fn moves(&self, step: &Step) -> bool {
        let lives = |number: &u8| self.is_up(*number);
        matches!(step, Step::WriteSlots { .. } | Step::PutBackend { .. } | Step::RetireBackend(_))
            && self.clients.iter().any(|client| !lives(&client.backend))
    }

    fn begin_sweep(&mut self) {
        let observed = self.plane.observe();
        if let Some(daemon) = &mut self.daemon {
            daemon.sweep = Some((Sweep::begin(&observed), Vec::new()));
        }
    }

    fn read_flows(&mut self) {
        let flows = self.plane.tables.all();
        if let Some(Daemon { sweep: Some((_, to_come)), .. }) = &mut self.daemon {
            *to_come = flows;
        }
    }

    fn finish_sweep(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        let Some((mut sweep, flows)) = daemon.sweep.take() else { return };
        let mut deaf = sweep.clone();
        let dead: Vec<Step> = flows.iter().filter_map(|flow| sweep.take(flow)).collect();
        for step in &dead {
            self.plane.execute(step);
        }
        if self.setup.broken == Some(Rule::FlowsSettle) {
            std::mem::swap(&mut deaf, &mut sweep);
        }
        let observed = self.plane.observe();
        let Some(daemon) = &mut self.daemon else { return };
        let (planned, _) = sweep.finish(&observed, &mut daemon.history);
        self.execute(planned.steps.iter());
    }
}
