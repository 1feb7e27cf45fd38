//! Datagrams too large for one packet: whole, at one backend, the same one as their flow's small ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Datagrams, Rig, UdpEcho, datagram, fragments, send_raw, until};
use lb_userspace::lab::{
    BALANCER, BALANCER_V6, CLIENT, CLIENT_V6, Netns, ROUTER_SERVER_SIDE, ROUTER_SERVER_SIDE_V6, Role,
    VIP_IPIP, VIP_IPIP_V6, VIP_L2, VIP_L2_V6,
};

const NAMES: [&str; 3] = ["b1", "b2", "b3"];
const PORT: u16 = 5000;
const LARGE: usize = 8192;
const FLOWS: std::ops::Range<u16> = 40_000..40_024;

const VIPS: [IpAddr; 4] =
    [IpAddr::V4(VIP_L2), IpAddr::V6(VIP_L2_V6), IpAddr::V4(VIP_IPIP), IpAddr::V6(VIP_IPIP_V6)];

/// UDP services of both families, by l2 and by ipip; `first` is the weight of the first backend.
fn config(first: u16) -> String {
    let mut text = "version: 1\ninterfaces: [{name: eth0}]\nservices:\n".to_owned();
    for (number, vip) in VIPS.into_iter().enumerate() {
        let forwarding = if number < 2 { "l2" } else { "ipip" };
        let backend = if vip.is_ipv4() { "203.0.113.2" } else { "2001:db8::2" };
        text += &format!(
            "  - {{name: s{number}, address: \"{vip}\", protocol: udp, port: {PORT}, forwarding: {forwarding}, \
             backends: [{{address: \"{backend}1\", weight: {first}}}, {{address: \"{backend}2\"}}, \
             {{address: \"{backend}3\"}}]}}\n"
        );
    }
    text
}

/// The lab with echo servers, decapsulators and the balancer.
fn raise() -> anyhow::Result<(Rig, Vec<UdpEcho>)> {
    let rig = Rig::of(|lab| lab.backends(3).big_bytes(0).ipv6())?;
    let (v4, v6) = (format!("{BALANCER}/32"), format!("{BALANCER_V6}/128"));
    let (vip4, vip6) = (VIP_IPIP.to_string(), VIP_IPIP_V6.to_string());
    let mut servers = Vec::new();
    for (number, name) in (1..).zip(NAMES) {
        for vip in VIPS {
            servers.push(UdpEcho::listen(&rig.lab.netns(Role::Backend(number)), (vip, PORT), name)?);
        }
        // The segment's MTU is for the tunnels: what goes to clients fits their link.
        rig.script(
            Role::Backend(number),
            &format!(
                "ip route replace default via {ROUTER_SERVER_SIDE} mtu 1500\n\
                 ip -6 route change default via {ROUTER_SERVER_SIDE_V6} dev eth0 mtu 1500"
            ),
        )?;
        rig.decap_with(number, &["--vip", &vip4, &vip6, "--from", &v4, &v6])?;
    }
    rig.write_text(&config(1))?;
    rig.run(&[])?;
    rig.wait_up()?;
    Ok((rig, servers))
}

fn open(client: &Netns, vip: IpAddr, port: u16) -> anyhow::Result<Datagrams> {
    let own: IpAddr = if vip.is_ipv4() { CLIENT.into() } else { CLIENT_V6.into() };
    Datagrams::open(client, SocketAddr::new(own, port), SocketAddr::new(vip, PORT))
}

/// Asks with a datagram of this size; who answered, after the content has been compared.
fn ask(flow: &Datagrams, length: usize, what: &str) -> anyhow::Result<String> {
    let question: Vec<u8> = (0..length).map(|at| (at / 7) as u8).collect();
    let (name, answer) = flow.ask(&question).with_context(|| format!("{length} bytes, {what}"))?;
    ensure!(answer == question, "{length} bytes, {what}: {} other bytes came back", answer.len());
    Ok(name)
}

#[test]
fn large_datagrams_arrive_whole_where_small_ones_do() -> anyhow::Result<()> {
    let (rig, _servers) = raise()?;
    let client = rig.lab.netns(Role::Client);
    for vip in VIPS {
        let mut names = BTreeMap::<_, u32>::new();
        for port in FLOWS {
            let (flow, what) = (open(&client, vip, port)?, format!("from port {port} to {vip}"));
            // Some flows begin with a small packet, some with fragments.
            let sizes = if port % 2 == 0 { [20, LARGE, 1400, LARGE] } else { [LARGE, 20, 3000, 1473] };
            let answers: BTreeSet<_> =
                sizes.into_iter().map(|size| ask(&flow, size, &what)).collect::<Result<_, _>>()?;
            ensure!(answers.len() == 1, "one flow, several backends, {what}: {answers:?}");
            answers.into_iter().for_each(|name| *names.entry(name).or_default() += 1);
        }
        println!("{vip}: {names:?}");
        ensure!(names.len() == 3, "{vip}: only {names:?} were asked");
    }
    ensure!(rig.counted("fragment")? == 0, "fragments without a first one");
    Ok(())
}

