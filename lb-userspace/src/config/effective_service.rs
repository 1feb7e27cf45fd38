//! Services, tunnels and admission as YAML: an entry for each name, with all that it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use super::NamedFiles;
use super::effective::text;
use super::effective_flows;
use super::effective_health as health;
use super::value_net::Ports;
use crate::model::{
    Encap, Forwarding, GueVariant, Prefix, Protocol, Quic, Rate, RateLimits, ServerIdFormat, Service, Tunnel,
    TunnelSource,
};

/// The services that one entry of the config asked for.
pub(super) struct Entry<'m> {
    /// Any of them.
    one: &'m Service,
    addresses: BTreeSet<Prefix>,
    protocols: BTreeSet<Protocol>,
    ports: BTreeSet<Ports>,
    quic: Option<Quic>,
    /// Idle times of its services.
    established: BTreeSet<Duration>,
}

/// The entries, in the order of their first services.
pub(super) fn entries(services: &[Service]) -> Vec<Entry<'_>> {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for service in services {
        let index = *known.entry(&service.name).or_insert(entries.len());
        if index == entries.len() {
            let (addresses, protocols, ports, established) = Default::default();
            entries.push(Entry { one: service, addresses, protocols, ports, quic: None, established });
        }
        let Some(entry) = entries.get_mut(index) else { continue };
        entry.addresses.insert(service.id.prefix());
        entry.protocols.insert(service.id.protocol);
        entry.ports.insert(Ports { first: service.id.port, last: service.id.last_port });
        entry.established.insert(service.flows.idle.established);
        entry.quic = entry.quic.or(service.quic);
    }
    entries
}

/// Writes one.
pub(super) fn write(f: &mut String, entry: &Entry<'_>, files: &NamedFiles) -> fmt::Result {
    let service = entry.one;
    writeln!(f, "  - name: {}", text(&service.name))?;
    one_or_many(f, "address", "addresses", entry.addresses.iter().map(addresses).collect())?;
    one_or_many(f, "protocol", "protocols", entry.protocols.iter().map(Protocol::to_string).collect())?;
    one_or_many(f, "port", "ports", entry.ports.iter().map(Ports::to_string).collect())?;
    if let Some(format) = entry.quic {
        writeln!(f, "    quic: {}", quic(format))?;
    }
    list(f, "allow", &service.admission.allow, files.allow.get(&service.name))?;
    list(f, "deny", &service.admission.deny, files.deny.get(&service.name))?;
    if service.admission.limits != RateLimits::default() {
        writeln!(f, "    rate_limit: {}", limits(&service.admission.limits))?;
    }
    f.push_str(&effective_flows::lines(service, &entry.established));
    if let Some(ring_size) = service.ring_size {
        writeln!(f, "    ring_size: {ring_size}")?;
    }
    f.push_str(&health::failure(&service.failure));
    writeln!(f, "    pool: {}", text(&service.pool))
}

/// An address, quoted where YAML might take its colons for its own.
pub(super) fn address(address: IpAddr) -> String {
    if address.is_ipv4() { address.to_string() } else { format!("\"{address}\"") }
}

/// A prefix; a single address as such.
pub(super) fn addresses(prefix: &Prefix) -> String {
    match (prefix.is_host(), prefix.network.is_ipv4()) {
        (true, _) => address(prefix.network),
        (false, true) => prefix.to_string(),
        (false, false) => format!("\"{prefix}\""),
    }
}

/// The value of `forwarding`.
pub(super) fn forwarding(forwarding: Forwarding) -> String {
    let Forwarding::Tunnel(Tunnel { encap, source, dscp, ttl }) = forwarding else {
        return "l2".to_owned();
    };
    let gue = match encap {
        Encap::Gue { variant, port } => {
            let variant = match variant {
                GueVariant::Header => 0,
                GueVariant::Direct => 1,
            };
            format!(", variant: {variant}, port: {port}")
        }
        Encap::Ipip | Encap::Gre => String::new(),
    };
    let source = match source {
        TunnelSource::Node => "auto".to_owned(),
        TunnelSource::Prefix(prefix) => format!("\"{prefix}\""),
    };
    let dscp = dscp.map_or_else(|| "copy".to_owned(), |dscp| dscp.to_string());
    format!("{{type: {}{gue}, source: {source}, dscp: {dscp}, ttl: {ttl}}}", encap.name())
}

fn one_or_many(f: &mut String, one: &str, many: &str, values: Vec<String>) -> fmt::Result {
    match values.as_slice() {
        [value] => writeln!(f, "    {one}: {value}"),
        _ => writeln!(f, "    {many}: [{}]", values.join(", ")),
    }
}

fn list(f: &mut String, key: &str, prefixes: &[Prefix], file: Option<&String>) -> fmt::Result {
    if let Some(file) = file.filter(|_| !prefixes.is_empty()) {
        return writeln!(f, "    {key}: {{file: {}}}", text(file));
    }
    if prefixes.is_empty() {
        return Ok(());
    }
    let prefixes: Vec<String> = prefixes.iter().map(addresses).collect();
    writeln!(f, "    {key}: [{}]", prefixes.join(", "))
}

fn quic(quic: Quic) -> String {
    match quic.server_id {
        None => "{}".to_owned(),
        Some(ServerIdFormat::Katran) => "{server_id: {format: katran}}".to_owned(),
        Some(ServerIdFormat::Draft { config_id, length }) => {
            format!("{{server_id: {{format: draft, config_id: {config_id}, length: {length}}}}}")
        }
    }
}

fn limits(limits: &RateLimits) -> String {
    let rate = |key: &str, rate: Option<Rate>| {
        rate.map(|Rate { per_second, burst }| format!("{key}: {{rate: {per_second}, burst: {burst}}}"))
    };
    let whole = [rate("new_flows", limits.new_flows), rate("packets", limits.packets)];
    let source = [rate("new_flows", limits.source_new_flows), rate("packets", limits.source_packets)];
    let mut source: Vec<String> = source.into_iter().flatten().collect();
    source.push(format!("prefix_v4: {}, prefix_v6: {}", limits.source_v4_len, limits.source_v6_len));
    let mut keys: Vec<String> = whole.into_iter().flatten().collect();
    keys.push(format!("per_source: {{{}}}", source.join(", ")));
    format!("{{{}}}", keys.join(", "))
}
