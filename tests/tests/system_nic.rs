//! Settings of interfaces against the real kernel: set before the program is attached, watched, shown, put back.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lb_tests::system::{Config, Rig, Service, Settings, Sink, inside, until, upload};
use lb_userspace::lab::{Role, VIP_IPIP, VIP_L2};
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(8);

/// A lab whose interfaces have this many queues, of which the balancer uses one.
fn lab(queues: u16) -> anyhow::Result<Rig> {
    let rig = Rig::of(|lab| lab.backends(2).big_bytes(1 << 20).queues(queues))?;
    // Fewer receive queues than the other end sends through would be refused with the program attached.
    rig.on(Role::Fabric, "ethtool", ["-L", "lb", "rx", "4", "tx", "1"])?.expect(0)?;
    rig.on(Role::Balancer, "ethtool", ["-L", "eth0", "rx", "1", "tx", "1"])?.expect(0)?;
    Ok(rig)
}

/// A config with these settings of `eth0`, and a service by each way.
fn config(settings: &str) -> String {
    let backends = [(1, 1), (2, 1)];
    let services = [Service::web(VIP_L2, "l2", &backends), Service::web(VIP_IPIP, "ipip", &backends)];
    let yaml = Config { mode: "native", ..Config::new(services) }.yaml();
    yaml.replacen("mode: native", &format!("mode: native, {settings}"), 1)
}

fn start(rig: &Rig, settings: &str) -> anyhow::Result<lb_userspace::lab::Process> {
    rig.write_text(&config(settings))?;
    rig.run(&[])
}

/// A setting as `lb status` shows it.
fn setting(rig: &Rig, name: &str) -> anyhow::Result<Value> {
    let status = rig.status()?;
    let settings = status["interfaces"][0]["settings"].as_array().context("no settings")?;
    let found = settings.iter().find(|setting| setting["setting"] == name);
    found.cloned().with_context(|| format!("no {name} in {settings:?}"))
}

fn expect_set(rig: &Rig, name: &str, now: &str) -> anyhow::Result<()> {
    let found = setting(rig, name)?;
    ensure!(found["state"] == "set" && found["now"] == now, "{found}");
    Ok(())
}

fn mtu(rig: &Rig) -> anyhow::Result<u64> {
    let links = rig.on(Role::Balancer, "ip", ["-json", "link", "show", "dev", "eth0"])?.expect(0)?.json()?;
    links[0]["mtu"].as_u64().context("no MTU")
}

/// The masks of the balancer's receive queues; `/sys` is another namespace's.
fn rps(rig: &Rig) -> anyhow::Result<String> {
    let script = "mount -t sysfs sysfs /sys && cat /sys/class/net/eth0/queues/rx-*/rps_cpus";
    Ok(rig.on(Role::Balancer, "unshare", ["--mount", "sh", "-c", script])?.expect(0)?.out)
}

fn set_mtu(rig: &Rig, mtu: &str) -> anyhow::Result<()> {
    rig.on(Role::Balancer, "ip", ["link", "set", "dev", "eth0", "mtu", mtu])?.expect(0).map(drop)
}

#[test]
fn named_settings_are_set_shown_and_put_back() -> anyhow::Result<()> {
    let rig = lab(4)?;
    let (before, masks) = (Settings::of(&rig)?, rps(&rig)?);
    let daemon = start(&rig, "mtu: 1580, queues: 4, rps: auto, xps: auto, offloads: auto")?;
    expect_set(&rig, "queues", "4 rx, 4 tx")?;
    expect_set(&rig, "mtu", "1580")?;
    expect_set(&rig, "offloads rx-vlan-hw-parse", "off")?;
    for queue in 0..4 {
        ensure!(setting(&rig, &format!("rps rx-{queue}"))?["state"] == "set", "{}", rig.status()?);
        ensure!(setting(&rig, &format!("xps tx-{queue}"))?["state"] == "set", "{}", rig.status()?);
    }
    ensure!(setting(&rig, "mtu")?["before"] == "1600", "{}", setting(&rig, "mtu")?);
    let log = daemon.log_tail(200);
    let announced = log.find("queues from 1 rx, 1 tx to 4 rx, 4 tx: the driver may take the link down");
    ensure!(announced.is_some() && announced < log.find("attached, native"), "{log}");
    rig.answer(VIP_L2)?;
    rig.lb(["status"])?.says(&["SETTING", "queues", "4 rx, 4 tx", "QUEUES  0: rx"])?;

    rig.stop(Signal::SIGTERM)?;
    ensure!(mtu(&rig)? == 1580, "put back while it still forwards");
    rig.detach()?;
    let after = Settings::of(&rig)?;
    ensure!(after == before, "changed: {:#?}", before.differences(&after));
    ensure!(rps(&rig)? == masks, "packet steering: {}", rps(&rig)?);
    rig.expect_nothing()
}

