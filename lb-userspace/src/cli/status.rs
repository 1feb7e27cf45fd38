//! Reading commands: status, services, counters.

use std::process::ExitCode;

use lb_common::abi::Reason;
use serde_json::json;

use super::args::{Context, Output};
use super::backends;
use super::drains;
use super::error::Failure;
use super::interfaces;
use super::memory;
use super::output::{self, Table, short};
use super::view::{ServiceView, View};
use crate::daemon::Saved;

/// Exit codes of `lb status`.
const DEGRADED: u8 = 1;
const NOT_FORWARDING: u8 = 2;
const UNKNOWN: u8 = 3;

/// `lb status`.
pub(super) fn status(context: &Context, output: Output) -> Result<ExitCode, Failure> {
    let view = match View::read(context) {
        Ok(view) => view,
        Err(failure) => {
            let value = json!({"health": "unknown", "reason": failure.to_string()});
            output::print(output, &value, || format!("UNKNOWN  {failure}\n"))?;
            return Ok(ExitCode::from(UNKNOWN));
        }
    };
    let (health, code, problems) = health(&view);
    let mut value = json!({
        "health": health.to_lowercase().replace(' ', "-"),
        "problems": problems,
        "generation": view.observed.control.generation,
        "config": view.saved.origin,
        "applied_at": view.saved.applied_at,
        "last_error": view.saved.last_error,
        "daemon": view.daemon_running.then_some(view.saved.daemon).flatten(),
        "attachments": view.attachments,
        "services": view.services,
        "words_without_backend": view.orphans,
        "interfaces": view.attachments.iter().map(interfaces::json).collect::<Vec<_>>(),
        "cpu_packets": view.counters.cpus,
    });
    memory::found_json(&view).into_iter().for_each(|(key, found)| value[key] = found);
    output::print(output, &value, || status_text(&view, health, &problems))?;
    Ok(ExitCode::from(code))
}

/// The state of the whole in a word, its exit code, and what is wrong.
fn health(view: &View) -> (&'static str, u8, Vec<String>) {
    let mut problems = Vec::new();
    if view.attachments.is_empty() {
        problems.push("no interface has the program".to_owned());
    }
    for place in view.attachments.iter().filter(|place| place.mode.is_none()) {
        problems.push(format!("{}: the program does not run there any more", place.interface));
    }
    let drifted = view.attachments.iter().flat_map(interfaces::drifted);
    problems.extend(drifted);
    for service in &view.services {
        problems.extend(service.alarm.iter().map(|alarm| format!("{}: {alarm}", service.name)));
        for backend in service.backends.iter().filter(|b| b.weight > 0 && !b.is_fine()) {
            problems.push(format!("{}/{}: {}", service.name, backend.address, backends::trouble(backend)));
        }
    }
    if let Some(error) = &view.saved.last_error {
        let first = error.lines().next().unwrap_or_default();
        problems.push(format!("the newest config was refused, an older one is in force: {first}"));
    }
    problems.extend(memory::pressure(view));
    let waiting = view.waiting.iter();
    problems.extend(waiting.map(|found| format!("{}: {} ({})", found.code, found.message, found.help)));
    let dead = !view.services.is_empty() && !view.services.iter().any(ServiceView::forwards);
    if view.attachments.iter().all(|place| place.mode.is_none()) || dead {
        return ("NOT FORWARDING", NOT_FORWARDING, problems);
    }
    if problems.is_empty() { ("OK", 0, problems) } else { ("DEGRADED", DEGRADED, problems) }
}

fn status_text(view: &View, health: &str, problems: &[String]) -> String {
    let generation = view.observed.control.generation;
    let config = match view.saved.applied_at {
        0 => "config unknown".to_owned(),
        at => {
            format!("config {}  applied {} ago", view.saved.origin, duration(Saved::now().saturating_sub(at)))
        }
    };
    let mut text = format!("{health}  gen {generation}  {config}\n");
    for problem in problems {
        text += &format!("  {problem}\n");
    }
    for service in &view.services {
        for backend in service.backends.iter().filter(|backend| backend.operator.is_some()) {
            text += &format!("  {}/{}: {}\n", service.name, backend.address, backends::trouble(backend));
        }
        for line in service.backends.iter().filter_map(drains::line) {
            text += &format!("  {}/{line}\n", service.name);
        }
    }
    text += &view.orphans.iter().map(backends::orphan).collect::<String>();
    let daemon = match view.saved.daemon {
        Some(pid) if view.daemon_running => format!("daemon {pid}"),
        Some(_) | None => "unattended: nothing probes, or follows neighbours or the config".to_owned(),
    };
    for place in &view.attachments {
        let mode = place.mode.as_deref().unwrap_or("not running");
        text += &format!(
            "ATTACH  {} {mode} link {} prog {}  {daemon}\n",
            place.interface, place.link, place.program
        );
        text += &interfaces::text(place);
    }
    for service in &view.services {
        let unsettled = match service.unsettled_slots {
            0 => String::new(),
            slots => format!("  {slots} of {} slots unsettled", service.ring_size),
        };
        text += &format!(
            "{} {}  {}  up {}/{}  {} packets  {} dropped{unsettled}\n",
            service.name,
            service.id,
            service.forwarding,
            service.up(),
            service.wanted(),
            short(service.packets),
            short(service.drops.values().sum()),
        );
        text += &backends::table(service, None, false).render(2);
    }
    text + &interfaces::cpus(&view.counters.cpus) + &memory::found_text(view)
}

