//! ICMP for service addresses: pings while somebody serves, and routers' errors for the backend whose flow they are about.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Datagrams, Names, Rig, UdpEcho, datagram, send_raw, too_big, until};
use lb_userspace::lab::{
    CLIENT, CLIENT_V6, ROUTER_SERVER_SIDE, ROUTER_SERVER_SIDE_V6, Role, VIP_IPIP, VIP_L2, VIP_L2_V6,
};

const NAMES: [&str; 3] = ["b1", "b2", "b3"];
const PORT: u16 = 5000;
const PATIENCE: Duration = Duration::from_secs(15);

/// l2 services of both families on one port, over three backends.
fn services(protocol: &str, port: u16, more: &str) -> String {
    let mut text = "services:\n".to_owned();
    for (name, vip, backend) in
        [("four", IpAddr::from(VIP_L2), "203.0.113.2"), ("six", VIP_L2_V6.into(), "2001:db8::2")]
    {
        let backends: Vec<_> = (1..=3).map(|n| format!("{{address: \"{backend}{n}\"}}")).collect();
        text += &format!(
            "  - {{name: {name}, address: \"{vip}\", protocol: {protocol}, port: {port}, forwarding: l2{more}, \
             backends: [{}]}}\n",
            backends.join(", ")
        );
    }
    text
}

fn ping(rig: &Rig, to: IpAddr) -> anyhow::Result<bool> {
    let run = rig.on(Role::Client, "ping", ["-n", "-c", "1", "-W", "1", "-s", "200", &to.to_string()])?;
    Ok(run.code == 0)
}

#[test]
fn pings_are_answered_while_a_backend_is_up() -> anyhow::Result<()> {
    const CHECK: &str = ", health_check: {type: tcp, port: 8081, via: direct, interval: 300ms, timeout: 200ms}, \
                         health: {hold_down: 0s, trial_time: 0s}";
    let rig = Rig::of(|lab| lab.backends(3).big_bytes(0).ipv6())?;
    // A second pair of addresses, which answer never and always.
    let silent = services("tcp", 80, CHECK)
        .replace("services:\n", "")
        .replace("name: ", "name: other-")
        .replace(&format!("\"{VIP_L2}\""), &format!("\"{VIP_IPIP}\""))
        .replace(&format!("\"{VIP_L2_V6}\""), "\"2001:db8::20\"");
    let vips = format!(
        "vips: [{{address: {VIP_IPIP}, echo: false}}, {{address: \"2001:db8::20\", echo: always}}]\n"
    );
    let (own, never, always): ([IpAddr; 2], IpAddr, IpAddr) =
        ([VIP_L2.into(), VIP_L2_V6.into()], VIP_IPIP.into(), "2001:db8::20".parse()?);
    let flag = Names::listen(&rig.lab.netns(Role::Backend(2)), &[8081], "b2")?;
    rig.start_text(&format!("{vips}{}{silent}", services("tcp", 80, CHECK)))?;
    until("answers to pings", PATIENCE, || Ok((ping(&rig, own[0])? && ping(&rig, own[1])?).then_some(())))?;
    ensure!(!ping(&rig, never)?, "{never} answers with `echo: false`");
    ensure!(ping(&rig, always)?, "{always} does not answer with `echo: always`");
    ensure!(rig.counted("echo_answered")? >= 3, "not counted");

    drop(flag);
    until("silence when all are down", PATIENCE, || {
        Ok((!ping(&rig, own[0])? && !ping(&rig, own[1])?).then_some(()))
    })?;
    ensure!(ping(&rig, always)?, "{always} does not answer with `echo: always` when all are down");
    // The last ones that worked are tried nonetheless: `all_down: last-known`.
    ensure!(rig.answer(own[0])?.starts_with('b') && rig.answer(own[1])?.starts_with('b'), "nobody answers");
    let _flag = Names::listen(&rig.lab.netns(Role::Backend(1)), &[8081], "b1")?;
    until("answers again", PATIENCE, || Ok((ping(&rig, own[0])? && ping(&rig, own[1])?).then_some(())))
}

/// A link of 1300 bytes on the way back to the client: the router says so to the service address, and the download goes
/// on because its backend hears it.
#[test]
fn a_routers_fragmentation_needed_reaches_the_backend_that_sends() -> anyhow::Result<()> {
    const NARROW: u16 = 1300;
    let rig = Rig::of(|lab| lab.backends(3).big_bytes(1 << 20).ipv6())?;
    rig.on(Role::Router, "ip", ["link", "set", "eth0", "mtu", &NARROW.to_string()])?.expect(0)?;
    rig.start_text(&services("tcp", 80, ""))?;
    rig.wait_up()?;
    for (vip, client) in [(IpAddr::from(VIP_L2), IpAddr::from(CLIENT)), (VIP_L2_V6.into(), CLIENT_V6.into())]
    {
        let (got, headers) = (rig.file("got"), rig.file("headers"));
        let url = format!("http://{}/big", SocketAddr::new(vip, 80));
        let (got_path, headers_path) = (got.to_string_lossy(), headers.to_string_lossy());
        // Of its own: whoever closed the other family's connection first may have it in TIME-WAIT, on its port for both.
        let port = if vip.is_ipv4() { "43000" } else { "43001" };
        let options = ["--fail", "--local-port", port, "-D", &headers_path, "-o", &got_path, &url];
        rig.curl(Role::Client, options)?.expect(0).with_context(|| format!("from {vip}"))?;
        ensure!(fs::read(&got)? == fs::read(rig.lab.big_file())?, "{vip}: not what is served");
        let headers = fs::read_to_string(&headers)?;
        let owner = headers.lines().find_map(|line| line.strip_prefix("X-Backend: ")).context("no name")?;
        expect_only_owner_knows(&rig, owner.trim(), client, vip, NARROW)?;
        ensure!(rig.counted("icmp_forwarded")? > 0, "not counted");
    }
    Ok(())
}

