//! Real clients and servers through the balancer: content, spread, attraction, and servers that change.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddrV4;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lb_tests::system::{Config, Request, Rig, Service, fetch, fetch_all, inside, until};
use lb_userspace::lab::{Role, VIP_IPIP, VIP_L2};
use serde_json::Value;

const THREE: [(u8, u16); 3] = [(1, 1), (2, 1), (3, 1)];

/// `lb services` must show packets, and no drops anywhere; returns what it shows.
fn expect_clean_counters(rig: &Rig) -> anyhow::Result<Value> {
    let services = rig.lb(["services", "--output", "json"])?.expect(0)?.json()?;
    for service in services.as_array().context("lb services shows no list")? {
        ensure!(service["packets"].as_u64() > Some(0), "no packets counted: {service}");
        ensure!(service["drops"].as_object().is_none_or(|drops| drops.is_empty()), "drops: {service}");
    }
    let counters = rig.lb(["counters", "--output", "json"])?.expect(0)?.json()?;
    ensure!(counters["verdicts"]["drop"] == 0, "dropped: {counters}");
    Ok(services)
}

/// An nginx beside the lab's own on each backend, on port 8080, that keeps what is uploaded.
fn serve_uploads(rig: &Rig, backends: u8) -> anyhow::Result<()> {
    for number in 1..=backends {
        let (dir, file) = (rig.file(&format!("up{number}")), rig.file(&format!("up{number}.conf")));
        fs::create_dir_all(dir.join("tmp")).context("making a directory for uploads")?;
        let config = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log stderr warn; events {{}}
             http {{ access_log off; client_max_body_size 64m; client_body_temp_path {dir}/tmp;
               server {{ listen *:8080; location / {{ root {dir}; dav_methods PUT;
                 add_header X-Backend b{number} always; }} }} }}",
            dir = dir.display()
        );
        fs::write(&file, config).context("writing an nginx config")?;
        let mut nginx = rig.lab.command(Role::Backend(number), "nginx");
        nginx.args(["-e", "stderr", "-p"]).arg(&dir).arg("-c").arg(&file);
        rig.lab.spawn(&format!("upload-b{number}"), &nginx)?;
        let url = format!("http://{}:8080/none", rig.lab.backend_addr(number));
        until("nginx for uploads", Duration::from_secs(10), || {
            rig.curl(Role::Client, [url.as_str()])?.expect(0)?.says(&["404"]).map(Some)
        })?;
    }
    Ok(())
}

/// Pages, a download with every byte compared, an upload likewise, through one service address.
fn web_works(rig: &Rig, address: std::net::Ipv4Addr) -> anyhow::Result<()> {
    let mut seen = BTreeMap::new();
    for _ in 0..12 {
        *seen.entry(rig.answer(address)?).or_insert(0) += 1;
    }
    ensure!(seen.keys().all(|name| ["b1", "b2", "b3"].contains(&name.as_str())), "odd backends: {seen:?}");
    let got = rig.file("got");
    let url = format!("http://{address}/big");
    rig.curl(Role::Client, ["--fail", "-o", &got.to_string_lossy(), &url])?.expect(0)?;
    ensure!(fs::read(&got)? == fs::read(rig.lab.big_file())?, "the download is not what is served");

    let (url, big) = (format!("http://{address}:8080/sent"), rig.lab.big_file());
    let put = rig.curl(Role::Client, ["--fail", "-i", "-T", &big.to_string_lossy(), &url])?.expect(0)?;
    let number = put.out.lines().find_map(|line| line.trim().strip_prefix("X-Backend: b"));
    let number = number.with_context(|| format!("no backend named in {put}"))?;
    ensure!(
        fs::read(rig.file(&format!("up{number}/sent")))? == fs::read(&big)?,
        "what came to b{number} is not what was sent"
    );
    Ok(())
}

fn web_and_uploads(address: std::net::Ipv4Addr, forwarding: &'static str) -> Config {
    let web = Service::web(address, forwarding, &THREE);
    Config::new([Service { name: "upload", port: 8080, ..web.clone() }, web])
}

#[test]
fn http_over_l2() -> anyhow::Result<()> {
    let rig = Rig::new(3, 6)?;
    serve_uploads(&rig, 3)?;
    rig.start(&web_and_uploads(VIP_L2, "l2"))?;
    web_works(&rig, VIP_L2)?;
    expect_clean_counters(&rig).map(drop)
}

