//! A config as a data plane of its own, for packets that nobody sent: in the kernel where that is allowed, and in this
//! process, which also tells what the engine looked up.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use lb_common::datapath::Verdict;
use lb_common::datapath::host::HostTables;

use super::stand_ins::{Known, StandIns};
use super::{Error, Machine, assemble, interfaces, naming, size};
use crate::dataplane::{
    DataPlane, Error as PlaneError, KernelPlane, MemoryPlane, Pins, TestProgram, monotonic_ns,
};
use crate::model::Model;
use crate::reconcile::{Desired, History, Memo, Plan, Size, plan};
use crate::simulate::capture_file::Captured;
use crate::simulate::language::{Link, Mac};
use crate::simulate::{Facts, Names, Report, decide};

/// Frames that are shorter the kernel does not take (`ETH_HLEN`, net/bpf/test_run.c), in bytes.
const SHORTEST: usize = 14;
/// Longest frame there is, in bytes: an IP packet behind a header with two tags.
const LONGEST: usize = 65_535 + 22;

/// What is to decide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EngineChoice {
    /// The BPF program, or the host build of the same engine where the kernel does not let us.
    KernelIfAllowed,
    /// The host build.
    Host,
}

/// Which engine decides, and why not the other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Engine {
    /// The BPF program in the kernel, by `BPF_PROG_TEST_RUN`.
    Kernel,
    /// The host build, because it was asked for.
    Host,
    /// The host build, because the kernel refused; its words.
    HostInstead(String),
}

impl Engine {
    /// `kernel` or `host`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Host | Self::HostInstead(_) => "host",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("engine: kernel (the BPF program itself)"),
            Self::Host => f.write_str("engine: host (the same engine in this process)"),
            Self::HostInstead(why) => {
                write!(f, "engine: host (the same engine in this process); the kernel was not used: {why}")
            }
        }
    }
}

/// A data plane that no packet enters or leaves.
pub struct Simulation {
    tables: HostTables,
    kernel: Option<Private>,
    names: Names,
    link: Link,
    engine: Engine,
    stand_ins: Vec<String>,
}

/// The program on maps that nobody else knows.
struct Private {
    program: TestProgram,
    _plane: KernelPlane,
}

impl Simulation {
    /// Makes one of a config.
    pub fn new(model: &Model, known: &Known, bpffs: &Path, choice: EngineChoice) -> Result<Self, Error> {
        let machine = StandIns::new(model, known);
        let attached = interfaces::find(&machine.interfaces, &machine.links)?;
        let view = Machine { links: &machine.links, resolutions: &machine.resolutions };
        let mut assembled = assemble(model, &attached, view, &StandIns::uses(model));
        let errors: Vec<_> = assembled.findings.drain(..).filter(|finding| finding.fatal).collect();
        if !errors.is_empty() {
            return Err(Error::Findings(errors));
        }
        let size = size(model);
        let mut memory = MemoryPlane::new(size);
        let planned = planned(&memory, &assembled.desired)?;
        memory.run(&planned)?;
        let observed = memory.observe()?;
        let first = attached.first().map_or(0, |link| link.ifindex);
        let ingress =
            observed.ports.iter().find(|(_, port)| port.ifindex == first).map_or(0, |(number, _)| *number);
        let called = |index| machine.links.by_index(index).map_or_else(String::new, |link| link.name.clone());
        let names = Names { stand_ins: machine.of_backends, ..naming::names(model, &observed, called) };
        let (kernel, engine) = match choice {
            EngineChoice::Host => (None, Engine::Host),
            EngineChoice::KernelIfAllowed => match Private::new(bpffs, &size, &planned, ingress) {
                Ok(private) => (Some(private), Engine::Kernel),
                Err(error) => (None, Engine::HostInstead(words(&error))),
            },
        };
        let mut tables = memory.tables();
        tables.ingress = ingress;
        let link = Link { destination: known.mac, ..Link::default() };
        Ok(Self { tables, kernel, names, link, engine, stand_ins: machine.of_all })
    }

    /// Which engine decides.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What stands in for all packets, in words.
    pub fn stand_ins(&self) -> &[String] {
        &self.stand_ins
    }