/// A daemon that is killed and another one after it do not take their own settings for the operator's.
#[test]
fn settings_are_put_back_after_a_daemon_was_killed() -> anyhow::Result<()> {
    let rig = lab(4)?;
    let before = Settings::of(&rig)?;
    start(&rig, "mtu: 1580, queues: 2, rps: auto")?;
    rig.stop(Signal::SIGKILL)?;
    start(&rig, "mtu: 1590, queues: 2")?;
    let found = setting(&rig, "mtu")?;
    ensure!(found["now"] == "1590" && found["before"] == "1600", "{found}");
    ensure!(setting(&rig, "rps rx-0").is_err(), "not named any more: {}", rig.status()?);
    rig.stop(Signal::SIGKILL)?;
    rig.detach()?;
    let after = Settings::of(&rig)?;
    ensure!(after == before, "changed: {:#?}", before.differences(&after));
    rig.expect_nothing()
}

#[test]
fn kept_settings_stay_and_unnamed_ones_are_never_touched() -> anyhow::Result<()> {
    let rig = lab(4)?;
    let path = rig.write_text(&config("mtu: 1580, keep: true"))?.display().to_string();
    rig.lb(["attach", "eth0", "--config", &path])?.expect(0)?;
    expect_set(&rig, "mtu", "1580")?;
    let status = rig.status()?;
    let settings = status["interfaces"][0]["settings"].as_array().map(Vec::len);
    ensure!(settings == Some(1), "{status}");
    rig.detach()?.says(&["settings stay as they are"])?;
    ensure!(mtu(&rig)? == 1580, "put back");
    rig.expect_nothing()
}

/// What the kernel refuses is a warning with its words and the remedy, and traffic flows.
#[test]
fn refusals_are_warnings() -> anyhow::Result<()> {
    let rig = lab(4)?;
    let path = rig.write_text(&config("queues: 8, rss: equal, irq_affinity: auto, rings: {rx: 512}"))?;
    let path = path.display().to_string();
    let run = rig.lb(["attach", "eth0", "--config", &path])?.expect(0)?;
    let run = run.says(&["LB145", "queues stays as it is", "Invalid argument", "at most 4 rx, 4 tx"])?;
    ensure!(run.out.matches("LB145").count() + run.err.matches("LB145").count() >= 4, "{run}");
    rig.answer(VIP_L2)?;
    for name in ["queues", "rss", "irq_affinity", "rings"] {
        ensure!(setting(&rig, name)?["state"] == "refused", "{name}: {}", setting(&rig, name)?);
    }
    rig.lb(["status"])?.says(&["refused", "no receive-side scaling", "Operation not supported"]).map(drop)
}

