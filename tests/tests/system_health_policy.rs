//! What a service does with failures: the last ones, too many at once, backups, trials, flapping backends.

use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Echo, Listener, Requests, Rig, Watched, until};
use lb_userspace::lab::{Role, VIP_L2};

fn flags(rig: &Rig, backends: u8) -> anyhow::Result<Vec<Echo>> {
    (1..=backends).map(|number| rig.flag(number)).collect()
}

/// Packets of the service that were dropped for want of a backend.
fn dropped(rig: &Rig) -> anyhow::Result<u64> {
    let services = rig.lb(["services", "--output", "json"])?.expect(0)?.json()?;
    Ok(services[0]["drops"]["no_backend"].as_u64().unwrap_or(0))
}

fn share(rig: &Rig, number: u8) -> anyhow::Result<f64> {
    let slots = rig.slots(2)?;
    let of = slots.get(usize::from(number) - 1).copied().context("no such backend")?;
    Ok(of as f64 / slots.iter().sum::<u64>().max(1) as f64)
}

#[test]
fn when_all_are_down_those_last_known_serve_on_with_an_alarm() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let both = flags(&rig, 2)?;
    rig.watch(&Watched::flags(2).with("all_down: last-known"))?;
    let requests = Requests::start(&rig);
    drop(both);
    let status = rig.wait_alarm(Some("no backend is up: "))?;
    ensure!(status["health"] == "degraded", "{status:#}");
    let words = ["DEGRADED", "web: no backend is up: ", "all_down: last-known", "connection refused"];
    rig.lb(["status"])?.expect(1)?.says(&words)?;
    let serving: u64 = rig.slots(2)?.iter().sum();
    ensure!(serving > 4000, "only {serving} slots are served");
    let _both = flags(&rig, 2)?;
    rig.wait_alarm(None)?;
    (1..=2).try_for_each(|number| rig.wait_state(number, "up").map(drop))?;
    rig.lb(["status"])?.expect(0)?;
    requests.finish()?.expect_no_failure()
}

#[test]
fn when_all_are_down_and_the_config_says_so_packets_are_dropped_until_one_is_back() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let both = flags(&rig, 2)?;
    rig.watch(&Watched::flags(2).with("all_down: reject"))?;
    rig.answer(VIP_L2)?;
    ensure!(dropped(&rig)? == 0, "packets were dropped while all was well");
    drop(both);
    rig.wait_alarm(Some("no backend takes new flows (all_down: reject"))?;
    until("no slot left", Duration::from_secs(10), || Ok((rig.slots(2)? == [0, 0]).then_some(())))?;
    rig.lb(["status"])?.expect(2)?.says(&["NOT FORWARDING", "no backend takes new flows"])?;
    let before = dropped(&rig)?;
    let url = format!("http://{VIP_L2}/");
    // Silence (code 28), neither an answer nor a reset.
    rig.curl(Role::Client, ["--max-time", "1.5", &url])?.expect(28)?;
    let after = dropped(&rig)?;
    ensure!(after > before, "the service counts no drops: {before}, {after}");
    let _one = rig.flag(1)?;
    rig.wait_alarm(None)?;
    rig.wait_state(1, "up")?;
    until("an answer", Duration::from_secs(10), || {
        let answer = rig.answer(VIP_L2)?;
        ensure!(answer == "b1", "{answer} answers, which is down");
        Ok(Some(()))
    })
}

#[test]
fn a_failure_of_more_than_max_failed_at_once_is_not_believed() -> anyhow::Result<()> {
    let rig = Rig::new(4, 1)?;
    let mut all = flags(&rig, 4)?;
    rig.watch(&Watched::flags(4).with("max_failed: 50%"))?;
    let last = all.pop();
    drop(all);
    let status = rig.wait_alarm(Some("3 of 4 backends failed at once: not believed, 3 of them serve on"))?;
    ensure!(status["health"] == "degraded", "{status:#}");
    rig.wait_owners(&["b1", "b2", "b3", "b4"])?;
    for number in 1..=3 {
        let shown = rig.backend(number)?;
        ensure!(shown["state"] == "down-serving" && shown["health"]["disbelieved"] == true, "{shown:#}");
    }
    rig.expect_answers_from(20_000..20_060, &["b1", "b2", "b3", "b4"])?;
    // Two of four are as many as the config believes.
    let _first = rig.flag(1)?;
    rig.wait_alarm(None)?;
    rig.wait_backend(2, "without slots", |b| b["state"] == "down" && b["slots"] == 0)?;
    rig.wait_backend(3, "without slots", |b| b["state"] == "down" && b["slots"] == 0)?;
    drop(last);
    Ok(())
}