#[test]
fn http_over_ipip() -> anyhow::Result<()> {
    let rig = Rig::new(3, 6)?;
    serve_uploads(&rig, 3)?;
    rig.decap_all(3)?;
    rig.start(&web_and_uploads(VIP_IPIP, "ipip"))?;
    web_works(&rig, VIP_IPIP)?;
    let services = expect_clean_counters(&rig)?;
    ensure!(services[0]["forwarding"] == "ipip", "not by tunnel: {services}");
    Ok(())
}

/// In generic mode, in the network stack, everything works as well.
#[test]
fn http_in_generic_mode() -> anyhow::Result<()> {
    let rig = Rig::new(3, 2)?;
    rig.on(Role::Balancer, "ethtool", ["-K", "eth0", "gro", "off"])?.expect(0)?;
    rig.decap_all(3)?;
    let services = [Service::web(VIP_L2, "l2", &THREE), Service::web(VIP_IPIP, "ipip", &THREE)];
    rig.start(&Config { mode: "generic", ..Config::new(services) })?;
    let link = rig.on(Role::Balancer, "ip", ["-json", "link", "show", "dev", "eth0"])?.json()?;
    ensure!(link[0]["xdp"]["mode"] == 2, "not in generic mode (XDP_ATTACHED_SKB): {link}");
    for address in [VIP_L2, VIP_IPIP] {
        let got = rig.file("got");
        let url = format!("http://{address}/big");
        rig.curl(Role::Client, ["--fail", "-o", &got.to_string_lossy(), &url])?.expect(0)?;
        ensure!(fs::read(&got)? == fs::read(rig.lab.big_file())?, "{address}: not what is served");
    }
    expect_clean_counters(&rig).map(drop)
}

/// Flows from fixed addresses and ports with the built-in key: the result is the same on every machine and day.
#[test]
fn a_thousand_connections_spread_as_the_weights_say() -> anyhow::Result<()> {
    const WEIGHTS: [(&str, u16); 3] = [("b1", 1), ("b2", 2), ("b3", 5)];
    /// Chi-square with two degrees of freedom at p = 0.001.
    const LIMIT: f64 = 13.816;
    let rig = Rig::new(3, 1)?;
    rig.start(&Config::l2(&[(1, 1), (2, 2), (3, 5)]))?;
    let (client, web) = (rig.lab.netns(Role::Client), SocketAddrV4::new(VIP_L2, 80));
    let start = Instant::now();
    let answers = fetch_all(&client, web, 20_000..21_000)?;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    answers.values().for_each(|name| *counts.entry(name).or_default() += 1);
    let chi_square: f64 = WEIGHTS
        .iter()
        .map(|(name, weight)| {
            let expected = 1000.0 * f64::from(*weight) / 8.0;
            (counts.get(name).copied().unwrap_or(0) as f64 - expected).powi(2) / expected
        })
        .sum();
    println!("{counts:?}, chi-square {chi_square:.2}, {:?}", start.elapsed());
    ensure!(answers.len() == 1000 && chi_square < LIMIT, "{counts:?}: chi-square {chi_square:.2}");

    // Each flow again: a flow's backend is a function of the flow.
    let again = fetch_all(&client, web, (20_000..21_000).step_by(10))?;
    ensure!(again.iter().all(|(port, name)| answers[port] == *name), "the same flows went elsewhere");

    let services = expect_clean_counters(&rig)?;
    for backend in services[0]["backends"].as_array().context("no backends")? {
        let number = backend["address"].as_str().and_then(|address| address.strip_prefix("203.0.113.2"));
        let name = format!("b{}", number.context("odd address")?);
        let wanted = counts[name.as_str()] + again.values().filter(|again| **again == name).count() as u64;
        let (flows, packets) = (backend["flows"].as_u64(), backend["packets"].as_u64());
        // A SYN may have been repeated on a slow machine.
        ensure!(
            flows >= Some(wanted) && flows <= Some(wanted + wanted / 20 + 2),
            "{wanted} flows: {backend}"
        );
        ensure!(packets >= Some(wanted * 3), "{wanted} flows: {backend}");
    }
    Ok(())
}

