//! Maps of other sizes under a data plane that forwards: no connection notices, wherever the move is interrupted. Maps of
//! another ABI are left alone.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use aya::maps::{Array, Map, MapData};
use lb_common::abi::names::{AFFINITY, BACKENDS, CONTROL, RINGS, TCP_ESTABLISHED};
use lb_common::abi::{ABI_VERSION, Control};
use lb_tests::system::{Config, Download, Kernel, Rig, SOON, Watched, binary};
use lb_userspace::dataplane::{DataPlane, KernelPlane, Pins, Resize};
use lb_userspace::lab::{Role, VIP_L2};
use nix::sys::signal::Signal;

const SMALL: &str = "ring_slots: 65536, flows: 1000";
const LARGE: &str = "ring_slots: 131072, flows: 5000";

fn three(limits: &'static str) -> Config {
    Config { limits, ..Config::l2(&[(1, 1), (2, 1), (3, 1)]) }
}

/// The directory of the rig's pins.
fn pins(rig: &Rig) -> anyhow::Result<PathBuf> {
    let ours = rig.left().into_iter().find(|path| path.starts_with("/sys/fs/bpf"));
    ours.context("nothing is pinned")
}

/// The same as the library knows them.
fn library(directory: &Path) -> anyhow::Result<Pins> {
    let name = directory.file_name().and_then(|name| name.to_str()).context("an instance")?;
    Ok(Pins::new(Path::new("/sys/fs/bpf"), name)?)
}

fn capacity(directory: &Path, map: &str) -> anyhow::Result<u32> {
    Ok(MapData::from_pin(directory.join(map))?.info()?.max_entries())
}

fn started(rig: &Rig) -> anyhow::Result<Vec<Download>> {
    (40_000..40_009).map(|port| Download::start(rig, VIP_L2, port, "1m")).collect()
}

/// Flows are recorded, so that they are to be brought along.
fn unsettle(rig: &Rig) -> anyhow::Result<()> {
    let generation = rig.generation()?;
    let path = rig.write(&Config { limits: SMALL, ..Config::l2(&[(1, 1), (2, 1), (3, 9)]) })?;
    rig.lb(["apply", &path.display().to_string()])?.expect(0)?;
    rig.wait_newer(generation).map(drop)
}

#[test]
fn downloads_go_on_when_the_maps_are_exchanged_for_larger_ones() -> anyhow::Result<()> {
    let rig = Rig::new(3, 6)?;
    rig.start(&three(SMALL))?;
    let downloads = started(&rig)?;
    unsettle(&rig)?;
    let (directory, before) = (pins(&rig)?, Kernel::of(&rig)?);
    ensure!(capacity(&directory, RINGS)? == 65_536);
    rig.stop(Signal::SIGTERM)?;
    let recorded = KernelPlane::open(&library(&directory)?)?.flows()?.context("flows")?;
    ensure!(!recorded.is_empty(), "nothing is recorded: nothing is shown");

    rig.write(&Config { limits: LARGE, ..Config::l2(&[(1, 1), (2, 1), (3, 9)]) })?;
    rig.run(&[])?;
    let after = Kernel::of(&rig)?;
    ensure!(after.link == before.link, "another link: {before:?}, {after:?}");
    ensure!(after.program != before.program && after.maps.is_disjoint(&before.maps), "{before:?}, {after:?}");
    ensure!(capacity(&directory, RINGS)? == 131_072);
    ensure!(capacity(&directory, TCP_ESTABLISHED)? >= 5000);
    ensure!(!directory.join("next").exists());
    let now = KernelPlane::open(&library(&directory)?)?.flows()?.context("flows")?;
    let lost = recorded.iter().filter(|flow| !now.iter().any(|other| other.key == flow.key)).count();
    ensure!(lost == 0, "{lost} of {} records were lost", recorded.len());
    downloads.iter().try_for_each(Download::expect_running)?;
    rig.answer(VIP_L2)?;
    downloads.iter().try_for_each(Download::finish)?;
    rig.lb(["status"])?.expect(0).map(drop)
}

/// Two backends are left, and the third one's number is still in use.
#[test]
fn maps_shrink_to_what_is_in_use_at_most() -> anyhow::Result<()> {
    let rig = Rig::new(3, 1)?;
    rig.start(&three(LARGE))?;
    let directory = pins(&rig)?;
    rig.stop(Signal::SIGTERM)?;
    rig.write(&Config { limits: "ring_slots: 4093, backends: 2", ..Config::l2(&[(1, 1), (2, 1)]) })?;
    rig.run(&[])?;
    ensure!(capacity(&directory, RINGS)? == 4093);
    ensure!(capacity(&directory, BACKENDS)? == 1 + 3, "{}", capacity(&directory, BACKENDS)?);
    rig.answer(VIP_L2).map(drop)
}

/// Killed before and after the programs were replaced: undone the first time, ended the second time.
#[test]
fn a_move_that_was_interrupted_is_undone_or_ended() -> anyhow::Result<()> {
    for switched in [false, true] {
        let rig = Rig::new(3, 12)?;
        rig.start(&three(SMALL))?;
        let downloads = started(&rig)?;
        unsettle(&rig)?;
        let directory = pins(&rig)?;
        rig.stop(Signal::SIGKILL)?;
        let library = library(&directory)?;
        let small = KernelPlane::open(&library)?.glance()?.size;
        let large = lb_userspace::reconcile::Size { ring_slots: 262_144, ..small };
        let mut resize = Resize::prepare(&library, &large)?;
        if switched {
            resize.switch()?;
        }
        drop(resize);
        ensure!(directory.join("next").exists());
        rig.answer(VIP_L2)?;
        rig.write(&Config { limits: "", ..three("") })?;
        rig.run(&[])?;
        ensure!(!directory.join("next").exists(), "left behind");
        let expected = if switched { 262_144 } else { 65_536 };
        ensure!(capacity(&directory, RINGS)? == expected, "{switched}: {}", capacity(&directory, RINGS)?);
        downloads.iter().try_for_each(Download::expect_running)?;
        downloads.iter().try_for_each(Download::finish)?;
        rig.answer(VIP_L2)?;
    }
    Ok(())
}

