//! Backends that only `lb backend up` has prepared, and what `lb backend check` finds wrong with them.

use std::fmt::Write;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Prepared, Rig, inside, second_address, until};
use lb_userspace::lab::{BALANCER, BALANCER_V6, Role};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);

/// A way for each backend, counted from 1.
const WAYS: [&str; 4] = ["l2", "ipip", "gre", "gue"];

fn vips(number: usize) -> [String; 2] {
    [format!("203.0.113.{}", 100 + number), format!("2001:db8::1:{}", 100 + number)]
}

/// The options of `lb backend` for a backend.
fn options(number: usize, way: &str) -> String {
    let [v4, v6] = vips(number);
    let from = if way == "l2" { String::new() } else { format!(" --from {BALANCER} {BALANCER_V6}") };
    format!("--vip {v4} {v6} --method {way}{from}")
}

/// A service of each family on each backend, by its way.
fn services(ways: &[&str]) -> String {
    let mut text = "services:\n".to_owned();
    for (number, way) in (1..).zip(ways) {
        for (vip, backend) in
            vips(number).iter().zip([format!("203.0.113.2{number}"), format!("2001:db8::2{number}")])
        {
            let _ = writeln!(
                text,
                "  - {{name: \"s{vip}\", address: \"{vip}\", protocol: tcp, port: 80, forwarding: {way}, \
                 backends: [{{address: \"{backend}\"}}]}}"
            );
        }
    }
    text
}

#[test]
fn a_backend_that_one_command_has_prepared_serves() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(4).big_bytes(0).ipv6())?;
    let bare: Vec<_> = (1..=4).map(|number| Prepared::bare(&rig, number)).collect::<anyhow::Result<_>>()?;
    let before: Vec<_> = bare.iter().map(Prepared::shown).collect::<anyhow::Result<_>>()?;
    rig.start_text(&services(&WAYS))?;
    for ((number, way), backend) in (1..).zip(WAYS).zip(&bare) {
        let [vip, _] = vips(number);
        let url = format!("http://{vip}/");
        let refused = rig.curl(Role::Client, ["--max-time", "0.5", &url])?;
        ensure!(refused.code != 0, "it serves before it is prepared: {refused}");
        let options = options(number, way);
        println!("{}", backend.lb(&format!("up {options} --apply"))?.expect(0)?);
        backend.lb(&format!("check {options} --port 80"))?.expect(0)?.says(&["0 problems, 0 warnings"])?;
        backend.doctor(&options)?.expect(0)?.says(&["0 problems, 0 warnings"])?;
        for vip in vips(number) {
            let answer =
                rig.answer(vip.parse::<std::net::IpAddr>()?).with_context(|| format!("{vip} {way}"))?;
            ensure!(answer == format!("b{number}"), "{vip} {way}: {answer}");
        }
    }
    rig.wait_up()?;
    for (((number, way), backend), before) in (1..).zip(WAYS).zip(&bare).zip(&before) {
        let applied = backend.shown()?;
        let again = format!("up {} --apply", options(number, way));
        backend.lb(&again)?.expect(0)?.says(&["nothing had to be changed"])?;
        ensure!(backend.shown()? == applied, "{way}: applying twice changes something");
        ensure!(applied != *before, "{way}: nothing is seen of it");
        println!("{}", backend.lb("down")?.expect(0)?);
        let left = Prepared::differences(before, &backend.shown()?);
        ensure!(left.is_empty(), "{way}: left behind {left:#?}");
        ensure!(!backend.state()?.exists(), "{way}: a state is left");
        backend.lb("down")?.expect(0)?.says(&["nothing to undo"])?;
    }
    Ok(())
}