/// A span of time as people say it.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// `lb services`.
pub(super) fn services(context: &Context, output: Output) -> Result<ExitCode, Failure> {
    let view = View::read(context)?;
    output::print(output, &view.services, || {
        let header =
            ["NAME", "VIP", "MODE", "UP", "ANSWERED BY", "RING", "UNSETTLED", "PACKETS", "BYTES", "DROPS"];
        let mut table = Table::new(header);
        for service in &view.services {
            table.row([
                service.name.clone(),
                service.id.clone(),
                service.forwarding.clone(),
                format!("{}/{}", service.up(), service.wanted()),
                service.answered_by.to_owned(),
                service.ring_size.to_string(),
                service.unsettled_slots.to_string(),
                short(service.packets),
                short(service.bytes),
                short(service.drops.values().sum()),
            ]);
        }
        table.render(0)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// `lb counters`.
pub(super) fn counters(context: &Context, output: Output) -> Result<ExitCode, Failure> {
    let view = View::read(context)?;
    let forwarded: u64 = view.counters.backends.values().map(|counted| counted.packets).sum();
    let verdicts = verdicts(&view, forwarded);
    let value = json!({
        "verdicts": verdicts.iter().map(|(name, n)| (name.to_string(), *n)).collect::<std::collections::BTreeMap<_, _>>(),
        "reasons": view.counters.reasons,
        "meanings": Reason::ALL.iter().map(|r| (r.name(), r.explanation())).collect::<std::collections::BTreeMap<_, _>>(),
        "services": view.services,
    });
    output::print(output, &value, || counters_text(&view, &verdicts))?;
    Ok(ExitCode::SUCCESS)
}

/// Packets by verdict: forwarded ones are counted per backend, drops of services per service, the rest by reason.
fn verdicts(view: &View, forwarded: u64) -> [(&'static str, u64); 3] {
    use lb_common::abi::VerdictKind::{Drop, Pass, Transmit};
    let of = |kind| -> u64 {
        let reasons = Reason::ALL.iter().filter(|reason| reason.verdict() == kind);
        reasons.filter_map(|reason| view.counters.reasons.get(reason.name())).sum()
    };
    let service_drops: u64 = view.counters.drops.values().flat_map(|drops| drops.values()).sum();
    [("tx", forwarded + of(Transmit)), ("pass", of(Pass)), ("drop", of(Drop) + service_drops)]
}

fn counters_text(view: &View, verdicts: &[(&'static str, u64); 3]) -> String {
    let mut table = Table::new(["VERDICT", "PACKETS"]);
    for (name, packets) in verdicts {
        table.row([(*name).to_owned(), packets.to_string()]);
    }
    let mut text = table.render(0);
    let mut table = Table::new(["REASON", "VERDICT", "PACKETS", "MEANING"]);
    for reason in Reason::ALL {
        // What counts for services is there; here is where people look for it first.
        let of_services = view.counters.drops.values().chain(view.counters.notes.values());
        let of_services = of_services.filter_map(|counted| counted.get(reason.name())).sum::<u64>();
        let packets = view.counters.reasons.get(reason.name()).copied().unwrap_or(0) + of_services;
        let note = if reason.is_note() { " (note)" } else { "" };
        let verdict = format!("{}{note}", reason.verdict().name());
        table.row([reason.name().to_owned(), verdict, packets.to_string(), reason.explanation().to_owned()]);
    }
    text += &table.render(0);
    let mut table = Table::new(["SERVICE", "BACKEND", "PACKETS", "BYTES", "NEW FLOWS"]);
    for service in &view.services {
        for backend in &service.backends {
            table.row([
                service.id.clone(),
                backend.address.to_string(),
                backend.packets.to_string(),
                backend.bytes.to_string(),
                backend.flows.to_string(),
            ]);
        }
        let drops = service.drops.iter().map(|(reason, packets)| ("dropped", reason, packets));
        let notes = service.notes.iter().map(|(reason, packets)| ("note", reason, packets));
        for (kind, reason, packets) in drops.chain(notes) {
            table.row([
                service.id.clone(),
                format!("{kind}: {reason}"),
                packets.to_string(),
                "".into(),
                "".into(),
            ]);
        }
    }
    text + &table.render(0)
}
