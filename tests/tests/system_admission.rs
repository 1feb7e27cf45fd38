//! Who is admitted, and how much: lists of sources, rates, and lists that change while traffic flows.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lb_tests::system::{Datagrams, Request, Rig, UdpEcho, fetch, inside, until};
use lb_userspace::lab::{CLIENT, CLIENT_V6, Role, VIP_IPIP, VIP_L2, VIP_L2_V6};

/// Other addresses of the client.
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
const THIRD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 130);
const PORT: u16 = 5000;

/// A lab whose client has three IPv4 addresses and two of IPv6.
fn lab() -> anyhow::Result<Rig> {
    let rig = Rig::of(|lab| lab.backends(1).big_bytes(0).ipv6())?;
    rig.script(
        Role::Client,
        &format!(
            "ip addr add {SECOND}/24 dev eth0\nip addr add {THIRD}/24 dev eth0\n\
             ip addr add 2001:db8:1::66/64 dev eth0 nodad"
        ),
    )?;
    Ok(rig)
}

/// A service with one backend; `more` is `, key: value`.
fn service(vip: impl Into<IpAddr>, protocol: &str, port: u16, more: &str) -> String {
    let vip = vip.into();
    let backend = if vip.is_ipv4() { "203.0.113.21" } else { "2001:db8::21" };
    format!(
        "  - {{name: \"{protocol}-{vip}\", address: \"{vip}\", protocol: {protocol}, port: {port}, forwarding: l2, \
         backends: [{{address: \"{backend}\"}}]{more}}}\n"
    )
}

/// Whether the page comes when the client asks from this address.
fn served(rig: &Rig, from: &str, vip: IpAddr) -> anyhow::Result<bool> {
    let url = format!("http://{}/", SocketAddr::new(vip, 80));
    let run = rig.curl(Role::Client, ["--max-time", "1.2", "--interface", from, &url])?;
    ensure!(run.code == 0 || run.code == 28, "neither an answer nor silence: {run}");
    Ok(run.code == 0)
}

#[test]
fn the_longest_prefix_of_both_lists_decides() -> anyhow::Result<()> {
    let rig = lab()?;
    let lists = ", allow: [198.51.100.0/25, 198.51.100.130], deny: [198.51.100.64/26]";
    let lists_v6 = ", deny: [\"2001:db8:1::66\"]";
    let services = [
        service(VIP_L2, "tcp", 80, lists),
        service(VIP_L2_V6, "tcp", 80, lists_v6),
        service(VIP_IPIP, "tcp", 80, ", deny: [198.51.100.128/25]"),
    ];
    rig.start_text(&format!("services:\n{}", services.concat()))?;
    rig.wait_up()?;
    let cases: [(String, IpAddr, bool); 9] = [
        (CLIENT.to_string(), VIP_L2.into(), true),
        (SECOND.to_string(), VIP_L2.into(), false),
        (THIRD.to_string(), VIP_L2.into(), true),
        (CLIENT_V6.to_string(), VIP_L2_V6.into(), true),
        ("2001:db8:1::66".to_owned(), VIP_L2_V6.into(), false),
        (CLIENT.to_string(), VIP_IPIP.into(), true),
        (SECOND.to_string(), VIP_IPIP.into(), true),
        (THIRD.to_string(), VIP_IPIP.into(), false),
        (CLIENT.to_string(), VIP_L2.into(), true),
    ];
    for (from, vip, wanted) in cases {
        let before = rig.counted("denied")?;
        ensure!(served(&rig, &from, vip)? == wanted, "{from} to {vip}: {wanted} expected");
        let denied = rig.counted("denied")? - before;
        ensure!((denied > 0) != wanted, "{from} to {vip}: {denied} counted as denied");
    }
    Ok(())
}

