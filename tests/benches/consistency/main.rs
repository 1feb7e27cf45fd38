//! What breaks: the same histories of flows and backends for three ways to keep a flow on its backend, in calm and in
//! floods, and what a packet costs in each. Run with `cargo xtask bench consistency`.

mod report;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lb_tests::histories::{Action, Chooser, Setup, World};
use lb_userspace::model::Tracking;

use self::report::{Costs, Figures, Row};

const HELP: &str = "\
Usage: cargo xtask bench consistency [OPTIONS]

  --histories N   histories per figure (20)
  --seconds N     length of each, in its own time (2000)
  --packet FILE   what `bench packet --json` has written: the cost of a packet; xtask measures it otherwise
  --json FILE     write the figures
";

/// Packets of a flood in a second; the tables turn over in seconds.
const FLOOD: u32 = 100;
/// Entries of each of the three flow tables; whoever has one has three times as many in it.
const ROOMY: usize = 400;
/// So that not even one of two live flows can be remembered.
const TIGHT: usize = 16;

struct Options {
    histories: u64,
    seconds: usize,
    packet: Option<PathBuf>,
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    let Some(options) = read(std::env::args().skip(1))? else {
        print!("{HELP}");
        return Ok(());
    };
    // Set by xtask: cargo starts benchmarks in the package's directory.
    if let Some(directory) = std::env::var_os("LB_BENCH_DIR") {
        std::env::set_current_dir(&directory).with_context(|| format!("entering {}", directory.display()))?;
    }
    let costs = options.packet.as_deref().map(Costs::read).transpose()?.unwrap_or_default();
    let started = Instant::now();
    let ring = Setup { tracking: Tracking::Never, ..Setup::default() };
    let remembering = Setup { chooser: Chooser::Remembering, ..ring.clone() };
    let rows = [
        row("(a) Maglev ring alone", &ring, &options, (costs.settled, costs.settled)),
        row("(b) ring, and every flow in an LRU", &remembering, &options, (costs.tracked, costs.tracked)),
        row("(c) lb", &Setup::default(), &options, (costs.settled, costs.unsettled)),
    ];
    let Options { histories, seconds, .. } = options;
    println!("{histories} histories of {seconds} s; flows that broke while their backend was up");
    report::table(&rows);
    println!("{:.0} s", started.elapsed().as_secs_f64());
    match &options.json {
        Some(file) => report::save(&rows, file),
        None => Ok(()),
    }
}

fn read(arguments: impl Iterator<Item = String>) -> Result<Option<Options>> {
    let mut options = Options { histories: 20, seconds: 2000, packet: None, json: None };
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            // What `cargo bench` adds.
            "--bench" => {}
            "--help" | "-h" => return Ok(None),
            "--histories" => options.histories = value()?.parse().context("--histories wants a number")?,
            "--seconds" => options.seconds = value()?.parse().context("--seconds wants a number")?,
            "--packet" => options.packet = Some(value()?.into()),
            "--json" => options.json = Some(value()?.into()),
            other => bail!("what is {other}?\n\n{HELP}"),
        }
    }
    Ok(Some(options))
}

fn row(name: &'static str, setup: &Setup, options: &Options, ns: (Option<f64>, Option<f64>)) -> Row {
    let roomy = Setup { capacity: ROOMY, ..setup.clone() };
    Row {
        name,
        calm: figures(&roomy, options),
        hellos: figures(&Setup { hellos: FLOOD, ..roomy.clone() }, options),
        strays: figures(&Setup { strays: FLOOD, ..roomy }, options),
        tight: figures(&Setup { capacity: TIGHT, ..setup.clone() }, options),
        settled_ns: ns.0,
        changing_ns: ns.1,
    }
}

/// The same histories for everybody.
fn figures(setup: &Setup, options: &Options) -> Figures {
    let mut figures = Figures::default();
    for seed in 0..options.histories {
        let mut history = Action::history(seed, options.seconds);
        // The others know no such thing.
        history.retain(|action| !matches!(action, Action::Resize(_) | Action::Settings(_)));
        let outcome = World::run(setup, &history);
        figures.flows += outcome.flows;
        figures.broken += outcome.broken;
        figures.most_entries = figures.most_entries.max(outcome.most_entries);
    }
    figures
}
