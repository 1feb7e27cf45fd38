//! Our program in the driver of a virtio network card with several queues: traffic, queues, refusals, jumbo frames.
//! About other kernels than this machine's and the cards of a guest, so it runs there: `cargo xtask vm-test`.
//!
//! The guest's three cards are on one switch: `card0` is the balancer's, `card1` the client's, `card2` the backend's, which
//! cannot switch its offloads.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Run, Sink, binary, upload};
use lb_userspace::lab::Netns;

const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const CLIENT: &str = "vm-client";
const BACKEND: &str = "vm-backend";
const CONFIG: &str = "/run/lb-vm-nic.yaml";
/// First Linux whose virtio_net takes programs for frames of several buffers.
const MULTI_BUFFER: (u32, u32) = (6, 3);

/// Machines around the cards; made once, because cards move into namespaces.
static CARDS: Mutex<bool> = Mutex::new(false);

fn cards() -> anyhow::Result<MutexGuard<'static, bool>> {
    ensure!(std::env::var_os("LB_VM").is_some(), "only in a guest: `cargo xtask vm-test`");
    let mut made = CARDS.lock().unwrap_or_else(PoisonError::into_inner);
    if !*made {
        sh(&format!(
            "ip netns add {CLIENT}; ip netns add {BACKEND}\n\
             ip link set card1 netns {CLIENT}; ip link set card2 netns {BACKEND}\n\
             ip addr add 203.0.113.5/24 dev card0; ip link set card0 up\n\
             nsenter --net=/run/netns/{CLIENT} sh -euc '\n\
                 ip link set lo up; ip addr add 203.0.113.2/24 dev card1; ip link set card1 up'\n\
             nsenter --net=/run/netns/{BACKEND} sh -euc '\n\
                 echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore; echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce\n\
                 ip link set lo up; ip addr add {VIP}/32 dev lo\n\
                 ip addr add 203.0.113.21/24 dev card2; ip link set card2 up'"
        ))?
        .expect(0)?;
        *made = true;
    }
    Ok(made)
}

fn sh(script: &str) -> anyhow::Result<Run> {
    let mut command = Command::new("sh");
    command.args(["-euc", script]);
    Run::of(command)
}

/// `lb` with these words, in the namespace of the balancer's card or another.
fn lb(words: &str) -> anyhow::Result<Run> {
    let mut command = Command::new(binary()?);
    command.args(words.split(' ')).env("NO_COLOR", "1");
    let run = Run::of(command)?;
    println!("$ lb {words}\n{}{}", run.out, run.err);
    Ok(run)
}

/// Attaches to an interface in this mode; a service that forwards to the backend.
fn attach(netns: &str, interface: &str, mode: &str) -> anyhow::Result<Run> {
    let (vip, backend) = if netns.is_empty() { (VIP, 21) } else { (Ipv4Addr::new(203, 0, 113, 11), 5) };
    let text = format!(
        "version: 1\ninterfaces: [{{name: {interface}, mode: {mode}}}]\nservices:\n  - {{name: web, address: {vip}, \
         protocol: tcp, port: 80, forwarding: l2, backends: [{{address: 203.0.113.{backend}}}]}}\n"
    );
    fs::write(CONFIG, text).context("writing the config")?;
    lb(&format!("{netns}attach {interface} --config {CONFIG}"))
}

fn detach() -> anyhow::Result<()> {
    lb("detach card0 --force")?.expect(0)?.says(&["nothing is left behind"])?;
    ensure!(xdp("card0")?.is_empty(), "a program is left: {}", xdp("card0")?);
    Ok(())
}

/// What the kernel says of an interface's program, if it has one.
fn xdp(interface: &str) -> anyhow::Result<String> {
    let link = sh(&format!("ip link show dev {interface}"))?.expect(0)?.out;
    Ok(link.split_whitespace().filter(|word| word.starts_with("xdp")).collect())
}

fn set_mtu(mtu: u32) -> anyhow::Result<()> {
    let client = format!("nsenter --net=/run/netns/{CLIENT} ip link set card1 mtu {mtu}");
    let backend = format!("nsenter --net=/run/netns/{BACKEND} ip link set card2 mtu {mtu}");
    sh(&format!("ip link set card0 mtu {mtu}\n{client}\n{backend}"))?.expect(0).map(drop)
}

/// Half a megabyte from the client through the balancer to the backend; how many packets the balancer forwarded.
fn traffic() -> anyhow::Result<u64> {
    let before = forwarded()?;
    let to = SocketAddr::new(VIP.into(), 80);
    let _sink = Sink::listen(&Netns::named(BACKEND), to)?;
    upload(&Netns::named(CLIENT), to, 500_000, Duration::from_secs(10))?;
    let packets = forwarded()? - before;
    ensure!(packets > 20, "{packets} packets went through the balancer");
    Ok(packets)
}

