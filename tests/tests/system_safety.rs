//! What lb does to the machine it runs on: nothing that stays, nothing that cuts off its operator.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lb_tests::system::{
    Config, Conversation, Echo, Kernel, Rig, Service, Settings, address, until, wait_gone,
};
use lb_userspace::lab::{BALANCER, Role, VIP_IPIP, VIP_L2};
use nix::sys::signal::Signal;

/// The operator's way in: a TCP service of the balancer itself.
const OPERATOR: SocketAddrV4 = SocketAddrV4::new(BALANCER, 2222);

fn both() -> Config {
    weighted(1)
}

fn weighted(first: u16) -> Config {
    let backends = [(1, first), (2, 1)];
    Config::new([Service::web(VIP_L2, "l2", &backends), Service::web(VIP_IPIP, "ipip", &backends)])
}

fn attach(rig: &Rig, config: &Config, options: &[&str]) -> anyhow::Result<lb_tests::system::Run> {
    let path = rig.write(config)?.display().to_string();
    rig.lb([&["attach", config.interface, "--config", &path], options].concat())
}

/// A whole life (attach, daemon, traffic, reload, stop, detach) leaves the machine as it was.
#[test]
fn detach_leaves_nothing_behind() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let before = Settings::of(&rig)?;
    ensure!(before.len() > 300, "only {} settings were read", before.len());
    let daemon = rig.start(&both())?;
    rig.decap_all(2)?;
    rig.answer(VIP_L2)?;
    rig.answer(VIP_IPIP)?;
    rig.write(&weighted(3))?;
    daemon.signal(Signal::SIGHUP)?;
    rig.wait_newer(1)?;
    let (during, kernel) = (Settings::of(&rig)?, Kernel::of(&rig)?);
    let seen = before.differences(&during);
    ensure!(seen.iter().any(|line| line.contains("xdp")), "the program is not seen: {seen:?}");
    ensure!(rig.left().len() == 3, "state, socket and pins were expected: {:?}", rig.left());
    ensure!(kernel.left().len() > 10, "programs and maps are not seen: {:?}", kernel.left());

    rig.lb(["detach", "eth0"])?.expect(1)?.says(&["daemon is running"])?;
    rig.stop(Signal::SIGTERM)?;
    rig.detach()?;
    let after = Settings::of(&rig)?;
    ensure!(after == before, "changed: {:#?}", before.differences(&after));
    rig.expect_nothing()?;
    wait_gone(&kernel)?;
    rig.lb(["detach", "eth0"])?.expect(0)?.says(&["nothing was attached"])?;
    rig.expect_nothing()
}

/// A detach under traffic wants to be meant.
#[test]
fn detach_refuses_while_traffic_flows() -> anyhow::Result<()> {
    let rig = Rig::new(1, 6)?;
    attach(&rig, &Config::l2(&[(1, 1)]), &[])?.expect(0)?;
    let download = lb_tests::system::Download::start(&rig, VIP_L2, 40_000, "1m")?;
    rig.lb(["detach", "eth0"])?.expect(1)?.says(&["traffic flows", "--force"])?;
    download.expect_running()?;
    download.cancel()?;
    until("a detach without traffic", Duration::from_secs(8), || {
        rig.lb(["detach", "eth0"])?.expect(0).map(Some)
    })?;
    rig.expect_nothing()
}

/// The connection over which an operator works survives everything.
#[test]
fn the_operators_connection_survives_attach_reload_and_detach() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let _echo = Echo::listen(&rig.lab.netns(Role::Balancer), OPERATOR)?;
    let session = Conversation::start(&rig.lab.netns(Role::Client), OPERATOR)?;
    session.check("before")?;
    let daemon = rig.start(&both())?;
    session.check("after attach")?;
    rig.answer(VIP_L2)?;
    rig.write(&weighted(3))?;
    daemon.signal(Signal::SIGHUP)?;
    rig.wait_newer(1)?;
    session.check("after a reload")?;
    rig.stop(Signal::SIGKILL)?;
    session.check("after the daemon's end")?;
    rig.run(&[])?;
    session.check("after a take-over")?;
    rig.stop(Signal::SIGTERM)?;
    rig.detach()?;
    session.check("after detach")?;
    println!("{} rounds", session.finish()?);
    Ok(())
}

/// A service on the operator's own address and port would end the session, so it is refused; on a free port it is not.
#[test]
fn a_service_that_would_capture_the_operators_connection_is_refused() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    let _echo = Echo::listen(&rig.lab.netns(Role::Balancer), OPERATOR)?;
    let session = Conversation::start(&rig.lab.netns(Role::Client), OPERATOR)?;
    let capturing = |port| Config::new([Service { port, ..Service::web(BALANCER, "l2", &[(1, 1)]) }]);
    attach(&rig, &capturing(2222), &[])?.expect(2)?.says(&["LB031", "203.0.113.5:2222", "capture"])?;
    rig.expect_nothing()?;
    session.check("after the refusal")?;
    attach(&rig, &capturing(80), &[])?.expect(0)?.says(&["LB032"])?;
    session.check("beside a service on the same address")?;
    let other = rig.write_other(&capturing(2222))?.display().to_string();
    rig.lb(["apply", &other])?.expect(2)?.says(&["LB031"])?;
    rig.lb(["apply", "--force", &other])?.expect(2)?.says(&["LB031"])?;
    session.check("after the refused apply")?;
    session.finish().map(drop)
}