/// How many of so many datagrams, sent at once from here, are answered.
fn flood(rig: &Rig, from: Ipv4Addr, port: u16, vip: IpAddr, packets: usize) -> anyhow::Result<usize> {
    let flow = Datagrams::open(
        &rig.lab.netns(Role::Client),
        SocketAddr::new(from.into(), port),
        SocketAddr::new(vip, PORT),
    )?;
    for _ in 0..packets {
        flow.send(b"again")?;
    }
    Ok(flow.drain(Duration::from_millis(400))?)
}

#[test]
fn packets_beyond_the_rate_are_dropped_per_source_and_per_service() -> anyhow::Result<()> {
    let rig = lab()?;
    let netns = rig.lab.netns(Role::Backend(1));
    let _servers =
        [UdpEcho::listen(&netns, (VIP_L2, PORT), "b1")?, UdpEcho::listen(&netns, (VIP_IPIP, PORT), "b1")?];
    let services = [
        service(VIP_L2, "udp", PORT, ", rate_limit: {packets: {rate: 20, burst: 40}}"),
        service(VIP_IPIP, "udp", PORT, ", rate_limit: {per_source: {packets: {rate: 10, burst: 30}}}"),
    ];
    rig.start_text(&format!("services:\n{}", services.concat()))?;
    rig.wait_up()?;
    // One bucket for everybody.
    let (first, second) =
        (flood(&rig, CLIENT, 30_000, VIP_L2.into(), 150)?, flood(&rig, SECOND, 30_000, VIP_L2.into(), 50)?);
    ensure!((40..=60).contains(&first), "{first} of 150 answered, 40 at once and 20 a second are allowed");
    ensure!(second < 40, "{second} of 50 answered behind another source's flood");
    let dropped = rig.counted("packet_limit")?;
    ensure!(dropped >= 100, "{dropped} counted");
    // And one bucket for each.
    for from in [CLIENT, SECOND, THIRD] {
        let answered = flood(&rig, from, 31_000, VIP_IPIP.into(), 100)?;
        ensure!((30..=45).contains(&answered), "{from}: {answered} of 100 answered");
    }
    let dropped = rig.counted("source_packet_limit")?;
    ensure!(dropped >= 3 * 55, "{dropped} counted");
    // After a pause there is room again.
    std::thread::sleep(Duration::from_millis(1500));
    let later = flood(&rig, CLIENT, 30_000, VIP_L2.into(), 10)?;
    ensure!(later == 10, "{later} of 10 answered after a pause");
    Ok(())
}

#[test]
fn new_connections_beyond_the_rate_are_dropped_and_open_ones_are_not() -> anyhow::Result<()> {
    let rig = lab()?;
    let services = [
        service(VIP_L2, "tcp", 80, ", rate_limit: {new_flows: {rate: 1, burst: 5}}"),
        service(
            VIP_L2_V6,
            "tcp",
            80,
            ", rate_limit: {per_source: {new_flows: {rate: 1, burst: 3}, prefix_v6: 128}}",
        ),
    ];
    rig.start_text(&format!("services:\n{}", services.concat()))?;
    rig.wait_up()?;
    let client = rig.lab.netns(Role::Client);
    let began = Instant::now();
    let mut answered = 0;
    for port in 32_000..32_012 {
        let request = Request { to: (VIP_L2, 80).into(), port, limit: Duration::from_millis(150) };
        answered += u64::from(inside(&client, || fetch(&request))?.is_ok());
    }
    let allowed = 5 + began.elapsed().as_secs() + 1;
    ensure!((5..=allowed).contains(&answered), "{answered} of 12 connections, 5 to {allowed} are allowed");
    ensure!(rig.counted("flow_limit")? >= 4, "not counted");
    // Per source: one that is spent does not spend another's.
    let from_v6 = |from: &str| -> anyhow::Result<usize> {
        (0..6).try_fold(0, |sum, _| {
            let url = format!("http://[{VIP_L2_V6}]/");
            let run = rig.curl(Role::Client, ["--max-time", "0.2", "--interface", from, &url])?;
            Ok(sum + usize::from(run.code == 0))
        })
    };
    for from in [CLIENT_V6.to_string(), "2001:db8:1::66".to_owned()] {
        let answered = from_v6(&from)?;
        ensure!((3..6).contains(&answered), "{from}: {answered} of 6 connections, 3 at once are allowed");
    }
    ensure!(rig.counted("source_flow_limit")? >= 2, "not counted");
    Ok(())
}