#[test]
fn printed_commands_do_the_same() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(2).big_bytes(0).ipv6())?;
    rig.start_text(&services(&["l2", "gue"]))?;
    for (number, way) in [(1, "l2"), (2, "gue")] {
        let backend = Prepared::bare(&rig, number as u8)?;
        let options = options(number, way);
        backend.lb(&format!("up {options} --apply"))?.expect(0)?;
        let applied = backend.shown()?;
        backend.lb("down")?.expect(0)?;
        let script = backend.lb(&format!("up {options}"))?.expect(0)?.out;
        println!("{script}");
        ensure!(!backend.state()?.exists(), "printing changes something");
        ensure!(backend.shown()? != applied, "printing does it");
        backend.script(&script)?;
        until("what the commands do", PATIENCE, || {
            backend.lb(&format!("check {options}"))?.expect(0)?;
            let differences = Prepared::differences(&applied, &backend.shown()?);
            ensure!(differences.is_empty(), "{way}: {differences:#?}");
            Ok(Some(()))
        })?;
        for vip in vips(number) {
            rig.answer(vip.parse::<std::net::IpAddr>()?).with_context(|| format!("{vip} {way}"))?;
        }
        let script = backend.lb(&format!("up {options}"))?.expect(0)?.out;
        ensure!(
            !script.lines().any(|line| !line.starts_with('#')),
            "{way}: something is left to do\n{script}"
        );
        let unit = backend.lb(&format!("up {options} --unit"))?.expect(0)?;
        unit.says(&["[Service]", "backend up --interface eth0 --vip", "backend down --interface eth0"])?;
    }
    Ok(())
}

#[test]
fn a_prefix_of_services_is_served_and_undone() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(1).big_bytes(0).ipv6())?;
    rig.start_text(
        "vips: [{address: 203.0.113.128/28, advertise: arp}]\nservices:\n  - {name: s, address: 203.0.113.128/28, \
         protocol: tcp, port: 80, forwarding: ipip, backends: [{address: 203.0.113.21}]}\n",
    )?;
    let backend = Prepared::bare(&rig, 1)?;
    let before = backend.shown()?;
    let options = format!("--vip 203.0.113.128/28 2001:db8:10::/64 --method ipip --from {BALANCER}");
    backend.lb(&format!("up {options} --apply"))?.expect(0)?;
    backend.lb(&format!("check {options}"))?.expect(0)?;
    let applied = backend.shown()?;
    for line in ["local 203.0.113.128/28 dev lo", "local 2001:db8:10::/64 dev lo"] {
        ensure!(applied.iter().any(|shown| shown.starts_with(line)), "no {line:?} in {applied:#?}");
    }
    backend.lb("down")?.expect(0)?;
    let left = Prepared::differences(&before, &backend.shown()?);
    ensure!(left.is_empty(), "left behind {left:#?}");
    Ok(())
}

#[test]
fn answers_may_leave_through_another_interface() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(2).big_bytes(0))?;
    rig.add_second_segment(2)?;
    let mut services = "services:\n".to_owned();
    for (number, way) in [(1, "l2"), (2, "ipip")] {
        let [vip, _] = vips(number);
        let _ = writeln!(
            services,
            "  - {{name: s{number}, address: {vip}, protocol: tcp, port: 80, forwarding: {way}, \
             backends: [{{address: {}}}]}}",
            second_address(number as u8)
        );
    }
    rig.write_text(&format!("version: 1\ninterfaces: [{{name: eth0}}, {{name: eth1}}]\n{services}"))?;
    rig.run(&[])?;
    for (number, options) in [(1, "--method l2 --interface eth1"), (2, "--method ipip --from 192.0.2.5")] {
        let backend = Prepared::bare(&rig, number as u8)?;
        backend.script("echo 1 >/proc/sys/net/ipv4/conf/eth1/rp_filter")?;
        let before = backend.shown()?;
        let [vip, _] = vips(number);
        let options = format!("--vip {vip} {options}");
        let codes: Vec<String> =
            backend.wrong(&options)?.iter().map(|found| found["code"].to_string()).collect();
        ensure!(codes.contains(&"\"LB256\"".to_owned()), "{codes:?}");
        // On the first segment, clients' router asks for the service address.
        backend.lb(&format!("up {options} --apply"))?.expect(0)?.says(&["eth0/arp_ignore=1"])?;
        ensure!(backend.wrong(&options)?.is_empty(), "{:#?}", backend.wrong(&options)?);
        let answer = rig.answer(vip.parse::<std::net::IpAddr>()?).with_context(|| options.clone())?;
        ensure!(answer == format!("b{number}"), "{options}: {answer}");
        backend.lb("down")?.expect(0)?;
        let left = Prepared::differences(&before, &backend.shown()?);
        ensure!(left.is_empty(), "left behind {left:#?}");
    }
    Ok(())
}

