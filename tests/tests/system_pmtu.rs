//! Tunnels through an underlay of 1500 bytes: nobody sets an MTU or an MSS by hand, and large transfers complete.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Rig, Sink, datagram, send_raw, too_big, until, upload};
use lb_userspace::lab::{
    BALANCER, BALANCER_V6, ROUTER_CLIENT_SIDE, ROUTER_SERVER_SIDE, ROUTER_SERVER_SIDE_V6, Role,
};

const PORT: u16 = 9000;
const BYTES: usize = 3 << 20;
const LIMIT: Duration = Duration::from_secs(4);

/// A service per way to the backend: its address, the backend's, the method, and what fits.
fn ways() -> Vec<(IpAddr, &'static str, &'static str, u16)> {
    let v4 = |last| IpAddr::from(Ipv4Addr::new(203, 0, 113, last));
    let v6 = |last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, last));
    vec![
        (v4(130), "203.0.113.21", "ipip", 1480),
        (v6(1), "2001:db8::21", "ipip", 1460),
        (v4(131), "2001:db8::21", "ipip", 1460),
        (v6(2), "203.0.113.21", "ipip", 1480),
        (v4(132), "203.0.113.21", "gre", 1476),
        (v6(3), "2001:db8::21", "gue", 1452),
        (v4(133), "203.0.113.21", "{type: gue, variant: 0}", 1468),
    ]
}

/// The lab, its sinks and the balancer.
fn raise() -> anyhow::Result<(Rig, Vec<Sink>)> {
    let rig = Rig::of(|lab| lab.backends(1).big_bytes(0).mtu(1500).ipv6())?;
    let (mut services, mut vips, mut sinks) = ("services:\n".to_owned(), Vec::new(), Vec::new());
    for (number, (vip, backend, forwarding, _)) in ways().into_iter().enumerate() {
        let length = if vip.is_ipv4() { 32 } else { 128 };
        rig.script(Role::Backend(1), &format!("ip addr add {vip}/{length} dev lo nodad"))?;
        sinks.push(Sink::listen(&rig.lab.netns(Role::Backend(1)), SocketAddr::new(vip, PORT))?);
        let _ = writeln!(
            services,
            "  - {{name: s{number}, address: \"{vip}\", protocol: tcp, port: {PORT}, forwarding: {forwarding}, \
             backends: [{{address: \"{backend}\"}}]}}"
        );
        vips.push(vip.to_string());
    }
    let from = [format!("{BALANCER}/32"), format!("{BALANCER_V6}/128")];
    let mut options = vec!["--vip"];
    options.extend(vips.iter().map(String::as_str));
    options.extend(["--from", &from[0], &from[1]]);
    rig.decap_with(1, &options)?;
    rig.start_text(&services)?;
    rig.wait_up()?;
    Ok((rig, sinks))
}

#[test]
fn uploads_through_tunnels_complete_and_the_client_knows_the_mtu() -> anyhow::Result<()> {
    let (rig, _sinks) = raise()?;
    let client = rig.lab.netns(Role::Client);
    for (vip, backend, forwarding, fits) in ways() {
        let what = format!("{vip} by {forwarding} to {backend}");
        let before = (rig.path_mtu(Role::Client, vip, None)?, rig.counted("too_big_answered")?);
        ensure!(before.0.is_none(), "{what}: the client knows {before:?} beforehand");
        upload(&client, SocketAddr::new(vip, PORT), BYTES, LIMIT).context(what.clone())?;
        let mtu = rig.path_mtu(Role::Client, vip, None)?;
        ensure!(mtu == Some(fits), "{what}: the client learnt {mtu:?}, {fits} fit");
        ensure!(rig.counted("too_big_answered")? > before.1, "{what}: not counted");
    }
    Ok(())
}

/// What the other test would see if nobody told the client: a route with a locked MTU does not listen.
#[test]
fn a_client_that_does_not_listen_gets_nothing_through() -> anyhow::Result<()> {
    let (rig, _sinks) = raise()?;
    let client = rig.lab.netns(Role::Client);
    let (vip, _, _, fits) = ways()[0];
    let to = SocketAddr::new(vip, PORT);
    let route = |how: &str| {
        rig.script(
            Role::Client,
            &format!("ip route {how} {vip} via {ROUTER_CLIENT_SIDE} dev eth0 mtu lock 1500"),
        )
    };
    route("add")?;
    let deaf = upload(&client, to, BYTES, Duration::from_secs(2));
    let said = format!("{:#}", deaf.err().context("complete without being told")?);
    ensure!(said.contains("upload"), "{said}");
    ensure!(rig.counted("too_big_answered")? > 0 || rig.counted("too_big")? > 0, "nothing was too big");
    route("del")?;
    upload(&client, to, BYTES, LIMIT)?;
    let mtu = rig.path_mtu(Role::Client, vip, None)?;
    ensure!(mtu == Some(fits), "the client learnt {mtu:?}");
    Ok(())
}

/// A router between balancer and backend has a smaller MTU, and says so to the balancer, whose packets they are.
#[test]
fn a_smaller_path_mtu_is_learnt_and_passed_on_to_clients() -> anyhow::Result<()> {
    let (rig, _sinks) = raise()?;
    let (client, router) = (rig.lab.netns(Role::Client), rig.lab.netns(Role::Router));
    let routers: [(IpAddr, IpAddr); 2] =
        [(ROUTER_SERVER_SIDE.into(), BALANCER.into()), (ROUTER_SERVER_SIDE_V6.into(), BALANCER_V6.into())];
    for ((number, overhead), (from, balancer)) in [(0, 20), (1, 40)].into_iter().zip(routers) {
        let (vip, backend, ..) = ways()[number];
        let path = |mtu: u64| {
            until(&format!("{mtu} for {backend}"), Duration::from_secs(1), || {
                let shown = rig.lb(["backends", "--output", "json"])?.expect(0)?.json()?;
                let path = &shown[number]["backends"][0]["path"];
                let expected = [("mtu", mtu), ("overhead", overhead), ("fits", mtu - overhead)];
                let same = expected.iter().all(|(name, value)| path[name].as_u64() == Some(*value));
                ensure!(same, "{path}");
                Ok(Some(()))
            })
        };
        path(1500)?;
        let tunnelled =
            datagram(SocketAddr::new(balancer, 50_000), SocketAddr::new(backend.parse()?, 6080), &[0; 8])?;
        let elsewhere = datagram(SocketAddr::new(balancer, 50_000), SocketAddr::new(from, 6080), &[0; 8])?;
        let about = |packet: &[u8], mtu| too_big(from, packet, mtu, 8);
        send_raw(&router, balancer, &[about(&elsewhere, 1300)?, about(&tunnelled, 1400)?])?;
        path(1400)?;
        upload(&client, SocketAddr::new(vip, PORT), BYTES, LIMIT)?;
        let mtu = rig.path_mtu(Role::Client, vip, None)?;
        ensure!(mtu.map(u64::from) == Some(1400 - overhead), "the client learnt {mtu:?}");
    }
    rig.lb(["backends", "-v"])?.expect(0)?.says(&["OVERHEAD", "1380"]).map(drop)
}
