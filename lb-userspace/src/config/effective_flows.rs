//! Rules about flows as YAML.

use std::collections::BTreeSet;
use std::time::Duration;

use super::flows_value::algorithm_name;
use super::health_value::written;
use crate::model::{OnRemove, Service, Tracking};

/// A service's lines about flows. Where services of one entry differ in `established`, each has its protocol's default,
/// and nothing is written.
pub(super) fn lines(service: &Service, established: &BTreeSet<Duration>) -> String {
    let flows = &service.flows;
    let tracking = match flows.tracking {
        Tracking::Auto => "auto",
        Tracking::Always => "always",
        Tracking::Never => "never",
    };
    let on_remove = match service.drain.on_remove {
        OnRemove::Drain => "drain",
        OnRemove::Drop => "drop",
    };
    let established = match established.first() {
        Some(time) if established.len() == 1 => format!("established: {}, ", written(*time)),
        _ => String::new(),
    };
    let idle = format!(
        "{{{established}half_open: {}, closing: {}}}",
        written(flows.idle.half_open),
        written(flows.idle.closing)
    );
    let affinity = flows
        .affinity
        .map_or("none".to_owned(), |time| format!("{{by: source, timeout: {}}}", written(time)));
    [
        ("algorithm", algorithm_name(flows.algorithm).to_owned()),
        ("tracking", tracking.to_owned()),
        ("idle", idle),
        ("affinity", affinity),
        ("max_unsettled", written(flows.max_unsettled)),
        ("on_remove", on_remove.to_owned()),
        ("drain_deadline", service.drain.deadline.map_or("none".to_owned(), written)),
        ("slow_start", written(service.drain.slow_start)),
    ]
    .into_iter()
    .map(|(key, value)| format!("    {key}: {value}\n"))
    .collect()
}