#[test]
fn only_what_is_still_ours_is_undone() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(1).big_bytes(0).ipv6())?;
    let backend = Prepared::bare(&rig, 1)?;
    let before = backend.shown()?;
    let up = format!("up {} --apply", options(1, "ipip"));
    backend.lb(&up)?.expect(0)?;
    // The process has died, an address is gone, and somebody likes another value.
    kill(Pid::from_raw(backend.decap()?), Signal::SIGKILL)?;
    backend.script(&format!(
        "ip address del {}/32 dev lo\necho 2 >/proc/sys/net/ipv4/conf/eth0/arp_ignore",
        vips(1)[0]
    ))?;
    backend.lb("down")?.expect(0)?.says(&["arp_ignore stays 2", "rp_filter=1"])?;
    backend.script("echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_ignore")?;
    until("nothing left", PATIENCE, || {
        let left = Prepared::differences(&before, &backend.shown()?);
        ensure!(left.is_empty(), "left behind {left:#?}");
        Ok(Some(()))
    })?;

    // A file that a namespace has left which had this one's number before.
    backend.lb(&up)?.expect(0)?;
    let file = backend.state()?.join("eth0.json");
    let mut state: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    let decap = Pid::from_raw(backend.decap()?);
    state["namespace"] = 1.into();
    std::fs::write(&file, state.to_string())?;
    backend.lb("down")?.expect(0)?;
    ensure!(backend.shown()? != before, "what another namespace's file lists is undone here");
    kill(decap, Signal::SIGTERM)?;
    backend.lb("down")?.expect(0)?.says(&["nothing to undo"]).map(drop)
}

/// How a fault is put right.
enum Repair {
    /// `lb backend check --fix` does it.
    Flag,
    /// The finding's command does it.
    Command,
    /// This does.
    By(&'static str),
}

/// Makes a fault, sees it found, has it put right, and sees it gone.
fn fault(
    backend: &Prepared<'_>,
    options: &str,
    code: &str,
    script: &str,
    repair: &Repair,
) -> anyhow::Result<()> {
    backend.script(script)?;
    let found = backend.wrong(options)?;
    let of_code = |found: &[Value]| found.iter().find(|finding| finding["code"] == code).cloned();
    let finding = of_code(&found).with_context(|| format!("{code} not found: {found:#?}"))?;
    println!("{finding:#}");
    let fixable = finding["fixable"] == true;
    match repair {
        Repair::Flag => {
            ensure!(fixable, "--fix would not do it: {finding:#}");
            backend.lb(&format!("check {options} --fix"))?;
        }
        Repair::Command => {
            ensure!(!fixable, "--fix would do it: {finding:#}");
            backend.script(finding["fix"].as_str().context("no command")?)?;
        }
        Repair::By(script) => backend.script(script)?,
    }
    until("the finding gone", PATIENCE, || {
        let left = backend.wrong(options)?;
        ensure!(of_code(&left).is_none(), "{code} is still there: {left:#?}");
        Ok(Some(()))
    })?;
    let explained = backend.explain(code)?;
    ensure!(explained.code == 0 && explained.out.contains("fix"), "{explained}");
    Ok(())
}

#[test]
fn faults_of_addresses_and_settings_are_found_and_put_right() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(1).big_bytes(0).ipv6())?;
    rig.start_text(&services(&["l2"]))?;
    let backend = Prepared::bare(&rig, 1)?;
    let ([v4, v6], options) = (vips(1), options(1, "l2"));
    backend.lb(&format!("up {options} --apply"))?.expect(0)?;
    ensure!(backend.wrong(&options)?.is_empty(), "{:#?}", backend.wrong(&options)?);
    use Repair::{By, Command, Flag};
    let case = |code, script: &str, repair| fault(&backend, &options, code, script, &repair);
    case("LB251", &format!("ip address del {v4}/32 dev lo"), Flag)?;
    case("LB251", &format!("ip address del {v6}/128 dev lo"), Flag)?;
    case("LB252", &format!("ip address add {v4}/32 dev eth0"), Command)?;
    case("LB252", &format!("ip address add {v6}/128 dev eth0 nodad"), Command)?;
    // Asked for on the segment, where the balancer answers.
    let asked = format!(
        "ip address del {v6}/128 dev lo\necho 1 >/proc/sys/net/ipv6/conf/eth0/accept_dad\n\
         ip address add {v6}/128 dev eth0"
    );
    case("LB253", &asked, Command)?;
    case("LB254", "echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_ignore", Flag)?;
    case("LB255", "echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_announce", Flag)?;
    case("LB256", "echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter", Flag)?;
    let elsewhere = "echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter\nip link add d0 type veth peer name d1\n\
                     ip address add 192.0.2.1/24 dev d0\nip link set d0 up\nip link set d1 up\n\
                     ip route del default\nip route add default via 192.0.2.2";
    case("LB256", elsewhere, Flag)?;
    let back = "ip link del d0\nip route replace default via 203.0.113.1";
    backend.script(back)?;
    case("LB258", "ip route del default", By("ip route add default via 203.0.113.1"))?;
    ensure!(backend.wrong(&options)?.is_empty(), "{:#?}", backend.wrong(&options)?);

    // A server on another address, then on all.
    let ports = format!("{options} --port 81");
    let nobody = backend.wrong(&ports)?;
    ensure!(nobody.len() == 2 && nobody[0]["code"] == "LB259", "{nobody:#?}");
    let listen = |address| inside(&rig.lab.netns(Role::Backend(1)), || TcpListener::bind(address));
    let own = listen("203.0.113.21:81")??;
    let elsewhere = backend.wrong(&ports)?;
    ensure!(
        elsewhere[0]["what"].as_str().is_some_and(|what| what.contains("203.0.113.21 only")),
        "{elsewhere:#?}"
    );
    drop(own);
    let _all = listen("[::]:81")??;
    ensure!(backend.wrong(&ports)?.is_empty(), "{:#?}", backend.wrong(&ports)?);

    case("LB257", "echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6", Flag)?;
    case("LB250", "ip link set eth0 down", Command)
}

