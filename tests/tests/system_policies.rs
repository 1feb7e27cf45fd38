//! Shares that move by themselves, with the daemon and real backends: slow start, and weights that follow latencies.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{FLAG, Rig, Watched, inside, until};
use lb_userspace::lab::Role;

/// Longer than shares take to follow latencies, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

fn percent(rig: &Rig, number: u8) -> anyhow::Result<u64> {
    rig.backend(number)?["health"]["percent"].as_u64().context("no share")
}

#[test]
fn a_backend_that_recovers_gets_its_weight_in_steps() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let (_first, second) = (rig.flag(1)?, rig.flag(2)?);
    rig.watch(&Watched::flags(2).with("slow_start: 24s"))?;
    for number in [1, 2] {
        ensure!(percent(&rig, number)? == 100, "b{number} starts slowly with the daemon");
    }
    drop(second);
    rig.wait_backend(2, "without slots", |b| b["state"] == "down" && b["slots"] == 0)?;
    let _second = rig.flag(2)?;
    let part = |share: &serde_json::Value| share.as_u64().is_some_and(|share| (10..100).contains(&share));
    rig.wait_backend(2, "with a part of its weight", |b| {
        b["state"] == "up" && part(&b["health"]["percent"])
    })?;
    // A planned change takes a second more.
    let few = until("some slots, but not half of them", PATIENCE, || {
        let slots = rig.slots(2)?;
        ensure!(slots[1] > 0, "{slots:?}");
        Ok(Some(slots))
    })?;
    ensure!(few[1] < few[0], "{few:?}");
    ensure!(percent(&rig, 1)? == 100, "b1 has not been away");
    until("half of the slots", PATIENCE, || {
        let slots = rig.slots(2)?;
        ensure!(slots[1].abs_diff(slots[0]) < slots[0] / 50, "{slots:?}");
        Ok(Some(()))
    })?;
    ensure!(percent(&rig, 2)? == 100, "b2 has all of its slots");
    Ok(())
}

/// Answers every connection after so many milliseconds, until the process ends.
fn answer_after(rig: &Rig, number: u8) -> anyhow::Result<Arc<AtomicU64>> {
    let netns = rig.lab.netns(Role::Backend(number));
    let listener = inside(&netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, FLAG)))??;
    let delay = Arc::new(AtomicU64::new(0));
    let wait = Arc::clone(&delay);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut question = [0; 4];
            if stream.read_exact(&mut question).is_ok() {
                thread::sleep(Duration::from_millis(wait.load(Ordering::Relaxed)));
                let _client_gone = stream.write_all(&question);
            }
        }
    });
    Ok(delay)
}

#[test]
fn a_slow_backend_loses_weight_and_gets_it_back() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let (first, second) = (answer_after(&rig, 1)?, answer_after(&rig, 2)?);
    // Far above what a busy machine adds.
    first.store(30, Ordering::Relaxed);
    second.store(30, Ordering::Relaxed);
    let times = "interval: 1s, timeout: 900ms, unhealthy_threshold: 10";
    let check = format!("{{type: tcp, via: service, port: {FLAG}, send: ping, expect: ping, {times}}}");
    rig.watch(&Watched::new(&check, 2).with("algorithm: least-response-time"))?;
    second.store(300, Ordering::Relaxed);
    until("b2 with less weight", PATIENCE, || {
        let slots = rig.slots(2)?;
        ensure!(slots[1] * 2 < slots[0] && slots[1] > 0, "{slots:?}, {}%", percent(&rig, 2)?);
        Ok(Some(()))
    })?;
    second.store(30, Ordering::Relaxed);
    until("b2 with its weight again", PATIENCE, || {
        let slots = rig.slots(2)?;
        ensure!(slots[1] * 4 > slots[0] * 3, "{slots:?}, {}%", percent(&rig, 2)?);
        Ok(Some(()))
    })
}
