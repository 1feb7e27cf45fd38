//! Which service a packet belongs to: lists, ranges and all ports, prefixes; and a way out by another interface.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Names, Rig, ask_name, second_address, until};
use lb_userspace::lab::{Role, VIP_L2, VIP_L2_V6};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_millis(1500);
/// Ports that every backend serves.
const SERVED: [u16; 12] = [80, 81, 443, 8000, 8050, 8080, 8099, 8100, 9000, 9999, 20_000, 65_000];

/// Each service has a backend of its own, so the answer says which service it was. The second address is one of the
/// prefix that has a service of its own besides.
const SERVICES: &str = r#"
services:
  - {name: list, address: 203.0.113.10, protocol: tcp, ports: [80, 443], forwarding: l2, backends: [{address: 203.0.113.21}]}
  - {name: range, address: 203.0.113.10, protocol: tcp, port: "8000-8099", forwarding: l2, backends: [{address: 203.0.113.22}]}
  - {name: one, address: 203.0.113.10, protocol: tcp, port: 8080, forwarding: l2, backends: [{address: 203.0.113.23}]}
  - {name: all, address: 203.0.113.20, protocol: tcp, port: any, forwarding: l2, backends: [{address: 203.0.113.24}]}
  - {name: all-but, address: 203.0.113.20, protocol: tcp, port: 443, forwarding: l2, backends: [{address: 203.0.113.21}]}
  - {name: net, address: 203.0.113.128/28, protocol: tcp, port: 80, forwarding: l2, backends: [{address: 203.0.113.22}]}
  - {name: net-any, address: 203.0.113.128/28, protocol: tcp, port: any, forwarding: l2, backends: [{address: 203.0.113.24}]}
  - {name: subnet, address: 203.0.113.132/30, protocol: tcp, port: "80-100", forwarding: l2, backends: [{address: 203.0.113.23}]}
  - {name: within, address: 203.0.113.130, protocol: tcp, port: 80, forwarding: l2, backends: [{address: 203.0.113.21}]}
  - {name: range6, address: "2001:db8::10", protocol: tcp, ports: ["80-443"], forwarding: l2, backends: [{address: "2001:db8::21"}]}
  - {name: net6, address: "2001:db8:0:0:5::/80", protocol: tcp, port: any, forwarding: l2, backends: [{address: "2001:db8::22"}]}
"#;

const ROUTES: [(&str, u16, &str); 23] = [
    ("203.0.113.10", 80, "b1"),
    ("203.0.113.10", 443, "b1"),
    ("203.0.113.10", 8000, "b2"),
    ("203.0.113.10", 8050, "b2"),
    ("203.0.113.10", 8099, "b2"),
    // A single port before a range.
    ("203.0.113.10", 8080, "b3"),
    ("203.0.113.20", 80, "b4"),
    ("203.0.113.20", 9999, "b4"),
    ("203.0.113.20", 65_000, "b4"),
    // A single port before all.
    ("203.0.113.20", 443, "b1"),
    ("203.0.113.128", 80, "b2"),
    ("203.0.113.143", 80, "b2"),
    ("203.0.113.143", 443, "b4"),
    // A longer prefix before a shorter one, whatever the ports.
    ("203.0.113.132", 80, "b3"),
    ("203.0.113.135", 81, "b3"),
    ("203.0.113.135", 443, "b4"),
    // An address before a prefix.
    ("203.0.113.130", 80, "b1"),
    ("203.0.113.130", 443, "b4"),
    ("2001:db8::10", 80, "b1"),
    ("2001:db8::10", 443, "b1"),
    ("2001:db8:0:0:5::1", 80, "b2"),
    ("2001:db8:0:0:5::1", 20_000, "b2"),
    ("2001:db8::5:ffff:ffff:1", 9000, "b2"),
];