#[test]
fn an_attach_that_is_not_confirmed_undoes_itself() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    let config = Config::l2(&[(1, 1)]);
    rig.lb(["confirm"])?.expect(1)?.says(&["no attach is waiting"])?;
    let start = Instant::now();
    attach(&rig, &config, &["--confirm", "5s"])?.expect(0)?.says(&["lb confirm"])?;
    rig.answer(VIP_L2)?;
    let kernel = Kernel::of(&rig)?;
    let gone = || Ok(rig.left().is_empty().then_some(()));
    until("the undoing", Duration::from_secs(20), gone)?;
    ensure!(start.elapsed() >= Duration::from_secs(5), "undone after {:?}", start.elapsed());
    rig.expect_nothing()?;
    wait_gone(&kernel)?;

    attach(&rig, &config, &["--confirm", "5s"])?.expect(0)?;
    rig.lb(["confirm"])?.expect(0)?.says(&["stays"])?;
    std::thread::sleep(Duration::from_millis(5600)); // the absence of an event
    rig.answer(VIP_L2)?;
    rig.lb(["status"])?.expect(0).map(drop)
}

/// The interface has an XDP program already: it stays, and nothing of ours does.
#[test]
fn another_xdp_program_is_left_alone() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    rig.lab.attach_stub(Role::Balancer, "eth0")?;
    let foreign = || -> anyhow::Result<u64> {
        let link =
            rig.on(Role::Balancer, "ip", ["-json", "link", "show", "dev", "eth0"])?.expect(0)?.json()?;
        link[0]["xdp"]["prog"]["id"].as_u64().with_context(|| format!("no XDP program: {link}"))
    };
    let program = foreign()?;
    for mode in ["auto", "native", "generic"] {
        let config = Config { mode, ..Config::l2(&[(1, 1)]) };
        let refused = attach(&rig, &config, &[])?.expect(1)?;
        refused.says(&["LB010", &format!("(id {program})"), "Nothing changed", "fix:"])?;
        ensure!(foreign()? == program, "{mode}: the program was replaced");
        ensure!(rig.left().is_empty(), "{mode}: left behind: {:?}", rig.left());
    }
    rig.lb(["status"])?.expect(3).map(drop)
}

/// A bridge has no native XDP: `auto` falls back and says so loudly, `native` refuses.
#[test]
fn auto_falls_back_to_generic_and_native_refuses_where_the_driver_cannot() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    rig.attaches_to("br9");
    let script = format!(
        "ip link add br9 type bridge stp_state 0 forward_delay 0 mcast_snooping 0 && ip link set br9 mtu 1600 &&
         ip addr flush dev eth0 && ip link set eth0 master br9 && ip addr add {BALANCER}/24 dev br9 &&
         ip link set br9 up && ip route add default via 203.0.113.1"
    );
    rig.on(Role::Balancer, "sh", ["-c", &script])?.expect(0)?;
    let on = |mode| Config { interface: "br9", mode, ..Config::l2(&[(1, 1), (2, 1)]) };
    let refused = attach(&rig, &on("native"), &[])?.expect(1)?;
    refused.says(&["LB017", "br9 (bridge), native", "Nothing changed", "mode: generic"])?;
    rig.expect_nothing()?;
    attach(&rig, &on("auto"), &[])?.expect(0)?.says(&["WARN", "GENERIC", "br9: attached, generic"])?;
    until("an answer through the bridge", Duration::from_secs(8), || rig.answer(VIP_L2).map(Some))?;
    rig.detach()?;
    rig.expect_nothing()
}

/// A process that is killed holds the writers' lock until the kernel has taken it apart: who starts meanwhile waits.
#[test]
fn a_start_waits_for_the_end_of_the_daemon_before() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    rig.start(&Config::l2(&[(1, 1)]))?;
    let pins = rig.left().into_iter().find(|path| path.starts_with("/sys/fs/bpf")).context("no pins")?;
    let hold = |time: &str| Command::new("flock").arg("-n").arg(&pins).args(["sleep", time]).spawn();
    rig.stop(Signal::SIGKILL)?;
    let mut dying = until("the lock", Duration::from_secs(5), || {
        let mut holder = hold("1.5")?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(holder.try_wait()?.is_none().then_some(holder))
    })?;
    rig.run(&[])?;
    dying.wait()?;
    let daemon = rig.daemon()?.id().to_string();
    let path = rig.config_path().display().to_string();
    let here = format!("the daemon (process {daemon}) runs here, on eth0");
    rig.lb(["run", "--config", &path])?.expect(1)?.says(&[&here, "lb apply"])?;
    rig.lb(["attach", "eth0", "--config", &path])?.expect(1)?.says(&[&here])?;
    rig.stop(Signal::SIGKILL)?;
    let mut writer = hold("8")?;
    std::thread::sleep(Duration::from_millis(300));
    rig.lb(["run", "--config", &path])?
        .expect(1)?
        .says(&["another lb changes this data plane now", "try again"])?;
    writer.kill()?;
    writer.wait()?;
    Ok(())
}

