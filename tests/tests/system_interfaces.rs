//! What happens when interfaces and pins are not what they were.

use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Config, Rig, until};
use lb_userspace::lab::{Role, VIP_L2};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(8);

fn ip(rig: &Rig, line: &str) -> anyhow::Result<()> {
    rig.on(Role::Balancer, "ip", line.split_whitespace())?.expect(0).map(drop)
}

/// Interfaces on which the program runs natively, as `lb status` tells.
fn running(rig: &Rig) -> anyhow::Result<Vec<String>> {
    let status = rig.status()?;
    let attachments = status["attachments"].as_array().context("no attachments")?;
    let native = attachments.iter().filter(|place| place["mode"] == "native");
    Ok(native.filter_map(|place| place["interface"].as_str().map(str::to_owned)).collect())
}

fn wait_running(rig: &Rig, wanted: &[&str]) -> anyhow::Result<()> {
    until("the program on the interfaces", PATIENCE, || Ok((running(rig)? == wanted).then_some(())))
}

/// One of two interfaces is deleted under the daemon: the other goes on and reloads, and when the deleted one comes
/// back, even with the index it had, it is attached again. Nothing is left behind in the end.
#[test]
fn an_interface_that_goes_and_comes_back_is_attached_again() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    ip(&rig, "link add x0 index 50 type veth peer name x1")?;
    ip(&rig, "link set x0 up")?;
    let yaml = |weight| {
        let lines = Config::l2(&[(1, weight), (2, 1)]).yaml();
        let lines = lines.lines().map(|line| match line.starts_with("interfaces:") {
            true => "interfaces: [{name: eth0}, {name: x0}]\n".to_owned(),
            false => format!("{line}\n"),
        });
        lines.collect::<String>()
    };
    rig.write_text(&yaml(1))?;
    let daemon = rig.run(&[])?;
    rig.wait_up()?;
    wait_running(&rig, &["eth0", "x0"])?;

    ip(&rig, "link del x0")?;
    wait_running(&rig, &["eth0"])?;
    let generation = rig.generation()?;
    rig.write_text(&yaml(3))?;
    daemon.signal(Signal::SIGHUP)?;
    rig.wait_newer(generation)?;
    rig.answer(VIP_L2)?;

    ip(&rig, "link add x0 index 50 type veth peer name x1")?;
    wait_running(&rig, &["eth0", "x0"])?;

    rig.stop(Signal::SIGTERM)?;
    ip(&rig, "link del x0")?;
    rig.lb(["detach", "eth0", "--force"])?.expect(0)?.says(&["nothing is left behind"])?;
    rig.expect_nothing()
}

/// A start that does not fit what is pinned is refused, and what forwards goes on forwarding.
#[test]
fn a_start_that_does_not_fit_leaves_what_forwards_alone() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    let path = rig.write(&Config::l2(&[(1, 1)]))?.display().to_string();
    rig.lb(["attach", "eth0", "--config", &path])?.expect(0)?;
    let left = rig.left();
    let pins = left.iter().find(|path| path.starts_with("/sys/fs/bpf")).context("no pins")?;
    std::fs::remove_file(pins.join("VIPS")).context("removing a pin")?;

    for command in [&["attach", "eth0", "--config", &path][..], &["run", "--config", &path]] {
        rig.lb(command)?.expect(1)?.says(&["VIPS"])?;
        rig.answer(VIP_L2).context("forwarding was interrupted")?;
        ensure!(pins.join("CONTROL").exists(), "pins are gone");
    }
    rig.lb(["detach", "eth0", "--force"])?.expect(0)?;
    rig.expect_nothing()
}
