//! What a check or an agent of the config asks, and of whom. Pure.

use std::net::IpAddr;
use std::time::Duration;

use super::check::Standing;
use super::fleet::Place;
use super::member::Agent;
use super::probe::AgentReport;
use super::task::Question;
use crate::model::{Backend, Check, CheckKind, Protocol, ServiceId, Via};

/// What the schedule's pacing may add to the time between two probes.
pub(super) const SLACK: Duration = Duration::from_secs(1);

/// A task and whom it speaks for.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) question: Question,
    pub(super) asked: Asked,
    pub(super) standing: Standing,
    /// Why it fails, in words.
    pub(super) why: Option<String>,
    /// All that an agent has said.
    pub(super) said: Agent,
    /// Whom it speaks for, and as which of the backend's checks.
    pub(super) members: Vec<(Place, usize)>,
}

/// Who is asked, as far as the config says it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Asked {
    /// An address of its own.
    Direct(IpAddr, u16),
    /// A backend through its service, at this port.
    Through(ServiceId, IpAddr, u16),
}

/// Within this time all checks notice one event, however far apart they are.
pub(super) fn window_of(check: &Check) -> Duration {
    let timing = &check.timing;
    let apart = timing.interval.max(timing.timeout) + SLACK;
    apart + timing.timeout.max(timing.fast_interval) * timing.unhealthy_threshold
}

/// Who is asked by a backend's check.
pub(super) fn asked(service: ServiceId, backend: &Backend, check: &Check) -> Asked {
    let port = check.port.unwrap_or(service.port);
    match check.via {
        Via::Service => Asked::Through(service, backend.address, port),
        Via::Direct => {
            // ICMP has no ports: one ping speaks for all services.
            let port = if check.kind == CheckKind::Icmp { 0 } else { port };
            Asked::Direct(check.address.unwrap_or(backend.address), port)
        }
    }
}

/// What is in force after an agent's next report: each word until the next of its sort.
pub(super) fn said(before: Agent, report: &AgentReport) -> Agent {
    use super::member::{Admin, Operational};
    use super::probe::Admin as Wish;
    Agent {
        weight_percent: report.weight_percent.unwrap_or(before.weight_percent),
        up: match report.operational {
            Some(said) if said.is_up() => Operational::Up,
            Some(_) => Operational::Down,
            None => before.up,
        },
        admin: match report.admin {
            Some(Wish::Ready) => Admin::Ready,
            Some(Wish::Drain) => Admin::Drain,
            Some(Wish::Maint) => Admin::Maint,
            None => before.admin,
        },
    }
}

/// The transport that a check speaks.
pub fn transport(question: &Question) -> Protocol {
    match question {
        Question::Check(check) if matches!(check.kind, CheckKind::Udp(_)) => Protocol::Udp,
        Question::Check(_) | Question::Agent(_) => Protocol::Tcp,
    }
}
