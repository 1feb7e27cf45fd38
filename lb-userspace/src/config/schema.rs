//! The sections and keys of a config, one value at a time. What values mean to each other is `check`'s.
//!
//! A field is `None` where it is absent or was refused (and reported): later checks look at what is there.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use super::admission::{self, Admission, Files};
use super::decode::{At, Fields, Shape};
use super::diagnostic::{Findings, Report, code};
use super::flows::FlowKeys;
use super::flows_value::RECEIVING_CPUS;
use super::forwarding;
use super::health::{self, Checks, Context};
use super::health_value::PROBES;
use super::nic;
use super::node::{Kind, Node};
use super::policy;
use super::quic;
use super::shapes::{BACKEND, CLUSTER, CONFIG, DEFAULTS, LIMITS, POOL, SERVICE, VIP};
use super::source::Span;
use super::traffic::Traffic;
use super::value;
use super::value_net as net;
use crate::model::{
    Advertise, AgentCheck, AttachMode, Check, Echo, FailurePolicy, Forwarding, HealthPolicy,
    InterfaceSettings, OtherPorts, Prefix, Quic,
};

/// A whole config, as written.
#[derive(Debug, Default)]
pub(super) struct Config {
    pub(super) interfaces: Vec<Interface>,
    pub(super) vips: Vec<Vip>,
    /// Where services are written, or should be.
    pub(super) services_span: Option<Span>,
    pub(super) services: Vec<Service>,
    pub(super) pools: Vec<Pool>,
    pub(super) limits: Limits,
    /// What `defaults` says of flows.
    pub(super) flows: FlowKeys,
    pub(super) key_file: Option<At<String>>,
    pub(super) on_change: Vec<String>,
}

/// An entry of `interfaces`.
#[derive(Debug)]
pub(super) struct Interface {
    pub(super) name: Option<At<String>>,
    pub(super) mode: AttachMode,
    pub(super) settings: InterfaceSettings,
}

/// An entry of `vips`.
#[derive(Debug)]
pub(super) struct Vip {
    pub(super) address: Option<At<Prefix>>,
    pub(super) advertise: Option<Advertise>,
    pub(super) echo: Echo,
    pub(super) other_ports: OtherPorts,
}

/// An entry of `services`.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: Option<At<String>>,
    pub(super) traffic: Traffic,
    pub(super) quic: Option<At<Quic>>,
    pub(super) admission: Admission,
    pub(super) flows: FlowKeys,
    pub(super) ring_size: Option<u32>,
    pub(super) servers: Option<Servers>,
    pub(super) failure: FailurePolicy,
}

/// Where a service's backends are.
#[derive(Debug)]
pub(super) enum Servers {
    /// In a pool of this name.
    Pool(At<String>),
    /// In the service itself; the pool has the service's name.
    Own(Box<Pool>),
}

/// An entry of `pools`, or a service's own backends.
#[derive(Debug)]
pub(super) struct Pool {
    /// What findings about the pool as a whole point to.
    pub(super) span: Span,
    pub(super) name: Option<At<String>>,
    pub(super) forwarding: Option<Forwarding>,
    /// `None`: not a list, or absent.
    pub(super) backends: Option<Vec<Backend>>,
    pub(super) checks: Arc<[Check]>,
    /// Where `health_check` is written.
    pub(super) checks_span: Option<Span>,
    /// Where `health` is written.
    pub(super) health_span: Option<Span>,
    pub(super) health: HealthPolicy,
    pub(super) agent: Option<AgentCheck>,
    /// What it says of flows; none of a service's own.
    pub(super) flows: FlowKeys,
}

/// An entry of `backends`.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: Option<At<String>>,
    pub(super) address: Option<At<IpAddr>>,
    pub(super) weight: u16,
    pub(super) drain: bool,
    pub(super) mac: Option<[u8; 6]>,
    pub(super) interface: Option<String>,
    pub(super) vlan: Option<u16>,
    pub(super) server_id: Option<At<u64>>,
    pub(super) forwarding: Option<Forwarding>,
    pub(super) group: u8,
    /// `None`: the pool's.
    pub(super) checks: Option<Arc<[Check]>>,
}

/// The section `limits`.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) ring_slots: Option<At<u32>>,
    pub(super) services: Option<At<u32>>,
    pub(super) backends: Option<At<u32>>,
    pub(super) flows: Option<At<u32>>,
    pub(super) udp_flows: Option<At<u32>>,
    pub(super) affinity: Option<At<u32>>,
    pub(super) receiving_cpus: Option<At<u32>>,
    pub(super) probes: Option<At<u32>>,
}

