//! What health checking costs with ten thousand backends, how evenly it spreads, and how fast a failure moves traffic,
//! each against the limit it has to keep. Run with `cargo bench -p lb-tests --bench health`; `lb` must be built.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use lb_tests::system::{Rig, until};
use lb_userspace::lab::{BALANCER, Role};
use nix::sched::{CloneFlags, setns};

const BACKENDS: u32 = 10_000;
const INTERVAL_S: u32 = 2;
const PORT: u16 = 81;
/// The first backend's address; all of them are one machine.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// How long is measured.
const MEASURED: Duration = Duration::from_secs(10);
const BIN_MS: u64 = 10;
/// The limits: share of a core, memory, and the fullest bin against the mean.
const CPU_LIMIT: f64 = 0.5;
const MEMORY_LIMIT_MIB: f64 = 300.0;
const BURST_LIMIT: f64 = 3.0;
/// Failures that are measured.
const FAILURES: u32 = 5;

fn main() -> anyhow::Result<()> {
    let mut rows = vec![format!("{:<72} {:>10} {:>10} {:>6}", "health checks", "measured", "limit", "ratio")];
    for via in ["direct", "service"] {
        rows.extend(many(via)?);
    }
    rows.push(failures()?);
    // Last, below the logs of the daemons that have ended.
    println!("\n{}", rows.join("\n"));
    Ok(())
}

fn row(what: &str, measured: f64, limit: f64, unit: &str) -> String {
    let (figure, most) = (format!("{measured:.1} {unit}"), format!("{limit:.1} {unit}"));
    format!("{what:<72} {figure:>10} {most:>10} {:>6.2}", measured / limit)
}

/// Cost and spread.
fn many(via: &str) -> anyhow::Result<[String; 3]> {
    let rig = Rig::new(1, 1)?;
    rig.on(Role::Backend(1), "ip", ["route", "add", "local", "198.18.0.0/15", "dev", "lo"])?.expect(0)?;
    let gateway = rig.lab.backend_addr(1).to_string();
    rig.on(Role::Balancer, "ip", ["route", "add", "198.18.0.0/15", "via", &gateway])?.expect(0)?;
    rig.decap(1, &rig.lab.vip_ipip().to_string(), &format!("{BALANCER}/32"))?;
    let _listener = Listener::start(&rig)?;
    rig.write_text(&config(rig.lab.vip_ipip(), via))?;
    let daemon = rig.run(&[])?;
    until("all backends up", Duration::from_secs(30), || {
        let status = rig.status()?;
        let backends = status["services"][0]["backends"].as_array().context("backends")?;
        Ok(backends.iter().all(|backend| backend["state"] == "up").then_some(()))
    })?;
    // What start-up leaves behind.
    thread::sleep(Duration::from_secs(3));
    let (before, started) = (ticks(daemon.id())?, Instant::now());
    let seen = requests(&rig)?;
    let cpu = (ticks(daemon.id())? - before) as f64 / 100.0 / started.elapsed().as_secs_f64();
    let (fullest, mean) = spread(&seen);
    let what = format!("via {via}: {BACKENDS} TCP checks each {INTERVAL_S} s");
    let many = format!("via {via}: fullest {BIN_MS} ms of {} probes, {mean:.1} on average", seen.len());
    Ok([
        row(&format!("{what}, CPU"), cpu * 100.0, CPU_LIMIT * 100.0, "%"),
        row(&format!("{what}, memory"), memory_mib(daemon.id())?, MEMORY_LIMIT_MIB, "MiB"),
        row(&many, f64::from(fullest), mean * BURST_LIMIT, ""),
    ])
}

fn config(vip: Ipv4Addr, via: &str) -> String {
    let mut text = format!(
        "version: 1\ninterfaces: [{{name: eth0}}]\nservices:\n  - name: many\n    address: {vip}\n    protocol: tcp\n    \
         port: {PORT}\n    forwarding: ipip\n    \
         health_check: {{type: tcp, via: {via}, interval: {INTERVAL_S}s, timeout: 1s}}\n    backends:\n"
    );
    for n in 0..BACKENDS {
        let _ = writeln!(text, "      - {{address: {}}}", Ipv4Addr::from(u32::from(FIRST) + n));
    }
    text
}

/// Somebody to accept the connections of all backends.
struct Listener {
    over: Arc<AtomicBool>,
}