fn expect_only_owner_knows(
    rig: &Rig,
    owner: &str,
    client: IpAddr,
    vip: IpAddr,
    mtu: u16,
) -> anyhow::Result<()> {
    for (number, name) in (1..).zip(NAMES) {
        let known = rig.path_mtu(Role::Backend(number), client, Some(vip))?;
        let wanted = (name == owner).then_some(mtu);
        ensure!(known == wanted, "{name} knows {known:?} of the way to {client}, {owner} is the owner");
    }
    Ok(())
}

/// Answers that fit the segment but not the client's link: the router's word about them, which for IPv6 quotes a
/// fragment, teaches the backend that sent them.
#[test]
fn answers_too_large_for_the_clients_link_get_there_at_the_second_try() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(3).big_bytes(0).ipv6())?;
    let mut servers = Vec::new();
    for (number, name) in (1..).zip(NAMES) {
        let netns = rig.lab.netns(Role::Backend(number));
        servers.push(UdpEcho::listen(&netns, (VIP_L2, PORT), name)?);
        servers.push(UdpEcho::listen(&netns, (VIP_L2_V6, PORT), name)?);
    }
    rig.start_text(&services("udp", PORT, ""))?;
    rig.wait_up()?;
    let ways: [(IpAddr, IpAddr, usize); 2] =
        [(VIP_L2.into(), CLIENT.into(), 1472), (VIP_L2_V6.into(), CLIENT_V6.into(), 8192)];
    for (vip, client, length) in ways {
        let (from, to) = (SocketAddr::new(client, 44_500), SocketAddr::new(vip, PORT));
        let flow = Datagrams::open(&rig.lab.netns(Role::Client), from, to)?;
        let (owner, _) = flow.ask(b"who").with_context(|| format!("asking {to}"))?;
        let before = rig.counted("icmp_forwarded")?;
        let question = vec![3; length];
        ensure!(flow.ask(&question).is_err(), "{vip}: the first answer fits: nothing is shown");
        let (name, answer) = flow.ask(&question).with_context(|| format!("the second answer from {vip}"))?;
        ensure!(name == owner && answer == question, "{vip}: {name}, {} bytes", answer.len());
        expect_only_owner_knows(&rig, &owner, client, vip, 1500)?;
        ensure!(rig.counted("icmp_forwarded")? > before, "not counted");
    }
    Ok(())
}

/// As terse as RFC 792 allows: eight bytes behind the quoted IP header.
#[test]
fn eight_quoted_bytes_are_enough() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(3).big_bytes(0).ipv6())?;
    let mut servers = Vec::new();
    for (number, name) in (1..).zip(NAMES) {
        let netns = rig.lab.netns(Role::Backend(number));
        servers.push(UdpEcho::listen(&netns, (VIP_L2, PORT), name)?);
        servers.push(UdpEcho::listen(&netns, (VIP_L2_V6, PORT), name)?);
    }
    rig.start_text(&services("udp", PORT, ""))?;
    rig.wait_up()?;
    let ways: [(IpAddr, IpAddr, IpAddr, u16); 2] = [
        (VIP_L2.into(), CLIENT.into(), ROUTER_SERVER_SIDE.into(), 1308),
        (VIP_L2_V6.into(), CLIENT_V6.into(), ROUTER_SERVER_SIDE_V6.into(), 1308),
    ];
    for (vip, client, router, mtu) in ways {
        let (from, to) = (SocketAddr::new(client, 44_000), SocketAddr::new(vip, PORT));
        let flow = Datagrams::open(&rig.lab.netns(Role::Client), from, to)?;
        let (owner, _) = flow.ask(b"who").with_context(|| format!("asking {to}"))?;
        let message = too_big(router, &datagram(to, from, &[0; 1400])?, mtu, 8)?;
        send_raw(&rig.lab.netns(Role::Router), vip, &[message])?;
        until("the backend's knowledge", Duration::from_secs(3), || {
            expect_only_owner_knows(&rig, &owner, client, vip, mtu).map(Some)
        })?;
        // About a flow of somebody else: not for any backend.
        let before = (rig.counted("icmp_elsewhere")?, rig.counted("icmp_forwarded")?);
        let foreign = SocketAddr::new(router, PORT);
        let message = too_big(router, &datagram(foreign, from, &[0; 1400])?, mtu, 8)?;
        send_raw(&rig.lab.netns(Role::Router), vip, &[readdressed(message, vip)?])?;
        until("the stranger's message counted", Duration::from_secs(3), || {
            Ok((rig.counted("icmp_elsewhere")? > before.0).then_some(()))
        })?;
        ensure!(rig.counted("icmp_forwarded")? == before.1, "forwarded");
    }
    Ok(())
}

/// The packet to another address; its IPv4 header checksum is the sending kernel's business, ICMPv6's is not looked at.
fn readdressed(mut packet: Vec<u8>, to: IpAddr) -> anyhow::Result<Vec<u8>> {
    match to {
        IpAddr::V4(to) => packet[16..20].copy_from_slice(&to.octets()),
        IpAddr::V6(to) => packet[24..40].copy_from_slice(&to.octets()),
    }
    Ok(packet)
}
