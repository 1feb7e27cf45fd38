//! Backends that fail in different ways, and come back: what is found, when, and what the traffic does meanwhile.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::ensure;
use lb_tests::system::{Listener, Requests, Rig, SOON, UdpEcho, Watched, address, ask_udp, until};
use lb_userspace::lab::{ROUTER_SERVER_SIDE, Role, VIP_L2};
use nix::sys::signal::Signal;
use serde_json::Value;

/// The bound for finding a failure: `interval` + `unhealthy_threshold` × `timeout`, and 50 ms to tell of it.
const BOUND: Duration = Duration::from_millis(500 + 3 * 300 + 50);

/// From the fault to the word about it, and to the last slot moved.
#[test]
fn a_silent_backend_is_found_and_its_traffic_moved_within_the_bound() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    rig.watch(&Watched::new(&format!("{{type: http, via: service, {SOON}}}"), 2))?;
    let events = Listener::start(&rig)?;
    rig.hide_service(1)?;
    let fault = Instant::now();
    let moved = until("all slots moved", Duration::from_secs(20), || {
        Ok((rig.backend(1)?["slots"] == 0).then(|| fault.elapsed()))
    })?;
    let (told, event) = events.wait_change("b1", "down")?;
    let told = told.saturating_duration_since(fault);
    println!("told after {told:?}, no slot left after {moved:?} or earlier; the bound is {BOUND:?}");
    ensure!(event["from"] == "up" && event["reason"].is_string(), "{event}");
    // Twice the bound, because this machine may be busy: the benchmark measures.
    ensure!(told <= 2 * BOUND && moved <= 3 * BOUND, "{told:?} and {moved:?}, not within {BOUND:?}");
    rig.expect_answers_from(20_000..20_030, &["b2"])
}

/// Waits for a backend's second probe: from there on they are one `interval` apart.
fn probed_twice(rig: &Rig, number: u8) -> anyhow::Result<()> {
    let twice = |backend: &Value| backend["health"]["checks"][0]["streak"].as_u64() >= Some(2);
    rig.wait_backend(number, "probed twice", twice).map(drop)
}

/// A probe is made at once where the way to a backend is lost, and decides alone: the next regular one is most of a
/// minute away, and thirty would have to fail.
#[test]
fn a_lost_way_is_a_reason_for_an_extra_probe() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let times =
        "interval: 60s, max_interval: 60s, timeout: 900ms, fast_interval: 900ms, unhealthy_threshold: 30";
    rig.watch(&Watched::new(&format!("{{type: tcp, via: service, {times}}}"), 2))?;
    probed_twice(&rig, 1)?;
    let events = Listener::start(&rig)?;
    let b1 = address(1).to_string();
    rig.on(Role::Balancer, "ip", ["route", "add", "unreachable", &b1])?.expect(0)?;
    let fault = Instant::now();
    let (at, event) = events.wait_change("b1", "down")?;
    let told = at.saturating_duration_since(fault);
    println!("told after {told:?}: {event}");
    ensure!(told < Duration::from_secs(5), "too late for an extra probe: {told:?}");
    ensure!(event["reason"].as_str().is_some_and(|why| why.contains("says unreachable")), "{event}");
    ensure!(rig.backend(2)?["state"] == "up", "b2 went as well");
    rig.wait_backend(1, "without slots", |b| b["slots"] == 0)?;
    rig.expect_answers_from(20_000..20_030, &["b2"])
}

/// The balancer's own link goes, which an extra probe finds at once, and comes again.
#[test]
fn everything_recovers_after_the_balancers_link_was_down() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    rig.watch(&Watched::new(
        "{type: tcp, via: service, interval: 10s, timeout: 300ms, max_interval: 10s}",
        2,
    ))?;
    (1..=2).try_for_each(|number| probed_twice(&rig, number))?;
    let events = Listener::start(&rig)?;
    rig.on(Role::Balancer, "ip", ["link", "set", "eth0", "down"])?.expect(0)?;
    let fault = Instant::now();
    for name in ["b1", "b2"] {
        let (at, event) = events.wait_change(name, "down")?;
        let told = at.saturating_duration_since(fault);
        println!("told after {told:?}: {event}");
        ensure!(told < Duration::from_secs(5), "too late for an extra probe: {told:?}");
        ensure!(event["reason"].is_string(), "{event}");
    }
    rig.on(Role::Balancer, "ip", ["link", "set", "eth0", "up"])?.expect(0)?;
    // The kernel has dropped the route with the link.
    rig.on(Role::Balancer, "ip", ["route", "replace", "default", "via", &ROUTER_SERVER_SIDE.to_string()])?
        .expect(0)?;
    (1..=2).try_for_each(|number| rig.wait_state(number, "up").map(drop))?;
    rig.expect_answers_from(20_000..20_030, &["b1", "b2"])
}

