//! What check results mean: the keys `health`, `agent_check`, and those of services and backends about failure.

use std::time::Duration;

use super::decode::{Fields, Shape, scalar};
use super::diagnostic::{Findings, Report, code};
use super::health_value as value;
use super::layers::Layers;
use super::node::Node;
use super::source::Span;
use super::value::{BOOL, PORT};
use crate::model::{AgentCheck, FailurePolicy, HealthPolicy};

pub(super) static HEALTH: Shape = Shape {
    what: "`health`",
    keys: &[
        "require",
        "hold_down",
        "max_hold_down",
        "flap_window",
        "trial_after",
        "trial_time",
        "trial_share",
    ],
    later: &[],
};
pub(super) static AGENT: Shape =
    Shape { what: "`agent_check`", keys: &["port", "interval", "timeout", "send"], later: &[] };

/// Reads `health`, laid over its defaults.
pub(super) fn health<'n>(
    node: Option<&'n Node>,
    defaults: Option<Fields<'n>>,
    out: &mut Findings<'_>,
) -> HealthPolicy {
    let own = node.and_then(|node| Fields::open(node, &HEALTH, out));
    let layers = Layers::new(own, defaults);
    let default = HealthPolicy::default();
    let require = layers.read("require", &value::REQUIRE, out).map_or(default.require, |at| at.value);
    let trial_share =
        layers.read("trial_share", &value::PERCENT, out).map_or(default.trial_share, |at| at.value);
    let hold_down = layers.duration("hold_down", &value::UP_TO_HOUR, default.hold_down, out);
    let longest = default.max_hold_down.max(hold_down.value);
    let max_hold_down = layers.duration("max_hold_down", &value::SECOND_TO_DAY, longest, out);
    layers.at_least(max_hold_down, hold_down, out);
    let mut read = |key, reader| layers.read(key, reader, out).map(|at| at.value);
    HealthPolicy {
        require,
        hold_down: hold_down.value,
        max_hold_down: max_hold_down.value,
        flap_window: read("flap_window", &value::SECOND_TO_DAY).unwrap_or(default.flap_window),
        trial_after: read("trial_after", &value::UP_TO_DAY).unwrap_or(default.trial_after),
        trial_time: read("trial_time", &value::UP_TO_HOUR).unwrap_or(default.trial_time),
        trial_share,
    }
}

/// Reads `agent_check`.
pub(super) fn agent(node: &Node, out: &mut Findings<'_>) -> Option<AgentCheck> {
    let fields = Fields::open(node, &AGENT, out)?;
    let port = fields.required("port", &PORT, out);
    let layers = Layers::new(Some(fields), None);
    let interval = layers.duration("interval", &value::INTERVAL, Duration::from_secs(5), out);
    let second = Duration::from_secs(1).min(interval.value);
    let timeout = layers.duration("timeout", &value::TIMEOUT, second, out);
    layers.at_most(timeout, interval, out);
    let send = fields.optional("send", &value::TEXT, out).map(|at| at.value.into_bytes());
    Some(AgentCheck { port: port?.value, interval: interval.value, timeout: timeout.value, send })
}

/// Reports keys about backends that a service with a pool has no say in.
pub(super) fn of_pools(fields: &Fields<'_>, pool: Span, out: &mut Findings<'_>) {
    for key in ["health_check", "health", "agent_check"] {
        if let Some(span) = fields.key_span(key) {
            let message = format!("a service with a `pool` has no `{key}` of its own");
            let report = Report::error(code::POOL_OR_BACKENDS, span, message);
            out.push(report.also(pool, "the pool").help(format!("write `{key}` in the pool")));
        }
    }
}

/// Reads what a service does when its backends fail.
pub(super) fn failure(fields: &Fields<'_>, out: &mut Findings<'_>) -> FailurePolicy {
    let default = FailurePolicy::default();
    FailurePolicy {
        all_down: fields.optional("all_down", &value::ALL_DOWN, out).map_or(default.all_down, |at| at.value),
        max_failed: fields
            .optional("max_failed", &value::PERCENT, out)
            .map_or(default.max_failed, |at| at.value),
        min_active: fields
            .optional("min_active", &value::MIN_ACTIVE, out)
            .map_or(default.min_active, |at| at.value),
    }
}

/// Reads `group`, or `backup` for the first of them.
pub(super) fn group(fields: &Fields<'_>, out: &mut Findings<'_>) -> u8 {
    let group = fields.optional("group", &value::GROUP, out);
    let backup = fields.optional("backup", &BOOL, out);
    if let (Some(group), Some(backup)) = (fields.key_span("group"), fields.key_span("backup")) {
        let message = "a backend has either `backup` or `group`".to_owned();
        let report = Report::error(code::BAD_VALUE, backup, message).also(group, "the group");
        out.push(report.help("`backup: true` is `group: 1`"));
    }
    group.map_or(u8::from(backup.is_some_and(|at| at.value)), |at| at.value)
}

/// Reads `on_change`: a command and its arguments.
pub(super) fn command(fields: &Fields<'_>, out: &mut Findings<'_>) -> Vec<String> {
    let Some(items) = fields.list("on_change", out) else { return Vec::new() };
    let words: Vec<String> = items
        .iter()
        .filter_map(|node| Some(scalar(node, "on_change", &value::ARGUMENT, out)?.value))
        .collect();
    if let (Some(node), Some("")) = (items.first(), words.first().map(String::as_str)) {
        out.push(Report::error(code::BAD_VALUE, node.span, "`on_change` names no command".to_owned()));
    }
    words
}
