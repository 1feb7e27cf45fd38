//! Runs tests and benchmarks, and says at the end how many.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::checks;
use crate::run;
use crate::setup;
use crate::summary::Summary;
use crate::workspace::Workspace;

/// Release throughout: the tests want it for packets and rings, and one profile means one build.
const HOST_RELEASE: [&str; 4] = ["--release", "--workspace", "--exclude", "lb-ebpf"];

/// A failing check does not keep the tests from running: one run shows all there is to put right.
pub fn test(workspace: &Workspace, filters: &[String]) -> Result<()> {
    setup::for_running(workspace)?;
    let mut failed = Vec::new();
    if filters.is_empty() {
        type Check = fn(&Workspace) -> Result<()>;
        let checks: [(&str, Check); 4] = [
            ("fmt", checks::fmt_check),
            ("tidy", checks::tidy),
            ("clippy", checks::clippy_host),
            ("clippy (eBPF)", checks::clippy_ebpf),
        ];
        for (name, check) in checks {
            if !step(name, || check(workspace)) {
                failed.push(name);
            }
        }
    }
    let mut summary = Summary::default();
    let mut lb = None;
    if !step("build", || build(workspace).map(|path| lb = Some(path))) {
        failed.push("build");
    }
    if let Some(lb) = lb
        && !step("tests", || run_tests(workspace, &lb, filters, &mut summary))
    {
        failed.push("tests");
    }
    println!();
    if !failed.is_empty() {
        println!("FAILED: {}", failed.join(", "));
    } else if summary.ran() == 0 {
        println!("FAILED: no test ran");
    }
    println!("{summary}");
    std::io::stdout().flush()?;
    // The summary stays the last line: what failed has been said.
    std::process::exit(i32::from(!failed.is_empty() || summary.ran() == 0));
}

pub fn bench(workspace: &Workspace, filters: &[String]) -> Result<()> {
    setup::for_running(workspace)?;
    let lb = build(workspace)?;
    let mut bench = workspace.cargo(&["bench", "--package", "lb-tests"]);
    run::stream(bench.arg("--").args(filters).env("LB_BIN", lb))
}

/// Tells it the directory we were called in, because the arguments name files and cargo goes elsewhere.
pub fn bench_packet(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    setup::for_running(workspace)?;
    let mut bench =
        workspace.cargo(&["bench", "--quiet", "--package", "lb-tests", "--bench", "packet", "--"]);
    let here = std::env::current_dir().context("the current directory")?;
    run::stream(bench.args(arguments).env("LB_BENCH_DIR", here))
}

/// What a packet costs is measured first, by the other benchmark, unless the arguments name its figures.
pub fn bench_consistency(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    setup::for_running(workspace)?;
    let here = std::env::current_dir().context("the current directory")?;
    let file = workspace.target_dir()?.join("consistency-packet.json");
    let bench =
        |name: &str| workspace.cargo(&["bench", "--quiet", "--package", "lb-tests", "--bench", name, "--"]);
    let mut consistency = bench("consistency");
    let asks_for_none = |word: &String| ["--packet", "--help", "-h"].contains(&word.as_str());
    if !arguments.iter().any(asks_for_none) {
        // The rows whose names contain this, and few besides.
        run::stream(bench("packet").args(["--rounds", "11", "--json"]).arg(&file).arg("100k "))?;
        consistency.arg("--packet").arg(&file);
    }
    run::stream(consistency.args(arguments).env("LB_BENCH_DIR", here))
}

fn step(name: &str, act: impl FnOnce() -> Result<()>) -> bool {
    println!("== {name}");
    let started = Instant::now();
    let result = act();
    if let Err(error) = &result {
        println!("{error:#}");
    }
    let outcome = if result.is_ok() { "ok" } else { "FAILED" };
    println!("== {name}: {outcome} ({:.1} s)", started.elapsed().as_secs_f64());
    result.is_ok()
}

/// Builds `lb` together with the tests, so that cargo settles features and compiles once; returns lb's path.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut build = workspace.cargo(&["build"]);
    run::stream(build.args(HOST_RELEASE).args(["--lib", "--bins", "--tests", "--examples"]))?;
    Ok(workspace.target_dir()?.join("release/lb"))
}

/// All tests in release, and the packet engine's again with overflow checks: it must not even overflow.
fn run_tests(workspace: &Workspace, lb: &PathBuf, filters: &[String], summary: &mut Summary) -> Result<()> {
    let mut all = workspace.cargo(&["test", "--no-fail-fast"]);
    all.args(HOST_RELEASE).arg("--").args(filters).env("LB_BIN", lb);
    let mut checked = workspace.cargo(&["test", "--no-fail-fast", "--package", "lb-common"]);
    checked.arg("--").args(filters);
    let mut succeeded = true;
    for mut tests in [all, checked] {
        succeeded &= tee(&mut tests, |line| summary.add(line))?;
    }
    if !succeeded && summary.failed == 0 {
        // No result line: the program crashed, or a documentation test did not compile.
        summary.failed = 1;
        bail!("a test program ended without a result (counted as one failure)");
    }
    if summary.failed > 0 {
        bail!("{} failed", summary.failed);
    }
    Ok(())
}

/// Shows the output as it comes; cargo's own progress goes to stderr and is left alone.
fn tee(command: &mut Command, mut each: impl FnMut(&str)) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("no output pipe")?;
    let mut stdout = std::io::stdout().lock();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(stdout, "{line}")?;
        each(&line);
    }
    Ok(child.wait()?.success())
}
