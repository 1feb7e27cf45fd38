//! The model as YAML: one spelling for each meaning, so that two outputs can be compared.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::NamedFiles;
use super::effective_health as health;
use super::effective_service::{self, address, addresses, forwarding};
use crate::model::{
    Advertise, AttachMode, Backend, Check, Echo, Forwarding, HealthPolicy, Limits, Model, OtherPorts, Service,
};

/// Renders the model. Every pool is written under `pools`, used ones only.
pub(super) fn render(model: &Model, files: &NamedFiles) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut text, model, files);
    text
}

fn write(f: &mut String, model: &Model, files: &NamedFiles) -> fmt::Result {
    writeln!(f, "version: 1")?;
    section(f, "interfaces", &model.interfaces, |f, interface| {
        let mode = match interface.mode {
            AttachMode::Auto => "auto",
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
        };
        let settings = super::nic::effective(&interface.settings);
        writeln!(f, "  - {{name: {}, mode: {mode}{settings}}}", text(&interface.name))
    })?;
    section(f, "vips", &model.vips, |f, vip| {
        write!(f, "  - {{address: {}", addresses(&vip.prefix()))?;
        match vip.advertise {
            Some(Advertise::Arp) => write!(f, ", advertise: arp")?,
            Some(Advertise::None) => write!(f, ", advertise: none")?,
            None => {}
        }
        let echo = match vip.echo {
            Echo::WhileUp => "true",
            Echo::Always => "always",
            Echo::Never => "false",
        };
        let other_ports = match vip.other_ports {
            OtherPorts::Drop => "drop",
            OtherPorts::Pass => "pass",
        };
        writeln!(f, ", echo: {echo}, other_ports: {other_ports}}}")
    })?;
    let entries = effective_service::entries(&model.services);
    section(f, "services", &entries, |f, entry| effective_service::write(f, entry, files))?;

    let pools: BTreeMap<&str, &Service> =
        model.services.iter().map(|service| (service.pool.as_str(), service)).collect();
    let pools: Vec<&Service> = pools.into_values().collect();
    section(f, "pools", &pools, |f, service| pool(f, service))?;

    if !model.on_change.is_empty() {
        let words: Vec<String> = model.on_change.iter().map(|word| text(word)).collect();
        writeln!(f, "on_change: [{}]", words.join(", "))?;
    }
    limits(f, &model.limits)?;
    if let Some(key_file) = &files.key {
        writeln!(f, "cluster:\n  key_file: {}", text(key_file))?;
    }
    Ok(())
}

fn section<T>(
    f: &mut String,
    name: &str,
    items: &[T],
    item: impl Fn(&mut String, &T) -> fmt::Result,
) -> fmt::Result {
    if items.is_empty() {
        return writeln!(f, "{name}: []");
    }
    writeln!(f, "{name}:")?;
    items.iter().try_for_each(|entry| item(f, entry))
}

fn pool(f: &mut String, service: &Service) -> fmt::Result {
    let backends = &service.backends;
    // What most likely was the pool's own; the others are written at their backends.
    let common = backends.first().map_or(Forwarding::L2, |backend| backend.forwarding);
    writeln!(f, "  - name: {}", text(&service.pool))?;
    writeln!(f, "    forwarding: {}", forwarding(common))?;
    let checks: &[Check] = backends.first().map_or(&[], |backend| &*backend.checks);
    let checked = service.agent.is_some() || backends.iter().any(|backend| !backend.checks.is_empty());
    if checked {
        writeln!(f, "    health_check: {}", health::checks(checks))?;
    }
    if checked || service.health != HealthPolicy::default() {
        writeln!(f, "    health: {}", health::health(&service.health))?;
    }
    if let Some(agent) = &service.agent {
        writeln!(f, "    agent_check: {}", health::agent(agent))?;
    }
    writeln!(f, "    backends:")?;
    backends.iter().try_for_each(|entry| backend(f, entry, common, checks))
}

fn backend(f: &mut String, backend: &Backend, common: Forwarding, checks: &[Check]) -> fmt::Result {
    write!(f, "      - {{")?;
    if let Some(name) = &backend.name {
        write!(f, "name: {}, ", text(name))?;
    }
    write!(f, "address: {}, weight: {}", address(backend.address), backend.weight)?;
    if backend.drain {
        write!(f, ", drain: true")?;
    }
    if let Some([a, b, c, d, e, last]) = backend.mac {
        write!(f, ", mac: \"{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}\"")?;
    }
    if let Some(interface) = &backend.interface {
        write!(f, ", interface: {}", text(interface))?;
    }
    if let Some(vlan) = backend.vlan {
        write!(f, ", vlan: {vlan}")?;
    }
    if let Some(server_id) = backend.server_id {
        write!(f, ", server_id: {server_id:#x}")?;
    }
    if backend.forwarding != common {
        write!(f, ", forwarding: {}", forwarding(backend.forwarding))?;
    }
    if backend.group > 0 {
        write!(f, ", group: {}", backend.group)?;
    }
    if *backend.checks != *checks {
        write!(f, ", health_check: {}", health::checks(&backend.checks))?;
    }
    writeln!(f, "}}")
}

fn limits(f: &mut String, limits: &Limits) -> fmt::Result {
    let limits = [
        ("ring_slots", limits.ring_slots),
        ("services", limits.services),
        ("backends", limits.backends),
        ("flows", limits.flows),
        ("udp_flows", limits.udp_flows),
        ("affinity", limits.affinity),
        ("receiving_cpus", limits.receiving_cpus),
        ("probes", limits.probes),
    ];
    let set: Vec<String> =
        limits.iter().filter_map(|(key, limit)| Some(format!("  {key}: {}\n", (*limit)?))).collect();
    if set.is_empty() { Ok(()) } else { write!(f, "limits:\n{}", set.concat()) }
}

/// A string as a YAML scalar: bare where every YAML reader takes it for a string, else quoted.
pub(super) fn text(value: &str) -> String {
    const TAKEN: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "~"];
    let bare = value.starts_with(|c: char| c.is_ascii_alphabetic())
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && !TAKEN.contains(&value.to_ascii_lowercase().as_str());
    if bare {
        return value.to_owned();
    }
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        ' '..='~' => c.to_string(),
        c => format!("\\U{:08x}", u32::from(c)),
    };
    format!("\"{}\"", value.chars().map(escape).collect::<String>())
}