/// 100,000 prefixes around those that are given; `salt` makes lists that differ in nearly every entry.
fn list(salt: u32, own: &[&str]) -> String {
    let mut text = String::new();
    for number in 0..100_000 - own.len() as u32 {
        // From the range for benchmarks (RFC 2544), 198.18.0.0/15: 131,072 addresses.
        let address = Ipv4Addr::from(0xc612_0000 + (number + salt) % 0x2_0000);
        let _ = writeln!(text, "{address}/32");
    }
    own.iter().for_each(|own| text += &format!("{own}\n"));
    text
}

#[test]
fn a_list_of_100_000_changes_without_a_gap() -> anyhow::Result<()> {
    let rig = lab()?;
    let _server = UdpEcho::listen(&rig.lab.netns(Role::Backend(1)), (VIP_L2, PORT), "b1")?;
    let sources = rig.file("sources.txt");
    let write = |salt: u32, own: &[&str]| fs::write(&sources, list(salt, own));
    write(0, &["198.51.100.2"])?;
    let services = service(VIP_L2, "udp", PORT, ", allow: {file: sources.txt}");
    rig.start_text(&format!("services:\n{services}"))?;
    rig.wait_up()?;
    let netns = rig.lab.netns(Role::Client);
    let open = |from: Ipv4Addr, port| {
        Datagrams::open(&netns, SocketAddr::new(from.into(), port), (VIP_L2, PORT).into())
    };
    let (admitted, other) = (open(CLIENT, 33_000)?, open(SECOND, 33_001)?);
    until("the first answer", Duration::from_secs(10), || Ok(admitted.ask(b"hello").is_ok().then_some(())))?;
    other.send(b"hello")?;
    ensure!(other.drain(Duration::from_millis(300))? == 0, "{SECOND} is on no list");

    let stop = AtomicBool::new(false);
    let (asked, lost) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut asked, mut lost) = (0_u64, 0_u64);
            while !stop.load(Ordering::Relaxed) {
                asked += 1;
                lost += u64::from(admitted.ask(&asked.to_be_bytes()).is_err());
            }
            (asked, lost)
        });
        let changed = change_lists(&rig, &write, &other);
        stop.store(true, Ordering::Relaxed);
        let counts = asking.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
        changed.map(|()| counts)
    })?;
    println!("{asked} datagrams while lists changed, {lost} lost");
    ensure!(asked > 1000, "only {asked} datagrams: nothing is shown");
    ensure!(lost == 0, "{lost} of {asked} datagrams of an admitted client were lost");
    Ok(())
}

/// Other lists, three times; each must be in force in the end.
fn change_lists(
    rig: &Rig,
    write: &dyn Fn(u32, &[&str]) -> std::io::Result<()>,
    other: &Datagrams,
) -> anyhow::Result<()> {
    let config = rig.config_path();
    for (salt, second) in [(31_000, true), (0, false), (17_000, true)] {
        let own: &[&str] = if second { &["198.51.100.2", "198.51.100.66"] } else { &["198.51.100.0/29"] };
        write(salt, own).context("writing the list")?;
        let began = Instant::now();
        rig.lb(["apply", &config.to_string_lossy()])?.expect(0)?;
        println!("a list of 100,000 applied in {:?}", began.elapsed());
        other.send(b"hello")?;
        let answers = other.drain(Duration::from_millis(300))?;
        ensure!((answers == 1) == second, "{SECOND}, on the list: {second}; {answers} answers");
    }
    Ok(())
}
