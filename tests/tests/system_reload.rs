//! Changes of the config, good and bad, and of the daemon itself, while traffic flows.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;

use anyhow::{Context, ensure};
use lb_common::abi::names::BALANCER_MAPS;
use lb_tests::system::{Config, Download, Kernel, Rig};
use lb_userspace::lab::{Process, Role, VIP_L2};
use nix::sys::signal::Signal;

/// How the first config gets to its place.
type First = fn(&Rig, &Config) -> anyhow::Result<()>;
/// How the daemon learns of a new config.
type Reload = fn(&Rig, &Process, &Config) -> anyhow::Result<()>;

fn hang_up(rig: &Rig, daemon: &Process, config: &Config) -> anyhow::Result<()> {
    rig.write(config)?;
    Ok(daemon.signal(Signal::SIGHUP)?)
}

fn rename(rig: &Rig, _daemon: &Process, config: &Config) -> anyhow::Result<()> {
    rig.write(config).map(drop)
}

/// As the kubelet does: `lb.yaml` → `..data/lb.yaml`, `..data` → a directory per version, swapped by a rename.
fn swap_link(rig: &Rig, _daemon: &Process, config: &Config) -> anyhow::Result<()> {
    link_version(rig, config)
}

fn link_version(rig: &Rig, config: &Config) -> anyhow::Result<()> {
    let number = fs::read_dir(rig.lab.dir()).context("the lab's directory")?.count();
    let version = rig.file(&format!("..version-{number}"));
    fs::create_dir(&version).context("a version's directory")?;
    fs::write(version.join("lb.yaml"), config.yaml()).context("a version")?;
    symlink(&version, rig.file("..data_new")).context("linking ..data_new")?;
    fs::rename(rig.file("..data_new"), rig.file("..data")).context("swapping ..data")?;
    match symlink("..data/lb.yaml", rig.config_path()) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).context("linking lb.yaml"),
        _ => Ok(()),
    }
}

fn place(rig: &Rig, config: &Config) -> anyhow::Result<()> {
    rig.write(config).map(drop)
}

/// Downloads go on, byte for byte, while a backend comes, weights change and another backend leaves.
fn downloads_survive(options: &[&str], first: First, reload: Reload) -> anyhow::Result<()> {
    let rig = Rig::new(4, 6)?;
    let three = [(1, 1), (2, 1), (3, 1)];
    first(&rig, &Config::l2(&three))?;
    let daemon = rig.run(options)?;
    let start = |port| Download::start(&rig, VIP_L2, port, "1m");
    let downloads = (40_000..40_015).map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let mut generation = rig.generation()?;
    let changes = [
        Config::l2(&[(1, 1), (2, 1), (3, 1), (4, 1)]),
        Config::l2(&[(1, 1), (2, 1), (3, 1), (4, 9)]),
        Config::l2(&[(1, 1), (2, 1), (4, 9)]),
    ];
    for config in &changes {
        reload(&rig, &daemon, config)?;
        generation = rig.wait_newer(generation)?;
    }
    // Also those on the backend that leaves: it keeps them until they end.
    ensure!(downloads.iter().any(|download| download.server == "b3"), "none of them is on b3");
    downloads.iter().try_for_each(Download::expect_running)?;
    downloads.iter().try_for_each(Download::finish)?;
    let answers = lb_tests::system::fetch_all(
        &rig.lab.netns(Role::Client),
        std::net::SocketAddrV4::new(VIP_L2, 80),
        41_000..41_060,
    )?;
    let share = |name: &str| answers.values().filter(|answer| *answer == name).count();
    ensure!(share("b3") == 0 && share("b4") > 30, "new connections ignore the config: {answers:?}");
    Ok(())
}

#[test]
fn downloads_survive_reloads_by_sighup() -> anyhow::Result<()> {
    downloads_survive(&[], place, hang_up)
}

#[test]
fn downloads_survive_a_watched_file_that_is_replaced() -> anyhow::Result<()> {
    downloads_survive(&["--watch"], place, rename)
}

#[test]
fn downloads_survive_a_watched_link_that_is_swapped() -> anyhow::Result<()> {
    downloads_survive(&["--watch"], link_version, swap_link)
}

#[test]
fn a_bad_file_changes_nothing_and_says_why_until_a_good_one_comes() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let good = Config::l2(&[(1, 1), (2, 1)]);
    let daemon = rig.start(&good)?;
    rig.wait_up()?;
    let generation = rig.generation()?;
    let kernel = Kernel::of(&rig)?;

    rig.write_text(&good.yaml().replace("weight: 1", "wieght: 1"))?;
    daemon.signal(Signal::SIGHUP)?;
    let reason = rig.wait_refused()?;
    ensure!(reason.contains("LB104") && reason.contains("wieght"), "the reason names no mistake: {reason}");
    let status = rig.lb(["status"])?.expect(1)?.says(&["DEGRADED", "LB104"])?;
    ensure!(status.out.contains(&format!("gen {generation} ")), "the generation changed: {status}");
    let log = daemon.log_tail(60);
    ensure!(log.contains("nothing changed") && log.contains("wieght"), "the log does not say why: {log}");
    rig.answer(VIP_L2)?;
    let now = Kernel::of(&rig)?;
    ensure!((now.link, now.program) == (kernel.link, kernel.program), "attached anew: {kernel:?}, {now:?}");

    // The same content again, then another good one.
    rig.write(&good)?;
    daemon.signal(Signal::SIGHUP)?;
    rig.wait_up()?;
    rig.write_text("services: [")?;
    daemon.signal(Signal::SIGHUP)?;
    rig.wait_refused()?;
    rig.write(&Config::l2(&[(1, 1), (2, 3)]))?;
    daemon.signal(Signal::SIGHUP)?;
    rig.wait_newer(generation)?;
    rig.wait_up()?;
    ensure!(rig.status()?["last_error"].is_null(), "the old reason is still shown");
    rig.answer(VIP_L2).map(drop)
}

