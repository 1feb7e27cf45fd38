//! `health_check`: what is written for a pool or backend, laid over what it inherits, becomes checks.
//!
//! Knows which keys belong to which type; what results mean is `policy`'s.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::decode::{Fields, Shape, wrong_kind};
use super::diagnostic::{Findings, Report, code};
use super::health_kind;
use super::health_value::{self as value, CheckType};
use super::layers::Layers;
use super::node::{Kind, Node};
use super::value::{INTERFACE, PORT};
use super::value_net::ADDRESS;
use crate::model::{Check, Timing, Via};

const EXPECTED: &str = "a mapping such as {type: tcp}, a list of mappings, or none";

pub(super) static CHECK: Shape = Shape {
    what: "`health_check`",
    keys: &[
        "type",
        "via",
        "interval",
        "timeout",
        "fast_interval",
        "healthy_threshold",
        "unhealthy_threshold",
        "max_interval",
        "port",
        "address",
        "source",
        "interface",
        "send",
        "expect",
        "method",
        "path",
        "host",
        "headers",
        "expected_status",
        "expected_body",
        "sni",
        "verify",
        "ca_file",
    ],
    later: &[],
};

/// What checks are read with.
pub(super) struct Context<'n> {
    /// Where relative files start.
    pub(super) directory: &'n Path,
    /// `defaults.health_check`.
    pub(super) defaults: Option<Fields<'n>>,
    /// `defaults.health`.
    pub(super) policy: Option<Fields<'n>>,
}

/// The checks of a pool.
#[derive(Default)]
pub(super) struct Checks<'n> {
    pub(super) list: Arc<[Check]>,
    base: Base<'n>,
}

/// What a backend's own mapping is laid over.
#[derive(Clone, Copy, Default)]
enum Base<'n> {
    /// The pool has no mapping.
    #[default]
    Nothing,
    One(Fields<'n>),
    Several,
    /// Something that was refused, and reported.
    Refused,
}

/// A pool's checks.
pub(super) fn pool<'n>(fields: &Fields<'n>, context: &Context<'n>, out: &mut Findings<'_>) -> Checks<'n> {
    match fields.get("health_check") {
        Some(node) => read(node, None, context, out),
        None => {
            let inherited = context.defaults.filter(|defaults| defaults.get("type").is_some());
            let check = inherited.and_then(|defaults| check(&Layers::new(None, [defaults]), context, out));
            Checks { list: check.into_iter().collect(), base: Base::Nothing }
        }
    }
}

/// A backend's own checks, where it has some.
pub(super) fn backend<'n>(
    fields: &Fields<'n>,
    pool: &Checks<'n>,
    context: &Context<'n>,
    out: &mut Findings<'_>,
) -> Option<Arc<[Check]>> {
    let node = fields.get("health_check")?;
    let single = match pool.base {
        // A list or `none` replaces the pool's, whatever that is.
        _ if !matches!(node.kind, Kind::Map(_)) => None,
        Base::Nothing => None,
        Base::One(single) => Some(single),
        Base::Several => {
            let message = "the pool has several checks: which of them this changes is open".to_owned();
            let report = Report::error(code::BAD_CHECK, node.span, message);
            out.push(report.help("write a list: it replaces the pool's"));
            return None;
        }
        Base::Refused => return None,
    };
    Some(read(node, single, context, out).list)
}

fn read<'n>(
    node: &'n Node,
    pool: Option<Fields<'n>>,
    context: &Context<'n>,
    out: &mut Findings<'_>,
) -> Checks<'n> {
    let refused = Checks { list: Arc::default(), base: Base::Refused };
    match &node.kind {
        Kind::Scalar(text) if text == "none" => Checks::default(),
        Kind::Map(_) => {
            let Some(own) = Fields::open(node, &CHECK, out) else { return refused };
            let layers = Layers::new(Some(own), pool.into_iter().chain(context.defaults));
            Checks { list: check(&layers, context, out).into_iter().collect(), base: Base::One(own) }
        }
        Kind::Seq(items) if !items.is_empty() => {
            let opened: Vec<Fields<'n>> =
                items.iter().filter_map(|item| Fields::open(item, &CHECK, out)).collect();
            let one = |own: &Fields<'n>| check(&Layers::new(Some(*own), context.defaults), context, out);
            let list = opened.iter().filter_map(one).collect();
            let base = match opened.as_slice() {
                [] => Base::Refused,
                [single] if items.len() == 1 => Base::One(*single),
                _ => Base::Several,
            };
            Checks { list, base }
        }
        Kind::Seq(_) => {
            let message = "`health_check` is an empty list".to_owned();
            let report = Report::error(code::BAD_VALUE, node.span, message);
            out.push(report.help("write `none` for no check"));
            refused
        }
        Kind::Scalar(_) | Kind::Null => {
            out.push(wrong_kind(node, "health_check", EXPECTED));
            refused
        }
    }
}

