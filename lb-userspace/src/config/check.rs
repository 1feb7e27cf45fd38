//! What the parts of a config mean to each other: what is unique, what refers to what, what cannot work.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::check_fit;
use super::check_overlap::{Overlaps, Taken};
use super::decode::{At, quoted};
use super::diagnostic::{Findings, Report, code};
use super::flows;
use super::near::nearest;
use super::schema::{Backend, Config, Pool, Servers, Service};
use super::source::Span;
use crate::model::Prefix;

/// Services after all combinations of addresses, protocols and ports are made.
const MAX_SERVICES: usize = 1 << 16;
/// Backends of all services: what a config of a few lines can make the model hold.
const MAX_BACKENDS: usize = 1 << 22;

/// The first place of each thing that must be unique.
struct Unique<K> {
    what: &'static str,
    first: BTreeMap<K, Span>,
}

/// The pools of the section `pools`, and which of them are used.
struct Pools<'c> {
    by_name: BTreeMap<&'c str, &'c Pool>,
    used: BTreeSet<&'c str>,
}

/// Checks everything that takes more than one value to see.
pub(super) fn check(config: &Config, out: &mut Findings<'_>) {
    interfaces(config, out);
    let mut pools = pools(config, out);
    services(config, &mut pools, out);
    unused(config, &pools, out);
    vips(config, out);
    limits(config, &pools, out);
}

impl<K: Ord + Clone> Unique<K> {
    fn new(what: &'static str) -> Unique<K> {
        Unique { what, first: BTreeMap::new() }
    }

    /// Reports `key` if it was seen before.
    fn see(&mut self, key: &K, span: Span, shown: &str, out: &mut Findings<'_>) {
        match self.first.get(key) {
            Some(first) => {
                let message = format!("{} {} is used twice", self.what, quoted(shown));
                out.push(Report::error(code::DUPLICATE, span, message).also(*first, "first here"));
            }
            None => {
                self.first.insert(key.clone(), span);
            }
        }
    }
}

impl Unique<String> {
    fn see_name(&mut self, name: Option<&At<String>>, out: &mut Findings<'_>) {
        if let Some(At { value, span }) = name {
            self.see(value, *span, value, out);
        }
    }
}

impl Unique<IpAddr> {
    fn see_address(&mut self, address: Option<&At<IpAddr>>, out: &mut Findings<'_>) {
        if let Some(At { value, span }) = address {
            self.see(value, *span, &value.to_string(), out);
        }
    }
}

fn interfaces(config: &Config, out: &mut Findings<'_>) {
    let mut names = Unique::new("the interface");
    for interface in &config.interfaces {
        names.see_name(interface.name.as_ref(), out);
    }
}

fn pools<'c>(config: &'c Config, out: &mut Findings<'_>) -> Pools<'c> {
    let mut names = Unique::new("the pool name");
    let mut by_name = BTreeMap::new();
    for pool in &config.pools {
        names.see_name(pool.name.as_ref(), out);
        members(pool, out);
        if let Some(name) = &pool.name {
            by_name.entry(name.value.as_str()).or_insert(pool);
        }
    }
    // A service's own backends are a pool of the service's name to everybody who names pools.
    for service in &config.services {
        if let Some(Servers::Own(pool)) = &service.servers {
            if let Some(name) = pool.name.as_ref().filter(|name| by_name.contains_key(name.value.as_str())) {
                names.see_name(Some(name), out);
            }
            members(pool, out);
        }
    }
    Pools { by_name, used: BTreeSet::new() }
}

fn members(pool: &Pool, out: &mut Findings<'_>) {
    let mut names = Unique::new("the backend name");
    let mut addresses = Unique::new("the backend address");
    for backend in pool.backends.iter().flatten() {
        names.see_name(backend.name.as_ref(), out);
        addresses.see_address(backend.address.as_ref(), out);
    }
    let backends = || pool.backends.iter().flatten();
    if backends().next().is_some() && backends().all(|backend| backend.group > 0) {
        let message = "every backend is a backup".to_owned();
        let report = Report::error(code::NO_PRIMARY, pool.span, message);
        out.push(report.help("at least one backend is in group 0: without `backup` and `group`"));
    }
    let checked = !pool.checks.is_empty()
        || pool.agent.is_some()
        || backends().any(|backend| backend.checks.as_ref().is_some_and(|checks| !checks.is_empty()));
    if let Some(span) = pool.health_span.filter(|_| !checked) {
        let message =
            "`health` has no effect: there is neither a `health_check` nor an `agent_check`".to_owned();
        out.push(Report::warning(code::UNUSED_HEALTH, span, message));
    }
}