impl Listener {
    fn start(rig: &Rig) -> anyhow::Result<Self> {
        let netns = File::open(rig.lab.netns(Role::Backend(1)).path()).context("the backend's namespace")?;
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let (ready, started) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let open = || -> anyhow::Result<TcpListener> {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
                Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?)
            };
            let listener = match open() {
                Ok(listener) => listener,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _bench_is_over = ready.send(Ok(()));
            let _closed_at_once = listener.incoming().find(|_| ended.load(Ordering::Relaxed));
        });
        started.recv().context("the listener's thread")??;
        Ok(Self { over })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Milliseconds at which the kernel saw connection requests come in on the backend, for as long as is measured.
fn requests(rig: &Rig) -> anyhow::Result<Vec<u64>> {
    let file = rig.file("requests.pcap").display().to_string();
    let filter = format!("tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn and dst port {PORT}");
    let seconds = MEASURED.as_secs().to_string();
    let capture =
        ["-s", "INT", &seconds, "tcpdump", "-i", "eth0", "-n", "-s", "80", "-B", "16384", "-w", &file];
    rig.on(Role::Backend(1), "timeout", capture.into_iter().chain([filter.as_str()]))?;
    let list = rig.on(Role::Backend(1), "tcpdump", ["-n", "-tt", "-r", &file])?.expect(0)?;
    let stamp = |line: &str| -> Option<u64> {
        let seconds: f64 = line.split(' ').next()?.parse().ok()?;
        Some((seconds * 1000.0) as u64)
    };
    Ok(list.out.lines().filter_map(stamp).collect())
}

/// The fullest bin, and how many there are in one on average.
fn spread(at_ms: &[u64]) -> (u32, f64) {
    let (Some(first), Some(last)) = (at_ms.first(), at_ms.last()) else { return (0, 0.0) };
    let mut bins: BTreeMap<u64, u32> = BTreeMap::new();
    for at in at_ms {
        *bins.entry((at - first) / BIN_MS).or_default() += 1;
    }
    let count = (last - first) / BIN_MS + 1;
    (bins.values().copied().max().unwrap_or(0), at_ms.len() as f64 / count as f64)
}

/// CPU time of a process so far, in hundredths of a second.
fn ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("a stat line")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // utime and stime are fields 14 and 15; the first here is number 3.
    Ok(fields.get(11).context("utime")?.parse::<u64>()? + fields.get(12).context("stime")?.parse::<u64>()?)
}

fn memory_mib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// From a backend's silence to the moment when no slot is left to it.
fn failures() -> anyhow::Result<String> {
    let (interval, timeout, threshold) = (500.0, 300.0, 3.0);
    let bound = interval + threshold * timeout + 50.0;
    let rig = Rig::new(3, 1)?;
    let vip = rig.lab.vip_l2();
    let backends: String = (1..=3).map(|n| format!("{{address: {}}}, ", rig.lab.backend_addr(n))).collect();
    rig.write_text(&format!(
        "version: 1\ninterfaces: [{{name: eth0}}]\nservices:\n  - {{name: web, address: {vip}, protocol: tcp, port: 80, \
         forwarding: l2, health: {{hold_down: 0s}}, backends: [{backends}], \
         health_check: {{type: tcp, interval: {interval}ms, timeout: {timeout}ms, unhealthy_threshold: {threshold}}}}}\n"
    ))?;
    rig.run(&[])?;
    rig.wait_up()?;
    let address = format!("{vip}/32");
    let mut slowest: f64 = 0.0;
    for round in 0..FAILURES {
        // Not always at the same moment between two probes.
        thread::sleep(Duration::from_millis(u64::from(round) * 110));
        rig.on(Role::Backend(1), "ip", ["addr", "del", &address, "dev", "lo"])?.expect(0)?;
        let failed = Instant::now();
        let slots = || -> anyhow::Result<u64> {
            let status = rig.status()?;
            status["services"][0]["backends"][0]["slots"].as_u64().context("slots")
        };
        until("the traffic moved", Duration::from_secs(10), || Ok((slots()? == 0).then_some(())))?;
        slowest = slowest.max(failed.elapsed().as_secs_f64() * 1000.0);
        rig.on(Role::Backend(1), "ip", ["addr", "add", &address, "dev", "lo"])?.expect(0)?;
        rig.wait_up()?;
    }
    let what = format!("failure to traffic moved, slowest of {FAILURES} (and `lb status`)");
    Ok(row(&what, slowest, bound, "ms"))
}
