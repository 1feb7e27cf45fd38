//! `lb explain` foretells what real connections experience, and changes nothing; `lb capture` shows them.

use std::fs;
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Config, Request, Rig, fetch, inside, until};
use lb_userspace::lab::{CLIENT, Interrupt, Role, VIP_L2};
use lb_userspace::simulate::capture_file::{Captured, read};
use lb_userspace::simulate::language::describe;
use nix::sys::signal::Signal;
use serde_json::Value;

const PORTS: std::ops::Range<u16> = 30_000..30_020;

fn explained(rig: &Rig, packet: &str) -> anyhow::Result<Value> {
    rig.lb(["explain", "--output", "json", packet])?.expect(0)?.json()
}

#[test]
fn explain_foretells_the_backend_of_real_connections() -> anyhow::Result<()> {
    let rig = Rig::new(3, 1)?;
    rig.start(&Config::l2(&[(1, 1), (2, 1), (3, 1)]))?;
    let before = rig.lb(["counters", "--output", "json"])?.expect(0)?.json()?;
    let mut foretold = Vec::new();
    for port in PORTS {
        let report = explained(&rig, &format!("tcp {CLIENT}:{port} > {VIP_L2}:80 syn"))?;
        ensure!(report["verdict"] == "tx" && report["service"] == "web", "{report:#}");
        foretold.push(report["backend"].as_str().context("a backend")?.to_owned());
    }
    let after = rig.lb(["counters", "--output", "json"])?.expect(0)?.json()?;
    ensure!(before["services"] == after["services"], "explaining counts: {after:#}");
    ensure!(rig.status()?["recorded_flows"] == 0, "explaining records flows");
    for (port, address) in PORTS.zip(foretold) {
        let to = SocketAddrV4::new(VIP_L2, 80);
        let request = Request { to: to.into(), port, limit: Duration::from_secs(4) };
        let name = inside(&rig.lab.netns(Role::Client), || fetch(&request))??;
        let wanted = address.replace("203.0.113.2", "b");
        ensure!(name == wanted, "port {port}: {name} answered, {address} was foretold");
    }
    let text = rig.lb(["explain", &format!("tcp {CLIENT}:1 > {VIP_L2}:81 syn")])?.expect(0)?;
    text.says(&["other_port", "For a service address"])?;
    rig.lb(["explain", "no_next_hop"])?.expect(0)?.says(&["balancer: drop", "what to do"])?;
    rig.lb(["explain", "LB036"])?.expect(0)?.says(&["fix"])?;
    rig.lb(["explain", "tcp", "nonsense"])?.expect(2)?.says(&["^^^"])?;
    Ok(())
}

#[test]
fn capture_writes_what_passes_and_leaves_nothing_switched_on() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    rig.start(&Config::l2(&[(1, 1), (2, 1)]))?;
    let file = rig.file("web.pcapng");
    let path = file.to_str().context("UTF-8")?;
    let mut command = rig.lb_command(["capture", "--service", "web", "--out", path]);
    command.env("RUST_LOG", "info");
    let capture = rig.lab.spawn("capture", &command)?;
    until("the capture at work", Duration::from_secs(10), || {
        capture.check_running()?;
        Ok(capture.log_tail(20).contains("capturing").then_some(()))
    })?;
    for _ in 0..5 {
        rig.answer(VIP_L2)?;
    }
    // Of no service, and so not wanted.
    rig.on(Role::Client, "ping", ["-c", "1", "-W", "1", "203.0.113.5"])?;
    until("packets in the file", Duration::from_secs(10), || {
        let opening = |packets: &Vec<Captured>| {
            packets.iter().filter(|packet| describe(&packet.frame).contains(" syn ")).count() == 5
        };
        Ok(read(&file).ok().filter(opening).map(drop))
    })?;
    capture.signal(Signal::SIGINT)?;
    ensure!(capture.wait(Duration::from_secs(5), &Interrupt::never())?.success(), "{}", capture.log_tail(20));
    let packets = read(&file)?;
    let lines: Vec<String> = packets.iter().map(|packet| describe(&packet.frame)).collect();
    ensure!(lines.iter().all(|line| line.contains(&format!("> {VIP_L2}:80 "))), "{lines:#?}");
    let opening = lines.iter().filter(|line| line.contains(" syn ")).count();
    ensure!(opening == 5, "{opening} SYNs of 5 connections: {lines:#?}");
    let comments = String::from_utf8_lossy(&fs::read(&file)?).matches("tx forwarded, service web").count();
    ensure!(comments == packets.len(), "{comments} comments on {} packets", packets.len());

    // Switched off: traffic goes on, and a second one starts from nothing.
    rig.answer(VIP_L2)?;
    let dropped = rig.lb_command(["capture", "--verdict", "drop", "--count", "1"]);
    let second = rig.lab.spawn("capture-drop", &dropped)?;
    until("the second capture at work", Duration::from_secs(10), || {
        second.check_running()?;
        Ok(second.log_tail(20).contains("capturing").then_some(()))
    })?;
    rig.answer(VIP_L2)?;
    rig.lb(["capture", "--count", "1"])?.expect(1)?.says(&["another `lb capture`"])?;
    let url = format!("http://{VIP_L2}:81/");
    rig.curl(Role::Client, ["--max-time", "1", &url])?;
    ensure!(second.wait(Duration::from_secs(5), &Interrupt::never())?.success(), "{}", second.log_tail(20));
    let said = second.log_tail(20);
    ensure!(said.contains("drop other_port") && said.contains("syn"), "{said}");
    Ok(())
}