/// Reads the document.
pub(super) fn decode(root: &Node, directory: &Path, files: &Files<'_>, out: &mut Findings<'_>) -> Config {
    let Some(fields) = Fields::open(root, &CONFIG, out) else {
        return Config::default();
    };
    fields.required("version", &value::VERSION, out);
    let limits = fields.get("limits").map(|node| limits(node, out)).unwrap_or_default();
    let cluster = fields.get("cluster").and_then(|node| Fields::open(node, &CLUSTER, out));
    let defaults = fields.get("defaults").and_then(|node| Fields::open(node, &DEFAULTS, out));
    let context = context(defaults, directory, out);
    Config {
        interfaces: each(&fields, "interfaces", &nic::INTERFACE, out, nic::interface).unwrap_or_default(),
        vips: each(&fields, "vips", &VIP, out, vip).unwrap_or_default(),
        services_span: fields.key_span("services"),
        services: each(&fields, "services", &SERVICE, out, |fields, out| {
            service(fields, files, &context, out)
        })
        .unwrap_or_default(),
        pools: each(&fields, "pools", &POOL, out, |fields, out| pool(fields, &context, out))
            .unwrap_or_default(),
        limits,
        flows: defaults.map(|fields| FlowKeys::read(&fields, out)).unwrap_or_default(),
        key_file: cluster.and_then(|cluster| cluster.optional("key_file", &value::PATH, out)),
        on_change: policy::command(&fields, out),
    }
}

/// The section `defaults`, read once whatever uses it.
fn context<'n>(section: Option<Fields<'n>>, directory: &'n Path, out: &mut Findings<'_>) -> Context<'n> {
    let node = |key| section.and_then(|section| section.get(key));
    let defaults = node("health_check").and_then(|node| health::defaults(node, directory, out));
    policy::health(node("health"), None, out);
    let policy = node("health").and_then(|node| Fields::open(node, &policy::HEALTH, out));
    Context { directory, defaults, policy }
}

/// The entries of the list under `key` that are mappings.
fn each<'n, T>(
    fields: &Fields<'n>,
    key: &str,
    shape: &'static Shape,
    out: &mut Findings<'_>,
    read: impl Fn(&Fields<'n>, &mut Findings<'_>) -> T,
) -> Option<Vec<T>> {
    let items = fields.list(key, out)?;
    Some(items.iter().filter_map(|node| Some(read(&Fields::open(node, shape, out)?, out))).collect())
}

fn vip(fields: &Fields<'_>, out: &mut Findings<'_>) -> Vip {
    Vip {
        address: fields.required("address", &net::ADDRESSES, out),
        advertise: plain(fields.optional("advertise", &value::ADVERTISE, out)),
        echo: plain(fields.optional("echo", &net::ECHO, out)).unwrap_or_default(),
        other_ports: plain(fields.optional("other_ports", &value::OTHER_PORTS, out)).unwrap_or_default(),
    }
}

fn service<'n>(
    fields: &Fields<'n>,
    files: &Files<'_>,
    context: &Context<'n>,
    out: &mut Findings<'_>,
) -> Service {
    let name = fields.required("name", &value::NAME, out);
    Service {
        traffic: Traffic::read(fields, out),
        quic: fields.get("quic").and_then(|node| {
            Some(At { value: quic::read(node, out)?, span: fields.key_span("quic").unwrap_or(node.span) })
        }),
        admission: admission::read(fields, files, out),
        flows: FlowKeys::read(fields, out),
        ring_size: plain(fields.optional("ring_size", &value::RING_SIZE, out)),
        servers: servers(fields, name.clone(), context, out),
        failure: policy::failure(fields, out),
        name,
    }
}

fn servers<'n>(
    fields: &Fields<'n>,
    name: Option<At<String>>,
    context: &Context<'n>,
    out: &mut Findings<'_>,
) -> Option<Servers> {
    let own = ["backends", "forwarding"].into_iter().find_map(|key| fields.key_span(key));
    match (fields.key_span("pool"), own) {
        (Some(pool), None) => {
            policy::of_pools(fields, pool, out);
            fields.optional("pool", &value::NAME, out).map(Servers::Pool)
        }
        (None, Some(_)) => Some(Servers::Own(Box::new(members(fields, name, context, out)))),
        (Some(pool), Some(own)) => {
            let message =
                "a service has either a `pool` or `forwarding` and `backends` of its own".to_owned();
            let report = Report::error(code::POOL_OR_BACKENDS, own, message);
            out.push(report.also(pool, "the pool").help("remove one of them"));
            members(fields, name, context, out);
            fields.optional("pool", &value::NAME, out).map(Servers::Pool)
        }
        (None, None) => {
            let message = "a service needs a `pool`, or `forwarding` and `backends` of its own".to_owned();
            out.push(Report::error(code::POOL_OR_BACKENDS, fields.span, message));
            None
        }
    }
}

