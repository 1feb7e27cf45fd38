//! No connection breaks: two thousand of them move data all the time over TCP, beside flows of UDP and QUIC, while
//! backends come, go, fail and change their weights, and the config is loaded again and again.

use std::time::Duration;

use anyhow::ensure;
use lb_tests::system::{Farm, Kind, Load, Many, Rig, Wish};
use lb_userspace::lab::Process;
use nix::sys::signal::Signal;

/// A little more than the idle time in the configs.
const IDLE: Duration = Duration::from_secs(4);

/// A lab with servers, a daemon and connections.
fn begin(backends: u8, config: &Many, wish: Wish) -> anyhow::Result<(Rig, Farm, Process, Load)> {
    let rig = Rig::of(|lab| lab.backends(backends).big_bytes(0))?;
    let farm = Farm::start(&rig, backends)?;
    rig.write_text(&config.yaml())?;
    let daemon = rig.run(&[])?;
    rig.wait_up()?;
    let load = Load::start(&rig, &farm, wish)?;
    Ok((rig, farm, daemon, load))
}

/// Loads a config by SIGHUP, and waits until it is in force.
fn reload(rig: &Rig, load: &Load, daemon: &Process, what: &str, config: &Many) -> anyhow::Result<()> {
    load.note(what);
    let generation = rig.generation()?;
    rig.write_text(&config.yaml())?;
    daemon.signal(Signal::SIGHUP)?;
    rig.wait_newer(generation).map(drop)
}

#[test]
fn nothing_breaks_while_a_backend_is_added_and_weights_change() -> anyhow::Result<()> {
    let three = Many::new(&[(1, 1), (2, 1), (3, 1)]);
    let (rig, _farm, daemon, load) = begin(4, &three, Wish::default())?;
    let change = |what, config: &Many| reload(&rig, &load, &daemon, what, config);
    load.watch(Duration::from_secs(1))?;
    change("b4 is added", &three.clone().weigh(4, 1))?;
    load.watch(Duration::from_secs(1))?;
    change("b4 weighs more", &three.clone().weigh(4, 5))?;
    load.watch(Duration::from_secs(1))?;
    change("b4 weighs less", &three.clone().weigh(4, 2))?;
    load.watch(2 * IDLE)?;
    let report = load.finish()?;
    report.expect_unbroken()?;
    ensure!(report.answers(Kind::Tcp, 4) > 0, "b4 got nothing");
    Ok(())
}
