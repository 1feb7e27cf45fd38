//! Backends come, go, fail and change their weights, and the config is loaded again and again.

use std::time::Duration;

use anyhow::ensure;
use lb_tests::system::{Crowd, IDLE, Kind, Many, Wish, until};

fn second() -> Duration {
    Duration::from_secs(1)
}

#[test]
fn nothing_breaks_while_a_backend_is_added_and_weights_change() -> anyhow::Result<()> {
    let three = Many::new(&[(1, 1), (2, 1), (3, 1)]);
    let crowd = Crowd::gather(4, &three, Wish::default())?;
    crowd.load.watch(second())?;
    crowd.reload("b4 is added", &three.clone().weigh(4, 1))?;
    crowd.load.watch(second())?;
    crowd.reload("b4 weighs more", &three.clone().weigh(4, 5))?;
    crowd.load.watch(second())?;
    crowd.apply("b4 weighs less", &three.clone().weigh(4, 2))?;
    crowd.wait_settled()?;
    let report = crowd.finish()?;
    ensure!(report.answers(Kind::Tcp, 4) > 0, "b4 got nothing");
    Ok(())
}

#[test]
fn nothing_breaks_while_a_backend_is_drained_and_removed() -> anyhow::Result<()> {
    let three = Many::new(&[(1, 1), (2, 1), (3, 1)]);
    let crowd = Crowd::gather(3, &three, Wish::default())?;
    crowd.load.watch(second())?;
    crowd.reload("b3 drains", &three.clone().drain(3))?;
    crowd.load.watch(IDLE)?;
    let drained = crowd.load.on(3);
    crowd.reload("b3 is removed", &three.clone().weigh(3, 0))?;
    crowd.load.watch(2 * IDLE)?;
    let kept = crowd.load.on(3);
    println!("b3 has {drained} connections after its drain, {kept} after its removal");
    ensure!(kept > 300, "b3 has kept {kept} of {drained} connections only");
    until("no word of b3", 5 * IDLE, || {
        crowd.load.check()?;
        // While slots are fresh, datagrams of new flows may be taken for older ones', and go to b3.
        crowd.load.leave(3);
        let shown = crowd.rig.lb(["backends"])?.expect(0)?;
        ensure!(!shown.out.contains("203.0.113.23"), "{shown}");
        Ok(Some(()))
    })?;
    crowd.finish().map(drop)
}

#[test]
fn nothing_else_breaks_while_a_backend_fails_and_recovers() -> anyhow::Result<()> {
    let four = Many::new(&[(1, 1), (2, 1), (3, 1), (4, 1)]).checked();
    let mut crowd = Crowd::gather(4, &four, Wish::default())?;
    crowd.load.watch(second())?;
    crowd.fail(2)?;
    crowd.load.watch(second())?;
    crowd.recover(2)?;
    crowd.load.watch(second())?;
    // Another one, before the first one's slots have settled.
    crowd.fail(3)?;
    crowd.reload("b4 weighs more", &four.clone().weigh(4, 3))?;
    crowd.load.watch(IDLE)?;
    crowd.recover(3)?;
    crowd.wait_settled()?;
    let report = crowd.finish()?;
    ensure!(report.excused > 100, "{} connections noticed that their backend died", report.excused);
    Ok(())
}

/// By SIGHUP and `lb apply` in turn, faster than slots can settle.
#[test]
fn nothing_breaks_while_the_config_is_loaded_a_hundred_times() -> anyhow::Result<()> {
    let crowd = Crowd::gather(4, &Many::new(&[(1, 1), (2, 1), (3, 1), (4, 1)]), Wish::default())?;
    for number in 1..=100_u16 {
        let config = Many::new(&[(1, 2 + number % 3), (2, 2 + number % 2), (3, 2 + number % 5), (4, 10)]);
        if number.is_multiple_of(2) {
            crowd.apply(&format!("apply {number}"), &config)?;
        } else {
            crowd.reload(&format!("reload {number}"), &config)?;
        }
        crowd.load.check()?;
    }
    crowd.wait_settled()?;
    crowd.finish().map(drop)
}

/// The other tests can fail: without records the same changes break connections.
#[test]
fn without_tracking_connections_break_when_weights_change() -> anyhow::Result<()> {
    let untracked = |weights| Many { rules: ", tracking: never", ..Many::new(weights) };
    let few = Wish { tcp: 400, udp: 100, ..Wish::default() };
    let crowd = Crowd::gather(3, &untracked(&[(1, 1), (2, 1), (3, 1)]), few)?;
    crowd.load.watch(second())?;
    crowd.reload("b3 weighs more", &untracked(&[(1, 1), (2, 1), (3, 8)]))?;
    until("broken connections", 2 * IDLE, || {
        let faults = crowd.load.faults();
        let of = |kind| faults.iter().filter(|fault| fault.kind == kind && !fault.control).count();
        Ok((of(Kind::Tcp) > 50 && of(Kind::Udp) > 10).then_some(()))
    })?;
    let report = crowd.load.finish()?;
    ensure!(report.faults.iter().all(|fault| !fault.control), "the control set breaks as well: {report}");
    ensure!(report.expect_unbroken().is_err(), "broken connections are not told");
    println!("{} faults", report.faults.len());
    Ok(())
}
