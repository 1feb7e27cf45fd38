//! Our tunnels into the kernel's own tunnel devices, and theirs into our decapsulator, with real TCP. Loads kernel
//! modules and is about other kernels than this machine's, so it runs in a guest: `cargo xtask vm-test`.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Rig, Run, fetch_all};
use lb_userspace::lab::{BALANCER, BALANCER_V6, Interrupt, Process, Role};
use nix::sys::signal::Signal;

const GUE_PORT: u16 = 6080;
const CONNECTIONS: u16 = 4;
const BIG_BYTES: u64 = 200_000;

/// A tunnel in one pair of families.
struct Way {
    vip: IpAddr,
    /// As in our config.
    forwarding: &'static str,
    backend: IpAddr,
    balancer: IpAddr,
    /// The kernel's device for it: type, and what makes it an encapsulation in UDP.
    device: String,
}

/// All that the kernel has a device for.
fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for (number, forwarding) in
        (0_u8..).zip(["ipip", "gre", "{type: gue, variant: 0}", "{type: gue, variant: 1}"])
    {
        for (more, inner_v6, outer_v6) in
            [(0, false, false), (1, false, true), (2, true, false), (3, true, true)]
        {
            let last = 100 + 4 * number + more;
            let vip = if inner_v6 { v6(0x100 + u16::from(last)).into() } else { v4(last).into() };
            let device = match (forwarding, inner_v6, outer_v6) {
                ("gre", _, false) => "gre",
                ("gre", _, true) => "ip6gre encaplimit none",
                (_, false, false) => "ipip",
                (_, true, false) => "sit",
                (_, _, true) => "ip6tnl mode any encaplimit none",
            };
            let (backend, balancer) = match outer_v6 {
                true => (v6(0x21).into(), BALANCER_V6.into()),
                false => (v4(21).into(), BALANCER.into()),
            };
            ways.push(Way { vip, forwarding, backend, balancer, device: device.to_owned() });
        }
    }
    ways
}

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last)
}

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

impl Way {
    fn name(&self) -> String {
        format!("{} by {} to {}", self.vip, self.forwarding, self.backend)
    }

    fn is_gue(&self) -> bool {
        self.forwarding.contains("gue")
    }

    /// `ip link` words for the device, from one end to the other.
    fn link(&self, name: &str, local: IpAddr, remote: IpAddr, more: &str) -> String {
        let (kind, options) = self.device.split_once(' ').unwrap_or((&self.device, ""));
        format!(
            "ip link add {name} type {kind} local {local} remote {remote} {options} {more}\nip link set {name} up\n"
        )
    }
}

fn modules() -> anyhow::Result<()> {
    for module in ["ipip", "sit", "ip_gre", "ip6_tunnel", "ip6_gre", "fou", "fou6"] {
        let mut modprobe = Command::new("modprobe");
        modprobe.arg(module);
        Run::of(modprobe)?.expect(0).with_context(|| module.to_owned())?;
    }
    Ok(())
}

/// One backend with all the service addresses.
fn lab() -> anyhow::Result<Rig> {
    ensure!(std::env::var_os("LB_VM").is_some(), "only in a guest: `cargo xtask vm-test`");
    modules()?;
    let rig = Rig::of(|lab| lab.backends(1).big_bytes(BIG_BYTES).ipv6())?;
    let add = ways().iter().fold(String::new(), |mut script, way| {
        let length = if way.vip.is_ipv4() { 32 } else { 128 };
        let _ = writeln!(script, "ip addr add {}/{length} dev lo nodad", way.vip);
        script
    });
    rig.script(Role::Backend(1), &add)?;
    Ok(rig)
}

/// Pages over several connections, and a download that fills packets.
fn traffic(rig: &Rig, way: &Way) -> anyhow::Result<()> {
    let to = SocketAddr::new(way.vip, 80);
    let ports = 41_000..41_000 + CONNECTIONS;
    let answers = fetch_all(&rig.lab.netns(Role::Client), to, ports).with_context(|| way.name())?;
    ensure!(answers.len() == usize::from(CONNECTIONS), "{}: {answers:?}", way.name());
    let (got, url) = (rig.file("got"), format!("http://{to}/big"));
    rig.curl(Role::Client, ["--fail", "-o", &got.to_string_lossy(), &url])?.expect(0).context(way.name())?;
    ensure!(std::fs::read(&got)? == std::fs::read(rig.lab.big_file())?, "{}: not what is served", way.name());
    Ok(())
}

