//! What people and agents say about backends, and what people are told of them.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Agent, Download, Listener, Rig, Run, Watched, until};
use lb_userspace::lab::{Role, VIP_L2};
use nix::sys::signal::Signal;
use serde_json::Value;

fn word(rig: &Rig, words: &[&str], code: i32) -> anyhow::Result<Run> {
    rig.lb(words)?.expect(code)
}

#[test]
fn drain_keeps_flows_and_disable_ends_them_until_enable() -> anyhow::Result<()> {
    let rig = Rig::new(3, 6)?;
    rig.watch(&Watched::new("{type: tcp, interval: 500ms}", 3))?;
    let kept = Download::start_from(&rig, "b1", 40_000..40_040)?;
    word(&rig, &["drain", "b1", "--reason", "kernel update"], 0)?
        .says(&["web/203.0.113.21", "no new flows"])?;
    let shown = rig.wait_backend(1, "drained", |b| b["state"] == "draining" && b["slots"] == 0)?;
    ensure!(shown["health"]["state"] == "up" && shown["health"]["admin"] == "drain", "{shown:#}");
    rig.expect_answers_from(20_000..20_060, &["b2", "b3"])?;
    kept.expect_running()?;

    // The word outlives daemons, however they end.
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        rig.stop(signal)?;
        rig.run(&[])?;
        rig.wait_backend(1, "still drained", |b| b["health"]["state"] == "up" && b["state"] == "draining")?;
        ensure!(rig.slots(3)?[0] == 0, "the new daemon gave it slots");
    }
    kept.finish()?;

    word(&rig, &["enable", "web/203.0.113.21"], 0)?;
    rig.wait_backend(1, "enabled", |b| b["state"] == "up" && b["slots"].as_u64() > Some(1000))?;
    rig.expect_answers_from(21_000..21_060, &["b1", "b2", "b3"])?;
    let lost = Download::start_from(&rig, "b1", 41_000..41_040)?;
    word(&rig, &["disable", "b1"], 0)?.says(&["no flows"])?;
    rig.wait_backend(1, "disabled", |b| b["state"] == "disabled" && b["slots"] == 0)?;
    ensure!(lost.finish().is_err(), "a disabled backend finished a download");
    rig.expect_answers_from(22_000..22_060, &["b2", "b3"])?;
    word(&rig, &["enable", "b1"], 0)?;
    rig.wait_state(1, "up").map(drop)
}

#[test]
fn a_word_with_a_time_ends_by_itself() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    rig.watch(&Watched::new("{type: tcp, interval: 500ms}", 2))?;
    word(&rig, &["drain", "b1", "--until", "1s"], 0)?;
    rig.wait_backend(1, "up again", |b| b["state"] == "up" && b["slots"].as_u64() > Some(1000))?;
    word(&rig, &["disable", "b1", "--until", "3s"], 0)?;
    rig.wait_backend(1, "disabled", |b| b["state"] == "disabled" && b["slots"] == 0)?;
    rig.wait_backend(1, "up again", |b| b["state"] == "up" && b["slots"].as_u64() > Some(1000))?;
    rig.expect_answers_from(20_000..20_040, &["b1", "b2"])?;
    Ok(())
}

#[test]
fn the_last_backend_is_taken_away_only_by_force() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    rig.watch(&Watched::new("{type: tcp, interval: 500ms}", 2))?;
    word(&rig, &["drain", "b1"], 0)?;
    rig.wait_backend(1, "without slots", |b| b["slots"] == 0)?;
    word(&rig, &["drain", "b2"], 2)?.says(&["LB041", "web would have no backend", "--force"])?;
    word(&rig, &["disable", "b2"], 2)?.says(&["LB041"])?;
    word(&rig, &["drain", "b9"], 2)?.says(&["LB042", "web/203.0.113.21"])?;
    ensure!(rig.answer(VIP_L2)? == "b2", "a refused word did something");
    word(&rig, &["drain", "b2", "--force"], 0)?;
    rig.wait_state(2, "draining")?;
    rig.lb(["status"])?.expect(2)?.says(&["NOT FORWARDING", "203.0.113.22: draining"]).map(drop)
}

#[test]
fn words_count_without_a_daemon() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let path = rig.write_text(&Watched::new("{type: tcp, interval: 500ms}", 2).yaml())?.display().to_string();
    word(&rig, &["drain", "b1"], 1)?;
    word(&rig, &["attach", "eth0", "--config", &path], 0)?;
    rig.expect_answers_from(20_000..20_040, &["b1", "b2"])?;
    word(&rig, &["drain", "b1"], 0)?.says(&["no new flows"])?;
    rig.expect_answers_from(21_000..21_040, &["b2"])?;
    word(&rig, &["disable", "b2"], 2)?.says(&["LB041"])?;
    // A daemon that comes keeps the word.
    rig.run(&[])?;
    rig.wait_backend(1, "still drained", |b| b["health"]["state"] == "up" && b["state"] == "draining")?;
    ensure!(rig.slots(2)?[0] == 0, "the daemon gave it slots");
    rig.stop(Signal::SIGTERM)?;
    word(&rig, &["enable", "b1"], 0)?;
    rig.expect_answers_from(22_000..22_040, &["b1", "b2"])?;
    Ok(())
}

