//! What the parts of a config mean to each other: what is unique, what refers to what, what cannot work.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::decode::{At, quoted};
use super::diagnostic::{Findings, Report, code};
use super::near::nearest;
use super::schema::{Backend, Config, Pool, Servers, Service};
use super::source::Span;
use crate::model::ServiceId;

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
    let mut ids: BTreeMap<ServiceId, Span> = BTreeMap::new();
    for service in &config.services {
        names.see_name(service.name.as_ref(), out);
        if let Some((id, span)) = id(service) {
            match ids.get(&id) {
                Some(first) => {
                    let report =
                        Report::error(code::DUPLICATE_SERVICE, span, format!("two services take {id}"));
                    out.push(report.also(*first, "first here"));
                }
                None => {
                    ids.insert(id, span);
                }
            }
        }
        if let Some(pool) = servers(service, pools, out) {
            not_itself(service, pool, out);
        }
    }
    if config.services.is_empty() {
        let span = config.services_span.unwrap_or(Span::START);
        out.push(Report::warning(code::NO_SERVICES, span, "there are no services".to_owned()));
    }
}

/// What the service takes, and the place to point to: its port.
fn id(service: &Service) -> Option<(ServiceId, Span)> {
    let (address, protocol, port) =
        (service.address.as_ref()?, service.protocol.as_ref()?, service.port.as_ref()?);
    Some((ServiceId::single(address.value, protocol.value, port.value), port.span))
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

fn not_itself(service: &Service, pool: &Pool, out: &mut Findings<'_>) {
    let Some(own) = &service.address else { return };
    for address in pool.backends.iter().flatten().filter_map(|backend| backend.address.as_ref()) {
        if address.value == own.value {
            let message = format!("the backend {} is its own service's address", address.value);
            let report = Report::error(code::BACKEND_IS_SERVICE, address.span, message);
            out.push(report.also(own.span, "the service").help("write the server's own address"));
        }
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
    let used: BTreeSet<IpAddr> =
        config.services.iter().filter_map(|service| Some(service.address.as_ref()?.value)).collect();
    let mut addresses = Unique::new("the vip");
    for address in config.vips.iter().filter_map(|vip| vip.address.as_ref()) {
        addresses.see_address(Some(address), out);
        if !used.contains(&address.value) {
            let message = format!("no service uses the vip {}", address.value);
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
    let needs = [
        ("services", &config.limits.services, config.services.len()),
        ("backends", &config.limits.backends, config.services.iter().map(backends).sum()),
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
