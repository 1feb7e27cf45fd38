//! The tour's steps. Each does one thing with real traffic and returns the fact it has shown.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::address::{BALANCER, VIP_IPIP, VIP_L2};
use super::balancer::Balancer;
use super::chart::{self, Bar};
use super::config_file::LabBackend;
use super::demo::{DOWNLOAD_BYTES, Tour};
use super::error::LabError;
use super::netns;
use super::process::Process;
use super::report::Report;
use super::topology::Role;
use super::traffic::{Spread, port_bytes};
use super::wait::wait_for;

type Step = fn(&mut Tour, &Report) -> Result<String, LabError>;

pub(super) const STEPS: [(&str, Step); 7] = [
    ("Start the balancer: lb run --config lb.yaml --watch", start),
    ("300 requests by curl to 203.0.113.10, forwarded by MAC rewrite (l2)", balance_l2),
    ("300 requests by curl to 203.0.113.20, forwarded in a tunnel (ipip)", balance_ipip),
    ("Edit lb.yaml: b1 gets four times the weight", change_weight),
    ("A download runs while another backend is removed from lb.yaml", remove_during_download),
    ("A backend loses the service address, while its server runs on", lose_address),
    ("Stop the daemon", stop_daemon),
];

const REQUESTS: u64 = 300;
const SAMPLE: u64 = 60;
const PATIENCE: Duration = Duration::from_secs(10);
const CHART_WIDTH: usize = 36;

fn start(tour: &mut Tour, report: &Report) -> Result<String, LabError> {
    tour.config.write(&tour.config_path())?;
    tour.balancer = Some(Balancer::start(&tour.lab, &tour.binary, &tour.config_path())?);
    let spread = wait_until(tour, "all backends behind 203.0.113.10", VIP_L2, 20, answered_by_all(tour))?;
    report.detail(&format!("first {} requests answered by {}", spread.answered(), names(&spread)));
    Ok("the balancer answers ARP for addresses that the hosts keep silent about".into())
}

fn balance_l2(tour: &mut Tour, report: &Report) -> Result<String, LabError> {
    measure_and_chart(tour, report, VIP_L2)?;
    Ok(format!("{REQUESTS} of {REQUESTS} connections answered over l2, spread as the weights say"))
}

fn balance_ipip(tour: &mut Tour, report: &Report) -> Result<String, LabError> {
    for number in 1..=tour.lab.backends() {
        let mut decap = tour.lab.command(Role::Backend(number), &tour.binary);
        decap.args(["decap", "eth0", "--vip", &VIP_IPIP.to_string(), "--from", &format!("{BALANCER}/32")]);
        tour.lab.spawn(&format!("decap-b{number}"), &decap)?;
    }
    report.detail("lb decap eth0 on each backend takes the outer header off");
    wait_until(tour, "all backends behind 203.0.113.20", VIP_IPIP, 20, answered_by_all(tour))?;
    measure_and_chart(tour, report, VIP_IPIP)?;
    Ok(format!("{REQUESTS} of {REQUESTS} connections answered over ipip, spread as the weights say"))
}

fn change_weight(tour: &mut Tour, report: &Report) -> Result<String, LabError> {
    let Some(first) = tour.config.web.first_mut() else {
        return Err(LabError::unexpected("the pool is empty"));
    };
    first.weight = 4;
    let name = first.name.clone();
    tour.config.write(&tour.config_path())?;
    // From a third to two thirds of the traffic: half tells old from new.
    wait_until(tour, "the new weight to take effect", VIP_L2, SAMPLE, |spread| {
        spread.of(&name) * 2 >= spread.requested
    })?;
    measure_and_chart(tour, report, VIP_L2)?;
    Ok("an edit of the file was picked up and traffic follows the new weights".into())
}

