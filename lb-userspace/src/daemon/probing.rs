//! The threads that make probes: one in the daemon's own namespace, and one in a namespace behind the gate, where
//! packets enter the data plane as a client's would.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use lb_common::abi::{PROBE_GATE_MAC, PROBE_PORTS, PROBE_SLOTS, PROBER_MAC, ProbeEntry, probe_slot};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use crate::dataplane::{Gate, ProbeTable};
use crate::health::lane::{Command, Commands, Lane};
use crate::health::probe::Failure;
use crate::health::task::{Event, NoSourcePorts, Question, SourcePorts, Target, Task, ThroughService};
use crate::model::Via;
use crate::netlink::ProbeNet;
use crate::reconcile::wide;

/// Both threads. The namespace behind the gate, its veth and the program on it go with this value.
pub(super) struct Probing {
    lanes: Lanes,
    gate: Option<Gate>,
}

/// Where the threads take their orders.
#[derive(Clone)]
pub(super) struct Lanes {
    direct: Commands,
    through: Option<Through>,
}

/// The thread behind the gate.
#[derive(Clone)]
struct Through {
    commands: Commands,
    addresses: mpsc::UnboundedSender<Addresses>,
    /// Number of the gate's port.
    port: u16,
}

/// A thread behind a gate that nobody guards yet: nothing gets through.
pub(super) struct Unguarded {
    commands: Commands,
    addresses: mpsc::UnboundedSender<Addresses>,
}

/// The node's addresses that probes come from.
struct Addresses {
    wanted: BTreeSet<IpAddr>,
    others: Others,
    /// Told when they are there.
    done: oneshot::Sender<()>,
}

/// What becomes of addresses that are there and not wanted.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Others {
    Stay,
    Go,
}

impl Probing {
    /// Starts the thread for direct probes.
    pub(super) fn start(in_flight: usize, events: mpsc::UnboundedSender<Event>) -> Self {
        let (direct, commands) = mpsc::unbounded_channel();
        spawn("probes", move |runtime| {
            runtime.block_on(Lane::new(NoSourcePorts, in_flight, commands, events).run());
        });
        Self { lanes: Lanes { direct, through: None }, gate: None }
    }

    /// Starts the thread behind the gate: when this returns, the gate is there.
    pub(super) async fn dig(
        in_flight: usize,
        table: ProbeTable,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Unguarded, String> {
        let (commands, orders) = mpsc::unbounded_channel();
        let (addresses, wanted) = mpsc::unbounded_channel();
        let (ready, entered) = oneshot::channel();
        spawn("probes-through", move |runtime| {
            runtime.block_on(async move {
                match ProbeNet::enter(PROBE_GATE_MAC, PROBER_MAC).await {
                    Ok(net) => {
                        let _daemon_ends = ready.send(Ok(()));
                        let in_flight = in_flight.min(PROBE_SLOTS as usize / 2);
                        let lane = Lane::new(ArmedPorts::new(table), in_flight, orders, events);
                        tokio::select! {
                            () = lane.run() => {}
                            () = keep_addresses(net, wanted) => {}
                        }
                    }
                    Err(error) => drop(ready.send(Err(error.to_string()))),
                }
            });
        });
        entered.await.map_err(|_| "the prober's thread has died".to_owned())??;
        Ok(Unguarded { commands, addresses })
    }

    /// Opens the way through a gate.
    pub(super) fn open(&mut self, through: Unguarded, gate: Gate, port: u16) {
        let Unguarded { commands, addresses } = through;
        self.lanes.through = Some(Through { commands, addresses, port });
        self.gate = Some(gate);
    }

    /// Gives up a way that is there no more: its thread ends, and its namespace with it.
    pub(super) fn close(&mut self) {
        self.lanes.through = None;
        self.gate = None;
    }

    /// Number of the gate's port, if there is a way through.
    pub(super) fn gate(&self) -> Option<u16> {
        self.gate.as_ref().and(self.lanes.gate())
    }

    /// Where the threads take their orders.
    pub(super) fn lanes(&self) -> &Lanes {
        &self.lanes
    }
}

impl Lanes {
    /// Number of the gate's port, if there is a way through.
    pub(super) fn gate(&self) -> Option<u16> {
        self.through.as_ref().map(|through| through.port)
    }