#[test]
fn a_backup_serves_while_the_primary_is_down() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let (primary, _backup) = (rig.flag(1)?, rig.flag(2)?);
    rig.watch(&Watched { backends: vec!["", ", backup: true"], ..Watched::flags(2) })?;
    let requests = Requests::start(&rig);
    rig.wait_backend(2, "on standby", |b| b["state"] == "standby" && b["slots"] == 0)?;
    rig.lb(["status"])?.expect(0)?;
    drop(primary);
    rig.wait_backend(1, "without slots", |b| b["state"] == "down" && b["slots"] == 0)?;
    rig.wait_backend(2, "serving", |b| b["state"] == "up" && b["slots"].as_u64() > Some(4000))?;
    let answer = rig.answer(VIP_L2)?;
    ensure!(answer == "b2", "{answer} answers, which is down");
    let _primary = rig.flag(1)?;
    rig.wait_backend(1, "serving", |b| b["state"] == "up" && b["slots"].as_u64() > Some(4000))?;
    rig.wait_backend(2, "on standby", |b| b["state"] == "standby" && b["slots"] == 0)?;
    let answer = rig.answer(VIP_L2)?;
    ensure!(answer == "b1", "{answer} answers, which stands by");
    requests.finish()?.expect_no_failure()
}

#[test]
fn a_backup_enters_when_fewer_than_min_active_are_up() -> anyhow::Result<()> {
    let rig = Rig::new(3, 1)?;
    let (one, _two, _three) = (rig.flag(1)?, rig.flag(2)?, rig.flag(3)?);
    let config = Watched { backends: vec!["", "", ", backup: true"], ..Watched::flags(3) };
    rig.watch(&config.with("min_active: 2"))?;
    rig.wait_backend(3, "on standby", |b| b["state"] == "standby" && b["slots"] == 0)?;
    drop(one);
    rig.wait_backend(3, "serving", |b| b["state"] == "up" && b["slots"].as_u64() > Some(1000))?;
    let slots = rig.slots(3)?;
    ensure!(slots[0] == 0 && slots[1] > 1000, "the other primary and the backup serve: {slots:?}");
    let _one = rig.flag(1)?;
    rig.wait_backend(3, "on standby", |b| b["state"] == "standby" && b["slots"] == 0)?;
    Ok(())
}

#[test]
fn after_a_long_failure_a_backend_is_on_trial_first() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let (one, _two) = (rig.flag(1)?, rig.flag(2)?);
    let health = "hold_down: 0s, trial_after: 1s, trial_time: 5s, trial_share: 20%";
    rig.watch(&Watched { health, ..Watched::flags(2) })?;
    let events = Listener::start(&rig)?;
    drop(one);
    rig.wait_state(1, "down")?;
    std::thread::sleep(Duration::from_millis(1500));
    let _one = rig.flag(1)?;
    let shown = rig
        .wait_backend(1, "on trial with slots", |b| b["state"] == "trial" && b["slots"].as_u64() > Some(0))?;
    let weight = shown["weight_now"].as_f64();
    ensure!(weight == Some(0.2) && shown["health"]["until"].is_u64(), "{shown:#}");
    let on_trial = share(&rig, 1)?;
    // 0.2 of 1.2.
    ensure!((0.15..0.19).contains(&on_trial), "{on_trial} of the slots while on trial");
    let (began, _) = events.wait_change("b1", "trial")?;
    let (ended, event) =
        events.wait("b1 trial → up", |e| e["name"] == "b1" && e["from"] == "trial" && e["to"] == "up")?;
    let lasted = ended.saturating_duration_since(began);
    ensure!(lasted > Duration::from_millis(4500), "the trial lasted {lasted:?}: {event}");
    rig.wait_backend(1, "with its whole weight", |b| b["weight_now"] == 1.0)?;
    until("half of the slots", Duration::from_secs(10), || {
        let whole = share(&rig, 1)?;
        ensure!((0.48..0.52).contains(&whole), "{whole}");
        Ok(Some(()))
    })
}

#[test]
fn a_backend_that_fails_again_and_again_is_held_down() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let (one, _two) = (rig.flag(1)?, rig.flag(2)?);
    let health = "hold_down: 4s, max_hold_down: 8s, flap_window: 1m, trial_time: 0s";
    rig.watch(&Watched { health, ..Watched::flags(2) })?;
    let events = Listener::start(&rig)?;
    // Once is no flapping: it is back as soon as its checks pass.
    drop(one);
    rig.wait_state(1, "down")?;
    let one = rig.flag(1)?;
    rig.wait_state(1, "up")?;
    ensure!(events.all().iter().all(|(_, event)| event["to"] != "held"), "{:?}", events.all());
    drop(one);
    rig.wait_state(1, "down")?;
    let _one = rig.flag(1)?;
    let shown = rig.wait_state(1, "held")?;
    ensure!(shown["slots"] == 0 && shown["health"]["flaps"] == 2, "{shown:#}");
    ensure!(shown["health"]["until"].is_u64(), "{shown:#}");
    rig.lb(["status"])?.expect(1)?.says(&["DEGRADED", "held"])?;
    let (began, _) = events.wait_change("b1", "held")?;
    let (ended, event) = events.wait("b1 held → up", |e| e["name"] == "b1" && e["from"] == "held")?;
    let lasted = ended.saturating_duration_since(began);
    ensure!(event["to"] == "up" && lasted > Duration::from_millis(3500), "held for {lasted:?}: {event}");
    rig.wait_backend(1, "with slots", |b| b["state"] == "up" && b["slots"].as_u64() > Some(1000))?;
    Ok(())
}