fn remove_during_download(tour: &mut Tour, report: &Report) -> Result<String, LabError> {
    let (file, headers) = (tour.lab.dir().join("download"), tour.lab.dir().join("download.headers"));
    let (to_before, _) = port_bytes(&tour.lab, "lb")?;
    let mut curl = tour.lab.command(Role::Client, "curl");
    curl.args(["-q", "-sS", "--fail", "--noproxy", "*", "--max-time", "60", "-o"])
        .arg(&file)
        .arg("-D")
        .arg(&headers);
    curl.arg(format!("http://{VIP_L2}/slow/big?rate=4m"));
    let download = tour.lab.spawn("download", &curl)?;
    let server =
        wait_for("first bytes of the download", PATIENCE, &tour.interrupt, || Ok(server_of(&headers)))?;
    let victim = tour.config.web.iter().map(|b| b.name.clone()).find(|name| *name != server);
    let victim = victim.ok_or_else(|| LabError::unexpected("there is no other backend to remove"))?;
    report.detail(&format!("{server} serves the download; {victim} leaves the file"));

    tour.config.web.retain(|backend| backend.name != victim);
    tour.config.write(&tour.config_path())?;
    wait_until(tour, "new connections to avoid the removed backend", VIP_L2, SAMPLE, |spread| {
        spread.of(&victim) == 0
    })?;
    if download.try_wait()?.is_some() {
        return Err(LabError::unexpected(
            "the download ended before the change took effect; nothing was shown",
        ));
    }
    measure_and_chart(tour, report, VIP_L2)?;
    finish_download(tour, report, &download, &file)?;

    let (to_after, _) = port_bytes(&tour.lab, "lb")?;
    let seen = to_after.saturating_sub(to_before);
    report.detail(&format!(
        "direct server return: the client received {:.1} MB, the balancer saw {:.1} MB (requests and ACKs)",
        mega(DOWNLOAD_BYTES),
        mega(seen)
    ));
    if seen > DOWNLOAD_BYTES / 4 {
        return Err(LabError::unexpected("replies passed through the balancer"));
    }
    let status = tour.balancer()?.lb(["status"])?;
    report.detail("$ lb status");
    report.detail(&String::from_utf8_lossy(&status.stdout));
    if !matches!(status.status.code(), Some(0 | 1)) {
        let stderr = String::from_utf8_lossy(&status.stderr);
        return Err(LabError::unexpected(format!("lb status does not say that it works: {stderr}")));
    }
    Ok("a running download survived the change, complete and unharmed; replies bypass the balancer".into())
}

fn lose_address(tour: &mut Tour, report: &Report) -> Result<String, LabError> {
    let pool = tour.config.web.clone();
    let Some(victim) = pool.last() else { return Err(LabError::unexpected("the pool is empty")) };
    let number = victim.name.trim_start_matches('b').parse().unwrap_or(1);
    let address = |verb| -> Result<(), LabError> {
        let mut command = tour.lab.command(Role::Backend(number), "ip");
        command.args(["addr", verb, &format!("{VIP_L2}/32"), "dev", "lo"]);
        netns::finish(command).map(drop)
    };
    report.detail(&format!("{}: ip addr del {VIP_L2}/32 dev lo", victim.name));
    address("del")?;
    let lost = Instant::now();
    let avoided = |spread: &Spread| spread.of(&victim.name) == 0;
    wait_until(tour, "new connections to avoid the backend", VIP_L2, SAMPLE, avoided)?;
    report.detail(&format!(
        "left out, and {SAMPLE} requests answered, {:.1} s later",
        lost.elapsed().as_secs_f32()
    ));
    let listed = tour.balancer()?.lb(["backends"])?;
    let why = String::from_utf8_lossy(&listed.stdout).into_owned();
    let why = why.lines().find(|line| line.trim_start().starts_with('!'));
    let why = why.ok_or_else(|| LabError::unexpected("lb backends does not say why"))?;
    report.detail(&format!("$ lb backends\n{why}"));
    address("add")?;
    wait_until(tour, "the backend to be used again", VIP_L2, SAMPLE, |spread| spread.of(&victim.name) > 0)?;
    Ok("a backend that its service could not reach was found, named and left out, and came back when mended"
        .into())
}

