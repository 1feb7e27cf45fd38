//! The scripted tour: runs the steps in order, tells what they showed, and cleans up in every case.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use super::balancer::Balancer;
use super::builder::unique_prefix;
use super::config_file::LabConfig;
use super::error::LabError;
use super::interrupt::Interrupt;
use super::report::{Report, say};
use super::state;
use super::steps::{self, STEPS};
use super::topology::Topology;

const BACKENDS: u8 = 3;
/// Eight seconds at the servers' slow rate: time enough to change something meanwhile.
pub(super) const DOWNLOAD_BYTES: u64 = 32 << 20;

/// What the steps work on. The order of the fields is the order of removal.
#[derive(Debug)]
pub(super) struct Tour {
    pub(super) balancer: Option<Balancer>,
    pub(super) lab: Topology,
    pub(super) config: LabConfig,
    pub(super) binary: PathBuf,
    pub(super) interrupt: Interrupt,
}

impl Tour {
    pub(super) fn config_path(&self) -> PathBuf {
        self.lab.dir().join("lb.yaml")
    }

    pub(super) fn balancer(&self) -> Result<&Balancer, LabError> {
        self.balancer.as_ref().ok_or_else(|| LabError::unexpected("the balancer was not started"))
    }
}

/// Shows the tour with `binary` as the balancer. A failed step is told here, with the daemon's last words.
pub(super) fn run(binary: &Path) -> Result<ExitCode, LabError> {
    let interrupt = Interrupt::install()?;
    let began = Instant::now();
    let mut report = Report::new(STEPS.len() + 2);
    for name in state::sweep_stale()? {
        say(&format!("lab {name}: removed, the program that made it was killed"));
    }
    match tour(&mut report, binary, &interrupt) {
        Ok(()) => {
            report.good(&format!("Shown in {:.0} s, nothing left behind:", began.elapsed().as_secs_f32()));
            report.proven().iter().for_each(|fact| say(&format!("  ✓ {fact}")));
            Ok(ExitCode::SUCCESS)
        }
        Err(Failure { error: LabError::Interrupted, .. }) => Err(LabError::Interrupted),
        Err(Failure { error, log }) => {
            report.bad(&format!("FAILED  {}", report.title()));
            report.detail(&format!("{error}"));
            if !log.is_empty() {
                report.detail(&format!("the balancer's last words:\n{log}"));
            }
            say("the lab is removed");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// An error, and the daemon's log while it still existed.
struct Failure {
    error: LabError,
    log: String,
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        Self { error, log: String::new() }
    }
}

fn tour(report: &mut Report, binary: &Path, interrupt: &Interrupt) -> Result<(), Failure> {
    report.begin("Build a lab of network namespaces");
    let lab = Topology::builder(unique_prefix()).backends(BACKENDS).big_bytes(DOWNLOAD_BYTES).build()?;
    report.detail(MAP);
    report.done(&format!("{} machines with real cables, nginx on {BACKENDS} of them", BACKENDS + 4));

    let mut tour = Tour {
        balancer: None,
        lab,
        config: LabConfig::even(BACKENDS),
        binary: binary.to_owned(),
        interrupt: interrupt.clone(),
    };
    for (title, step) in STEPS {
        interrupt.check()?;
        report.begin(title);
        match step(&mut tour, report) {
            Ok(proven) => report.done(&proven),
            Err(error) => {
                // The end of a process is told with its log already.
                let silent = !matches!(error, LabError::Ended { .. });
                let log = tour.balancer.as_ref().filter(|_| silent).map(|b| b.daemon().log_tail(15));
                return Err(Failure { error, log: log.unwrap_or_default() });
            }
        }
    }
    report.begin("Remove everything");
    report.done(&steps::clean_up(tour)?);
    Ok(())
}

const MAP: &str = "\
client ── router ──┬── lb         the balancer, 203.0.113.5
198.51.100.2       └── b1 b2 b3   nginx, 203.0.113.21 .22 .23
services: 203.0.113.10 (l2), 203.0.113.20 (ipip); so far nobody answers for them";