/// Numbers of queues that need a detach are told of; the rest of a reload is done, and what it names no longer is put
/// back.
#[test]
fn a_reload_changes_settings_under_a_running_program() -> anyhow::Result<()> {
    let rig = lab(4)?;
    let daemon = start(&rig, "mtu: 1580, queues: 4")?;
    // The other end sends through four queues, so that receiving through fewer is refused.
    rig.on(Role::Fabric, "ethtool", ["-L", "lb", "tx", "4"])?.expect(0)?;
    rig.write_text(&config("rps: auto, queues: 2"))?;
    daemon.signal(Signal::SIGHUP)?;
    until("the MTU put back", PATIENCE, || Ok((mtu(&rig)? == 1600).then_some(())))?;
    until("the refusal in the log", PATIENCE, || {
        let log = daemon.log_tail(60);
        Ok((log.contains("LB145") && log.contains("lb detach eth0")).then_some(()))
    })?;
    until("packet steering", PATIENCE, || Ok((setting(&rig, "rps rx-0")?["state"] == "set").then_some(())))?;
    ensure!(setting(&rig, "queues")?["state"] == "refused", "{}", rig.status()?);
    rig.answer(VIP_L2).map(drop)
}

/// Somebody lowers the MTU: the program's next hops follow within a second, and people are told, once.
#[test]
fn a_foreign_mtu_is_followed_within_a_second_and_told() -> anyhow::Result<()> {
    let rig = lab(4)?;
    let daemon = start(&rig, "mtu: 1600")?;
    rig.wait_up()?;
    // The way to a backend by `ipip` takes 20 bytes.
    let fits = |bytes: u16| -> anyhow::Result<bool> {
        let packet = format!("tcp 198.51.100.2:4000 > {VIP_IPIP}:80 ack len {bytes}");
        Ok(!rig.lb(["explain", &packet])?.out.contains("too big"))
    };
    ensure!(fits(1400)?, "too big before");
    let start = Instant::now();
    set_mtu(&rig, "1400")?;
    let ports_mtu = || -> anyhow::Result<bool> { Ok(!fits(1400)?) };
    until("the new MTU in the data plane", PATIENCE, || Ok(ports_mtu()?.then_some(())))?;
    println!("followed after at most {:?}, two commands included", start.elapsed());
    ensure!(start.elapsed() < Duration::from_millis(1500), "after {:?}", start.elapsed());
    until("the drift in lb status", PATIENCE, || {
        Ok((setting(&rig, "mtu")?["state"] == "drifted").then_some(()))
    })?;
    rig.lb(["status"])?.expect(1)?.says(&["DEGRADED", "mtu is 1400, not 1600", "DRIFTED"])?;
    until("the drift in the log", PATIENCE, || Ok(daemon.log_tail(60).contains("LB147").then_some(())))?;
    std::thread::sleep(Duration::from_millis(1700)); // the absence of more of them
    ensure!(daemon.log_tail(60).matches("LB147").count() == 1, "{}", daemon.log_tail(60));
    set_mtu(&rig, "1600")?;
    until("no drift", PATIENCE, || Ok((setting(&rig, "mtu")?["state"] == "set").then_some(())))
}

/// Frames of 9000 bytes through the native program, as they are and in a tunnel.
#[test]
fn jumbo_frames_pass_natively_as_they_are_and_in_a_tunnel() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(1).big_bytes(0).mtu(9100).client_mtu(9000).queues(2))?;
    rig.on(Role::Balancer, "ip", ["link", "set", "dev", "eth0", "mtu", "1500"])?.expect(0)?;
    let sinks: Vec<Sink> = [VIP_L2, VIP_IPIP]
        .into_iter()
        .map(|vip| Sink::listen(&rig.lab.netns(Role::Backend(1)), SocketAddr::new(vip.into(), 9000)))
        .collect::<anyhow::Result<_>>()?;
    rig.decap_all(1)?;
    let services = |(vip, forwarding): (Ipv4Addr, &'static str)| Service {
        port: 9000,
        ..Service::web(vip, forwarding, &[(1, 1)])
    };
    let yaml =
        Config { mode: "native", ..Config::new([(VIP_L2, "l2"), (VIP_IPIP, "ipip")].map(services)) }.yaml();
    rig.write_text(&yaml.replacen("mode: native", "mode: native, mtu: 9100", 1))?;
    rig.run(&[])?;
    rig.wait_up()?;
    ensure!(mtu(&rig)? == 9100, "MTU {}", mtu(&rig)?);
    for (vip, at_least) in [(VIP_L2, 8 << 20), (VIP_IPIP, 8 << 20)] {
        let packets = |rig: &Rig| -> anyhow::Result<(u64, u64)> {
            let status = rig.lb(["services", "--output", "json"])?.expect(0)?.json()?;
            let list = status.as_array().context("no services")?;
            let ours = list.iter().find(|s| s["id"].as_str().is_some_and(|id| id.contains(&vip.to_string())));
            let ours = ours.with_context(|| format!("no {vip} in {status}"))?;
            Ok((ours["packets"].as_u64().unwrap_or(0), ours["bytes"].as_u64().unwrap_or(0)))
        };
        let before = packets(&rig)?;
        let start = Instant::now();
        upload(&rig.lab.netns(Role::Client), SocketAddr::new(vip.into(), 9000), at_least, PATIENCE)?;
        let after = packets(&rig)?;
        let (count, bytes) = (after.0 - before.0, after.1 - before.1);
        let mean = bytes / count.max(1);
        println!("{vip}: {count} packets of {mean} bytes in {:?}", start.elapsed());
        ensure!(mean > 5000, "{vip}: {count} packets, {bytes} bytes: no jumbo frames");
    }
    ensure!(rig.status()?["attachments"][0]["mode"] == "native", "{}", rig.status()?);
    drop(sinks);
    Ok(())
}