#[test]
fn exit_codes_tell_bad_input_from_failure_and_degraded_from_dead() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    rig.lb(["status"])?.expect(3)?.says(&["UNKNOWN"])?;
    let missing = Config { interface: "eth7", ..Config::l2(&[(1, 1)]) };
    attach(&rig, &missing, &[])?.expect(2)?.says(&["no interface eth7", "there are: ", "eth0", "lo"])?;
    let path = rig.config_path().display().to_string();
    rig.lb(["run", "--config", &path])?.expect(2)?.says(&["no interface eth7", "eth0"])?;
    rig.lb(["attach", "eth0", "--config", "/none.yaml"])?.expect(2)?.says(&["/none.yaml"])?;
    rig.lb(["attach", "eth0"])?.expect(2)?.says(&["--config"])?;
    rig.expect_nothing()?;

    attach(&rig, &Config::l2(&[(1, 1), (2, 1)]), &[])?.expect(0)?;
    rig.lb(["status"])?.expect(0)?.says(&["OK", "up 2/2", "unattended"])?;
    let silent = |config: &Config, code, words: &[&str]| -> anyhow::Result<()> {
        let path = rig.write_other(config)?.display().to_string();
        rig.lb(["apply", &path])?.expect(0)?.says(&["LB037", "does not answer"])?;
        rig.lb(["status"])?.expect(code)?.says(words).map(drop)
    };
    silent(&Config::l2(&[(1, 1), (2, 1), (40, 1)]), 1, &["DEGRADED", "no-next-hop", "up 2/3"])?;
    rig.detach()?;
    attach(&rig, &Config::l2(&[(40, 1)]), &[])?.expect(0)?;
    rig.lb(["status"])?.expect(2)?.says(&["NOT FORWARDING", "no-next-hop"]).map(drop)
}

/// What the maps have no room for is refused whole.
#[test]
fn more_than_fits_is_refused_before_anything_changes() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let limited = Config { limits: "services: 1, backends: 2", ..Config::l2(&[(1, 1), (2, 1)]) };
    rig.start(&limited)?;
    rig.wait_up()?;
    let before = rig.status()?;
    let full = |config: &Config, code, words: &[&str]| -> anyhow::Result<()> {
        let path = rig.write_other(config)?.display().to_string();
        rig.lb(["apply", "--dry-run", &path])?.expect(code)?.says(words)?;
        rig.lb(["apply", &path])?.expect(code)?.says(words)?;
        let after = rig.status()?;
        ensure!(after["generation"] == before["generation"], "a new generation: {after}");
        let names = |status: &serde_json::Value| status["services"][0]["backends"].as_array().map(Vec::len);
        ensure!(names(&after) == names(&before), "changed: {after}");
        rig.answer(VIP_L2).map(drop)
    };
    full(&both(), 1, &["services: 2 needed, room for 1", "limits.services"])?;
    full(&Config::l2(&[(1, 1), (2, 1), (3, 1)]), 1, &["backends", "limits.backends"])?;
    // A file that contradicts itself is the input's fault.
    full(&Config { limits: "services: 1", ..both() }, 2, &["LB128", "limited to 1"])?;
    ensure!(rig.status()?["attachments"] == before["attachments"], "attached anew");
    Ok(())
}

#[test]
fn backends_that_cannot_work_are_refused() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    let with = |address: Ipv4Addr, forwarding| {
        let web = Service::web(VIP_L2, forwarding, &[(1, 1)]);
        let backends = [web.backends.clone(), vec![(address, 1)]].concat();
        Config::new([Service { backends, ..web }])
    };
    let client = lb_userspace::lab::CLIENT;
    attach(&rig, &with(BALANCER, "l2"), &[])?.expect(2)?.says(&[
        "LB035",
        "203.0.113.5",
        "balancer itself",
    ])?;
    attach(&rig, &with(BALANCER, "ipip"), &[])?.expect(2)?.says(&["LB035"])?;
    attach(&rig, &with(client, "l2"), &[])?.expect(2)?.says(&[
        "LB036",
        "198.51.100.2",
        "behind 203.0.113.1",
    ])?;
    rig.expect_nothing()?;
    // Behind a router is fine for a tunnel.
    attach(&rig, &with(client, "ipip"), &[])?.expect(0)?;
    ensure!(rig.lb(["backends"])?.expect(0)?.out.contains(&address(1).to_string()), "backends not shown");
    let other = rig.write_other(&with(BALANCER, "ipip"))?.display().to_string();
    let generation = rig.generation()?;
    rig.lb(["apply", "--force", &other])?.expect(2)?.says(&["LB035"])?;
    ensure!(rig.generation()? == generation, "a refused config changed the generation");
    Ok(())
}
