//! Backends on their way out: removal from the config is a drain, drains have deadlines, and guard rails hold whatever way
//! a config comes.

use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Download, Rig, Run, address, until};
use lb_userspace::lab::VIP_L2;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Sweeps are a matter of seconds where idle times are, but this machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// A service over these backends (number and further keys), with flows that are dead after two silent seconds.
fn config(service: &str, backends: &[(u8, &str)]) -> String {
    let backend = |(number, more): &(u8, &str)| {
        format!("      - {{name: b{number}, address: {}{more}}}\n", address(*number))
    };
    let backends: String = backends.iter().map(backend).collect();
    format!(
        "version: 1\ninterfaces: [{{name: eth0}}]\nservices:\n  - name: web\n    address: {VIP_L2}\n    protocol: tcp\n    \
         port: 80\n    forwarding: l2\n    idle: {{established: 2s, half_open: 2s, closing: 1s}}\n{service}    \
         backends:\n{backends}"
    )
}

const THREE: [(u8, &str); 3] = [(1, ""), (2, ""), (3, "")];

/// `lb apply` of this text, with options.
fn apply(rig: &Rig, text: &str, options: &[&str]) -> anyhow::Result<Run> {
    let path = rig.write_text(text)?.display().to_string();
    rig.lb([&["apply"], options, &[path.as_str()]].concat())
}

/// Waits until a backend is not shown any more. Without a daemon that takes an `lb apply` from time to time: changes are
/// as old as the last time that anybody has written.
fn wait_gone(rig: &Rig, number: u8, alone: Option<&str>) -> anyhow::Result<()> {
    until(&format!("b{number} gone"), PATIENCE, || {
        if let Some(text) = alone {
            std::thread::sleep(Duration::from_secs(4));
            apply(rig, text, &[])?.expect(0)?;
        }
        let status = rig.status()?;
        let all = status["services"][0]["backends"].as_array().context("no backends")?;
        let wanted = address(number).to_string();
        Ok(all.iter().all(|backend| backend["address"] != *wanted).then_some(()))
    })
}

fn leaves(backend: &Value) -> bool {
    let left = backend["drain"]["flows_left"].as_u64();
    backend["state"] == "leaving" && backend["slots"] == 0 && left >= Some(1)
}

#[test]
fn a_removed_backend_keeps_its_connection_until_it_ends() -> anyhow::Result<()> {
    let rig = Rig::new(3, 50)?;
    rig.write_text(&config("", &THREE))?;
    rig.run(&[])?;
    let kept = Download::start_from(&rig, "b1", 40_000..40_040)?;
    let two = config("", &THREE[1..]);
    let dry = apply(&rig, &two, &["--dry-run"])?.expect(0)?;
    dry.says(&[
        "0 flows move",
        "leaving when their flows are gone: 203.0.113.21",
        "2 take new flows (3 now)",
    ])?;
    let dry = apply(&rig, &two, &["--dry-run", "--output", "json"])?.expect(0)?.json()?;
    let blast = &dry["blast"][0];
    ensure!(blast["leaving"][0] == "203.0.113.21" && blast["flows_moved"]["count"] == 0, "{dry:#}");
    ensure!((1360..1700).contains(&blast["slots_moving"].as_u64().unwrap_or(0)), "{dry:#}");

    apply(&rig, &two, &[])?.expect(0)?;
    rig.wait_backend(1, "leaving", leaves)?;
    rig.expect_answers_from(20_000..20_040, &["b2", "b3"])?;
    kept.expect_running()?;
    rig.lb(["backends"])?.expect(0)?.says(&["203.0.113.21 leaving for", "left"])?;
    rig.lb(["status"])?.expect(0)?.says(&["web/203.0.113.21 leaving for", "left"])?;

    // It leaves also for daemons that come after, however this one ends.
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        rig.stop(signal)?;
        rig.run(&[])?;
        rig.wait_backend(1, "still leaving", leaves)?;
        kept.expect_running()?;
    }
    // Listed again, it stays.
    apply(&rig, &config("", &THREE), &[])?.expect(0)?;
    rig.wait_backend(1, "back", |b| b["state"] == "up" && b["slots"].as_u64() > Some(1000))?;
    apply(&rig, &two, &[])?.expect(0)?;
    rig.wait_backend(1, "leaving again", leaves)?;
    rig.expect_answers_from(21_000..21_040, &["b2", "b3"])?;
    kept.expect_running()?;
    kept.cancel()?;
    wait_gone(&rig, 1, None)?;
    rig.expect_answers_from(22_000..22_040, &["b2", "b3"]).map(drop)
}