/// A backend that is down stays so: b1 answers requests all the time, so that a single slot of it would show.
#[test]
fn a_backend_that_is_down_stays_down_when_the_daemon_starts_again() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let (one, _two) = (rig.flag(1)?, rig.flag(2)?);
    rig.watch(&Watched::flags(2))?;
    drop(one);
    rig.wait_backend(1, "without slots", |b| b["state"] == "down" && b["slots"] == 0)?;
    let requests = Requests::start(&rig);
    let mut gate = gate(&rig)?;
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        rig.stop(signal)?;
        ensure!(rig.slots(2)?[0] == 0, "slots came back when the daemon ended");
        rig.run(&[])?;
        until("probes of the new daemon", Duration::from_secs(20), || {
            let slots = rig.slots(2)?;
            ensure!(slots[0] == 0, "slots came back: {slots:?}");
            let shown = [rig.backend(1)?, rig.backend(2)?];
            let probed = shown.iter().all(|b| b["health"]["checks"][0]["streak"].as_u64() > Some(2));
            let states = [&shown[0]["state"], &shown[1]["state"]];
            ensure!(probed && states == ["down", "up"], "{shown:?}");
            Ok(Some(()))
        })?;
        let now = self::gate(&rig)?;
        ensure!(now != gate, "{signal}: the gate is the old one: {now}");
        gate = now;
    }
    let answers = requests.finish()?;
    answers.expect_no_failure()?;
    ensure!(answers.of("b1") == 0, "b1 was given traffic: {answers:?}");
    println!("{answers:?}");
    let _one = rig.flag(1)?;
    rig.wait_state(1, "up").map(drop)
}

/// The id of the program that guards the gate: numbers of interfaces are given again, those of programs are not.
fn gate(rig: &Rig) -> anyhow::Result<String> {
    let links =
        rig.on(Role::Balancer, "ip", ["-json", "link", "show", "dev", "lb-probe"])?.expect(0)?.json()?;
    ensure!(links[0]["xdp"]["prog"]["id"].is_u64(), "nobody guards the gate: {links}");
    Ok(links[0]["xdp"]["prog"]["id"].to_string())
}

#[test]
fn a_udp_service_is_probed_through_its_address() -> anyhow::Result<()> {
    const ECHO: SocketAddrV4 = SocketAddrV4::new(VIP_L2, 5353);
    let rig = Rig::new(2, 1)?;
    let serve = |number: u8, name| UdpEcho::listen(&rig.lab.netns(Role::Backend(number)), ECHO, name);
    let (one, _two) = (serve(1, "b1")?, serve(2, "b2")?);
    let check = format!("{{type: udp, via: service, send: ping, expect: ping, {SOON}}}");
    rig.watch(&Watched { protocol: "udp", port: 5353, ..Watched::new(&check, 2) })?;
    let ask = || -> anyhow::Result<Vec<String>> {
        let client = rig.lab.netns(Role::Client);
        (0..12).map(|_| Ok(ask_udp(&client, ECHO, "hello")??)).collect()
    };
    let from =
        |answers: &[String], name: &str| answers.iter().filter(|a| *a == &format!("{name} hello")).count();
    let answers = ask()?;
    ensure!(from(&answers, "b1") + from(&answers, "b2") == 12, "{answers:?}");
    drop(one);
    let down = rig.wait_backend(1, "without slots", |b| b["state"] == "down" && b["slots"] == 0)?;
    println!("{}", down["health"]["reason"]);
    ensure!(down["health"]["reason"].as_str().is_some_and(|why| why.contains("203.0.113.10")), "{down:#}");
    let answers = ask()?;
    ensure!(from(&answers, "b2") == 12, "{answers:?}");
    let _one = serve(1, "b1")?;
    rig.wait_state(1, "up").map(drop)
}
