//! Faults that only a probe through the service sees: the daemon's word for each of them, and `lb check`'s.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Rig, SOON, Watched, address, until};
use lb_userspace::lab::{Interrupt, Role, VIP_L2};
use nix::sys::signal::Signal;

/// A failing probe through the service, besides one that passes directly, and the reason.
fn fails_only_through(rig: &Rig, number: u8, words: &[&str]) -> anyhow::Result<()> {
    until(&format!("the reason at b{number}"), Duration::from_secs(20), || {
        let shown = rig.lb(["backends", "--output", "json"])?.expect(0)?.json()?;
        let all = shown[0]["backends"].as_array().context("no backends")?;
        let wanted = address(number).to_string();
        let health = &all.iter().find(|b| b["address"] == *wanted).context("backend is missing")?["health"];
        let standing = |via: &str| {
            let checks = health["checks"].as_array();
            checks.and_then(|all| all.iter().find(|check| check["via"] == via)).cloned().unwrap_or_default()
        };
        let (direct, service) = (standing("direct"), standing("service"));
        let reason = health["reason"].as_str().unwrap_or_default();
        let told = words.iter().all(|word| reason.contains(word));
        let found = health["state"] == "down"
            && (direct["standing"] == "passing" && direct["failure"].is_null())
            && (service["standing"] == "failing" && service["failure"].is_string());
        ensure!(told && found, "{words:?} wanted, but {health:#}");
        Ok(Some(()))
    })
}

/// Three faults, each of which a direct probe does not see; b2 is reached by a tunnel.
fn three_faults() -> Watched {
    let checks = format!("[{{type: tcp, via: direct, {SOON}}}, {{type: http, via: service, {SOON}}}]");
    let config = Watched { backends: vec!["", ", forwarding: ipip", "", ""], ..Watched::new(&checks, 4) };
    Watched { health: "require: all, hold_down: 0s, trial_time: 0s", ..config }
}

#[test]
fn three_faults_that_direct_probes_miss_have_three_reasons() -> anyhow::Result<()> {
    let rig = Rig::new(4, 1)?;
    let decapsulates = || rig.decap(2, &VIP_L2.to_string(), "203.0.113.5");
    let decap = decapsulates()?;
    rig.watch(&three_faults())?;
    rig.expect_answers_from(20_000..20_060, &["b1", "b2", "b3", "b4"])?;

    rig.hide_service(1)?;
    decap.signal(Signal::SIGTERM)?;
    rig.serve_on(3, &format!("{}:80", address(3)))?;
    fails_only_through(
        &rig,
        1,
        &["203.0.113.10 not answering by l2", "203.0.113.21 itself answers", "on its lo"],
    )?;
    fails_only_through(&rig, 2, &["203.0.113.22 does not decapsulate", "lb decap"])?;
    fails_only_through(
        &rig,
        3,
        &["refused at the service address 203.0.113.10", "does not listen on 203.0.113.10"],
    )?;
    let slots = rig.slots(4)?;
    ensure!(slots[..3] == [0, 0, 0] && slots[3] > 4000, "the traffic was not moved: {slots:?}");
    rig.expect_answers_from(21_000..21_060, &["b4"])?;

    rig.unhide_service(1)?;
    decapsulates()?;
    rig.serve_on(3, "*:80")?;
    (1..=4).try_for_each(|number| rig.wait_state(number, "up").map(drop))?;
    rig.expect_answers_from(22_000..22_060, &["b1", "b2", "b3", "b4"])?;
    rig.lb(["status"])?.expect(0).map(drop)
}

#[test]
fn lb_check_finds_the_three_faults_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let rig = Rig::new(4, 1)?;
    let path = rig.write_text(&three_faults().yaml())?.display().to_string();
    let check = || rig.lb(["check", &path]);
    let all_well = ["8 ok, 0 failed, 0 not probed"];
    let reasons =
        ["5 ok, 3 failed", "203.0.113.10 not answering by l2", "through the tunnel (ipip)", "refused at the"];
    // The kernel takes a namespace's interfaces away some time after the last process has left it.
    let gone = || {
        until("nothing left behind", Duration::from_secs(5), || {
            rig.expect_nothing()?;
            let links = rig.on(Role::Balancer, "ip", ["-br", "link"])?.expect(0)?;
            ensure!(!links.out.contains("lb-probe"), "the gate is left: {links}");
            Ok(Some(()))
        })
    };
    let decap = rig.decap(2, &VIP_L2.to_string(), "203.0.113.5")?;
    check()?.expect(0)?.says(&all_well)?;
    gone()?;
    rig.hide_service(1)?;
    decap.signal(Signal::SIGTERM)?;
    rig.serve_on(3, &format!("{}:80", address(3)))?;
    check()?.expect(1)?.says(&reasons)?;
    gone()?;
    interrupted_check(&rig)?;
    gone()?;

    // Beside a daemon that checks nothing, and beside one that does: through its data plane, which stays as it is.
    let unchecked = Watched { check: "none".to_owned(), ..three_faults() };
    rig.write_text(&unchecked.yaml())?;
    rig.run(&[])?;
    let other = rig.file("checked.yaml");
    fs::write(&other, three_faults().yaml()).context("writing a config to check")?;
    let before = (rig.attachment()?, rig.generation()?);
    let other = rig.file("checked.yaml").display().to_string();
    fs::write(&other, three_faults().yaml()).context("writing a config to check")?;
    rig.lb(["check", &other])?.expect(1)?.says(&reasons)?;
    ensure!(before == (rig.attachment()?, rig.generation()?), "the data plane changed");
    rig.write_text(&three_faults().yaml())?;
    rig.stop(Signal::SIGTERM)?;
    rig.run(&[])?;
    let before = rig.attachment()?;
    check()?.expect(1)?.says(&reasons)?;
    ensure!(before == rig.attachment()?, "attached anew");
    Ok(())
}

/// Interrupts `lb check` while it waits for an answer that does not come.
fn interrupted_check(rig: &Rig) -> anyhow::Result<()> {
    let slow = Watched::new("{type: tcp, via: service, interval: 20s, timeout: 20s}", 1);
    let path = rig.file("slow.yaml");
    fs::write(&path, slow.yaml()).context("writing a config to check")?;
    let check = rig.lab.spawn("check", &rig.lb_command(["check".as_ref(), path.as_os_str()]))?;
    until("a check under way", Duration::from_secs(10), || {
        check.check_running()?;
        let links = rig.on(Role::Balancer, "ip", ["-json", "link", "show", "dev", "lb-probe"])?;
        Ok(links.out.contains("\"xdp\"").then_some(()))
    })?;
    ensure!(!rig.left().is_empty(), "nothing is pinned during the check");
    check.signal(Signal::SIGINT)?;
    let status = check.wait(Duration::from_secs(10), &Interrupt::never())?;
    ensure!(status.code() == Some(1), "{status}: {}", check.log_tail(5));
    Ok(())
}