/// Reads the values of `defaults.health_check`, whatever becomes of them.
pub(super) fn defaults<'n>(node: &'n Node, directory: &Path, out: &mut Findings<'_>) -> Option<Fields<'n>> {
    let fields = Fields::open(node, &CHECK, out)?;
    let layers = Layers::new(None, [fields]);
    layers.read("type", &value::TYPE, out);
    for kind in [CheckType::Tcp, CheckType::Https] {
        health_kind::read(kind, &layers, directory, out);
    }
    layers.read("via", &value::VIA, out);
    layers.read("address", &ADDRESS, out);
    layers.read("source", &ADDRESS, out);
    layers.read("interface", &INTERFACE, out);
    layers.read("port", &PORT, out);
    for key in ["healthy_threshold", "unhealthy_threshold"] {
        layers.read(key, &value::THRESHOLD, out);
    }
    layers.read("interval", &value::INTERVAL, out);
    layers.read("max_interval", &value::INTERVAL, out);
    layers.read("timeout", &value::TIMEOUT, out);
    layers.read("fast_interval", &value::FAST_INTERVAL, out);
    Some(fields)
}

fn check(layers: &Layers<'_>, context: &Context<'_>, out: &mut Findings<'_>) -> Option<Check> {
    if layers.get("type").is_none() {
        if let Some(own) = layers.own() {
            own.require("type", value::TYPE.expected, out);
        }
        return None;
    }
    let kind = layers.read("type", &value::TYPE, out)?.value;
    misplaced(kind, layers, out);
    let via = via(kind, layers, out);
    let direct = via == Via::Direct;
    let plain_port = if kind == CheckType::Icmp { None } else { layers.read("port", &PORT, out) };
    let address = if direct { layers.read("address", &ADDRESS, out) } else { None };
    let interface = if direct { layers.read("interface", &INTERFACE, out) } else { None };
    let kind = health_kind::read(kind, layers, context.directory, out);
    health_kind::certificate_name(&kind, layers, out);
    Some(Check {
        kind,
        via,
        address: address.map(|at| at.value),
        port: plain_port.map(|at| at.value),
        source: layers.read("source", &ADDRESS, out).map(|at| at.value),
        interface: interface.map(|at| at.value),
        timing: timing(layers, out),
    })
}

/// Reports the mapping's own keys that its type has no use for. Inherited ones may be meant for another type.
fn misplaced(kind: CheckType, layers: &Layers<'_>, out: &mut Findings<'_>) {
    let Some(own) = layers.own() else { return };
    for (key, types) in health_kind::KEYS {
        if let Some(span) = own.key_span(key).filter(|_| !types.contains(&kind)) {
            let names: Vec<&str> = types.iter().map(|kind| kind.name()).collect();
            let message = format!("a check of type {} has no `{key}`", kind.name());
            let help = format!("`{key}` belongs to {}", names.join(", "));
            out.push(Report::error(code::BAD_CHECK, span, message).help(help));
        }
    }
}

/// The way of the probes. Of contradicting keys the nearer one decides; at the same place they are an error.
fn via(kind: CheckType, layers: &Layers<'_>, out: &mut Findings<'_>) -> Via {
    let written = layers.read("via", &value::VIA, out).map(|at| at.value);
    let (place, address) = (layers.depth("via"), layers.depth("address"));
    if kind == CheckType::Icmp {
        if written == Some(Via::Service) && layers.is_own("via") {
            let message = "an icmp check cannot go `via: service`".to_owned();
            out.push(
                Report::error(code::BAD_CHECK, layers.span("via"), message).help(
                    "ICMP has no ports to tell backends by; ping the backend itself with `via: direct`",
                ),
            );
        }
        return Via::Direct;
    }
    if kind == CheckType::Udp && layers.get("expect").is_none() {
        if written == Some(Via::Service) && layers.is_own("via") {
            let message = "a udp check without `expect` cannot go `via: service`".to_owned();
            out.push(Report::error(code::BAD_CHECK, layers.span("via"), message).help(
                "silence would pass, and refusals by ICMP do not come back that way; write `expect`, or `via: direct`",
            ));
        }
        return Via::Direct;
    }
    let nearer = address.is_some_and(|address| place.is_none_or(|place| address < place));
    let via = if nearer { Via::Direct } else { written.unwrap_or(Via::Service) };
    if via == Via::Service && address.is_some() && address == place {
        let message = "`address` needs `via: direct`".to_owned();
        let report = Report::error(code::BAD_CHECK, layers.span("address"), message);
        out.push(report.help("through the service a probe goes to the service address"));
    }
    if via == Via::Service && layers.is_own("interface") {
        let message = "`interface` needs `via: direct`".to_owned();
        let report = Report::error(code::BAD_CHECK, layers.span("interface"), message);
        out.push(report.help("through the service the backend's next hop decides the way out"));
    }
    via
}

fn timing(layers: &Layers<'_>, out: &mut Findings<'_>) -> Timing {
    let seconds = Duration::from_secs;
    let interval = layers.duration("interval", &value::INTERVAL, seconds(2), out);
    let most = interval.value;
    let timeout = layers.duration("timeout", &value::TIMEOUT, seconds(1).min(most), out);
    let fast = Duration::from_millis(200).min(most).min(timeout.value);
    let fast_interval = layers.duration("fast_interval", &value::FAST_INTERVAL, fast, out);
    let max_interval = layers.duration("max_interval", &value::INTERVAL, seconds(30).max(most), out);
    layers.at_most(timeout, interval, out);
    layers.at_most(fast_interval, interval, out);
    layers.at_least(max_interval, interval, out);
    let mut count = |key| layers.read(key, &value::THRESHOLD, out).map(|at| at.value);
    Timing {
        interval: interval.value,
        fast_interval: fast_interval.value,
        timeout: timeout.value,
        healthy_threshold: count("healthy_threshold").unwrap_or(2),
        unhealthy_threshold: count("unhealthy_threshold").unwrap_or(3),
        max_interval: max_interval.value,
    }
}
