//! The daemon is killed at any time, its program is replaced by another one, and all of it happens at random.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Chance, Crowd, Kernel, Many, Wish, binary, rebuilt};
use nix::sys::signal::Signal;

const KILLS: u32 = 10;

#[test]
fn nothing_breaks_while_the_daemon_is_killed_at_random() -> anyhow::Result<()> {
    let chance = Chance::new();
    let three = Many::new(&[(1, 3), (2, 3), (3, 3)]);
    let crowd = Crowd::gather(4, &three, Wish::default())?;
    let mut config = three;
    for kill in 1..=KILLS {
        config = config.weigh(4, chance.pick(0..4)).weigh(chance.pick(1..4) as u8, chance.pick(1..9));
        crowd.rig.write_text(&config.yaml())?;
        crowd.rig.daemon()?.signal(Signal::SIGHUP)?;
        sleep(Duration::from_millis(chance.pick(0..1500).into()));
        crowd.load.note(&format!("kill {kill}"));
        crowd.rig.stop(Signal::SIGKILL)?;
        let daemon = crowd.rig.launch(&binary()?, &[])?;
        if chance.pick(0..2) == 0 {
            // While it starts, or soon after.
            sleep(Duration::from_millis(chance.pick(0..1500).into()));
            crowd.load.note("and once more");
            crowd.rig.stop(Signal::SIGKILL)?;
            crowd.rig.run(&[])?;
        } else {
            crowd.rig.wait_in_charge(&daemon)?;
        }
        crowd.load.check()?;
    }
    crowd.wait_settled()?;
    crowd.finish().map(drop)
}

#[test]
fn nothing_breaks_while_the_program_is_upgraded_and_downgraded() -> anyhow::Result<()> {
    let four = Many::new(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
    let crowd = Crowd::gather(4, &four, Wish::default())?;
    let (old, new) = (binary()?, rebuilt(&crowd.rig)?);
    // With unsettled slots: what the old program has recorded is the new one's.
    crowd.reload("b4 weighs more", &four.clone().weigh(4, 4))?;
    let (first, sent_again) = (Kernel::of(&crowd.rig)?, crowd.retransmitted()?);
    let mut programs = vec![first.program];
    for (what, signal, binary, other) in [
        ("upgrade", Signal::SIGTERM, &new, true),
        ("downgrade", Signal::SIGTERM, &old, false),
        ("upgrade of a killed one", Signal::SIGKILL, &new, true),
    ] {
        crowd.load.watch(Duration::from_millis(500))?;
        crowd.load.note(what);
        crowd.replace(signal, binary)?;
        let now = Kernel::of(&crowd.rig)?;
        ensure!((now.tag != first.tag) == other, "{what}: {first:?}, {now:?}");
        ensure!(now.link == first.link, "{what}: attached anew: {first:?}, {now:?}");
        ensure!(!programs.contains(&now.program), "{what}: the program was not replaced: {now:?}");
        programs.push(now.program);
        crowd.load.check()?;
    }
    println!("TCP segments sent again meanwhile: {}", crowd.retransmitted()? - sent_again);
    crowd.wait_settled()?;
    crowd.finish().map(drop)
}

#[test]
fn a_second_daemon_is_refused_and_the_first_one_serves_on() -> anyhow::Result<()> {
    let crowd = Crowd::gather(2, &Many::new(&[(1, 1), (2, 1)]), Wish { tcp: 100, ..Wish::default() })?;
    let (first, before) = (crowd.rig.daemon()?, Kernel::of(&crowd.rig)?);
    let path = crowd.rig.config_path();
    let words = ["run", "--config"].map(std::ffi::OsStr::new);
    let second = crowd.rig.lb(words.into_iter().chain([path.as_os_str()]))?;
    ensure!(second.code != 0, "a second daemon ran: {second}");
    let holder = format!("the daemon (process {}) runs here, on eth0", first.id());
    let second = second.says(&[&holder, "lb apply"])?;
    println!("{second}");
    first.check_running()?;
    let after = Kernel::of(&crowd.rig)?;
    ensure!((after.link, after.program) == (before.link, before.program), "{before:?}, {after:?}");
    crowd.reload("the first daemon still follows its file", &Many::new(&[(1, 1), (2, 3)]))?;
    crowd.load.watch(Duration::from_secs(1))?;
    crowd.load.finish()?.expect_unbroken()
}

/// How many changes there are, and how long each has: half an hour of one per minute, accelerated. `LB_LONG` makes it ten
/// times as many.
fn changes() -> u32 {
    if std::env::var_os("LB_LONG").is_some() { 300 } else { 30 }
}
const PACE: Duration = Duration::from_secs(2);

/// One change of any kind.
fn change(
    crowd: &mut Crowd,
    config: &mut Many,
    down: &mut Option<u8>,
    (binaries, chance): (&[PathBuf; 2], &Chance),
) -> anyhow::Result<()> {
    let backend = chance.pick(1..6) as u8;
    let weight = config.backends.iter().find(|(number, _)| *number == backend).map(|(_, weight)| *weight);
    let serves = weight.is_some() && *down != Some(backend) && !config.draining.contains(&backend);
    match chance.pick(0..10) {
        0 if serves && config.backends.len() > 3 => *config = config.clone().weigh(backend, 0),
        1 if serves && config.draining.is_empty() => config.draining.push(backend),
        2 if !config.draining.is_empty() => config.draining.clear(),
        3 | 4 if serves || down.is_some() => {
            return match down.take() {
                Some(number) => crowd.recover(number),
                None => crowd.fail(*down.insert(backend)),
            };
        }
        kind @ 5..7 => {
            let signal = if kind == 5 { Signal::SIGKILL } else { Signal::SIGTERM };
            let binary = &binaries[usize::from(chance.pick(0..2))];
            crowd.load.note(&format!("{signal}, then {}", binary.display()));
            return crowd.replace(signal, binary).map(drop);
        }
        // Another weight than before.
        _ => *config = config.clone().weigh(backend, 1 + (weight.unwrap_or(0) + chance.pick(1..8)) % 9),
    }
    let what = format!("{:?}, draining {:?}", config.backends, config.draining);
    crowd.load.note(&what);
    let path = crowd.rig.write_text(&config.yaml())?;
    if chance.pick(0..2) == 0 {
        Ok(crowd.rig.daemon()?.signal(Signal::SIGHUP)?)
    } else {
        let path = path.to_str().context("a path")?;
        crowd.rig.lb(["apply", path])?.expect(0).map(drop)
    }
}

#[test]
fn nothing_breaks_in_half_an_hour_of_changes_of_all_kinds() -> anyhow::Result<()> {
    let chance = Chance::new();
    let mut config = Many::new(&[(1, 2), (2, 2), (3, 2), (4, 2)]).checked();
    let mut crowd = Crowd::gather(5, &config, Wish::default())?;
    let (mut down, binaries) = (None, [binary()?, rebuilt(&crowd.rig)?]);
    for _ in 0..changes() {
        let end = std::time::Instant::now() + PACE;
        change(&mut crowd, &mut config, &mut down, (&binaries, &chance))?;
        crowd.load.watch(end.saturating_duration_since(std::time::Instant::now()))?;
    }
    if let Some(number) = down {
        crowd.recover(number)?;
    }
    ensure!(crowd.rig.status()?["last_error"].is_null(), "a change was refused: {:#}", crowd.rig.status()?);
    crowd.wait_settled()?;
    crowd.finish().map(drop)
}