#[test]
fn a_connection_that_outlives_its_backend_s_removal_is_whole() -> anyhow::Result<()> {
    let rig = Rig::new(3, 8)?;
    rig.write_text(&config("", &THREE))?;
    rig.run(&[])?;
    let kept = Download::start_from(&rig, "b1", 40_000..40_040)?;
    apply(&rig, &config("", &THREE[1..]), &[])?.expect(0)?;
    kept.finish()
}

#[test]
fn with_on_remove_drop_its_connections_move_at_once() -> anyhow::Result<()> {
    let rig = Rig::new(3, 30)?;
    rig.write_text(&config("    on_remove: drop\n", &THREE))?;
    rig.run(&[])?;
    let lost = Download::start_from(&rig, "b1", 40_000..40_040)?;
    let other = Download::start_from(&rig, "b2", 41_000..41_040)?;
    let two = config("    on_remove: drop\n", &THREE[1..]);
    apply(&rig, &two, &["--dry-run"])?.expect(0)?.says(&["going at once: 203.0.113.21", "move and break"])?;
    apply(&rig, &two, &[])?.expect(0)?;
    ensure!(rig.backend(1).is_err(), "b1 is still there");
    ensure!(lost.finish().is_err(), "a backend that is dropped finished a download");
    other.expect_running()
}

#[test]
fn a_deadline_ends_a_removal_and_a_drain() -> anyhow::Result<()> {
    let rig = Rig::new(3, 50)?;
    rig.write_text(&config("", &THREE))?;
    rig.run(&[])?;
    // By the operator: the drain goes on, without the flows.
    let lost = Download::start_from(&rig, "b1", 40_000..40_040)?;
    rig.lb(["drain", "b1", "--deadline", "4s", "--wait"])?
        .expect(1)?
        .says(&["left", "the deadline has come"])?;
    rig.wait_backend(1, "drained", |b| b["state"] == "drained" && b["slots"] == 0)?;
    ensure!(lost.finish().is_err(), "a download outlived the deadline");
    rig.stop(Signal::SIGKILL)?;
    rig.run(&[])?;
    rig.wait_backend(1, "still drained", |b| b["state"] == "drained" && b["slots"] == 0)?;
    rig.lb(["enable", "b1"])?.expect(0)?;
    rig.wait_backend(1, "back", |b| b["state"] == "up" && b["slots"].as_u64() > Some(1000))?;
    // By the config.
    let deadline = "    drain_deadline: 4s\n";
    let lost = Download::start_from(&rig, "b1", 41_000..41_040)?;
    let drained = config(deadline, &[(1, ", drain: true"), (2, ""), (3, "")]);
    apply(&rig, &drained, &[])?.expect(0)?;
    rig.wait_backend(1, "drained", |b| b["state"] == "drained" && b["slots"] == 0)?;
    ensure!(lost.finish().is_err(), "a download outlived the deadline");
    apply(&rig, &config(deadline, &THREE), &[])?.expect(0)?;
    let lost = Download::start_from(&rig, "b1", 42_000..42_040)?;
    apply(&rig, &config(deadline, &THREE[1..]), &[])?.expect(0)?;
    wait_gone(&rig, 1, None)?;
    ensure!(lost.finish().is_err(), "a download outlived the deadline");
    Ok(())
}