#[test]
fn the_most_specific_service_gets_the_packet_and_other_ports_nothing() -> anyhow::Result<()> {
    const NAMES: [&str; 4] = ["b1", "b2", "b3", "b4"];
    let rig = Rig::of(|lab| lab.backends(4).big_bytes(0).ipv6())?;
    // nginx is in the way on port 80.
    let extra: BTreeSet<&str> = ROUTES.iter().map(|(address, ..)| *address).collect();
    let mut servers = Vec::new();
    for (number, name) in (1..).zip(NAMES) {
        let role = Role::Backend(number);
        rig.script(role, &format!("kill $(cat {}/{name}.pid)", rig.lab.dir().display()))?;
        for address in &extra {
            let length = if address.contains(':') { 128 } else { 32 };
            rig.script(role, &format!("ip addr replace {address}/{length} dev lo nodad"))?;
        }
        let netns = rig.lab.netns(role);
        servers.push(until("the servers", SOON * 4, || Names::listen(&netns, &SERVED, name).map(Some))?);
    }
    rig.start_text(SERVICES)?;
    rig.wait_up()?;
    let client = rig.lab.netns(Role::Client);
    for (address, port, wanted) in ROUTES {
        let to = SocketAddr::new(address.parse()?, port);
        let said = ask_name(&client, to, SOON)?.with_context(|| format!("asking {to}"))?;
        ensure!(said == format!("{wanted} {to}"), "{to}: {wanted} expected, {said:?} answered");
    }
    expect_other_ports_dropped(&rig)
}

/// Neither answered nor refused, and counted.
fn expect_other_ports_dropped(rig: &Rig) -> anyhow::Result<()> {
    let client = rig.lab.netns(Role::Client);
    let others: [(IpAddr, u16); 5] = [
        (VIP_L2.into(), 81),
        (VIP_L2.into(), 8100),
        (VIP_L2.into(), 7999),
        (VIP_L2_V6.into(), 9000),
        (VIP_L2_V6.into(), 444),
    ];
    for (address, port) in others {
        let before = rig.counted("other_port")?;
        let to = SocketAddr::new(address, port);
        let said = ask_name(&client, to, Duration::from_millis(300))?;
        let silent = said.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut);
        ensure!(silent, "{to}: {said:?}");
        ensure!(rig.counted("other_port")? > before, "{to}: dropped, but not counted as other_port");
    }
    Ok(())
}

/// Requests come in by one interface and leave by another; answers go past the balancer.
#[test]
fn in_by_one_interface_and_out_by_another() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    rig.add_second_segment(2)?;
    let backends: String =
        (1..=2).map(|n| format!("      - {{name: b{n}, address: {}}}\n", second_address(n))).collect();
    rig.write_text(&format!(
        "version: 1\ninterfaces: [{{name: eth0}}, {{name: eth1}}]\nservices:\n  - name: web\n    \
         address: {VIP_L2}\n    protocol: tcp\n    port: 80\n    forwarding: l2\n    \
         health_check: {{type: http, interval: 500ms}}\n    backends:\n{backends}"
    ))?;
    rig.run(&[])?;
    rig.wait_up()?;
    let before = port_packets(&rig, "lb1")?;
    let mut seen = BTreeSet::new();
    until("answers of both", Duration::from_secs(10), || {
        seen.insert(rig.answer(VIP_L2)?);
        Ok((seen.len() == 2).then_some(()))
    })?;
    let (got, url) = (rig.file("got"), format!("http://{VIP_L2}/big"));
    rig.curl(Role::Client, ["--fail", "-o", &got.to_string_lossy(), &url])?.expect(0)?;
    ensure!(std::fs::read(&got)? == std::fs::read(rig.lab.big_file())?, "not what is served");
    let sent = port_packets(&rig, "lb1")? - before;
    ensure!(sent >= 20, "{sent} packets left by eth1");
    ensure!(rig.counted("no_egress")? == 0 && rig.counted("no_next_hop")? == 0, "dropped");
    // Probes through the service took the same way, or nobody would be up.
    rig.stop(Signal::SIGTERM)?;
    rig.lb(["detach", "eth1", "--force"])?.expect(0)?.says(&["other interfaces go on"])?;
    rig.detach()?;
    rig.expect_nothing()
}

/// Packets that came into the switch by this port.
fn port_packets(rig: &Rig, port: &str) -> anyhow::Result<u64> {
    let json = rig.on(Role::Fabric, "ip", ["-json", "-s", "link", "show", "dev", port])?.json()?;
    json[0]["stats64"]["rx"]["packets"].as_u64().context("no count")
}