fn services<'c>(config: &'c Config, pools: &mut Pools<'c>, out: &mut Findings<'_>) {
    let mut names = Unique::new("the service name");
    let mut taken = Vec::new();
    let (mut count, mut backends) = (0usize, 0usize);
    for (index, service) in config.services.iter().enumerate() {
        names.see_name(service.name.as_ref(), out);
        let name = service.name.as_ref().map_or("?", |name| &name.value);
        let combinations = service.traffic.count();
        count = count.saturating_add(combinations);
        if count <= MAX_SERVICES {
            taken.extend(service.traffic.ids().map(|(id, span)| Taken { id, span, service: index, name }));
        }
        check_fit::alone(service, out);
        if let Some(pool) = servers(service, pools, out) {
            let own = pool.backends.as_ref().map_or(0, Vec::len);
            backends = backends.saturating_add(combinations.saturating_mul(own));
            // Beyond that the config is refused, and to compare each with each takes long.
            if backends <= MAX_BACKENDS {
                check_fit::with_pool(service, pool, out);
                let keys = service.flows.over(&pool.flows).over(&config.flows);
                flows::check(&keys, service, pool, out);
            }
        }
    }
    let span = config.services_span.unwrap_or(Span::START);
    for (count, most, what) in [(count, MAX_SERVICES, "services"), (backends, MAX_BACKENDS, "backends")] {
        if count > most {
            let message = format!("these are {count} {what}; {most} are possible");
            let report = Report::error(code::TOO_MANY, span, message);
            out.push(report.help(
                "each combination of address, protocol and port is a service, with all its pool's backends; \
                 a range of ports or a prefix is one",
            ));
        }
    }
    Overlaps::new(taken).report(out);
    if config.services.is_empty() {
        out.push(Report::warning(code::NO_SERVICES, span, "there are no services".to_owned()));
    }
}

/// The service's pool, with what is wrong about it as this service's pool.
fn servers<'c>(service: &'c Service, pools: &mut Pools<'c>, out: &mut Findings<'_>) -> Option<&'c Pool> {
    let name = match service.servers.as_ref()? {
        Servers::Own(pool) => {
            someone_serves(pool, out);
            return Some(pool);
        }
        Servers::Pool(name) => name,
    };
    let Some(pool) = pools.by_name.get(name.value.as_str()).copied() else {
        out.push_error(|| undefined(name, pools));
        return None;
    };
    // Once, however many services share it.
    if pools.used.insert(&name.value) {
        someone_serves(pool, out);
    }
    Some(pool)
}

fn undefined(name: &At<String>, pools: &Pools<'_>) -> Report {
    let defined = || pools.by_name.keys().copied();
    let message = format!("the pool {} is not defined", quoted(&name.value));
    Report::error(code::UNDEFINED_POOL, name.span, message).help(match nearest(&name.value, defined()) {
        Some(meant) => format!("did you mean {}?", quoted(meant)),
        None if pools.by_name.is_empty() => "there are no `pools`".to_owned(),
        None => format!("defined: {}", some_of(defined())),
    })
}

/// A few names of many.
fn some_of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let shown: Vec<String> = names.take(SHOWN).map(quoted).collect();
    shown.join(", ") + more
}

fn someone_serves(pool: &Pool, out: &mut Findings<'_>) {
    let Some(backends) = pool.backends.as_ref().filter(|backends| !backends.is_empty()) else {
        return;
    };
    if backends.iter().all(|backend: &Backend| backend.drain || backend.weight == 0) {
        let message = "no backend takes new flows: each has `weight: 0` or `drain: true`".to_owned();
        out.push(
            Report::error(code::ALL_DRAINED, pool.span, message).help("leave at least one with a weight"),
        );
    }
}

fn unused(config: &Config, pools: &Pools<'_>, out: &mut Findings<'_>) {
    for name in config.pools.iter().filter_map(|pool| pool.name.as_ref()) {
        if !pools.used.contains(name.value.as_str()) {
            let message = format!("no service uses the pool {}", quoted(&name.value));
            out.push(Report::warning(code::UNUSED_POOL, name.span, message));
        }
    }
}

fn vips(config: &Config, out: &mut Findings<'_>) {
    let services = || config.services.iter();
    let used: BTreeSet<Prefix> = services()
        .flat_map(|service| service.traffic.addresses.iter().map(|address| address.value))
        .collect();
    let mut addresses = Unique::new("the vip");
    for address in config.vips.iter().filter_map(|vip| vip.address.as_ref()) {
        let shown = if address.value.is_host() {
            address.value.network.to_string()
        } else {
            address.value.to_string()
        };
        addresses.see(&address.value, address.span, &shown, out);
        // What it contains follows it in order.
        let within = used.range(address.value..).next().is_some_and(|next| address.value.covers(next));
        if !within && !address.value.ancestors().any(|around| used.contains(&around)) {
            let message = format!("no service uses the vip {shown}");
            out.push(Report::warning(code::UNUSED_VIP, address.span, message));
        }
    }
}

fn limits(config: &Config, pools: &Pools<'_>, out: &mut Findings<'_>) {
    let backends = |service: &Service| match &service.servers {
        Some(Servers::Own(pool)) => pool.backends.as_ref().map_or(0, Vec::len),
        Some(Servers::Pool(name)) => {
            let pool = pools.by_name.get(name.value.as_str());
            pool.and_then(|pool| pool.backends.as_ref()).map_or(0, Vec::len)
        }
        None => 0,
    };
    let services = || config.services.iter();
    // What was refused counts as one: the error tells enough.
    let count = |service: &Service| service.traffic.count().max(1);
    let needs = [
        ("services", &config.limits.services, services().map(count).fold(0, usize::saturating_add)),
        (
            "backends",
            &config.limits.backends,
            services()
                .map(|service| count(service).saturating_mul(backends(service)))
                .fold(0, usize::saturating_add),
        ),
    ];
    for (key, limit, needed) in needs {
        if let Some(limit) = limit.as_ref().filter(|limit| (limit.value as usize) < needed) {
            let message = format!("`{key}` is limited to {}, but this config has {needed}", limit.value);
            let report = Report::error(code::LIMIT_TOO_LOW, limit.span, message);
            out.push(match key {
                "backends" => report.help("a backend counts once for each service that uses it"),
                _ => report,
            });
        }
    }
}
