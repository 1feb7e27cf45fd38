//! Health checking as YAML: checks fully written out, in one spelling.

use super::effective::text;
use super::effective_service::address as written_address;
use super::health_value::written;
use crate::model::{
    AgentCheck, AllDown, BodyMatch, Check, CheckKind, Exchange, FailurePolicy, HealthPolicy, HttpCheck,
    Require, Via,
};

/// The value of `health_check`: always a list, which inherits nothing.
pub(super) fn checks(checks: &[Check]) -> String {
    if checks.is_empty() {
        return "none".to_owned();
    }
    let list: Vec<String> = checks.iter().map(check).collect();
    format!("[{}]", list.join(", "))
}

/// The value of `health`.
pub(super) fn health(policy: &HealthPolicy) -> String {
    let require = match policy.require {
        Require::All => "all",
        Require::Any => "any",
    };
    format!(
        "{{require: {require}, hold_down: {}, max_hold_down: {}, flap_window: {}, trial_after: {}, \
         trial_time: {}, trial_share: {}%}}",
        written(policy.hold_down),
        written(policy.max_hold_down),
        written(policy.flap_window),
        written(policy.trial_after),
        written(policy.trial_time),
        policy.trial_share
    )
}

/// The value of `agent_check`.
pub(super) fn agent(agent: &AgentCheck) -> String {
    let (interval, timeout) = (written(agent.interval), written(agent.timeout));
    let send = agent.send.as_ref().map(|send| format!(", send: {}", bytes(send))).unwrap_or_default();
    format!("{{port: {}, interval: {interval}, timeout: {timeout}{send}}}", agent.port)
}

/// A service's lines about failure.
pub(super) fn failure(policy: &FailurePolicy) -> String {
    let all_down = match policy.all_down {
        AllDown::LastKnown => "last-known",
        AllDown::Reject => "reject",
    };
    let FailurePolicy { max_failed, min_active, .. } = policy;
    format!("    all_down: {all_down}\n    max_failed: {max_failed}%\n    min_active: {min_active}\n")
}

fn check(check: &Check) -> String {
    let via = match check.via {
        Via::Direct => "direct",
        Via::Service => "service",
    };
    let timing = &check.timing;
    let mut keys = vec![
        ("type", check.kind.name().to_owned()),
        ("via", via.to_owned()),
        ("interval", written(timing.interval)),
        ("timeout", written(timing.timeout)),
        ("fast_interval", written(timing.fast_interval)),
        ("healthy_threshold", timing.healthy_threshold.to_string()),
        ("unhealthy_threshold", timing.unhealthy_threshold.to_string()),
        ("max_interval", written(timing.max_interval)),
    ];
    keys.extend(check.port.map(|port| ("port", port.to_string())));
    keys.extend(check.address.map(|address| ("address", written_address(address))));
    keys.extend(check.source.map(|source| ("source", written_address(source))));
    keys.extend(check.interface.as_ref().map(|interface| ("interface", text(interface))));
    match &check.kind {
        CheckKind::Icmp => {}
        CheckKind::Tcp(exchange) | CheckKind::Udp(exchange) => stream(exchange, &mut keys),
        CheckKind::Http(request) => http(request, &mut keys),
    }
    let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{{{}}}", keys.join(", "))
}

fn stream(exchange: &Exchange, keys: &mut Vec<(&'static str, String)>) {
    keys.extend(exchange.send.as_ref().map(|send| ("send", bytes(send))));
    keys.extend(exchange.expect.as_ref().map(|expect| ("expect", bytes(expect))));
}

fn http(request: &HttpCheck, keys: &mut Vec<(&'static str, String)>) {
    keys.push(("method", text(&request.method)));
    keys.push(("path", text(&request.path)));
    keys.extend(request.host.as_ref().map(|host| ("host", text(host))));
    if !request.headers.is_empty() {
        let one = |(name, value): &(String, String)| format!("{}: {}", text(name), text(value));
        let headers: Vec<String> = request.headers.iter().map(one).collect();
        keys.push(("headers", format!("{{{}}}", headers.join(", "))));
    }
    let statuses: Vec<String> =
        request.expected_status.iter().map(|range| format!("{}-{}", range.start(), range.end())).collect();
    keys.push(("expected_status", format!("[{}]", statuses.join(", "))));
    keys.extend(request.expected_body.as_ref().map(|body| match body {
        BodyMatch::Contains(words) => ("expected_body", text(words)),
        BodyMatch::Regex(pattern) => ("expected_body", format!("{{regex: {}}}", text(pattern))),
    }));
    if let Some(tls) = &request.tls {
        keys.extend(tls.sni.as_ref().map(|sni| ("sni", text(sni))));
        keys.push(("verify", tls.verify.to_string()));
        keys.extend(tls.ca_file.as_ref().map(|file| ("ca_file", text(file))));
    }
}

/// What is sent came from a YAML string, so it is text.
fn bytes(bytes: &[u8]) -> String {
    text(&String::from_utf8_lossy(bytes))
}