/// Packets that a device has received.
fn received(rig: &Rig, device: &str) -> anyhow::Result<u64> {
    let file = format!("/sys/class/net/{device}/statistics/rx_packets");
    // sysfs shows the devices of the namespace it was mounted in.
    let script = format!("mount -t sysfs sysfs /sys && cat {file}");
    let run = rig.on(Role::Backend(1), "unshare", ["--mount", "sh", "-euc", &script])?.expect(0)?;
    run.out.trim().parse().with_context(|| format!("a number expected from {run}"))
}

#[test]
#[ignore = "in a guest: cargo xtask vm-test"]
fn our_tunnels_end_in_the_kernels_devices() -> anyhow::Result<()> {
    let rig = lab()?;
    rig.script(
        Role::Backend(1),
        &format!("ip fou add port {GUE_PORT} gue\nip -6 fou add port {GUE_PORT} gue"),
    )?;
    let mut services = "services:\n".to_owned();
    for (number, way) in ways().iter().enumerate() {
        let _ = writeln!(
            services,
            "  - {{name: s{number}, address: \"{}\", protocol: tcp, port: 80, forwarding: {}, backends: \
             [{{address: \"{}\"}}]}}",
            way.vip, way.forwarding, way.backend
        );
    }
    rig.start_text(&services)?;
    rig.wait_up()?;
    for way in ways() {
        // One device at a time, so that its count says what came through.
        let add = way.link("under-test", way.backend, way.balancer, "");
        rig.script(Role::Backend(1), &add)?;
        traffic(&rig, &way)?;
        let packets = received(&rig, "under-test")?;
        // A handshake, a request and an end for every page.
        ensure!(packets > u64::from(CONNECTIONS) * 4, "{}: {packets} packets in the device", way.name());
        println!("{}: {packets} packets through {}", way.name(), way.device);
        rig.script(Role::Backend(1), "ip link del under-test")?;
    }
    Ok(())
}

/// Ends a decapsulator; how many packets it has taken out of their tunnels.
fn decapsulated(decap: &Process) -> anyhow::Result<u64> {
    decap.signal(Signal::SIGTERM)?;
    ensure!(decap.wait(Duration::from_secs(20), &Interrupt::never())?.success(), "{}", decap.log_tail(20));
    let log = decap.log_tail(30);
    let before = log.lines().rev().find_map(|line| Some(line.split_once(" decapsulated ")?.0.to_owned()));
    let number = before.and_then(|text| text.split_whitespace().last()?.parse().ok());
    number.with_context(|| format!("no count in\n{log}"))
}

#[test]
#[ignore = "in a guest: cargo xtask vm-test"]
fn the_kernels_tunnels_end_in_our_decapsulator() -> anyhow::Result<()> {
    let rig = lab()?;
    // The balancer's machine is a router here: what it routes into a tunnel device is what ours would send.
    rig.script(
        Role::Balancer,
        "echo 1 >/proc/sys/net/ipv4/ip_forward\necho 1 >/proc/sys/net/ipv6/conf/all/forwarding",
    )?;
    let vips: Vec<String> = ways().iter().map(|way| way.vip.to_string()).collect();
    let from = [format!("{BALANCER}/32"), format!("{BALANCER_V6}/128")];
    let mut options = vec!["--vip"];
    options.extend(vips.iter().map(String::as_str));
    options.extend(["--from", &from[0], &from[1]]);
    let decap = rig.decap_with(1, &options)?;
    for way in ways() {
        let kind = if way.forwarding.contains("variant: 1") { "fou" } else { "gue" };
        let encap = match way.is_gue() {
            true => format!(
                "encap {kind} encap-sport auto encap-dport {GUE_PORT} {}",
                if way.backend.is_ipv6() { "encap-udp6-csum" } else { "encap-csum" }
            ),
            false => String::new(),
        };
        let add = way.link("under-test", way.balancer, way.backend, &encap);
        rig.script(Role::Balancer, &format!("{add}ip route add {} dev under-test", way.vip))?;
        let next: IpAddr = if way.vip.is_ipv4() { BALANCER.into() } else { BALANCER_V6.into() };
        rig.script(Role::Router, &format!("ip route replace {} via {next}", way.vip))?;
        traffic(&rig, &way)?;
        rig.script(Role::Balancer, "ip link del under-test")?;
        println!("{}: from {} {encap}", way.name(), way.device);
    }
    let (packets, least) = (decapsulated(&decap)?, 16 * u64::from(CONNECTIONS) * 4);
    println!("{packets} packets decapsulated");
    ensure!(packets > least, "{packets} packets decapsulated, {least} sent");
    Ok(())
}
