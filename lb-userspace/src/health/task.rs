//! What is probed, as values: one task per distinct probe, however many services it speaks for.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{AgentCheck, Check, Protocol};

use super::check::Standing;
use super::probe::{AgentReport, Failure};

/// Names a task as long as the process lives.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TaskId(pub u32);

/// One thing to probe again and again.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its name.
    pub id: TaskId,
    /// What is asked.
    pub question: Question,
    /// Who is asked, and which way.
    pub target: Target,
    /// What the check is known to be from before the daemon's restart.
    pub standing: Standing,
}

/// What is asked.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Question {
    /// Whether it is healthy.
    Check(Arc<Check>),
    /// How it wants to be used.
    Agent(AgentCheck),
}

/// Who is asked, and which way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// By the host's own routes.
    Direct {
        /// Whom.
        address: IpAddr,
        /// Port, in host order; 0 where there are none.
        port: u16,
    },
    /// Through a service's own path.
    Service(ThroughService),
    /// There is no way to it now, and why.
    Unreachable(String),
    /// Probes of this kind cannot be made now, and why: that says nothing of the backend.
    Impossible(String),
}

/// A backend as a service's packets reach it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ThroughService {
    /// Number of the backend in the data plane.
    pub backend: u32,
    /// Number of the data plane's port that leads to the prober.
    pub gate: u16,
    /// Service address.
    pub address: IpAddr,
    /// Port probed there, in host order.
    pub port: u16,
    /// Transport protocol of the probe.
    pub protocol: Protocol,
    /// The node's address that the probe comes from.
    pub node: IpAddr,
}

/// The source ports of probes through a service: each stands for its backend while it is taken.
pub trait SourcePorts {
    /// Takes a port for a probe to this target; `None` if all are taken.
    fn take(&mut self, target: &ThroughService) -> Option<u16>;
    /// Gives it back.
    fn give_back(&mut self, port: u16);
}

/// For a thread that makes only direct probes.
#[derive(Debug)]
pub struct NoSourcePorts;

impl SourcePorts for NoSourcePorts {
    fn take(&mut self, _target: &ThroughService) -> Option<u16> {
        None
    }

    fn give_back(&mut self, _port: u16) {}
}

/// The last result of a task.
#[derive(Clone, Debug)]
pub struct Last {
    /// When the probe ended.
    pub at: Instant,
    /// How long it took.
    pub latency: Duration,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// How many results of this kind there were in a row.
    pub streak: u32,
    /// Why no probe could be made, if so: then the rest is from the one before.
    pub hindrance: Option<String>,
}

/// What a lane tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// A check's standing changed.
    Standing(TaskId, Standing, Last),
    /// A check fails on, for another reason.
    Reason(TaskId, Failure),
    /// An agent reported.
    Agent(TaskId, AgentReport),
}
