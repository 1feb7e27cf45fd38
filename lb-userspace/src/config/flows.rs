//! How services choose backends for new flows, what they remember of flows, and how backends come and go: the keys
//! `algorithm` to `slow_start`, of services, of pools as far as they are about backends, and of `defaults`.
//!
//! Knows which of them cannot go together, and nothing of how they are carried out.

use std::time::Duration;

use super::decode::{At, Fields, Shape, scalar, wrong_kind};
use super::diagnostic::{Findings, Report, code};
use super::flows_value as value;
use super::health_value::{SECOND_TO_DAY, UP_TO_HOUR, written};
use super::node::{Kind, Node};
use super::schema::{Pool, Service};
use crate::model::{
    Algorithm, Check, CheckKind, DrainRules, FlowRules, IdleTimes, OnRemove, Protocol, Tracking,
};

pub(super) static IDLE: Shape =
    Shape { what: "`idle`", keys: &["established", "half_open", "closing"], later: &[] };
pub(super) static AFFINITY: Shape = Shape { what: "`affinity`", keys: &["by", "timeout"], later: &[] };

/// The keys as written; what is absent, or was refused, is somebody else's or the default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowKeys {
    pub(super) algorithm: Option<At<Algorithm>>,
    tracking: Option<At<Tracking>>,
    established: Option<At<Duration>>,
    half_open: Option<At<Duration>>,
    closing: Option<At<Duration>>,
    affinity: Option<At<Option<Duration>>>,
    max_unsettled: Option<At<Duration>>,
    on_remove: Option<At<OnRemove>>,
    drain_deadline: Option<At<Option<Duration>>>,
    slow_start: Option<At<Duration>>,
}

impl FlowKeys {
    /// All of them, of a service or of `defaults`.
    pub(super) fn read(fields: &Fields<'_>, out: &mut Findings<'_>) -> Self {
        let mut keys = Self {
            algorithm: fields.optional("algorithm", &value::ALGORITHM, out),
            tracking: fields.optional("tracking", &value::TRACKING, out),
            affinity: fields.get("affinity").and_then(|node| affinity(node, out)),
            max_unsettled: fields.optional("max_unsettled", &value::SECOND_TO_WEEK, out),
            ..Self::of_backends(fields, out)
        };
        if let Some(node) = fields.get("idle") {
            keys.idle(node, out);
        }
        keys
    }

    /// Those about backends alone, which pools have as well.
    pub(super) fn of_backends(fields: &Fields<'_>, out: &mut Findings<'_>) -> Self {
        Self {
            on_remove: fields.optional("on_remove", &value::ON_REMOVE, out),
            drain_deadline: fields.optional("drain_deadline", &value::DRAIN_DEADLINE, out),
            slow_start: fields.optional("slow_start", &UP_TO_HOUR, out),
            ..Self::default()
        }
    }

    /// `idle`: one time, which is that of established flows, or each by its name.
    fn idle(&mut self, node: &Node, out: &mut Findings<'_>) {
        match node.kind {
            Kind::Scalar(_) => self.established = scalar(node, "idle", &value::IDLE, out),
            Kind::Map(_) => {
                let Some(fields) = Fields::open(node, &IDLE, out) else { return };
                self.established = fields.optional("established", &SECOND_TO_DAY, out);
                self.half_open = fields.optional("half_open", &value::SECOND_TO_HOUR, out);
                self.closing = fields.optional("closing", &value::SECOND_TO_HOUR, out);
            }
            Kind::Null | Kind::Seq(_) => out.push(wrong_kind(node, "idle", value::IDLE.expected)),
        }
    }

    /// These, and for what they do not say `others`.
    pub(super) fn over(&self, others: &Self) -> Self {
        Self {
            algorithm: self.algorithm.or(others.algorithm),
            tracking: self.tracking.or(others.tracking),
            established: self.established.or(others.established),
            half_open: self.half_open.or(others.half_open),
            closing: self.closing.or(others.closing),
            affinity: self.affinity.or(others.affinity),
            max_unsettled: self.max_unsettled.or(others.max_unsettled),
            on_remove: self.on_remove.or(others.on_remove),
            drain_deadline: self.drain_deadline.or(others.drain_deadline),
            slow_start: self.slow_start.or(others.slow_start),
        }
    }

    /// What they mean for a service of this protocol.
    pub(super) fn flow_rules(&self, protocol: Protocol) -> FlowRules {
        let default = FlowRules::of(protocol);
        let idle = IdleTimes {
            established: plain(self.established, default.idle.established),
            half_open: plain(self.half_open, default.idle.half_open),
            closing: plain(self.closing, default.idle.closing),
        };
        // In a shorter time a slot cannot settle by itself.
        let enough = default.max_unsettled.max(idle.established.saturating_mul(2));
        FlowRules {
            algorithm: plain(self.algorithm, default.algorithm),
            tracking: plain(self.tracking, default.tracking),
            idle,
            affinity: plain(self.affinity, default.affinity),
            max_unsettled: plain(self.max_unsettled, enough),
        }
    }

    /// What they mean for the backends of a service.
    pub(super) fn drain_rules(&self) -> DrainRules {
        let default = DrainRules::default();
        DrainRules {
            on_remove: plain(self.on_remove, default.on_remove),
            deadline: plain(self.drain_deadline, default.deadline),
            slow_start: plain(self.slow_start, default.slow_start),
        }
    }
}

fn plain<T>(written: Option<At<T>>, default: T) -> T {
    written.map_or(default, |at| at.value)
}

