//! What is known of every backend, for people and programs that ask.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::check::Standing;
use super::decide::Alarm;
use super::fleet::{Fleet, Watch};
use super::member::{Admin, State, Use};
use super::task::{Last, Question, TaskId};
use crate::model::{ServiceId, Via};

/// A service's backends.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ServiceHealth {
    /// The service's name.
    pub service: String,
    /// Its address, port and protocol.
    pub id: String,
    /// What people should know.
    pub alarm: Option<String>,
    /// Its backends, by address.
    pub backends: BTreeMap<IpAddr, BackendHealth>,
}

/// A backend of a service.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BackendHealth {
    /// What is believed of it: `unknown`, `up`, `trial`, `held` or `down`.
    pub state: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// When a trial or hold-down ends, in seconds since 1970.
    pub until: Option<u64>,
    /// How the operator or its agent want it used: `ready`, `drain` or `maint`.
    pub admin: String,
    /// What it gets: `serving`, `draining` or `out`.
    pub gets: String,
    /// Share of its weight that it gets now, in percent.
    pub percent: u32,
    /// Whether it serves although its checks fail.
    pub disbelieved: bool,
    /// How often it failed lately.
    pub flaps: usize,
    /// Why it is down, or its agent's reason.
    pub reason: Option<String>,
    /// Its checks, in the config's order, and its agent.
    pub checks: Vec<CheckHealth>,
}

/// A check of a backend.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct CheckHealth {
    /// `icmp`, `tcp`, `http`, `https`, `udp` or `agent`.
    pub kind: String,
    /// `direct` or `service`.
    pub via: String,
    /// `unknown`, `passing` or `failing`.
    pub standing: String,
    /// When the last probe ended, in seconds since 1970.
    pub at: Option<u64>,
    /// How long it took, in microseconds.
    pub latency_us: Option<u64>,
    /// Why the last probe failed, if it did.
    pub failure: Option<String>,
    /// Results of the same kind in a row.
    pub streak: u32,
    /// Why no probe can be made, if so.
    pub hindrance: Option<String>,
}

/// The words for states.
pub fn state_word(state: State) -> &'static str {
    match state {
        State::Unknown => "unknown",
        State::Up => "up",
        State::Trial => "trial",
        State::Held => "held",
        State::Down => "down",
    }
}

/// An alarm in words.
pub fn alarm_words(alarm: Alarm) -> String {
    match alarm {
        Alarm::MassFailure { failed, of, kept } => format!(
            "{failed} of {of} backends failed at once: not believed, {kept} of them serve on (max_failed)"
        ),
        Alarm::AllDown { kept } => {
            format!("no backend is up: {kept} serve on nonetheless (all_down: last-known)")
        }
        Alarm::Rejecting => {
            "no backend takes new flows (all_down: reject, or all of them drained or disabled)".to_owned()
        }
    }
}

impl Fleet {
    /// What is known now; `last` holds the last results of the probes.
    pub fn view(&self, last: &BTreeMap<TaskId, Last>, now: Instant) -> Vec<ServiceHealth> {
        let clock = Clock { now, wall: SystemTime::now() };
        let one = |(id, service): (&ServiceId, &super::fleet::Watched)| ServiceHealth {
            service: service.name.clone(),
            id: id.to_string(),
            alarm: service.alarm.map(alarm_words),
            backends: service
                .members
                .iter()
                .map(|(address, watch)| {
                    let disbelieved = service.floor.latched().any(|latched| latched == address);
                    (*address, self.backend(watch, disbelieved, last, &clock))
                })
                .collect(),
        };
        self.services().map(one).collect()
    }

    fn backend(
        &self,
        watch: &Watch,
        disbelieved: bool,
        last: &BTreeMap<TaskId, Last>,
        clock: &Clock,
    ) -> BackendHealth {
        let member = &watch.member;
        let (gets, percent) = match watch.gets {
            Use::Serving { percent } => ("serving", percent),
            Use::LastKnown => ("serving", 100),
            Use::Draining => ("draining", 0),
            Use::Out => ("out", 0),
        };
        let admin = match member.admin() {
            Admin::Ready => "ready",
            Admin::Drain => "drain",
            Admin::Maint => "maint",
        };
        let tasks = watch.checks.iter().chain(&watch.agent);
        BackendHealth {
            state: state_word(member.state()).to_owned(),
            since: clock.unix(member.since()),
            until: member.until().map(|until| clock.unix(until)),
            admin: admin.to_owned(),
            gets: gets.to_owned(),
            percent,
            disbelieved,
            flaps: member.flaps(clock.now),
            reason: tasks.clone().find_map(|id| self.job_of(*id)?.why.clone()),
            checks: tasks.filter_map(|id| self.check(*id, last.get(id), clock)).collect(),
        }
    }

    fn check(&self, id: TaskId, last: Option<&Last>, clock: &Clock) -> Option<CheckHealth> {
        let job = self.job_of(id)?;
        let (kind, via) = match &job.question {
            Question::Check(check) => (
                check.kind.name(),
                match check.via {
                    Via::Direct => "direct",
                    Via::Service => "service",
                },
            ),
            Question::Agent(_) => ("agent", "direct"),
        };
        let standing = match job.standing {
            Standing::Unknown => "unknown",
            Standing::Passing => "passing",
            Standing::Failing => "failing",
        };
        // A probe that never could be made has a hindrance only.
        let made = last.filter(|last| last.streak > 0);
        Some(CheckHealth {
            kind: kind.to_owned(),
            via: via.to_owned(),
            standing: standing.to_owned(),
            at: made.map(|last| clock.unix(last.at)),
            latency_us: made.map(|last| u64::try_from(last.latency.as_micros()).unwrap_or(u64::MAX)),
            failure: made.and_then(|last| last.failure.as_ref()).map(ToString::to_string),
            streak: made.map_or(0, |last| last.streak),
            hindrance: last.and_then(|last| last.hindrance.clone()),
        })
    }
}

/// Moments of the monotonic clock as dates.
struct Clock {
    now: Instant,
    wall: SystemTime,
}

impl Clock {
    fn unix(&self, moment: Instant) -> u64 {
        let wall = match moment.checked_duration_since(self.now) {
            Some(ahead) => self.wall + ahead,
            None => self.wall - self.now.saturating_duration_since(moment).min(Duration::from_secs(1 << 30)),
        };
        wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}
