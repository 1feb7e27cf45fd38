//! The backend's side of the tunnel, and labs side by side.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Config, Rig, Service, inside, until};
use lb_userspace::lab::{BALANCER, Interrupt, Process, Role, VIP_IPIP, VIP_L2};
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt};

/// Ends a decapsulator and returns what it counted with this reason.
fn counted(decap: &Process, reason: &str) -> anyhow::Result<u64> {
    decap.signal(Signal::SIGTERM)?;
    ensure!(decap.wait(Duration::from_secs(5), &Interrupt::never())?.success(), "{}", decap.log_tail(20));
    let log = decap.log_tail(20);
    let before = log.lines().rev().find_map(|line| Some(line.split_once(&format!(" {reason} "))?.0));
    let number = before.and_then(|text| text.split_whitespace().last()?.parse().ok());
    number.with_context(|| format!("no count of {reason} in\n{log}"))
}

#[test]
fn tunnels_from_strangers_and_to_strangers_are_refused_and_counted() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    rig.start(&Config::new([Service::web(VIP_IPIP, "ipip", &[(1, 1)])]))?;
    let url = format!("http://{VIP_IPIP}/");
    let (vip, own) = (VIP_IPIP.to_string(), format!("{BALANCER}/32"));
    let direct = format!("http://{}/", rig.lab.backend_addr(1));
    let refused = |vip: &str, from: &str, reason: &str| -> anyhow::Result<()> {
        let decap = rig.decap(1, vip, from)?;
        rig.curl(Role::Client, ["--max-time", "1.2", &url])?.expect(28)?;
        // What is no tunnel passes.
        rig.curl(Role::Client, ["--max-time", "2", &direct])?.expect(0)?.says(&["backend b1"])?;
        until("the refusal in the log", Duration::from_secs(4), || {
            Ok(decap.log_tail(20).contains(&format!("tunnel packets refused: {reason}")).then_some(()))
        })?;
        let number = counted(&decap, reason)?;
        ensure!(number >= 2, "{reason}: {number} (a SYN and its repetition were sent)");
        Ok(())
    };
    refused(&vip, "198.18.0.0/16", "foreign_source")?;
    refused("203.0.113.99", &own, "foreign_destination")?;
    let decap = rig.decap(1, &vip, &own)?;
    let answer = rig.answer(VIP_IPIP)?;
    ensure!(answer == "b1", "{answer}");
    rig.curl(Role::Client, ["--max-time", "2", &direct])?.expect(0)?;
    ensure!(counted(&decap, "decapsulated")? >= 3, "{}", decap.log_tail(20));
    let link = rig.on(Role::Backend(1), "ip", ["-json", "link", "show", "dev", "eth0"])?.expect(0)?;
    ensure!(!link.out.contains("\"xdp\""), "the decapsulator stays after its end: {link}");
    Ok(())
}

/// The largest segment that the client's TCP sends over a new connection, without its own options.
fn largest_segment(rig: &Rig, to: impl Into<IpAddr>) -> anyhow::Result<u32> {
    let to = SocketAddr::new(to.into(), 80);
    let connected =
        inside(&rig.lab.netns(Role::Client), || TcpStream::connect_timeout(&to, Duration::from_secs(5)))?;
    let stream = connected.with_context(|| format!("connecting to {to}"))?;
    getsockopt(&stream, sockopt::TcpMaxSeg).context("TCP_MAXSEG")
}

#[test]
fn clients_are_told_an_mss_that_fits_the_tunnel() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    rig.start(&Config::new([Service::web(VIP_IPIP, "ipip", &[(1, 1)])]))?;
    let (vip, own) = (VIP_IPIP.to_string(), format!("{BALANCER}/32"));
    let direct = rig.lab.backend_addr(1);
    let set_mtu = |mtu: &str| -> anyhow::Result<()> {
        rig.on(Role::Backend(1), "ip", ["link", "set", "dev", "eth0", "mtu", mtu])?.expect(0).map(drop)
    };
    // The lab leaves room for tunnels: here there is none.
    set_mtu("1500")?;
    let decap = rig.decap(1, &vip, &own)?;
    let whole = largest_segment(&rig, VIP_IPIP)?;
    ensure!(whole == largest_segment(&rig, direct)?, "nothing is clamped yet");
    ensure!(counted(&decap, "decapsulated")? > 0);

    // Of 1500 bytes, 32 are for IPv4, UDP and GUE outside.
    let decap = rig.decap_with(1, &["--vip", &vip, "--from", &own, "--clamp-mss"])?;
    let clamped = largest_segment(&rig, VIP_IPIP)?;
    ensure!(clamped == whole - 32, "{clamped} of {whole}");
    ensure!(largest_segment(&rig, direct)? == whole, "another address is clamped too");
    // What fits follows the interface.
    set_mtu("1400")?;
    until("the smaller MTU is known", Duration::from_secs(4), || {
        Ok(decap.log_tail(20).contains("MTU 1400").then_some(()))
    })?;
    let smaller = largest_segment(&rig, VIP_IPIP)?;
    ensure!(smaller == whole - 132, "{smaller} of {whole}");
    set_mtu("1500")?;
    ensure!(counted(&decap, "mss_lowered")? == 2, "{}", decap.log_tail(20));

    let decap =
        rig.decap_with(1, &["--vip", &vip, "--from", &own, "--clamp-mss", "1000", "--clamp-on", "eth0"])?;
    let least = largest_segment(&rig, VIP_IPIP)?;
    ensure!(least < 1000 && least > 900, "{least}");
    // Data goes both ways, so the checksums are right.
    rig.answer(VIP_IPIP)?;
    decap.signal(Signal::SIGKILL)?;
    decap.wait(Duration::from_secs(5), &Interrupt::never())?;
    let _plain = rig.decap(1, &vip, &own)?;
    ensure!(largest_segment(&rig, VIP_IPIP)? == whole, "the clamp stays after its process");
    Ok(())
}

#[test]
fn two_balancers_on_one_machine_do_not_meet() -> anyhow::Result<()> {
    let (one, two) = (Rig::new(2, 1)?, Rig::new(1, 1)?);
    one.start(&Config::l2(&[(1, 1), (2, 1)]))?;
    two.start(&Config::l2(&[(1, 1)]))?;
    let (first, second) = (one.attachment()?, two.attachment()?);
    ensure!(first != second, "the same objects: {first:?}");
    one.answer(VIP_L2)?;
    let answer = two.answer(VIP_L2)?;
    ensure!(answer == "b1", "{answer}");
    let before = two.status()?;
    // Changes of one are none of the other.
    let other = one.write_other(&Config::l2(&[(1, 5), (2, 1)]))?.display().to_string();
    one.lb(["apply", &other])?.expect(0)?;
    ensure!(one.generation()? == 2 && two.generation()? == 1, "generations mixed up");
    one.stop(Signal::SIGTERM)?;
    one.detach()?;
    one.expect_nothing()?;
    let after = two.status()?;
    ensure!(after["attachments"] == before["attachments"] && after["daemon"] == before["daemon"], "{after}");
    two.answer(VIP_L2)?;
    two.lb(["status"])?.expect(0).map(drop)
}