fn forwarded() -> anyhow::Result<u64> {
    let mut command = Command::new(binary()?);
    command.args(["backends", "--output", "json"]);
    let text = Run::of(command)?.expect(0)?.out;
    let (_, rest) = text.split_once("\"packets\":").with_context(|| format!("no packets in {text}"))?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("no number of packets in {text}"))
}

fn multi_buffer() -> anyhow::Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the release")?;
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    Ok((numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= MULTI_BUFFER)
}

#[test]
#[ignore = "in a guest: cargo xtask vm-test"]
fn native_program_on_a_card_with_queues() -> anyhow::Result<()> {
    let _cards = cards()?;
    attach("", "card0", "native")?.expect(0)?.says(&["attached, native"])?;
    ensure!(xdp("card0")? == "xdp", "not in the driver: {}", xdp("card0")?);
    println!("{} packets", traffic()?);
    // The hash decides which queue; the table can be changed under the program.
    let table = |queues: &str| sh(&format!("ethtool -X card0 equal {queues}; ethtool -x card0"))?.expect(0);
    let two = table("2")?;
    ensure!(two.out.contains("    0:      0     1     0     1"), "{two}");
    let one = table("1")?;
    ensure!(one.out.contains("  120:      0     0     0     0"), "{one}");
    traffic()?;
    // Not under a program: who wants other queues sets them before.
    let refused = sh("ethtool -L card0 combined 1")?;
    ensure!(refused.code != 0, "queues changed under the program: {refused}");
    if sh("ethtool -k card0 | grep -x 'rx-gro-hw: on'")?.code == 0 {
        let refused = sh("ethtool -K card0 rx-gro-hw off")?;
        ensure!(refused.code != 0, "offloads changed under the program: {refused}");
    }
    detach()?;
    // More queues than processors, and none left for the program on each of them: the kernel would crash.
    sh("ethtool -L card0 combined 4; ethtool -X card0 default")?.expect(0)?;
    attach("", "card0", "native")?.expect(1)?.says(&["LB013", "ethtool -L card0 combined 2"])?;
    attach("", "card0", "auto")?.expect(0)?.says(&["attached, generic"])?;
    traffic()?;
    detach()?;
    sh("ethtool -L card0 combined 2")?.expect(0).map(drop)
}

#[test]
#[ignore = "in a guest: cargo xtask vm-test"]
fn offloads_that_cannot_be_switched_are_a_refusal() -> anyhow::Result<()> {
    let _cards = cards()?;
    let netns = format!("--netns {BACKEND} ");
    // The kernel's words come although a link's refusal has none.
    attach(&netns, "card2", "native")?.expect(1)?.says(&[
        "LB014",
        "GRO_HW/CSUM",
        "ctrl_guest_offloads=on",
    ])?;
    attach(&netns, "card2", "auto")?.expect(0)?.says(&["generic"])?;
    lb(&format!("{netns}detach card2 --force"))?.expect(0)?.says(&["nothing is left behind"]).map(drop)
}

#[test]
#[ignore = "in a guest: cargo xtask vm-test"]
fn jumbo_frames() -> anyhow::Result<()> {
    let _cards = cards()?;
    set_mtu(9000)?;
    if multi_buffer()? {
        attach("", "card0", "native")?.expect(0)?.says(&["attached, native"])?;
        let packets = traffic()?;
        // 500,000 bytes in segments of 8948: full frames have been forwarded, in more than one buffer.
        ensure!(packets < 160, "{packets} packets: not jumbo frames");
    } else {
        attach("", "card0", "native")?.expect(1)?.says(&["LB011", "MTU of 9000"])?;
        attach("", "card0", "auto")?.expect(0)?.says(&["MTU too large", "attached, generic"])?;
    }
    detach()?;
    set_mtu(1500)
}

/// Linux 6.1 takes the larger MTU and then cannot let go of the program.
#[test]
#[ignore = "in a guest: cargo xtask vm-test"]
fn detaches_after_the_mtu_was_raised() -> anyhow::Result<()> {
    let _cards = cards()?;
    attach("", "card0", "native")?.expect(0)?;
    set_mtu(9000)?;
    if !multi_buffer()? {
        lb("detach card0 --force")?.expect(1)?.says(&["9000", "ip link set dev card0 mtu"])?;
        ensure!(xdp("card0")? == "xdp", "still there, and forwarding");
        set_mtu(1500)?;
        traffic()?;
    }
    detach()?;
    set_mtu(1500)?;
    sh("! dmesg | grep -e WARNING -e BUG:")?.expect(0).map(drop)
}
