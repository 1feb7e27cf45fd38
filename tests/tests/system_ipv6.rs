//! IPv6 where IPv4 works: pages, neighbour discovery, health checks through the service, flows that stay.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Conversation, Echo, Rig, fetch_all, until};
use lb_userspace::lab::{Role, VIP_L2, VIP_L2_V6};
use nix::sys::signal::Signal;

const PATIENCE: Duration = Duration::from_secs(15);
/// Checks that are quick, through the service.
const CHECK: &str = "{type: http, interval: 500ms, timeout: 300ms, max_interval: 500ms}";

fn lab(backends: u8, big_mib: u64) -> anyhow::Result<Rig> {
    Rig::of(|lab| lab.backends(backends).big_bytes(big_mib << 20).ipv6())
}

/// The service `web` on a port of [`VIP_L2_V6`], with further keys.
fn web(backends: &[u8], port: u16, more: &str) -> String {
    let backends: String =
        backends.iter().map(|n| format!("      - {{name: b{n}, address: \"2001:db8::2{n}\"}}\n")).collect();
    format!(
        "services:\n  - name: web\n    address: \"{VIP_L2_V6}\"\n    protocol: tcp\n    port: {port}\n    \
         forwarding: l2\n    health: {{hold_down: 0s, trial_time: 0s}}\n{more}    backends:\n{backends}"
    )
}

#[test]
fn http_over_l2() -> anyhow::Result<()> {
    let rig = lab(3, 6)?;
    rig.start_text(&web(&[1, 2, 3], 80, ""))?;
    rig.wait_up()?;
    let to = SocketAddr::from((VIP_L2_V6, 80));
    let answers = fetch_all(&rig.lab.netns(Role::Client), to, 20_000..20_060)?;
    let names: BTreeSet<_> = answers.values().map(String::as_str).collect();
    ensure!(names == BTreeSet::from(["b1", "b2", "b3"]), "{names:?}");
    let again = fetch_all(&rig.lab.netns(Role::Client), to, 20_000..20_020)?;
    ensure!(again.iter().all(|(port, name)| answers[port] == *name), "the same flows went elsewhere");
    let (got, url) = (rig.file("got"), format!("http://{to}/big"));
    rig.curl(Role::Client, ["--fail", "-o", &got.to_string_lossy(), &url])?.expect(0)?;
    ensure!(std::fs::read(&got)? == std::fs::read(rig.lab.big_file())?, "not what is served");
    let counters = rig.lb(["counters", "--output", "json"])?.expect(0)?.json()?;
    ensure!(counters["verdicts"]["drop"] == 0, "dropped: {counters}");
    ensure!(counters["services"][0]["packets"].as_u64() > Some(300), "not counted: {counters}");
    Ok(())
}

