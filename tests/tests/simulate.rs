//! `lb simulate` as a user meets it: a config and packets in, reports and a file of packets out; the same from the
//! kernel and from the host build, and without any rights.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::mutate::{Random, mutated};
use lb_tests::system::{Run, binary};
use lb_userspace::simulate::capture_file::{Captured, Writer, read};
use lb_userspace::simulate::language::{describe, parse};
use serde_json::Value;

const CONFIG: &str = "version: 1
interfaces: [{name: eth7}]
services:
  - name: web
    address: 203.0.113.10
    protocol: tcp
    port: 80
    forwarding: l2
    backends: [{address: 203.0.113.21}, {address: 203.0.113.22, mac: '02:00:00:00:02:22'}]
  - name: dns
    address: 203.0.113.10
    protocol: udp
    port: 53
    forwarding: ipip
    backends: [{address: 192.0.2.31}, {address: 192.0.2.32, interface: eth8}]
";

/// Both families, ranges, prefixes, QUIC, lists, every encapsulation.
const WIDE: &str = "version: 1
interfaces: [{name: eth7}]
services:
  - name: web
    addresses: [203.0.113.10, '2001:db8::10']
    protocols: [tcp, udp]
    ports: [80, 53, '8000-8099']
    forwarding: {type: gue, variant: 1, source: auto}
    deny: [198.51.100.8]
    backends: [{address: '2001:db8::21', vlan: 100, mac: '02:00:00:00:02:21'}, {address: 192.0.2.22}]
  - name: rest
    address: 2001:db8:9::/64
    protocol: tcp
    port: any
    forwarding: gre
    backends: [{address: 192.0.2.31}, {address: '2001:db8:2::32', interface: eth8}]
  - name: quic
    address: 203.0.113.11
    protocol: udp
    port: 443
    forwarding: ipip
    quic: {server_id: {format: draft, config_id: 0, length: 4}}
    backends: [{address: 192.0.2.41, server_id: 0x01020304}, {address: '2001:db8::42', server_id: 5}]
";

/// Packets of every kind for these configs.
const LINES: &[&str] = &[
    "tcp 198.51.100.7:4000 > 203.0.113.10:80 syn",
    "tcp 198.51.100.7:4000 > 203.0.113.10:80 ack len 1000",
    "tcp 198.51.100.8:4001 > 203.0.113.10:80 fin ack options 8",
    "vlan 100 tcp 198.51.100.8:4001 > 203.0.113.10:80 syn",
    "udp 198.51.100.7:4000 > 203.0.113.10:53 len 40",
    "udp 198.51.100.9:4000 > 203.0.113.10:53 len 1472 df",
    "udp 198.51.100.7:4002 > 203.0.113.10:53 frag 7 0 more len 1400",
    "udp 198.51.100.7 > 203.0.113.10 frag 7 1408 last len 100",
    "udp 198.51.100.7 > 203.0.113.10 frag 8 1408 last len 100",
    "icmp 198.51.100.7 > 203.0.113.10 echo id 5 seq 6 len 56",
    "icmp 198.51.100.1 > 203.0.113.10 unreachable frag-needed mtu 1400 about tcp 203.0.113.10:80 > 198.51.100.7:4000",
    "tcp 198.51.100.7:4000 > 203.0.113.10:443 syn",
    "tcp 198.51.100.7:4000 > 203.0.113.99:80 syn",
    "arp who-has 203.0.113.10 tell 203.0.113.1",
    "ndp who-has 2001:db8::10 tell 2001:db8::1",
    "tcp [2001:db8::7]:4000 > [2001:db8::10]:80 syn",
    "tcp [2001:db8::7]:4000 > [2001:db8::10]:8042 syn ext hbh ext dest",
    "udp [2001:db8::7]:4002 > [2001:db8::10]:53 frag 9 0 more len 1200",
    "udp 2001:db8::7 > 2001:db8::10 frag 9 1208 last len 100",
    "tcp [2001:db8::7]:4000 > [2001:db8:9::abcd]:7 ack len 50",
    "icmp 2001:db8::1 > 2001:db8::10 too-big mtu 1400 about tcp [2001:db8::10]:80 > [2001:db8::7]:4000",
    "quic 198.51.100.9:4000 > 203.0.113.11:443 short cid 0001020304aabb",
    "quic 198.51.100.9:4000 > 203.0.113.11:443 initial cid 0102030405060708",
    "sctp 198.51.100.7:4000 > 203.0.113.10:80 len 10",
    "ether 0x88cc len 60",
];

/// A directory that everybody may look into.
struct Place(PathBuf);