/// No gratuitous ARP tells of the new address: the daemon notices by asking.
#[test]
fn a_backend_that_changes_its_mac_address_is_back_within_a_second() -> anyhow::Result<()> {
    let rig = Rig::new(1, 1)?;
    rig.start(&Config::l2(&[(1, 1)]))?;
    rig.wait_up()?;
    let (client, to) = (rig.lab.netns(Role::Client), SocketAddrV4::new(VIP_L2, 80));
    let mut port = 30_000;
    let mut ask = || {
        port += 1;
        let request = Request { to: to.into(), port, limit: Duration::from_millis(150) };
        inside(&client, || fetch(&request))
    };
    until("a first answer", Duration::from_secs(5), || Ok(ask()?.ok()))?;
    for last in [0x41, 0x42, 0x43] {
        let mac = format!("02:00:00:00:00:{last:02x}");
        rig.on(Role::Backend(1), "ip", ["link", "set", "dev", "eth0", "address", &mac])?.expect(0)?;
        let changed = Instant::now();
        let (mut gap, mut good) = (Duration::ZERO, 0);
        // Until one second of answers without a failure has passed.
        while good < 20 {
            let ok = ask()?.is_ok();
            good = if ok { good + 1 } else { 0 };
            gap = if ok { gap } else { changed.elapsed() };
            ensure!(changed.elapsed() < Duration::from_secs(10), "still failing 10 s after the change");
            thread::sleep(Duration::from_millis(50));
        }
        println!("last failure {gap:?} after the change");
        ensure!(gap < Duration::from_secs(2), "answers failed for {gap:?}");
        let shown = rig.lb(["backends", "--output", "json"])?.expect(0)?;
        ensure!(shown.out.contains(&mac), "lb backends does not show {mac}: {shown}");
    }
    Ok(())
}

/// A client on the segment itself, without a route by hand: the program answers ARP, and nobody does without it.
#[test]
fn a_neighbour_finds_the_service_by_arp_and_silence_after_detach() -> anyhow::Result<()> {
    let rig = Rig::new(2, 1)?;
    let (vip, url) = (VIP_L2.to_string(), format!("http://{VIP_L2}/"));
    // What a balancer that failed would have left with a neighbour; its successor's announcement corrects it.
    let stale = ["neigh", "replace", &vip, "lladdr", "02:00:00:00:00:99", "dev", "eth1", "nud", "reachable"];
    rig.on(Role::Router, "ip", stale)?.expect(0)?;
    rig.start(&Config::l2(&[(1, 1), (2, 1)]))?;
    let mac = rig.mac(Role::Balancer, "eth0")?;
    let neighbour = || rig.on(Role::Router, "ip", ["neigh", "show", &vip, "dev", "eth1"])?.expect(0);
    until("the announcement", Duration::from_secs(5), || neighbour()?.says(&[&mac]).map(Some))?;
    // And without what was announced: by asking.
    rig.on(Role::Router, "ip", ["neigh", "flush", "dev", "eth1"])?.expect(0)?;
    rig.curl(Role::Router, ["--max-time", "3", &url])?.expect(0)?.says(&["backend b"])?;
    neighbour()?.says(&[&mac])?;
    rig.lb(["services"])?.expect(0)?.says(&["xdp-arp"])?;
    let own = rig.on(Role::Balancer, "ip", ["-br", "addr"])?.expect(0)?;
    ensure!(!own.out.contains(&vip), "the host owns the service address: {own}");

    rig.stop(nix::sys::signal::Signal::SIGTERM)?;
    rig.curl(Role::Router, ["--max-time", "3", &url])?.expect(0)?;
    rig.detach()?;
    // First with the neighbour still known, then without: a timeout each time, never a reset (curl's code 7).
    rig.curl(Role::Router, ["--max-time", "1.5", &url])?.expect(28)?;
    rig.on(Role::Router, "ip", ["neigh", "flush", "dev", "eth1"])?.expect(0)?;
    rig.curl(Role::Router, ["--max-time", "1.5", &url])?.expect(28)?;
    let silent = neighbour()?;
    ensure!(
        silent.out.contains("INCOMPLETE") || silent.out.contains("FAILED"),
        "somebody answers ARP: {silent}"
    );
    Ok(())
}