#[test]
fn maps_of_another_abi_are_refused_by_name_and_forward_on() -> anyhow::Result<()> {
    let rig = Rig::new(3, 6)?;
    rig.start(&three(""))?;
    let downloads = started(&rig)?;
    let (directory, before) = (pins(&rig)?, Kernel::of(&rig)?);
    rig.stop(Signal::SIGTERM)?;
    let mut control: Array<MapData, Control> =
        Array::try_from(Map::Array(MapData::from_pin(directory.join(CONTROL))?))?;
    let ours = control.get(&0, 0)?;
    control.set(0, Control { abi_version: ABI_VERSION + 1, ..ours }, 0)?;
    let path = rig.config_path().display().to_string();
    let words = [format!("ABI version {}", ABI_VERSION + 1), format!("not {ABI_VERSION}")];
    let words: Vec<&str> = words.iter().map(String::as_str).chain([CONTROL]).collect();
    for command in [&["run", "--config", &path][..], &["apply", &path]] {
        rig.lb(command)?.expect(1)?.says(&words)?;
    }
    let after = Kernel::of(&rig);
    control.set(0, ours, 0)?;
    let after = after.or_else(|_| Kernel::of(&rig))?;
    ensure!((after.link, after.program) == (before.link, before.program), "{before:?}, {after:?}");
    downloads.iter().try_for_each(Download::expect_running)?;
    downloads.iter().try_for_each(Download::finish)?;
    rig.run(&[])?;
    rig.answer(VIP_L2).map(drop)
}

/// The prober's interface has gone with the daemon that made it, and its port is still in the maps.
#[test]
fn limits_take_effect_at_a_restart_where_backends_are_checked_through_the_service() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let config = |limits| Watched {
        top: vec![format!("limits: {{{limits}}}")],
        ..Watched::new(&format!("{{type: tcp, via: service, {SOON}}}"), 2)
    };
    rig.watch(&config(SMALL))?;
    let directory = pins(&rig)?;
    let large = rig.write_text(&config(LARGE).yaml())?.display().to_string();
    rig.lb(["apply", &large])?.expect(0)?.says(&["LB039", "limits differ"])?;
    rig.lb(["status"])?.expect(1)?.says(&["DEGRADED", "LB039", "limits differ"])?;
    rig.stop(Signal::SIGTERM)?;
    rig.watch(&config(LARGE))?;
    ensure!(capacity(&directory, RINGS)? == 131_072, "{}", capacity(&directory, RINGS)?);
    rig.lb(["status"])?.expect(0)?;
    rig.answer(VIP_L2).map(drop)
}

/// So few files that it can open one set of maps, and not two.
#[test]
fn a_move_that_fails_is_told_and_what_forwards_goes_on() -> anyhow::Result<()> {
    let rig = Rig::new(3, 1)?;
    rig.start(&three(SMALL))?;
    let (directory, before) = (pins(&rig)?, Kernel::of(&rig)?);
    rig.stop(Signal::SIGTERM)?;
    let path = rig.write(&three(LARGE))?.display().to_string();
    let lb = binary()?.display().to_string();
    let few = rig.on(Role::Balancer, "prlimit", ["--nofile=64", &lb, "apply", &path])?;
    few.expect(0)?.says(&["LB047", "Too many open files", "LB039"])?;
    let after = Kernel::of(&rig)?;
    ensure!((after.link, after.program) == (before.link, before.program), "{before:?}, {after:?}");
    ensure!(!directory.join("next").exists() && capacity(&directory, RINGS)? == 65_536);
    rig.answer(VIP_L2)?;
    rig.lb(["apply", &path])?.expect(0)?;
    ensure!(capacity(&directory, RINGS)? == 131_072);
    rig.answer(VIP_L2).map(drop)
}

/// Limits that nobody wrote: a reload brings a service that remembers clients, for whom the maps have no room.
#[test]
fn what_a_config_comes_to_need_is_told_and_there_at_the_next_start() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let plain = Config::l2(&[(1, 1), (2, 1)]);
    rig.start(&plain)?;
    let (directory, flows) = (pins(&rig)?, capacity(&pins(&rig)?, TCP_ESTABLISHED)?);
    ensure!(capacity(&directory, AFFINITY)? == 1);
    let sticky = plain.yaml() + "    affinity: {by: source, timeout: 10s}\n";
    let path = rig.write_text(&sticky)?.display().to_string();
    let told = ["LB039", "affinity has no effect yet", "room is tight for the flows of TCP"];
    rig.lb(["apply", &path])?.expect(0)?.says(&told)?;
    rig.lb(["status"])?.expect(1)?.says(&told)?;
    rig.stop(Signal::SIGTERM)?;
    rig.run(&[])?;
    ensure!(capacity(&directory, AFFINITY)? > 1 && capacity(&directory, TCP_ESTABLISHED)? > flows);
    rig.lb(["status"])?.expect(0)?;
    let first = rig.answer(VIP_L2)?;
    for _ in 0..10 {
        ensure!(rig.answer(VIP_L2)? == first, "the client is not remembered");
    }
    Ok(())
}