impl Place {
    fn new() -> anyhow::Result<Self> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lb-simulate-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        fs::write(path.join("lb.yaml"), CONFIG)?;
        // Where everybody may execute it. By another process: what another test starts meanwhile would hold our file
        // open for writing, and nobody can execute such a file.
        let copied = Command::new("cp").arg(binary()?).arg(path.join("lb")).status()?;
        ensure!(copied.success(), "cp: {copied}");
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn command(&self, program: &Path, before: &[&str], args: &[&str]) -> anyhow::Result<Run> {
        let mut command = Command::new(program);
        command.args(before).arg("simulate").arg("--config").arg(self.file("lb.yaml")).args(args);
        Run::of(command)
    }

    fn simulate(&self, args: &[&str]) -> anyhow::Result<Run> {
        self.command(&self.file("lb"), &[], args)
    }

    /// As nobody, with no capability.
    fn unprivileged(&self, args: &[&str]) -> anyhow::Result<Run> {
        let lb = self.file("lb");
        let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--bounding-set", "-all"];
        let before: Vec<&str> = nobody.into_iter().chain([lb.to_str().context("a path in UTF-8")?]).collect();
        self.command(Path::new("setpriv"), &before, args)
    }

    /// Pins of simulations that have ended; other tests may have one going.
    fn pins(&self) -> Vec<PathBuf> {
        let entries =
            fs::read_dir("/sys/fs/bpf/lb").into_iter().flatten().flatten().map(|entry| entry.path());
        let left = |path: &PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            name.strip_prefix("simulate-").is_some_and(|pid| !Path::new("/proc").join(pid).exists())
        };
        entries.filter(left).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn packets(run: &Run) -> anyhow::Result<Vec<Value>> {
    run.json()?.as_array().cloned().context("an array of packets")
}

#[test]
fn a_packet_in_words_is_explained_and_stand_ins_are_named() -> anyhow::Result<()> {
    let place = Place::new()?;
    let run = place.simulate(&["--packet", LINES[0], LINES[12]])?.expect(0)?;
    let run = run.says(&["engine: kernel", "service: web 203.0.113.10:80/tcp", "settled on 203.0.113.2"])?;
    let run = run.says(&["stand-in: interface eth7: MAC", "is taken to be behind eth7", "not_a_service"])?;
    ensure!(!run.out.contains("203.0.113.22 is taken to have the next hop"), "its MAC is known: {run}");
    let run =
        place.simulate(&["--output", "json", "--packet", LINES[0], "--packet", LINES[12]])?.expect(0)?;
    let found = packets(&run)?;
    ensure!(found.len() == 2 && found[1]["index"] == 1, "{run}");
    ensure!(found[0]["verdict"] == "tx" && found[0]["service"] == "web", "{run}");
    ensure!(found[0]["reason"] == "forwarded" && found[0]["engine"] == "kernel", "{run}");
    ensure!(found[0]["backend"].as_str().is_some_and(|a| a.starts_with("203.0.113.2")), "{run}");
    ensure!(found[1]["verdict"] == "pass" && found[1]["reason"] == "not_a_service", "{run}");
    ensure!(found[1]["service"].is_null() && found[1]["backend"].is_null(), "{run}");
    ensure!(place.pins().is_empty(), "left behind: {:?}", place.pins());
    Ok(())
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_left() -> anyhow::Result<()> {
    let place = Place::new()?;
    place
        .simulate(&["--packet", "tcp 198.51.100.7:4000 > 203.0.113.10:80 sny"])?
        .expect(2)?
        .says(&["^^^", "syn, ack"])?;
    place.simulate(&[])?.expect(2)?;
    place.simulate(&["--pcap", "/nowhere.pcap"])?.expect(2)?.says(&["/nowhere.pcap"])?;
    let yaml = place.file("lb.yaml");
    place
        .simulate(&["--pcap", yaml.to_str().context("UTF-8")?])?
        .expect(2)?
        .says(&["neither pcap nor pcapng"])?;
    place.simulate(&["--packet", LINES[0], "--out", "x.txt"])?.expect(2)?.says(&[".pcapng"])?;
    ensure!(place.pins().is_empty(), "left behind: {:?}", place.pins());
    Ok(())
}

/// Lines, and mutations of them; some are cut, as with a snap length. What is answered at a limited rate is there once:
/// two runs would differ by how fast they are.
fn mixed(place: &Place, mutations: usize) -> anyhow::Result<PathBuf> {
    let path = place.file("mixed.pcap");
    let mut writer = Writer::create(&path)?;
    let mut random = Random::new(4);
    let frames: Vec<Vec<u8>> = LINES.iter().map(|line| parse(line)).collect::<Result<_, _>>()?;
    let limited = |line: &&str| line.contains("echo") || line.contains("len 1472 df");
    let varied: Vec<&[u8]> = frames
        .iter()
        .zip(LINES)
        .filter(|(_, line)| !limited(line))
        .map(|(frame, _)| frame.as_slice())
        .collect();
    for number in 0..LINES.len() + mutations {
        let mut frame = match frames.get(number) {
            Some(frame) => frame.clone(),
            None => mutated(varied[number % varied.len()], &mut random),
        };
        let original_len = frame.len() as u32;
        if number % 17 == 16 {
            frame.truncate(60);
        }
        writer.write(&Captured { time: Duration::from_millis(number as u64), frame, original_len }, "")?;
    }
    writer.finish()?;
    Ok(path)
}

#[test]
fn kernel_and_host_build_say_the_same_of_a_mixed_file() -> anyhow::Result<()> {
    let reasons = ["forwarded", "other_port", "not_a_service", "arp_answered", "malformed", "not_ip"];
    same(CONFIG, &reasons)
}

#[test]
fn kernel_and_host_build_say_the_same_of_wide_services() -> anyhow::Result<()> {
    same(WIDE, &["forwarded", "denied", "icmp_forwarded", "ndp_answered", "fragment", "not_a_service"])
}

fn same(config: &str, reasons: &[&str]) -> anyhow::Result<()> {
    let place = Place::new()?;
    fs::write(place.file("lb.yaml"), config)?;
    let input = mixed(&place, 3000)?;
    let input_path = input.to_str().context("UTF-8")?;
    let run_with = |out: &str, more: &[&str]| -> anyhow::Result<(Vec<Value>, Vec<Captured>, Run)> {
        let out = place.file(out);
        let mut args =
            vec!["--output", "json", "--pcap", input_path, "--out", out.to_str().context("UTF-8")?];
        args.extend(more);
        let run = place.simulate(&args)?.expect(0)?;
        Ok((packets(&run)?, read(&out)?, run))
    };
    let (kernel, kernel_out, said) = run_with("kernel.pcapng", &[])?;
    ensure!(said.err.contains("engine: kernel"), "{}", said.err);
    let (host, host_out, said) = run_with("host.pcap", &["--host"])?;
    ensure!(said.err.contains("engine: host"), "{}", said.err);
    ensure!(
        kernel.len() == LINES.len() + 3000 && host.len() == kernel.len(),
        "{} {}",
        kernel.len(),
        host.len()
    );
    let frames = read(&input)?;
    let sent = |report: &Value| report["verdict"] == "tx" || report["verdict"] == "redirect";
    for ((k, h), frame) in kernel.iter().zip(&host).zip(&frames) {
        let (mut k, h) = (k.clone(), h.clone());
        ensure!(!k["warning"].as_str().is_some_and(|warning| warning.contains("differ")), "{k:#}");
        ensure!(k["engine"] == "kernel" && h["engine"] == "host", "{k}\n{h}");
        k["engine"] = h["engine"].clone();
        ensure!(k == h, "{}\nkernel {k:#}\nhost {h:#}", describe(&frame.frame));
    }
    // In order, one for each that leaves, at its time.
    let leaving: Vec<&Captured> =
        kernel.iter().zip(&frames).filter(|(k, _)| sent(k)).map(|(_, f)| f).collect();
    ensure!(
        leaving.len() == kernel_out.len() && leaving.len() > 300,
        "{} of {}",
        kernel_out.len(),
        leaving.len()
    );
    ensure!(kernel_out == host_out, "the files differ");
    ensure!(leaving.iter().zip(&kernel_out).all(|(before, after)| before.time == after.time), "times");
    for reason in reasons {
        ensure!(kernel.iter().any(|k| k["reason"] == *reason), "nothing is {reason}");
    }
    ensure!(kernel.iter().any(|k| k["verdict"] == "redirect"), "nothing is redirected");
    let cut =
        kernel.iter().find(|k| k["warning"].as_str().is_some_and(|w| w.contains("the file has only 60 of")));
    ensure!(cut.is_some(), "no packet is said to be cut");
    ensure!(place.pins().is_empty(), "left behind: {:?}", place.pins());
    Ok(())
}

#[test]
fn without_rights_the_host_build_decides_and_says_so() -> anyhow::Result<()> {
    let place = Place::new()?;
    let run = place.unprivileged(&["--output", "json", "--packet", LINES[0]])?.expect(0)?;
    ensure!(run.err.contains("engine: host") && run.err.contains("kernel was not used"), "{run}");
    let found = packets(&run)?;
    ensure!(found[0]["engine"] == "host" && found[0]["verdict"] == "tx", "{run}");
    let rooted = place.simulate(&["--output", "json", "--packet", LINES[0]])?.expect(0)?;
    ensure!(packets(&rooted)?[0]["backend"] == found[0]["backend"], "{rooted}");
    Ok(())
}