fn stop_daemon(tour: &mut Tour, report: &Report) -> Result<String, LabError> {
    tour.balancer()?.stop(&tour.interrupt)?;
    report.detail("the daemon is gone; its program stays in the kernel");
    Spread::measure(&tour.lab, VIP_L2, SAMPLE, &tour.interrupt)?.check_complete()?;
    Ok(format!("{SAMPLE} of {SAMPLE} requests answered without a daemon"))
}

/// Detaches and removes the lab, each with its own verdict.
pub(super) fn clean_up(mut tour: Tour) -> Result<String, LabError> {
    if let Some(mut balancer) = tour.balancer.take() {
        balancer.detach()?;
    }
    tour.lab.teardown()?;
    Ok("program, namespaces, processes and files are gone".into())
}

/// Repeats a sample of requests until it is complete and satisfies `good`.
fn wait_until(
    tour: &Tour,
    what: &str,
    vip: Ipv4Addr,
    sample: u64,
    good: impl Fn(&Spread) -> bool,
) -> Result<Spread, LabError> {
    wait_for(what, PATIENCE, &tour.interrupt, || {
        tour.balancer()?.daemon().check_running()?;
        // One request first: while nobody answers, a whole sample would only wait.
        if Spread::measure(&tour.lab, vip, 1, &tour.interrupt)?.answered() == 0 {
            return Ok(None);
        }
        let spread = Spread::measure(&tour.lab, vip, sample, &tour.interrupt)?;
        Ok((spread.check_complete().is_ok() && good(&spread)).then_some(spread))
    })
}

fn answered_by_all(tour: &Tour) -> impl Fn(&Spread) -> bool + use<> {
    let backends = usize::from(tour.lab.backends());
    move |spread| spread.by_backend.len() == backends
}

fn measure_and_chart(tour: &Tour, report: &Report, vip: Ipv4Addr) -> Result<(), LabError> {
    let spread = Spread::measure(&tour.lab, vip, REQUESTS, &tour.interrupt)?;
    let pool: &[LabBackend] = if vip == VIP_L2 { &tour.config.web } else { &tour.config.tunnel };
    let bar = |b: &'_ LabBackend| (b.name.clone(), spread.of(&b.name), b.weight);
    let rows: Vec<_> = pool.iter().map(bar).collect();
    let bars: Vec<_> =
        rows.iter().map(|(label, count, weight)| Bar { label, count: *count, weight: *weight }).collect();
    report.detail(&chart::render(&bars, CHART_WIDTH).join("\n"));
    spread.check_complete()?;
    spread.check_weights(pool.iter().map(|b| (b.name.as_str(), b.weight)))
}

fn finish_download(tour: &Tour, report: &Report, download: &Process, file: &Path) -> Result<(), LabError> {
    let status = wait_for("the end of the download", Duration::from_secs(60), &tour.interrupt, || {
        let bytes = fs::metadata(file).map_or(0, |meta| meta.len());
        report.progress(&format!("downloading: {:.1} of {:.1} MB", mega(bytes), mega(DOWNLOAD_BYTES)));
        download.try_wait()
    })?;
    if !status.success() {
        return Err(LabError::unexpected(format!("the download broke: {}", download.log_tail(3))));
    }
    let (got, sent) = (sha256(file)?, sha256(&tour.lab.big_file())?);
    if got != sent {
        return Err(LabError::unexpected("the download's SHA-256 differs from the file's"));
    }
    report.detail(&format!(
        "download finished, {:.1} MB, SHA-256 {}… as sent",
        mega(DOWNLOAD_BYTES),
        &got[..12]
    ));
    Ok(())
}

fn sha256(file: &Path) -> Result<String, LabError> {
    let mut command = Command::new("sha256sum");
    command.arg("--binary").arg(file);
    let line = netns::finish(command)?;
    let sum = line.split_whitespace().next().unwrap_or_default().to_owned();
    if sum.len() == 64 { Ok(sum) } else { Err(LabError::unexpected(format!("sha256sum said {line:?}"))) }
}

/// The backend that names itself in the headers received so far.
fn server_of(headers: &Path) -> Option<String> {
    let text = fs::read_to_string(headers).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("X-Backend: "))?;
    Some(line.trim_end().to_owned())
}

fn names(spread: &Spread) -> String {
    spread.by_backend.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
