//! `lb backends`: state, probes, weights and rates of every backend.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lb_common::abi::BackendCounters;

use super::args::{BackendsArgs, Context};
use super::drains;
use super::error::Failure;
use super::output::{self, Table, short};
use super::status::duration;
use super::view::{BackendView, Path, ServiceView, View};
use crate::daemon::{InForce, Saved, Word};
use crate::health::view::CheckHealth;

/// Rates are taken over this time.
const SAMPLE: Duration = Duration::from_millis(300);

/// Packets, bytes and new flows per second, by the backend's number.
pub(super) type Rates = BTreeMap<u32, [f64; 3]>;

/// `lb backends`.
pub(super) fn run(context: &Context, args: &BackendsArgs) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let before = View::read(context)?.counters.backends;
    std::thread::sleep(SAMPLE);
    let mut view = View::read(context)?;
    let rates = rates(&before, &view.counters.backends, started.elapsed());
    if let Some(wanted) = &args.backend {
        choose(&mut view.services, wanted)?;
    }
    output::print(args.output, &view.services, || {
        let tables = view.services.iter().map(|service| {
            let alarm = service.alarm.as_ref().map_or_else(String::new, |alarm| format!("  ALARM {alarm}\n"));
            let details: String = match args.backend {
                Some(_) => service.backends.iter().map(details).collect(),
                None => service.backends.iter().filter(|b| b.weight > 0 && !b.is_fine()).map(brief).collect(),
            };
            let table = table(service, Some(&rates), args.verbose).render(2);
            let lines = service.backends.iter().filter_map(|b| match (&b.operator, &args.backend) {
                (Some(_), None) => Some(format!("{}: {}", b.address, trouble(b))),
                _ => drains::line(b),
            });
            let drains: String = lines.map(|line| format!("  ~ {line}\n")).collect();
            format!("{} {}\n{alarm}{table}{drains}{details}", service.name, service.id)
        });
        tables.collect()
    })?;
    Ok(ExitCode::SUCCESS)
}

fn rates(
    before: &BTreeMap<u32, BackendCounters>,
    after: &BTreeMap<u32, BackendCounters>,
    apart: Duration,
) -> Rates {
    let rate = |id: &u32, now: &BackendCounters| {
        let then = before.get(id).copied().unwrap_or_default();
        // A number given anew starts over at zero.
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / apart.as_secs_f64();
        [
            per_second(now.packets, then.packets),
            per_second(now.bytes, then.bytes),
            per_second(now.flows, then.flows),
        ]
    };
    after.iter().map(|(id, now)| (*id, rate(id, now))).collect()
}

/// Leaves only the backends that `[SERVICE/]BACKEND` names, or a whole service.
fn choose(services: &mut Vec<ServiceView>, wanted: &str) -> Result<(), Failure> {
    let (service, backend) = match wanted.split_once('/') {
        Some((service, backend)) => (Some(service), backend),
        None => (None, wanted),
    };
    services.retain(|found| service.is_none_or(|name| found.name == name));
    for found in services.iter_mut().filter(|found| service.is_some() || found.name != wanted) {
        found.backends.retain(|b| b.name.as_deref() == Some(backend) || b.address.to_string() == backend);
    }
    services.retain(|found| !found.backends.is_empty());
    if services.is_empty() {
        return Err(Failure::bad_input(format!("no backend {wanted}; `lb backends` lists all")));
    }
    Ok(())
}

/// A service's backends; with rates, if they are known, and with how large packets may be.
pub(super) fn table(service: &ServiceView, rates: Option<&Rates>, sizes: bool) -> Table {
    let mut header =
        vec!["BACKEND", "STATE", "SINCE", "WGT", "SHARE", "PROBE", "NEXT HOP", "PACKETS", "NEW FLOWS"];
    if rates.is_some() {
        header.extend(["PPS", "MBIT/S", "FLOWS/S"]);
    }
    if sizes {
        header.extend(["MTU", "OVERHEAD", "FITS"]);
    }
    let mut table = Table::with(header);
    for backend in &service.backends {
        let share = backend.slots as f64 * 100.0 / f64::from(service.ring_size.max(1));
        let hop = match (&backend.mac, &backend.interface) {
            (Some(mac), Some(interface)) => format!("{mac} {interface}"),
            _ => "-".to_owned(),
        };
        let name = backend.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
        let mut row = vec![
            format!("{}{name}", backend.address),
            backend.state.to_owned(),
            since(backend),
            weight(backend),
            format!("{share:.1}%"),
            probe(backend),
            hop,
            short(backend.packets),
            short(backend.flows),
        ];
        if let Some(rates) = rates {
            let [packets, bytes, flows] = rates.get(&backend.id).copied().unwrap_or_default();
            row.extend([short(packets as u64), format!("{:.1}", bytes * 8.0 / 1e6), short(flows as u64)]);
        }
        if sizes {
            let size =
                |of: fn(&Path) -> u32| backend.path.map_or("-".to_owned(), |path| of(&path).to_string());
            row.extend([size(|path| path.mtu), size(|path| path.overhead), size(|path| path.fits)]);
        }
        table.line(row);
    }
    table
}