#[test]
fn a_word_about_a_backend_that_has_left_is_shown_and_can_be_taken_back() -> anyhow::Result<()> {
    let rig = Rig::new(3, 1)?;
    let text = |some: Watched, last: &str| some.yaml().replace(last, "");
    let all = Watched::new("{type: tcp, interval: 500ms}", 3);
    let two = text(all.clone().with("on_remove: drop"), "      - {name: b3, address: 203.0.113.23}\n");
    rig.watch(&all.clone().with("on_remove: drop"))?;
    word(&rig, &["drain", "b3", "--reason", "new disk"], 0)?;
    let apply = |text: &str| -> anyhow::Result<Run> {
        let path = rig.write_text(text)?.display().to_string();
        rig.lb(["apply", &path])?.expect(0)
    };
    apply(&two)?;
    ensure!(rig.backend(3).is_err(), "b3 is still there");
    let shown = ["web/203.0.113.23: not in the config", "new disk", "lb enable web/203.0.113.23"];
    rig.lb(["status"])?.expect(0)?.says(&shown)?;
    ensure!(rig.status()?["words_without_backend"][0]["backend"] == "203.0.113.23");
    // Listed again it is as the word says, and that is told.
    let again = all.with("on_remove: drop").yaml();
    apply(&again)?.says(&["LB049", "web/203.0.113.23 is draining", "lb enable"])?;
    rig.wait_state(3, "draining")?;
    apply(&two)?;
    word(&rig, &["enable", "b3"], 0)?.says(&["web/203.0.113.23", "enabled"])?;
    ensure!(rig.status()?["words_without_backend"] == serde_json::json!([]), "the word is still there");
    word(&rig, &["enable", "b3"], 2)?.says(&["LB042"])?;
    apply(&again)?;
    rig.wait_backend(3, "up", |b| b["state"] == "up" && b["slots"].as_u64() > Some(1000)).map(drop)
}

#[test]
fn an_agent_says_weight_drain_and_down() -> anyhow::Result<()> {
    const PORT: u16 = 8090;
    let rig = Rig::new(2, 1)?;
    let agent = |number| Agent::listen(&rig.lab.netns(Role::Backend(number)), PORT, "up ready 100%");
    let (one, _two) = (agent(1)?, agent(2)?);
    let config = Watched::new("{type: tcp, interval: 500ms}", 2);
    rig.watch(&config.with(&format!("agent_check: {{port: {PORT}, interval: 200ms, timeout: 200ms}}")))?;
    let half = |backend: &Value| backend["slots"].as_u64().is_some_and(|slots| (1950..2150).contains(&slots));
    rig.wait_backend(1, "with half of the slots", half)?;

    one.say("50%");
    // A third of 4093.
    let third =
        |backend: &Value| backend["slots"].as_u64().is_some_and(|slots| (1300..1430).contains(&slots));
    rig.wait_backend(1, "with a third", |b| b["weight_now"] == 0.5 && b["state"] == "up" && third(b))?;
    one.say("drain");
    rig.wait_backend(1, "draining", |b| b["state"] == "draining" && b["slots"] == 0)?;
    rig.expect_answers_from(20_000..20_040, &["b2"])?;
    one.say("ready");
    rig.wait_backend(1, "as before", |b| b["weight_now"] == 0.5 && b["state"] == "up" && third(b))?;
    one.say("down#testing");
    let shown = rig.wait_backend(1, "down", |b| b["state"] == "down" && b["slots"] == 0)?;
    let reason = shown["health"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("testing"), "the agent's reason is missing: {shown:#}");
    rig.lb(["status"])?.expect(1)?.says(&["testing"])?;
    one.say("up ready 100%");
    rig.wait_backend(1, "as at first", |b| b["weight_now"] == 1.0 && b["state"] == "up" && half(b))?;
    rig.expect_answers_from(21_000..21_040, &["b1", "b2"])?;
    Ok(())
}

#[test]
fn the_command_on_change_and_lb_events_hear_the_same() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let (one, _two) = (rig.flag(1)?, rig.flag(2)?);
    let heard = rig.file("heard");
    let hook = format!("on_change: [sh, -c, 'cat >> {}']", heard.display());
    rig.watch(&Watched { top: vec![hook], ..Watched::flags(2) })?;
    let lines = || fs::read_to_string(&heard).unwrap_or_default();
    until("the first changes in the file", Duration::from_secs(10), || {
        Ok((lines().lines().count() >= 2).then_some(()))
    })?;
    let before = lines().lines().count();
    let events = Listener::start(&rig)?;
    drop(one);
    let (_, down) = events.wait_change("b1", "down")?;
    let _one = rig.flag(1)?;
    events.wait_change("b1", "up")?;

    let keys: Vec<&str> = down.as_object().context("no object")?.keys().map(String::as_str).collect();
    let wanted = ["at", "backend", "event", "from", "id", "name", "reason", "service", "to"];
    ensure!(keys.len() == wanted.len() && wanted.iter().all(|key| keys.contains(key)), "{down}");
    let facts =
        ["event", "service", "id", "backend", "from"].map(|key| down[key].as_str().unwrap_or_default());
    ensure!(facts == ["state", "web", "203.0.113.10:80/tcp", "203.0.113.21", "up"], "{down}");
    ensure!(down["at"].is_u64(), "{down}");
    ensure!(down["reason"].as_str().is_some_and(|why| why.contains("refused")), "{down}");
    until("the same lines in the file", Duration::from_secs(10), || {
        let told = lines();
        let told: Vec<Value> =
            told.lines().skip(before).map(serde_json::from_str).collect::<Result<_, _>>()?;
        let events: Vec<Value> = events.all().into_iter().map(|(_, event)| event).collect();
        ensure!(told == events && told.len() >= 2, "the command heard {told:?}, lb events {events:?}");
        Ok(Some(()))
    })
}