#[test]
fn without_a_daemon_the_next_apply_retires_who_is_done() -> anyhow::Result<()> {
    let rig = Rig::new(3, 40)?;
    let path = rig.write_text(&config("", &THREE))?.display().to_string();
    rig.lb(["attach", "eth0", "--config", &path])?.expect(0)?;
    let kept = Download::start_from(&rig, "b1", 40_000..40_040)?;
    let two = config("", &THREE[1..]);
    apply(&rig, &two, &["--dry-run"])?.expect(0)?.says(&["0 flows move", "leaving when"])?;
    apply(&rig, &two, &[])?.expect(0)?;
    rig.wait_backend(1, "leaving", leaves)?;
    rig.expect_answers_from(20_000..20_040, &["b2", "b3"])?;
    apply(&rig, &two, &[])?.expect(0)?;
    rig.wait_backend(1, "still leaving", leaves)?;
    kept.expect_running()?;
    kept.cancel()?;
    wait_gone(&rig, 1, Some(&two))?;
    rig.expect_answers_from(21_000..21_040, &["b2", "b3"]).map(drop)
}

#[test]
fn what_is_said_of_a_drain_is_what_becomes_of_flows() -> anyhow::Result<()> {
    let rig = Rig::new(3, 30)?;
    let path = rig.write_text(&config("", &THREE))?.display().to_string();
    rig.lb(["attach", "eth0", "--config", &path])?.expect(0)?;
    let range = &["1s to 168h", "10m"][..];
    for (option, time) in [
        ("--deadline", "0s"),
        ("--deadline", "-5s"),
        ("--deadline", "9000h"),
        ("--until", "0s"),
        ("--until", "1.5m"),
    ] {
        rig.lb(["drain", "b1", option, time])?.expect(2)?.says(range)?;
    }
    // Nobody would end it.
    rig.lb(["drain", "b1", "--wait"])?.expect(1)?.says(&["no daemon runs", "Nothing changed"])?;
    ensure!(rig.slots(3)?[0] > 1000, "a drain that was refused was made");
    let kept = Download::start_from(&rig, "b1", 40_000..40_040)?;
    rig.lb(["drain", "b1", "--deadline", "4s"])?
        .expect(0)?
        .says(&["do not end by themselves", "4s and until the next `lb apply` or `lb run`"])?;
    std::thread::sleep(Duration::from_secs(5)); // the absence of an event
    kept.expect_running()?;
    let line = rig.lb(["backends"])?.expect(0)?.says(&["deadline is over", "with the next `lb apply`"])?;
    ensure!(!line.out.contains("drained"), "{line}");
    kept.cancel()?;
    rig.lb(["enable", "b1"])?.expect(0)?;

    rig.run(&[])?;
    rig.wait_backend(1, "back", |b| b["slots"].as_u64() > Some(1000))?;
    rig.lb(["drain", "b1", "--deadline", "90s"])?.expect(0)?.says(&["stay for 1m 30s, then they move"])?;
    // What is shown is of the drain, not of the checks.
    let shown = rig
        .lb(["backends"])?
        .expect(0)?
        .says(&["~ 203.0.113.21: draining by the operator", "until they move"])?;
    let row = shown.out.lines().find(|line| line.contains("(b1)")).context("no row")?;
    ensure!(
        row.split_whitespace()
            .any(|word| word.ends_with('s') && word[..word.len() - 1].parse::<u8>().is_ok()),
        "{row}"
    );
    rig.lb(["enable", "b1"])?.expect(0)?;
    apply(&rig, &config("    tracking: never\n", &THREE), &[])?.expect(0)?;
    let lost = Download::start_from(&rig, "b2", 41_000..41_040)?;
    rig.lb(["drain", "b2"])?.expect(0)?.says(&["`tracking` is never: its flows move now"])?;
    ensure!(lost.finish().is_err(), "a flow that nobody records stayed");
    Ok(())
}