#[test]
fn faults_of_tunnels_are_found_and_put_right() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(1).big_bytes(0).ipv6())?;
    rig.start_text(&services(&["gue"]))?;
    let backend = Prepared::bare(&rig, 1)?;
    let options = options(1, "gue");
    let up = format!("up {options} --apply");
    backend.lb(&up)?.expect(0)?;
    ensure!(backend.wrong(&options)?.is_empty(), "{:#?}", backend.wrong(&options)?);
    use Repair::{Command, Flag};
    fault(&backend, &options, "LB260", "ip link set eth0 mtu 1300", &Command)?;

    // Ended by somebody else.
    kill(Pid::from_raw(backend.decap()?), Signal::SIGTERM)?;
    until("no program", PATIENCE, || Ok((!backend.wrong(&options)?.is_empty()).then_some(())))?;
    fault(&backend, &options, "LB261", "true", &Flag)?;
    rig.answer(vips(1)[0].parse::<std::net::IpAddr>()?)?;

    // More than it was started for: it is started anew, for both.
    let vip = options.replace("--vip", "--vip 203.0.113.99");
    fault(&backend, &vip, "LB263", "true", &Flag)?;
    let from = options.replace("--from", "--from 198.18.0.0/16");
    fault(&backend, &from, "LB264", "true", &Flag)?;
    ensure!(backend.wrong(&vip)?.is_empty(), "the first addition is gone: {:#?}", backend.wrong(&vip)?);
    // Another port for GUE cannot be read from a map, and is not missed nonetheless.
    let before = backend.decap()?;
    backend.lb(&format!("{up} --gue-port 7000"))?.expect(0)?.says(&["--gue-port 7000"])?;
    ensure!(backend.decap()? != before, "the decapsulator stays on its port");
    backend.lb(&format!("{up} --gue-port 7000"))?.expect(0)?.says(&["nothing had to be changed"])?;
    backend.lb("down")?.expect(0)?;

    backend.lb(&format!("{up} --no-clamp"))?.expect(0)?;
    ensure!(backend.wrong(&format!("{options} --no-clamp"))?.is_empty());
    fault(&backend, &options, "LB265", "true", &Flag)?;
    backend.lb("down")?.expect(0)?;

    // Somebody else's program, and somebody else's decapsulator.
    rig.lab.attach_stub(Role::Backend(1), "eth0")?;
    backend.lb(&up)?.expect(1)?.says(&["another XDP program", "lb backend down --interface eth0"])?;
    fault(&backend, &options, "LB262", "true", &Command)?;
    backend.lb("down")?.expect(0)?;
    let theirs = rig.decap(1, "203.0.113.98", "203.0.113.5")?;
    backend.lb(&up)?.expect(1)?.says(&["was not started by `lb backend up`", "lb decap eth0 --vip"])?;
    theirs.check_running()?;
    Ok(())
}