/// A client on the segment itself: the program answers neighbour solicitations, and nobody does without it.
#[test]
fn a_neighbour_finds_the_service_and_silence_after_detach() -> anyhow::Result<()> {
    let rig = lab(2, 0)?;
    let (vip, url) = (VIP_L2_V6.to_string(), format!("http://[{VIP_L2_V6}]/"));
    // What a balancer that failed would have left with a neighbour; its successor's announcement corrects it.
    let stale =
        ["-6", "neigh", "replace", &vip, "lladdr", "02:00:00:00:00:99", "dev", "eth1", "nud", "reachable"];
    rig.on(Role::Router, "ip", stale)?.expect(0)?;
    rig.start_text(&web(&[1, 2], 80, ""))?;
    let mac = rig.mac(Role::Balancer, "eth0")?;
    let neighbour = || rig.on(Role::Router, "ip", ["-6", "neigh", "show", &vip, "dev", "eth1"])?.expect(0);
    until("the announcement", Duration::from_secs(5), || neighbour()?.says(&[&mac]).map(Some))?;
    // And without what was announced: by asking.
    rig.on(Role::Router, "ip", ["-6", "neigh", "flush", "dev", "eth1"])?.expect(0)?;
    rig.curl(Role::Router, ["--max-time", "3", &url])?.expect(0)?.says(&["backend b"])?;
    neighbour()?.says(&[&mac])?;
    ensure!(rig.counted("ndp_answered")? > 0, "not counted");
    let own = rig.on(Role::Balancer, "ip", ["-br", "addr"])?.expect(0)?;
    ensure!(!own.out.contains(&format!("{vip}/")), "the host owns the service address: {own}");
    // A neighbour that only wants to know whether the entry still holds asks the balancer alone.
    rig.on(Role::Router, "ip", ["-6", "neigh", "change", &vip, "dev", "eth1", "nud", "probe"])?.expect(0)?;
    until("the confirmation", Duration::from_secs(5), || neighbour()?.says(&["REACHABLE"]).map(Some))?;

    rig.stop(Signal::SIGTERM)?;
    rig.curl(Role::Router, ["--max-time", "3", &url])?.expect(0)?;
    rig.detach()?;
    rig.on(Role::Router, "ip", ["-6", "neigh", "flush", "dev", "eth1"])?.expect(0)?;
    // Silence: a timeout, or the router's own word that it found nobody; never the host's reset (curl's code 7).
    let silent = rig.curl(Role::Router, ["--max-time", "1.5", &url])?;
    ensure!(silent.code == 28 || silent.err.contains("No route to host"), "{silent}");
    let entry = neighbour()?;
    ensure!(entry.out.contains("INCOMPLETE") || entry.out.contains("FAILED"), "somebody answers: {entry}");
    Ok(())
}

#[test]
fn probes_through_the_service_find_a_lost_address() -> anyhow::Result<()> {
    let rig = lab(2, 0)?;
    rig.start_text(&web(&[1, 2], 80, &format!("    health_check: {CHECK}\n")))?;
    let state = |number: u64, wanted: &str| {
        until(&format!("b{number} {wanted}"), PATIENCE, || {
            let status = rig.status()?;
            let all = status["services"][0]["backends"].as_array().context("no backends")?;
            let own =
                all.iter().find(|backend| backend["name"] == format!("b{number}")).context("not there")?;
            ensure!(own["health"]["state"] == wanted, "{own:#}");
            Ok(Some(own.clone()))
        })
    };
    state(1, "up")?;
    state(2, "up")?;
    let address = |how: &str| {
        let own = format!("{VIP_L2_V6}/128");
        rig.on(Role::Backend(2), "ip", ["addr", how, &own, "dev", "lo", "nodad"])?.expect(0).map(drop)
    };
    address("del")?;
    let down = state(2, "down")?;
    ensure!(
        down.to_string().contains(&VIP_L2_V6.to_string()),
        "the reason does not name the address: {down:#}"
    );
    let to = SocketAddr::from((VIP_L2_V6, 80));
    let answers = fetch_all(&rig.lab.netns(Role::Client), to, 21_000..21_030)?;
    ensure!(answers.values().all(|name| name == "b1"), "{answers:?}");
    address("add")?;
    state(2, "up").map(drop)
}

/// A conversation goes on while backends come and go, and while the daemon restarts.
#[test]
fn a_connection_stays_while_backends_change() -> anyhow::Result<()> {
    const PORT: u16 = 7000;
    let rig = lab(3, 0)?;
    let _echo: Vec<_> = (1..=3)
        .map(|n| Echo::listen(&rig.lab.netns(Role::Backend(n)), (VIP_L2_V6, PORT)))
        .collect::<Result<_, _>>()?;
    rig.start_text(&web(&[1], PORT, ""))?;
    rig.wait_up()?;
    let talk = Conversation::start(&rig.lab.netns(Role::Client), (VIP_L2_V6, PORT))?;
    talk.check("at first")?;
    let other = rig.file("other.yaml");
    let text = web(&[1, 2, 3], PORT, "").replace("2001:db8::21\"}", "2001:db8::21\", weight: 0}");
    std::fs::write(&other, format!("version: 1\ninterfaces: [{{name: eth0}}]\n{text}"))?;
    rig.lb(["apply", &other.to_string_lossy()])?.expect(0)?;
    until("all slots with the others", PATIENCE, || {
        let backends = rig.status()?["services"][0]["backends"].clone();
        let own = backends.as_array().and_then(|all| all.iter().find(|b| b["name"] == "b1")).cloned();
        Ok(own.is_some_and(|own| own["slots"] == 0).then_some(()))
    })?;
    talk.check("after its backend takes no new flows")?;
    rig.stop(Signal::SIGKILL)?;
    talk.check("without a daemon")?;
    rig.run(&[])?;
    talk.check("with the next daemon")?;
    talk.finish().map(drop)
}