/// What is wrong with a backend, in words.
pub(super) fn trouble(backend: &BackendView) -> String {
    if let Some(said) = &backend.operator {
        let left = drains::words(backend).map_or_else(String::new, |left| format!(" ({left})"));
        return format!("{} {}{left}", backend.state, by_operator(said));
    }
    let Some(health) = &backend.health else { return backend.state.to_owned() };
    let mut text = match begun(backend) {
        Some(begun) => format!("{} for {}", backend.state, duration(Saved::now().saturating_sub(begun))),
        None => backend.state.to_owned(),
    };
    let hindrance = || health.checks.iter().find_map(|check| check.hindrance.as_ref());
    if let Some(reason) = health.reason.as_ref().or_else(hindrance) {
        text += &format!(": {reason}");
    }
    text
}

fn by_operator(said: &InForce) -> String {
    let since = duration(Saved::now().saturating_sub(said.since));
    let until = said.until.map_or_else(String::new, |until| {
        format!(", for another {}", duration(until.saturating_sub(Saved::now())))
    });
    let reason = said.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("by the operator for {since}{until}{reason}")
}

fn brief(backend: &BackendView) -> String {
    format!("  ! {}: {}\n", backend.address, trouble(backend))
}

/// The operator's word about a backend that is not in the config.
pub(super) fn orphan(said: &InForce) -> String {
    let name = format!("{}/{}", said.pool, said.backend);
    let state = if said.word == Word::Drain { "draining" } else { "disabled" };
    let by = by_operator(said);
    format!(
        "  {name}: not in the config; {state} {by} when it is listed again (`lb enable {name}` takes that back)\n"
    )
}

fn since(backend: &BackendView) -> String {
    let checked = backend.health.as_ref().is_some_and(|health| !health.checks.is_empty());
    let known = checked || backend.operator.is_some() || backend.drain.is_some();
    begun(backend)
        .filter(|_| known)
        .map_or("-".to_owned(), |begun| duration(Saved::now().saturating_sub(begun)))
}

/// Since when a backend is what is shown, in seconds since 1970: what people and configs say has times of its own.
fn begun(backend: &BackendView) -> Option<u64> {
    let said = backend.operator.as_ref().map(|said| said.since);
    match backend.state {
        "drained" => backend.drain.and_then(|progress| progress.deadline),
        "draining" | "leaving" => said.or(backend.drain.and_then(|progress| progress.since)),
        "disabled" => said,
        _ => backend.health.as_ref().map(|health| health.since),
    }
}

/// The weight now, and the config's where that differs.
fn weight(backend: &BackendView) -> String {
    let configured = f64::from(backend.weight);
    if (backend.weight_now - configured).abs() < f64::EPSILON {
        return backend.weight.to_string();
    }
    let now = format!("{:.2}", backend.weight_now);
    let now = now.trim_end_matches('0').trim_end_matches('.');
    format!("{now}/{}", backend.weight)
}

/// The slowest check's time, or the first failure.
fn probe(backend: &BackendView) -> String {
    let Some(health) = backend.health.as_ref().filter(|health| !health.checks.is_empty()) else {
        return "-".to_owned();
    };
    if let Some(check) = health.checks.iter().find(|check| check.hindrance.is_some()) {
        return format!("{} not possible", check.kind);
    }
    if let Some(check) = health.checks.iter().find(|check| check.failure.is_some()) {
        return format!("{} failed", check.kind);
    }
    let slowest = health.checks.iter().filter_map(|check| check.latency_us).max();
    slowest.map_or("-".to_owned(), |micros| millis(Some(micros)))
}

/// Microseconds as `1.2ms`.
pub(super) fn millis(micros: Option<u64>) -> String {
    micros.map_or("-".to_owned(), |micros| format!("{:.1}ms", micros as f64 / 1000.0))
}

/// All that is known of a backend's checks.
fn details(backend: &BackendView) -> String {
    let mut text = format!("  {}: {}\n", backend.address, trouble(backend));
    let Some(health) = &backend.health else {
        return text + "    no daemon runs: nothing probes\n";
    };
    if let Some(until) = health.until {
        text +=
            &format!("    {} for another {}\n", health.state, duration(until.saturating_sub(Saved::now())));
    }
    if health.flaps > 0 {
        let times = if health.flaps == 1 { "once".to_owned() } else { format!("{} times", health.flaps) };
        text += &format!("    failed {times} lately\n");
    }
    text + &health.checks.iter().map(check).collect::<String>()
}

fn check(check: &CheckHealth) -> String {
    let ago = |at: u64| duration(Saved::now().saturating_sub(at));
    let last = match (&check.hindrance, &check.failure, check.at) {
        (Some(why), ..) => format!("cannot be made: {why}"),
        (None, Some(failure), Some(at)) => {
            format!("{} in a row, last {} ago: {failure}", check.streak, ago(at))
        }
        (None, None, Some(at)) => format!("{} in a row, last {} ago", check.streak, ago(at)),
        _ => "no result yet".to_owned(),
    };
    format!(
        "    {} via {}: {} ({}), {last}\n",
        check.kind,
        check.via,
        check.standing,
        millis(check.latency_us)
    )
}