fn affinity(node: &Node, out: &mut Findings<'_>) -> Option<At<Option<Duration>>> {
    let value = match &node.kind {
        Kind::Scalar(text) if text == "none" => None,
        Kind::Map(_) => {
            let fields = Fields::open(node, &AFFINITY, out)?;
            let by = fields.required("by", &value::AFFINITY_BY, out);
            let timeout = fields.optional("timeout", &SECOND_TO_DAY, out);
            by?;
            Some(timeout.map_or(value::AFFINITY_TIMEOUT, |at| at.value))
        }
        _ => {
            let expected = "none, or a mapping such as {by: source, timeout: 10m}";
            out.push(wrong_kind(node, "affinity", expected));
            return None;
        }
    };
    Some(At { value, span: node.span })
}

/// Checks what a service's keys, over its pool's and the defaults', mean together.
pub(super) fn check(keys: &FlowKeys, service: &Service, pool: &Pool, out: &mut Findings<'_>) {
    untracked(keys, out);
    long_drain(keys, service, out);
    latency(keys, service, pool, out);
    for protocol in &service.traffic.protocols {
        let rules = keys.flow_rules(protocol.value);
        let Some(At { value, span }) = keys.max_unsettled.filter(|most| most.value < rules.idle.established)
        else {
            continue;
        };
        let idle = written(rules.idle.established);
        let message = format!("`max_unsettled` ({}) is shorter than `idle` ({idle})", written(value));
        let report = Report::error(code::SHORT_UNSETTLED, span, message);
        out.push(match keys.established {
            Some(established) => report.also(established.span, "the idle time").help(
                "flows from before a change are known only after an idle time; raise the one or lower the other",
            ),
            None => report.help(format!("`idle` is not written: by default it is {idle} for {}", protocol.value)),
        });
        return;
    }
}

/// `tracking: never` leaves no place for what some choices have to remember.
fn untracked(keys: &FlowKeys, out: &mut Findings<'_>) {
    let Some(never) = keys.tracking.filter(|tracking| tracking.value == Tracking::Never) else { return };
    let help = "remove `tracking: never`; or let the flow's hash choose: maglev, source-hash or \
                least-response-time, without `affinity`";
    if let Some(algorithm) = keys.algorithm.filter(|algorithm| algorithm.value.needs_state()) {
        let name = value::algorithm_name(algorithm.value);
        let message = format!("`tracking: never` and `algorithm: {name}` do not go together");
        let report = Report::error(code::NEEDS_TRACKING, algorithm.span, message);
        out.push(report.also(never.span, "nothing is remembered").help(format!(
            "{name} may give an unknown flow another backend with each packet, so every flow must be remembered; {help}"
        )));
    }
    if let Some(affinity) = keys.affinity.filter(|affinity| affinity.value.is_some()) {
        let message = "`tracking: never` and `affinity` do not go together".to_owned();
        let report = Report::error(code::NEEDS_TRACKING, affinity.span, message);
        out.push(report.also(never.span, "nothing is remembered").help(format!(
            "a flow that follows its client is not where its hash says, so it must be remembered; {help}"
        )));
    }
}

/// Flows that are left move when their slots settle, whatever a drain's deadline says; except where all are recorded.
fn long_drain(keys: &FlowKeys, service: &Service, out: &mut Findings<'_>) {
    let Some(At { value: Some(deadline), span }) = keys.drain_deadline else { return };
    let mut rules = service.traffic.protocols.iter().map(|protocol| keys.flow_rules(protocol.value));
    let short = |rules: &FlowRules| {
        rules.tracking == Tracking::Auto && !rules.records_all() && rules.max_unsettled < deadline
    };
    let Some(rules) = rules.find(short) else { return };
    let most = written(rules.max_unsettled);
    let message = format!(
        "`drain_deadline` ({}) is longer than `max_unsettled` ({most}), which ends drains first",
        written(deadline)
    );
    let report = Report::warning(code::LONG_DRAIN, span, message);
    out.push(match keys.max_unsettled {
        Some(unsettled) => {
            report.also(unsettled.span, "the shorter one").help("raise it, or lower `drain_deadline`")
        }
        None => report.help(format!(
            "`max_unsettled` is not written: by default it is {most}; raise it, or lower `drain_deadline`"
        )),
    });
}

/// Response times are those of health checks.
fn latency(keys: &FlowKeys, service: &Service, pool: &Pool, out: &mut Findings<'_>) {
    let by_latency = |at: &At<Algorithm>| at.value == Algorithm::LeastResponseTime;
    let Some(algorithm) = keys.algorithm.filter(by_latency) else { return };
    // One that waits for silence measures its own timeout.
    let measures =
        |check: &Check| !matches!(&check.kind, CheckKind::Udp(exchange) if exchange.expect.is_none());
    let backends = || pool.backends.iter().flatten();
    let measured =
        backends().any(|backend| backend.checks.as_ref().unwrap_or(&pool.checks).iter().any(measures));
    // Without backends, or with a check that was refused, the error is another.
    if measured
        || backends().next().is_none()
        || (pool.checks_span.is_some() && pool.checks.is_empty() && out.has_errors())
    {
        return;
    }
    let place = service.name.as_ref().map(|name| name.span).filter(|_| service.flows.algorithm.is_none());
    let message = "least-response-time needs a `health_check` that is answered".to_owned();
    let report = Report::error(code::NO_RESPONSE_TIME, algorithm.span, message);
    let report = place.into_iter().fold(report, |report, span| report.also(span, "this service has none"));
    out.push(report.help(
        "how long backends take is what their checks measure; add a `health_check` to the pool (udp: with \
         `expect`), or choose least-connections",
    ));
}