/// 10,000 flows over 4 queues: each gets a quarter within five standard deviations.
#[test]
fn flows_spread_over_queues() -> anyhow::Result<()> {
    const FLOWS: u16 = 10_000;
    let rig = Rig::of(|lab| lab.backends(1).big_bytes(0).queues(4))?;
    // A veth hands a packet on with the number of the queue it came by, less one: the last one chooses by the flow's hash
    // only for those that came by the first.
    for (role, interface, receive, send) in
        [(Role::Client, "eth0", "1", "1"), (Role::Router, "eth1", "1", "1"), (Role::Fabric, "lb", "4", "4")]
    {
        rig.on(role, "ethtool", ["-L", interface, "rx", receive, "tx", send])?.expect(0)?;
    }
    let yaml = config("queues: 4").replace("protocol: tcp", "protocol: udp");
    rig.write_text(&yaml)?;
    rig.run(&[])?;
    let queues = |rig: &Rig| -> anyhow::Result<Vec<u64>> {
        let status = rig.status()?;
        let queues = status["interfaces"][0]["queues"].as_object().context("no queues")?.clone();
        Ok(queues.values().filter_map(|queue| queue["rx"].as_u64()).collect())
    };
    let cpus = |rig: &Rig| -> anyhow::Result<u64> {
        let status = rig.status()?;
        let cpus = status["cpu_packets"].as_array().context("no CPUs")?.clone();
        Ok(cpus.iter().filter_map(Value::as_u64).sum())
    };
    let (before, seen) = (queues(&rig)?, cpus(&rig)?);
    ensure!(before.len() == 4, "{before:?}");
    inside(&rig.lab.netns(Role::Client), || -> std::io::Result<()> {
        for port in 20_000..20_000 + FLOWS {
            UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?.send_to(b"flow", (VIP_L2, 80))?;
            if port % 64 == 0 {
                std::thread::sleep(Duration::from_millis(1)); // queues of the lab's machines are short
            }
        }
        Ok(())
    })??;
    std::thread::sleep(Duration::from_millis(300));
    let after = queues(&rig)?;
    let each: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    let sum: u64 = each.iter().sum();
    println!("flows per queue: {each:?}");
    ensure!(sum >= u64::from(FLOWS) * 98 / 100, "{sum} of {FLOWS} packets arrived");
    let (mean, deviation) = (sum as f64 / 4.0, (sum as f64 * 0.25 * 0.75).sqrt());
    let worst = each.iter().map(|count| (*count as f64 - mean).abs()).fold(0.0, f64::max);
    ensure!(worst < 5.0 * deviation, "{each:?}: {worst:.0} off {mean:.0}, deviation {deviation:.0}");
    ensure!(cpus(&rig)? - seen >= sum, "CPUs have counted less than the queues");
    Ok(())
}