fn pool<'n>(fields: &Fields<'n>, context: &Context<'n>, out: &mut Findings<'_>) -> Pool {
    let name = fields.required("name", &value::NAME, out);
    Pool { flows: FlowKeys::of_backends(fields, out), ..members(fields, name, context, out) }
}

fn members<'n>(
    fields: &Fields<'n>,
    name: Option<At<String>>,
    context: &Context<'n>,
    out: &mut Findings<'_>,
) -> Pool {
    let forwarding = fields
        .require("forwarding", value::FORWARDING.expected, out)
        .and_then(|node| forwarding::read(node, out));
    let checks = health::pool(fields, context, out);
    fields.require("backends", "a list of mappings such as {address: 192.0.2.1}", out);
    let backends =
        each(fields, "backends", &BACKEND, out, |fields, out| backend(fields, &checks, context, out));
    if fields.get("backends").is_some_and(is_empty_list) {
        let span = fields.key_span("backends").unwrap_or(fields.span);
        let report = Report::error(code::NO_BACKENDS, span, "there are no backends".to_owned());
        out.push(report.help("one that takes no new flows is written with `drain: true`"));
    }
    Pool {
        span: name.as_ref().map_or(fields.span, |name| name.span),
        name,
        forwarding,
        backends,
        checks: checks.list,
        checks_span: fields.key_span("health_check"),
        health_span: fields.key_span("health"),
        health: policy::health(fields.get("health"), context.policy, out),
        agent: fields.get("agent_check").and_then(|node| policy::agent(node, out)),
        flows: FlowKeys::default(),
    }
}

fn is_empty_list(node: &Node) -> bool {
    match &node.kind {
        Kind::Null => true,
        Kind::Seq(items) => items.is_empty(),
        Kind::Scalar(_) | Kind::Map(_) => false,
    }
}

fn backend<'n>(
    fields: &Fields<'n>,
    pool: &Checks<'n>,
    context: &Context<'n>,
    out: &mut Findings<'_>,
) -> Backend {
    let mac = plain(fields.optional("mac", &value::MAC, out));
    let vlan = plain(fields.optional("vlan", &net::VLAN, out));
    if let (Some(span), None) = (fields.key_span("vlan"), fields.key_span("mac")) {
        let message = "`vlan` needs `mac`".to_owned();
        out.push(Report::error(code::VLAN_WITHOUT_MAC, span, message).help(
            "nobody can be asked in a VLAN that this host has no interface in; write the next hop's `mac`, \
             or leave `vlan` out and route to the backend through a VLAN interface",
        ));
    }
    Backend {
        name: fields.optional("name", &value::NAME, out),
        address: fields.required("address", &net::ADDRESS, out),
        weight: plain(fields.optional("weight", &value::WEIGHT, out)).unwrap_or(1),
        drain: plain(fields.optional("drain", &value::BOOL, out)).unwrap_or(false),
        mac,
        vlan,
        server_id: fields.optional("server_id", &net::SERVER_ID, out),
        interface: plain(fields.optional("interface", &value::INTERFACE, out)),
        forwarding: fields.get("forwarding").and_then(|node| forwarding::read(node, out)),
        group: policy::group(fields, out),
        checks: health::backend(fields, pool, context, out),
    }
}

fn limits(node: &Node, out: &mut Findings<'_>) -> Limits {
    let Some(fields) = Fields::open(node, &LIMITS, out) else {
        return Limits::default();
    };
    Limits {
        ring_slots: fields.optional("ring_slots", &value::COUNT, out),
        services: fields.optional("services", &value::COUNT, out),
        backends: fields.optional("backends", &value::COUNT, out),
        flows: fields.optional("flows", &value::COUNT, out),
        udp_flows: fields.optional("udp_flows", &value::COUNT, out),
        affinity: fields.optional("affinity", &value::COUNT, out),
        receiving_cpus: fields.optional("receiving_cpus", &RECEIVING_CPUS, out),
        probes: fields.optional("probes", &PROBES, out),
    }
}

fn plain<T>(value: Option<At<T>>) -> Option<T> {
    value.map(|at| at.value)
}
