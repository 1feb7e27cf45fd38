//! How a service chooses backends for new flows, and what it remembers of flows.

use std::time::Duration;

use super::Protocol;

/// What picks the backend of a new flow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Algorithm {
    /// A Maglev ring over the 5-tuple: stateless, and the same on every balancer.
    #[default]
    Maglev,
    /// A Maglev ring over the client's address: a client's flows stay together.
    SourceHash,
    /// In turn, by weight.
    RoundRobin,
    /// Fewer live flows for its weight, of two drawn by weight.
    LeastConnections,
    /// A Maglev ring whose weights follow the latency of probes.
    LeastResponseTime,
    /// Fewer bytes per second for its weight, of two drawn by weight.
    LeastBandwidth,
}

impl Algorithm {
    /// Whether new flows go elsewhere than their slot says, so that every flow has to be recorded.
    pub fn needs_state(self) -> bool {
        matches!(self, Self::RoundRobin | Self::LeastConnections | Self::LeastBandwidth)
    }
}

/// Which flows are recorded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Tracking {
    /// Those in slots whose owner has changed; all of them where the algorithm or affinity needs it.
    #[default]
    Auto,
    /// All.
    Always,
    /// None: flows move when their slot's owner changes.
    Never,
}

/// After how long a silent flow is dead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IdleTimes {
    /// Established, and of protocols without a handshake any.
    pub established: Duration,
    /// Half open.
    pub half_open: Duration,
    /// Closing.
    pub closing: Duration,
}

impl IdleTimes {
    /// What a protocol has unless the config says otherwise.
    pub fn of(protocol: Protocol) -> Self {
        let established = match protocol {
            Protocol::Tcp | Protocol::Sctp => Duration::from_secs(15 * 60),
            Protocol::Udp => Duration::from_secs(60),
        };
        Self { established, half_open: Duration::from_secs(60), closing: Duration::from_secs(120) }
    }
}

/// All of a service's rules about flows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlowRules {
    /// What picks backends.
    pub algorithm: Algorithm,
    /// Which flows are recorded.
    pub tracking: Tracking,
    /// When they are dead.
    pub idle: IdleTimes,
    /// For how long after its last packet a client's new flows go where its others are; `None`: not for that.
    pub affinity: Option<Duration>,
    /// After how long a slot settles though some of its flows are elsewhere.
    pub max_unsettled: Duration,
}

impl FlowRules {
    /// What holds unless the config says otherwise.
    pub fn of(protocol: Protocol) -> Self {
        Self {
            algorithm: Algorithm::default(),
            tracking: Tracking::default(),
            idle: IdleTimes::of(protocol),
            affinity: None,
            max_unsettled: Duration::from_secs(6 * 60 * 60),
        }
    }

    /// Whether every flow is recorded, whatever its slot says.
    pub fn records_all(&self) -> bool {
        self.tracking == Tracking::Always || self.has_policy()
    }

    /// Whether new flows may go elsewhere than their slot says.
    pub fn has_policy(&self) -> bool {
        self.algorithm.needs_state() || self.affinity.is_some()
    }
}

/// What becomes of the flows of a backend that leaves the config.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnRemove {
    /// They stay until they end.
    #[default]
    Drain,
    /// They move at once.
    Drop,
}

/// How backends of a service stop taking flows, and begin to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DrainRules {
    /// When they leave the config.
    pub on_remove: OnRemove,
    /// How long a drain may take before what is left of its flows moves; `None`: until they end.
    pub deadline: Option<Duration>,
    /// How long a backend that recovers or is added takes to its full weight; zero: none.
    pub slow_start: Duration,
}
