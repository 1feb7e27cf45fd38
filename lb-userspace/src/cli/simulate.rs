//! `lb simulate`: packets through a config, without an interface.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use super::args::{Context, Output};
use super::error::Failure;
use super::output;
use super::packet_args::SimulateArgs;
use crate::config;
use crate::daemon::{self, EngineChoice, Known, Simulation};
use crate::model::Model;
use crate::simulate::Report;
use crate::simulate::capture_file::{self, Captured, Writer};
use crate::simulate::language::{Link, parse_on};

/// `lb simulate`.
pub(super) fn run(context: &Context, args: &SimulateArgs) -> Result<ExitCode, Failure> {
    let model = config::load(&args.config).map_err(daemon::Error::from)?.model;
    let recorded = args.pcap.as_deref().map(capture_file::read).transpose().map_err(Failure::from)?;
    let known = known(args, &model, recorded.as_deref().unwrap_or_default());
    let packets = match recorded {
        Some(packets) => packets,
        None => described(&args.packet, &known)?,
    };
    let choice = if args.host { EngineChoice::Host } else { EngineChoice::KernelIfAllowed };
    let mut out = args.out.as_deref().map(Writer::create).transpose().map_err(Failure::from)?;
    let mut simulation = Simulation::new(&model, &known, &context.bpffs, choice)?;
    eprintln!("{}", simulation.engine());
    let mut printer = Printer::new(args.output, &simulation)?;
    for (index, packet) in packets.iter().enumerate() {
        let (report, sent) = simulation.run(index, packet);
        if let (Some(out), Some(sent)) = (out.as_mut(), sent) {
            out.write(&sent, &report.summary())?;
        }
        printer.print(report)?;
    }
    if let Some(out) = out {
        out.finish()?;
    }
    printer.finish()?;
    Ok(ExitCode::SUCCESS)
}

fn known(args: &SimulateArgs, model: &Model, packets: &[Captured]) -> Known {
    let (mac, mac_origin) = match (args.mac, daemon::mac_of(model, packets)) {
        (Some(mac), _) => (mac, "as given"),
        (None, Some(mac)) => (mac, "the one that the file's packets for services go to"),
        (None, None) => (Link::default().destination, "made up"),
    };
    Known { mac, mac_origin, mtu: args.mtu }
}

fn described(lines: &[String], known: &Known) -> Result<Vec<Captured>, Failure> {
    let link = Link { destination: known.mac, ..Link::default() };
    let packet = |line: &String| {
        let frame = parse_on(line, &link).map_err(Failure::bad_input)?;
        Ok(Captured { time: daemon::now(), original_len: frame.len() as u32, frame })
    };
    lines.iter().map(packet).collect()
}

/// Prints reports as they come: a file may have millions of packets.
struct Printer {
    output: Output,
    stand_ins: Vec<String>,
    told: BTreeSet<String>,
    verdicts: BTreeMap<&'static str, usize>,
    count: usize,
}

impl Printer {
    fn new(output: Output, simulation: &Simulation) -> Result<Self, Failure> {
        let stand_ins = simulation.stand_ins().to_vec();
        match output {
            Output::Json => output::text("[")?,
            Output::Table => {
                let lines: String = stand_ins.iter().map(|line| format!("stand-in: {line}\n")).collect();
                output::text(&lines)?;
            }
        }
        Ok(Self { output, stand_ins, told: BTreeSet::new(), verdicts: BTreeMap::new(), count: 0 })
    }

    fn print(&mut self, mut report: Report) -> Result<(), Failure> {
        *self.verdicts.entry(report.verdict).or_default() += 1;
        self.count += 1;
        match self.output {
            Output::Json => {
                report.stand_ins.extend(self.stand_ins.iter().cloned());
                let comma = if self.count == 1 { "\n" } else { ",\n" };
                output::text(comma)?;
                output::text(&serde_json::to_string(&report).map_err(Failure::failed)?)
            }
            Output::Table => {
                let new = report.stand_ins.iter().filter(|line| self.told.insert((*line).clone()));
                let lines: String = new.map(|line| format!("    stand-in: {line}\n")).collect();
                output::text(&format!("{}{lines}", report.text()))
            }
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self.output {
            Output::Json => output::text("\n]\n"),
            Output::Table => {
                let counts: Vec<String> =
                    self.verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect();
                output::text(&format!("{} packets: {}\n", self.count, counts.join(", ")))
            }
        }
    }
}