    /// The link that packets come in by where they do not say.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Decides about a packet; what leaves, if it leaves. What the engine learns from it holds for those that follow.
    pub fn run(&mut self, index: usize, packet: &Captured) -> (Report, Option<Captured>) {
        let mut warnings = Vec::new();
        let frame = whole(packet, &mut warnings);
        self.tables.now_ns.set(monotonic_ns());
        let host = decide(&self.tables, &frame);
        let (mut verdict, mut after, mut engine) = (host.verdict, host.frame, "host");
        match self.kernel.as_mut().map(|private| private.run(&frame)) {
            None => {}
            Some(Err(why)) => warnings.push(format!("{why}: the host build decided")),
            Some(Ok((action, bytes))) => {
                let told = told(action, verdict);
                if (told, &bytes) != (verdict, &after) {
                    warnings
                        .push("kernel and host build differ: the explanation is the host build's".to_owned());
                }
                (verdict, after, engine) = (told, bytes, "kernel");
            }
        }
        let facts = Facts {
            index,
            engine,
            verdict,
            before: &frame,
            after: &after,
            noted: &host.noted,
            link: &self.link,
            ingress: self.tables.ingress,
        };
        let mut report = Report::new(&facts, &self.names);
        report.warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        let sent = matches!(verdict, Verdict::Transmit | Verdict::Redirect(_));
        let output = sent.then(|| leaving(packet, frame.len(), after));
        (report, output)
    }
}

/// The frame, with zeros for what a file does not have of it.
fn whole(packet: &Captured, warnings: &mut Vec<String>) -> Vec<u8> {
    let mut frame = packet.frame.clone();
    if packet.is_cut() {
        let (have, wanted) = (frame.len(), packet.original_len);
        warnings.push(format!("the file has only {have} of {wanted} bytes: the rest is taken to be zeros"));
        frame.resize((wanted as usize).min(LONGEST), 0);
    }
    frame
}

/// What leaves: as much of it as is known.
fn leaving(packet: &Captured, before: usize, mut after: Vec<u8>) -> Captured {
    let original_len = after.len() as u32;
    let unknown = before.saturating_sub(packet.frame.len());
    // What the engine makes itself, such as an ICMP error, may be shorter than what it is about.
    if after.len() >= before {
        after.truncate(after.len() - unknown);
    }
    Captured { time: packet.time, frame: after, original_len }
}

/// The kernel's action as a verdict (enum xdp_action, include/uapi/linux/bpf.h). It does not tell the port that it
/// redirects to.
fn told(action: u32, host: Verdict) -> Verdict {
    match (action, host) {
        (2, _) => Verdict::Pass,
        (3, _) => Verdict::Transmit,
        (4, Verdict::Redirect(port)) => Verdict::Redirect(port),
        (4, _) => Verdict::Redirect(0),
        _ => Verdict::Drop,
    }
}

fn planned(plane: &impl DataPlane, desired: &Desired) -> Result<Plan, Error> {
    plan(&plane.observe()?, desired, &mut Memo::default(), &History::default()).map_err(Error::Plan)
}

/// An error and its causes.
fn words(error: &PlaneError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let cause_words = cause.to_string();
        if !text.contains(&cause_words) {
            text = format!("{text}: {cause_words}");
        }
        next = cause.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}

impl Private {
    /// Loads and fills it. Its pins are there only while it is loaded: afterwards the process alone holds it.
    fn new(bpffs: &Path, size: &Size, plan: &Plan, ingress: u16) -> Result<Self, PlaneError> {
        let pins = Pins::new(bpffs, &format!("simulate-{}", std::process::id()))?;
        let removed = Removed(pins.clone());
        let _lock = pins.lock()?;
        let mut plane = KernelPlane::open_or_create(&pins, size)?;
        plane.run_without_devices(plan)?;
        let program = TestProgram::balancer(&pins, size, ingress)?;
        drop(removed);
        Ok(Self { program, _plane: plane })
    }

    /// The XDP action and the frame afterwards; in words why the kernel would not.
    fn run(&mut self, frame: &[u8]) -> Result<(u32, Vec<u8>), String> {
        if frame.len() < SHORTEST {
            return Err("too short for the kernel to take".to_owned());
        }
        self.program.run(frame).map_err(|error| format!("the kernel did not take it ({})", words(&error)))
    }
}

/// Removes the pins when it goes.
struct Removed(Pins);

impl Drop for Removed {
    fn drop(&mut self) {
        self.0.discard();
    }
}

/// How long after 1970 it is.
pub fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// The MAC address of the interface, as the packets themselves tell: the one to which most of those for service
/// addresses go.
pub fn mac_of(model: &Model, packets: &[Captured]) -> Option<Mac> {
    use std::collections::BTreeMap;
    let ours = |packet: &Captured| {
        let (mac, address) = crate::simulate::language::addressed(&packet.frame)?;
        let service = model.vips.iter().any(|vip| vip.prefix().contains(address));
        (service && mac.0[0] & 1 == 0).then_some(mac.0)
    };
    let mut counts: BTreeMap<[u8; 6], usize> = BTreeMap::new();
    for mac in packets.iter().filter_map(ours) {
        *counts.entry(mac).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(mac, _)| Mac(mac))
}
