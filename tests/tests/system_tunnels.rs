//! Every encapsulation in every pair of families, taken apart by `lb decap` on the backends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use etherparse::{SlicedPacket, TransportSlice};
use lb_tests::system::{Capture, Rig, Seen, fetch_all};
use lb_userspace::lab::{BALANCER, BALANCER_V6, Interrupt, Role};
use nix::sys::signal::Signal;

const GUE_PORT: u16 = 6080;
const METHODS: [&str; 4] = ["ipip", "gre", "{type: gue, variant: 0}", "{type: gue, variant: 1}"];

/// A service address for each method, family of services and family of backends.
fn ways() -> Vec<(IpAddr, &'static str, bool)> {
    let mut ways = Vec::new();
    for (number, method) in (0_u8..).zip(METHODS) {
        for (more, backend_v6) in [(0, false), (1, true)] {
            let last = 100 + 2 * number + more;
            ways.push((Ipv4Addr::new(203, 0, 113, last).into(), method, backend_v6));
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, last.into());
            ways.push((v6.into(), method, backend_v6));
        }
    }
    ways
}

fn services(backends: u8) -> String {
    let mut text = "services:\n".to_owned();
    for (number, (vip, method, backend_v6)) in ways().into_iter().enumerate() {
        let address = |n| if backend_v6 { format!("\"2001:db8::2{n}\"") } else { format!("203.0.113.2{n}") };
        let backends: Vec<_> = (1..=backends).map(|n| format!("{{address: {}}}", address(n))).collect();
        let _ = writeln!(
            text,
            "  - {{name: s{number}, address: \"{vip}\", protocol: tcp, port: 80, forwarding: {method}, \
             backends: [{}]}}",
            backends.join(", ")
        );
    }
    text
}

/// Gives the backends the service addresses, and each a decapsulator for all of them.
fn prepare(rig: &Rig, backends: u8) -> anyhow::Result<Vec<lb_userspace::lab::Process>> {
    let vips: Vec<String> = ways().iter().map(|(vip, ..)| vip.to_string()).collect();
    let from = [format!("{BALANCER}/32"), format!("{BALANCER_V6}/128")];
    let mut options = vec!["--vip"];
    options.extend(vips.iter().map(String::as_str));
    options.extend(["--from", &from[0], &from[1]]);
    (1..=backends)
        .map(|number| {
            for (vip, ..) in ways() {
                let length = if vip.is_ipv4() { 32 } else { 128 };
                let add = format!("ip addr add {vip}/{length} dev lo nodad");
                rig.script(Role::Backend(number), &add)?;
            }
            rig.decap_with(number, &options)
        })
        .collect()
}

#[test]
fn pages_and_downloads_through_every_tunnel() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(2).big_bytes(1 << 20).ipv6())?;
    let decaps = prepare(&rig, 2)?;
    rig.start_text(&services(2))?;
    rig.wait_up()?;
    let client = rig.lab.netns(Role::Client);
    for (vip, method, backend_v6) in ways() {
        let what = format!("{vip} by {method} to IPv{}", if backend_v6 { 6 } else { 4 });
        let to = SocketAddr::new(vip, 80);
        let answers = fetch_all(&client, to, 41_000..41_016).with_context(|| what.clone())?;
        let names: BTreeSet<_> = answers.values().map(String::as_str).collect();
        ensure!(names == BTreeSet::from(["b1", "b2"]), "{what}: {answers:?}");
        let (got, url) = (rig.file("got"), format!("http://{to}/big"));
        rig.curl(Role::Client, ["--fail", "-o", &got.to_string_lossy(), &url])?.expect(0).context(what)?;
        ensure!(std::fs::read(&got)? == std::fs::read(rig.lab.big_file())?, "not what is served");
    }
    for decap in decaps {
        decap.signal(Signal::SIGTERM)?;
        ensure!(decap.wait(Duration::from_secs(5), &Interrupt::never())?.success(), "{}", decap.log_tail(20));
        println!("{}", decap.log_tail(12));
        // At least a handshake, a request and an end for every page, counted where the outer header went.
        let count = |log: &str| -> Option<u64> {
            log.lines()
                .rev()
                .find_map(|line| line.split_once(" decapsulated "))?
                .0
                .split_whitespace()
                .last()?
                .parse()
                .ok()
        };
        let log = decap.log_tail(30);
        ensure!(count(&log) > Some(16 * 4), "{log}");
    }
    Ok(())
}

/// Outer source ports differ between flows, so that the network in between spreads them, and never within one.
#[test]
fn outer_ports_follow_the_flow() -> anyhow::Result<()> {
    const FLOWS: u16 = 24;
    let rig = Rig::of(|lab| lab.backends(1).big_bytes(0).ipv6())?;
    prepare(&rig, 1)?;
    rig.start_text(&services(1))?;
    rig.wait_up()?;
    let client = rig.lab.netns(Role::Client);
    for (vip, method, backend_v6) in ways().into_iter().filter(|(_, method, _)| method.contains("gue")) {
        let capture = Capture::start(&rig, "b1", &format!("udp dst port {GUE_PORT}"))?;
        fetch_all(&client, SocketAddr::new(vip, 80), 42_000..42_000 + FLOWS)?;
        let seen = capture.finish()?;
        let header = if method.contains("variant: 0") { 4 } else { 0 };
        let flows = outer_ports(&seen, header)?;
        let what = format!("{vip} by {method} to IPv{}", if backend_v6 { 6 } else { 4 });
        ensure!(flows.len() == usize::from(FLOWS), "{what}: {flows:?}");
        let split = flows.iter().find(|(_, outer)| outer.len() != 1);
        ensure!(split.is_none(), "{what}: one flow by several ports: {split:?}");
        let different: BTreeSet<u16> = flows.values().flatten().copied().collect();
        println!("{what}: {FLOWS} flows, {} outer ports", different.len());
        ensure!(different.len() > 18, "{what}: {different:?}");
        ensure!(seen.iter().all(|packet| packet.source.is_ipv6() == backend_v6), "{what}: outer family");
    }
    Ok(())
}

/// Outer source ports by the inner TCP connection's client port.
fn outer_ports(seen: &[Seen], header: usize) -> anyhow::Result<BTreeMap<u16, BTreeSet<u16>>> {
    let mut flows: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
    for packet in seen {
        let inner = packet.datagram.get(header..).context("a tunnel packet without inner packet")?;
        let inner = SlicedPacket::from_ip(inner).with_context(|| format!("odd inner packet {inner:02x?}"))?;
        let Some(TransportSlice::Tcp(tcp)) = inner.transport else { continue };
        let (outer, _) = packet.ports.context("no UDP ports")?;
        flows.entry(tcp.source_port()).or_default().insert(outer);
    }
    Ok(flows)
}