#[test]
fn a_drain_that_max_unsettled_ends_has_not_kept_its_flows() -> anyhow::Result<()> {
    let rig = Rig::new(3, 50)?;
    rig.write_text(&config("    max_unsettled: 12s\n", &THREE))?;
    rig.run(&[])?;
    let lost = Download::start_from(&rig, "b1", 40_000..40_040)?;
    rig.lb(["drain", "b1", "--deadline", "60s", "--wait"])?.expect(1)?.says(&[
        "for 12s at most (`max_unsettled`)",
        "until they move (`max_unsettled`)",
        "`max_unsettled` was over first",
    ])?;
    ensure!(lost.finish().is_err(), "its slot was not settled by force");
    // One without flows is done in peace.
    rig.lb(["drain", "b2", "--wait"])?.expect(0)?.says(&["no flow left"]).map(drop)
}

/// Configs that take new flows away from most of the three, and what is said of them.
fn bad() -> [(String, &'static str); 4] {
    let (zero, drain) = (", weight: 0", ", drain: true");
    [
        (config("", &THREE[2..]), "2 of 3"),
        (config("", &[(1, zero), (2, zero), (3, "")]), "2 of 3"),
        (config("", &[(1, drain), (2, drain), (3, "")]), "2 of 3"),
        (config("", &THREE).replace("port: 80", "port: 81"), "LB043"),
    ]
}

#[test]
fn guard_rails_hold_whatever_way_a_config_comes() -> anyhow::Result<()> {
    let rig = Rig::new(3, 1)?;
    let good = config("", &THREE);
    let path = rig.write_text(&good)?.display().to_string();
    // Nobody follows: `lb apply` does it all itself.
    rig.lb(["attach", "eth0", "--config", &path])?.expect(0)?;
    for (text, said) in bad() {
        apply(&rig, &text, &["--dry-run"])?.expect(2)?.says(&[said, "guard rails object", "flows:"])?;
        apply(&rig, &text, &[])?.expect(2)?.says(&[said, "--force"])?;
    }
    rig.expect_answers_from(20_000..20_060, &["b1", "b2", "b3"])?;

    // A daemon that starts where something forwards, then the socket, SIGHUP and the file itself.
    for (index, (text, said)) in bad().into_iter().enumerate() {
        rig.write_text(&text)?;
        let daemon = rig.run(&["--watch"])?;
        let told = rig.wait_refused()?;
        ensure!(told.contains(said), "at the start: {told}");
        let forget = || -> anyhow::Result<()> {
            rig.write_text(&good)?;
            daemon.signal(Signal::SIGHUP)?;
            until("the refusal forgotten", PATIENCE, || {
                Ok(rig.status()?["last_error"].is_null().then_some(()))
            })
        };
        forget()?;
        apply(&rig, &text, &[])?.expect(2)?.says(&[said, "--force"])?;
        forget()?;
        rig.write_text(&text)?;
        if index % 2 == 0 {
            daemon.signal(Signal::SIGHUP)?;
        }
        let told = rig.wait_refused()?;
        ensure!(told.contains(said), "by the file: {told}");
        rig.stop(Signal::SIGKILL)?;
    }
    rig.expect_answers_from(21_000..21_060, &["b1", "b2", "b3"])?;

    // With the others out of the way by the operator's word, the last one is all there is.
    rig.write_text(&good)?;
    rig.run(&[])?;
    rig.lb(["drain", "b1"])?.expect(0)?;
    rig.lb(["drain", "b2"])?.expect(0)?;
    for number in 1..=2 {
        rig.wait_backend(number, "drained", |b| b["state"] == "draining" && b["slots"] == 0)?;
    }
    apply(&rig, &config("", &THREE[..2]), &[])?.expect(2)?.says(&["LB030", "all backends"])?;
    apply(&rig, &config("", &THREE[2..]), &[])?.expect(0)?;
    rig.expect_answers_from(22_000..22_020, &["b3"])?;
    apply(&rig, &config("", &[(1, "")]), &["--force"])?.expect(0)?;
    rig.lb(["enable", "b1"])?.expect(0)?;
    rig.wait_backend(1, "with all slots", |b| b["slots"].as_u64() > Some(4000))?;
    rig.expect_answers_from(23_000..23_020, &["b1"]).map(drop)
}
