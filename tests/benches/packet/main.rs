//! Time per packet through the real, loaded balancer, in multiples of what encapsulating alone costs.
//!
//! Each round runs every case once, between two runs of the encapsulating floor (c), on one CPU: what disturbs the
//! machine disturbs both, and the ratio of the pair is what counts. Run with `cargo xtask bench packet`.

mod cases;
mod measure;
mod report;
mod stage;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lb_userspace::dataplane::{Floor, Stopwatch};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use self::cases::{CASES, Case};
use self::measure::{Subject, floor};
use self::report::{Baseline, Row};
use self::stage::Stage;

const HELP: &str = "\
Usage: cargo xtask bench packet [OPTIONS] [WORD…]

Words select the rows whose name contains one of them.

  --quick         few rounds: a look, not a measurement
  --rounds N      measurements per row
  --cpu N         the CPU to run on; the last one that is allowed otherwise
  --json FILE     write the figures
  --compare FILE  compare with figures written before
";

/// Timed iterations per measurement: about a millisecond, so that the scheduler rarely puts somebody else in between.
const ITERATIONS: u32 = 10_000;
const ROUNDS: usize = 41;
const QUICK_ROUNDS: usize = 5;

const FLOORS: [(Floor, &str); 3] = [
    (Floor::Transmit, "floor (a): TX alone"),
    (Floor::Swap, "floor (b): parse, swap MACs"),
    (Floor::Encapsulate, "floor (c): IPIP to a constant destination"),
];

#[derive(Default)]
struct Options {
    rounds: Option<usize>,
    quick: bool,
    cpu: Option<usize>,
    json: Option<PathBuf>,
    compare: Option<PathBuf>,
    words: Vec<String>,
    help: bool,
}

fn main() -> Result<()> {
    let options = read(std::env::args().skip(1))?;
    // Set by xtask: cargo starts benchmarks in the package's directory.
    if let Some(directory) = std::env::var_os("LB_BENCH_DIR") {
        std::env::set_current_dir(&directory).with_context(|| format!("entering {}", directory.display()))?;
    }
    if options.help {
        print!("{HELP}");
        return Ok(());
    }
    // Read first: a mistake in a name should not cost a minute.
    let baseline = options.compare.as_deref().map(Baseline::read).transpose()?;
    let rounds = options.rounds.unwrap_or(if options.quick { QUICK_ROUNDS } else { ROUNDS });
    let wanted =
        |case: &&Case| options.words.is_empty() || options.words.iter().any(|word| case.name.contains(word));
    let cases: Vec<&Case> = CASES.iter().filter(wanted).collect();
    if cases.is_empty() {
        bail!("no row's name contains {}", options.words.join(" or "));
    }
    let cpu = pin(options.cpu)?;
    let started = Instant::now();
    let rows = measure(&cases, rounds);
    report::table(&rows);
    println!("{rounds} rounds on CPU {cpu}, {:.0} s", started.elapsed().as_secs_f64());
    if let Some(file) = &options.json {
        report::save(&rows, rounds, file)?;
    }
    if let Some(baseline) = baseline {
        baseline.compare(&rows);
    }
    Ok(())
}

fn read(arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            // What `cargo bench` adds.
            "--bench" => {}
            "--help" | "-h" => options.help = true,
            "--quick" => options.quick = true,
            "--rounds" => options.rounds = Some(value()?.parse().context("--rounds wants a number")?),
            "--cpu" => options.cpu = Some(value()?.parse().context("--cpu wants a number")?),
            "--json" => options.json = Some(value()?.into()),
            "--compare" => options.compare = Some(value()?.into()),
            option if option.starts_with('-') => bail!("no option {option}\n\n{HELP}"),
            word => options.words.push(word.to_owned()),
        }
    }
    Ok(options)
}

/// Stays on one CPU from now on.
fn pin(wanted: Option<usize>) -> Result<usize> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("asking for this thread's CPUs")?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let cpu = wanted.or(last).context("no CPU is allowed")?;
    let mut one = CpuSet::new();
    one.set(cpu).with_context(|| format!("CPU {cpu}"))?;
    sched_setaffinity(this, &one).with_context(|| format!("running on CPU {cpu} only"))?;
    Ok(cpu)
}

/// Floors first, then cases.
fn measure(cases: &[&'static Case], rounds: usize) -> Vec<Row> {
    let mut stages: Vec<Stage> = Vec::new();
    for case in cases {
        if stages.iter().all(|stage| stage.scene != case.scene) {
            stages.push(Stage::new(case.scene));
        }
    }
    let mut subjects: Vec<Subject> = cases.iter().map(|case| Subject::new(case, &mut stages)).collect();
    let frame = (CASES[0].frame)();
    let load = |kind| Stopwatch::floor(kind).expect("the floors load");
    // Floor (c) twice: against itself it shows how far the machine can be trusted.
    let mut floors = FLOORS.map(|(kind, _)| load(kind));
    let mut reference = load(Floor::Encapsulate);
    let empty = |name: &str, aim| Row { name: name.to_owned(), aim, ns: Vec::new(), ratios: Vec::new() };
    let mut rows: Vec<Row> = FLOORS.iter().map(|(_, name)| empty(name, None)).collect();
    rows.extend(cases.iter().map(|case| empty(case.name, case.aim)));
    for _ in 0..rounds {
        let mut reference = || floor(&mut reference, Floor::Encapsulate, &frame, ITERATIONS);
        let mut before = reference();
        let mut pair = |row: &mut Row, ns: f64| {
            let after = reference();
            row.ns.push(ns);
            row.ratios.push(2.0 * ns / (before + after));
            before = after;
        };
        let (floor_rows, case_rows) = rows.split_at_mut(FLOORS.len());
        for (((kind, _), stopwatch), row) in FLOORS.iter().zip(&mut floors).zip(floor_rows) {
            pair(row, floor(stopwatch, *kind, &frame, ITERATIONS));
        }
        for (subject, row) in subjects.iter_mut().zip(case_rows) {
            pair(row, subject.time(&mut stages, ITERATIONS));
        }
    }
    rows
}