/// One config, both families of one name: `addresses`, with a tunnel that takes both.
#[test]
fn one_service_of_both_families() -> anyhow::Result<()> {
    let rig = lab(1, 0)?;
    let decap = ["--vip", "203.0.113.10", "2001:db8::10", "--from", "203.0.113.5/32"];
    rig.decap_with(1, &decap)?;
    rig.start_text(
        "services:\n  - name: web\n    addresses: [203.0.113.10, \"2001:db8::10\"]\n    protocol: tcp\n    \
         ports: [80]\n    forwarding: ipip\n    backends: [{address: 203.0.113.21}]\n",
    )?;
    rig.wait_up()?;
    ensure!(rig.answer(VIP_L2)? == "b1" && rig.answer(VIP_L2_V6)? == "b1", "not b1");
    rig.lb(["services"])?.expect(0)?.says(&["203.0.113.10:80/tcp", "[2001:db8::10]:80/tcp"]).map(drop)
}

/// Multicast groups that `eth0` of the balancer has been told to listen to (`ip maddr add` and the like).
fn joined(rig: &Rig) -> anyhow::Result<BTreeSet<String>> {
    let listed = rig.on(Role::Balancer, "cat", ["/proc/net/dev_mcast"])?.expect(0)?;
    // Index, name, users, whether somebody said so, address (net/core/dev_addr_lists.c).
    let line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "eth0", _, "1", address] => Some(address.to_owned()),
        _ => None,
    };
    Ok(listed.out.lines().filter_map(line).collect())
}

/// A NIC that filters lets questions for service addresses in; afterwards no longer, and what somebody else has joined
/// stays.
#[test]
fn the_groups_of_service_addresses_are_joined_and_left() -> anyhow::Result<()> {
    let rig = lab(1, 0)?;
    let theirs = "33:33:ff:00:00:77";
    rig.on(Role::Balancer, "ip", ["maddress", "add", theirs, "dev", "eth0"])?.expect(0)?;
    let services = |last: &[&str]| -> String {
        let one = |last: &&str| {
            format!(
                "  - {{name: s{last}, address: \"2001:db8::{last}\", protocol: tcp, port: 80, forwarding: l2, \
                 backends: [{{address: \"2001:db8::21\"}}]}}\n"
            )
        };
        format!("services:\n{}", last.iter().map(one).collect::<String>())
    };
    let expected = |groups: &[&str]| groups.iter().map(|group| (*group).to_owned()).collect::<BTreeSet<_>>();
    let (ten, eleven) = ("3333ff000010", "3333ff000011");
    let theirs = "3333ff000077";
    rig.start_text(&services(&["10", "11", "77"]))?;
    ensure!(joined(&rig)? == expected(&[ten, eleven, theirs]), "{:?}", joined(&rig)?);
    let text = format!("version: 1\ninterfaces: [{{name: eth0}}]\n{}", services(&["10", "12"]));
    let path = rig.write_text(&text)?.display().to_string();
    rig.lb(["apply", "--force", &path])?.expect(0)?;
    until("the other groups", PATIENCE, || {
        let now = joined(&rig)?;
        ensure!(now == expected(&[ten, "3333ff000012", theirs]), "{now:?}");
        Ok(Some(()))
    })?;
    rig.stop(Signal::SIGKILL)?;
    ensure!(joined(&rig)?.contains(ten), "forwarding goes on, and so does listening");
    rig.detach()?;
    ensure!(joined(&rig)? == expected(&[theirs]), "{:?}", joined(&rig)?);
    Ok(())
}