/// Flows stay with their backends while nearly all slots have gone to another one.
#[test]
fn fragments_follow_their_flow_while_slots_are_unsettled() -> anyhow::Result<()> {
    let (rig, _servers) = raise()?;
    let client = rig.lab.netns(Role::Client);
    let mut flows = BTreeMap::new();
    let all = (0..).zip(VIPS).flat_map(|(number, vip)| FLOWS.map(move |port| (vip, port + 100 * number)));
    for (vip, port) in all {
        let (flow, what) = (open(&client, vip, port)?, format!("from port {port} to {vip}"));
        let home = ask(&flow, 20, &what)?;
        flows.insert((vip, port), (flow, what, home));
    }
    let away = flows.values().filter(|(.., home)| home != "b1").count();
    ensure!(away > 10, "only {away} flows away from b1: nothing would be shown");
    let other = rig.file("other.yaml");
    fs::write(&other, config(1000))?;
    rig.lb(["apply", &other.to_string_lossy()])?.expect(0)?;
    until("nearly all slots with b1", Duration::from_secs(10), || {
        let status = rig.status()?;
        let moved = status["services"].as_array().context("no services")?.iter().all(|service| {
            let slots = |n: usize| service["backends"][n]["slots"].as_u64().unwrap_or(0);
            slots(0) > 20 * (slots(1) + slots(2)) && service["unsettled_slots"].as_u64() > Some(0)
        });
        ensure!(moved, "{status:#}");
        Ok(Some(()))
    })?;
    // Large ones first: what they meet is not a record that a small one has made.
    for (flow, what, home) in flows.values() {
        for size in [LARGE, 20, LARGE] {
            let name = ask(flow, size, what)?;
            ensure!(name == *home, "{size} bytes, {what}: {name} got what is {home}'s");
        }
    }
    // New flows too keep to one backend.
    for port in 41_000..41_008 {
        let (flow, what) = (open(&client, VIPS[0], port)?, format!("from port {port}"));
        let home = ask(&flow, LARGE, &what)?;
        ensure!(ask(&flow, 20, &what)? == home && ask(&flow, LARGE, &what)? == home, "torn, {what}");
    }
    let status = rig.status()?;
    let settled = |service: &serde_json::Value| service["unsettled_slots"].as_u64() == Some(0);
    let all = status["services"].as_array().context("no services")?;
    ensure!(!all.iter().any(settled), "settled meanwhile: {status:#}");
    Ok(())
}

#[test]
fn fragments_before_their_first_one_are_dropped_and_counted() -> anyhow::Result<()> {
    let (rig, _servers) = raise()?;
    let client = rig.lab.netns(Role::Client);
    for vip in VIPS {
        let own: IpAddr = if vip.is_ipv4() { CLIENT.into() } else { CLIENT_V6.into() };
        let (from, to) = (SocketAddr::new(own, 42_000), SocketAddr::new(vip, PORT));
        let flow = open(&client, vip, 42_000)?;
        ask(&flow, 20, "a small one")?;
        let packet = datagram(from, to, &[5; 4000])?;
        let before = rig.counted("fragment")?;
        // In order: one answer.
        send_raw(&client, vip, &fragments(&packet, 0x1001, 1400)?)?;
        let answers = flow.drain(Duration::from_millis(500))?;
        ensure!(answers == 1, "{vip}: {answers} answers to fragments in order");
        // The last two in another order: the first one is known, so they arrive.
        let mut pieces = fragments(&packet, 0x1002, 1400)?;
        pieces.swap(1, 2);
        send_raw(&client, vip, &pieces)?;
        let answers = flow.drain(Duration::from_millis(500))?;
        ensure!(answers == 1, "{vip}: {answers} answers to fragments behind their first one");
        ensure!(rig.counted("fragment")? == before, "{vip}: dropped");
        // One before the first: it is lost, and with it the datagram.
        let mut pieces = fragments(&packet, 0x1003, 1400)?;
        pieces.swap(0, 1);
        send_raw(&client, vip, &pieces)?;
        let answers = flow.drain(Duration::from_millis(500))?;
        ensure!(answers == 0, "{vip}: {answers} answers to an incomplete datagram");
        let dropped = rig.counted("fragment")? - before;
        ensure!(dropped == 1, "{vip}: {dropped} fragments counted as dropped");
    }
    Ok(())
}