    /// Hands out all tasks.
    pub(super) async fn assign(&self, tasks: Vec<Task>) {
        let behind = |task: &Task| self.through.is_some() && is_through(task);
        let (through, direct): (Vec<Task>, Vec<Task>) = tasks.into_iter().partition(behind);
        tell(&self.direct, Command::Tasks(direct));
        self.lend_addresses(&through, Others::Go).await;
        if let Some(lane) = &self.through {
            tell(&lane.commands, Command::Tasks(through));
        }
    }

    /// Gives the namespace behind the gate the addresses that these tasks' probes come from.
    pub(super) async fn lend_addresses(&self, tasks: &[Task], others: Others) {
        let Some(lane) = &self.through else { return };
        let node = |task: &Task| match task.target {
            Target::Service(ThroughService { node, .. }) => Some(node),
            _ => None,
        };
        let (done, there) = oneshot::channel();
        let wanted = tasks.iter().filter_map(node).collect();
        if lane.addresses.send(Addresses { wanted, others, done }).is_ok() {
            let _thread_ended = there.await;
        }
    }

    /// Has a probe made once by the thread whose business it is.
    pub(super) fn once(&self, task: Task, reply: oneshot::Sender<Result<Duration, Failure>>) {
        let through = self.through.as_ref().filter(|_| is_through(&task));
        tell(through.map_or(&self.direct, |lane| &lane.commands), Command::Once(task, reply));
    }

    /// Sends a command to every thread.
    pub(super) fn all(&self, mut command: impl FnMut() -> Command) {
        tell(&self.direct, command());
        if let Some(through) = &self.through {
            tell(&through.commands, command());
        }
    }
}

/// Whether a task is for the thread behind the gate, also while there is no way to its target: results so far stay with
/// it. As long as there is no such thread, the one for direct probes says so task by task.
fn is_through(task: &Task) -> bool {
    matches!(&task.question, Question::Check(check) if check.via == Via::Service)
}

fn tell(lane: &Commands, command: Command) {
    let _thread_ended = lane.send(command);
}

fn spawn(name: &str, work: impl FnOnce(tokio::runtime::Runtime) + Send + 'static) {
    let thread = thread::Builder::new().name(name.to_owned());
    let started = thread.spawn(move || match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => work(runtime),
        Err(error) => tracing::error!(%error, "no runtime for probes"),
    });
    if let Err(error) = started {
        tracing::error!(%error, "no thread for probes");
    }
}

async fn keep_addresses(mut net: ProbeNet, mut orders: mpsc::UnboundedReceiver<Addresses>) {
    while let Some(Addresses { mut wanted, others, done }) = orders.recv().await {
        if others == Others::Stay {
            wanted.extend(net.addresses());
        }
        if let Err(error) = net.set_addresses(&wanted).await {
            tracing::warn!(%error, "addresses of probes");
        }
        let _nobody_waits = done.send(());
    }
}

/// Source ports, each armed in the data plane until it is taken again: so the last packets of a connection that is
/// being closed still find their way.
struct ArmedPorts {
    table: ProbeTable,
    taken: Vec<bool>,
    next: u32,
}

impl ArmedPorts {
    fn new(table: ProbeTable) -> Self {
        table.clear();
        Self { table, taken: vec![false; PROBE_SLOTS as usize], next: 0 }
    }
}

impl SourcePorts for ArmedPorts {
    /// Ports take turns, so that each rests as long as possible.
    fn take(&mut self, target: &ThroughService) -> Option<u16> {
        for _ in 0..PROBE_SLOTS {
            let slot = self.next;
            self.next = (self.next + 1) % PROBE_SLOTS;
            let Some(taken) = self.taken.get_mut(slot as usize).filter(|taken| !**taken) else { continue };
            *taken = true;
            let entry = ProbeEntry {
                backend: target.backend,
                gate: target.gate,
                service_port: target.port.to_be_bytes(),
                service_address: wide(target.address),
                node_address: wide(target.node),
                protocol: target.protocol.number(),
                reserved: [0; 7],
            };
            self.table.arm(slot, &entry);
            return u16::try_from(slot).ok().map(|slot| PROBE_PORTS.start() + slot);
        }
        None
    }

    fn give_back(&mut self, port: u16) {
        let Some(slot) = probe_slot(port.to_be_bytes()) else { return };
        if let Some(taken) = self.taken.get_mut(slot as usize) {
            *taken = false;
        }
    }
}