#[test]
fn most_of_a_pool_leaves_at_once_only_by_force() -> anyhow::Result<()> {
    let rig = Rig::new(3, 1)?;
    let daemon = rig.start(&Config::l2(&[(1, 1), (2, 1), (3, 1)]))?;
    let generation = rig.generation()?;
    let one = Config::l2(&[(2, 1)]);
    rig.write(&one)?;
    daemon.signal(Signal::SIGHUP)?;
    let reason = rig.wait_refused()?;
    ensure!(reason.contains("LB030") && reason.contains("2 of 3"), "{reason}");
    let path = rig.config_path();
    let apply = |options: &[&str]| {
        rig.lb([&["apply"], options]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .chain([path.display().to_string()]))
    };
    apply(&[])?.expect(2)?.says(&["LB030", "2 of 3", "--force"])?;
    apply(&["--dry-run"])?.expect(2)?.says(&["LB030"])?;
    ensure!(rig.generation()? == generation, "a refused config changed the generation");
    apply(&["--force"])?.expect(0)?;
    rig.wait_newer(generation)?;
    rig.wait_backend(2, "has all slots", |b| b["slots"] == 4093)?;
    let answer = rig.answer(VIP_L2)?;
    ensure!(answer == "b2", "{answer} answered, which has left");
    rig.lb(["status"])?.expect(0).map(drop)
}

/// With a daemon, which keeps what was applied, and without one.
#[test]
fn apply_says_what_it_changes_and_a_dry_run_changes_nothing() -> anyhow::Result<()> {
    let rig = Rig::new(3, 1)?;
    let path = rig.write(&Config::l2(&[(1, 1), (2, 1)]))?.display().to_string();
    rig.lb(["apply", &path])?.expect(1)?.says(&["no data plane is loaded"])?;
    rig.lb(["attach", "eth0", "--config", &path])?.expect(0)?.says(&["unattended"])?;
    let attended = |with_daemon: bool, weight: u16| -> anyhow::Result<()> {
        let before = rig.status()?;
        ensure!(before["daemon"].is_null() != with_daemon, "who is in charge? {before}");
        let other = rig.write_other(&Config::l2(&[(1, weight), (2, 1), (3, 1)]))?.display().to_string();
        let dry = rig.lb(["apply", "--dry-run", &other])?.expect(0)?.says(&["dry run", "nothing changed"])?;
        let (after, strip) = (rig.status()?, |status: &serde_json::Value| status["services"].clone());
        ensure!(before["generation"] == after["generation"], "a dry run made a generation: {dry}");
        ensure!(strip(&before) == strip(&after), "a dry run changed something: {before} {after}");
        let applied = rig.lb(["apply", "--output", "json", &other])?.expect(0)?.json()?;
        let steps = applied["steps"].as_array().context("no steps")?.len();
        ensure!(dry.out.contains(&format!("dry run: {steps} steps")), "{steps} steps, but {dry}");
        ensure!(applied["generation"] == rig.status()?["generation"], "{applied}");
        ensure!(Some(rig.generation()?) > before["generation"].as_u64(), "no new generation");
        ensure!(rig.lb(["backends"])?.expect(0)?.out.contains("203.0.113.23"), "the new backend is missing");
        rig.answer(VIP_L2).map(drop)
    };
    attended(false, 2)?;
    rig.write(&Config::l2(&[(1, 1), (2, 1)]))?;
    rig.run(&[])?;
    attended(true, 3)
}

/// The daemon is killed during downloads; its successor finds everything in place.
#[test]
fn a_killed_daemon_interrupts_nothing_and_its_successor_takes_over() -> anyhow::Result<()> {
    let rig = Rig::new(3, 6)?;
    rig.start(&Config::l2(&[(1, 1), (2, 1), (3, 1)]))?;
    let start = |port| Download::start(&rig, VIP_L2, port, "1m");
    let downloads = (40_000..40_004).map(start).collect::<anyhow::Result<Vec<_>>>()?;
    let (generation, before) = (rig.generation()?, Kernel::of(&rig)?);
    rig.stop(Signal::SIGKILL)?;
    rig.answer(VIP_L2)?;
    let status = rig.lb(["status"])?.expect(0)?.says(&["unattended"])?;
    ensure!(status.out.contains(&before.program.to_string()), "{status}");

    // The successor comes with a changed config: flows must be known to it.
    rig.write(&Config::l2(&[(1, 1), (2, 1), (3, 9)]))?;
    rig.run(&[])?;
    let after = Kernel::of(&rig)?;
    ensure!(after.link == before.link, "another link: {before:?}, {after:?}");
    ensure!(after.program != before.program, "the program was not replaced: {before:?}, {after:?}");
    // All but the new program's own constants.
    let kept = after.maps.intersection(&before.maps).count();
    // The sampler's two belong to another program.
    ensure!(kept == BALANCER_MAPS.len() - 2, "{kept} maps kept: {before:?}, {after:?}");
    ensure!(rig.generation()? > generation, "the generation starts anew");
    downloads.iter().try_for_each(Download::expect_running)?;
    rig.answer(VIP_L2)?;
    downloads.iter().try_for_each(Download::finish)?;
    rig.lb(["status"])?.expect(0).map(drop)
}
