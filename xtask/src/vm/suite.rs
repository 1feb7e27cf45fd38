//! The tests that are about other kernels: the same test programs in a guest of each kernel, one after the other,
//! counted together. What cannot run is counted as skipped, and said.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Accelerator, Kernel, guest, image, prepared};
use crate::setup;
use crate::summary::Summary;
use crate::workspace::Workspace;

/// Test programs of the package `lb-tests`, in this order.
const PROGRAMS: [&str; 3] = ["bpf_verifier", "vm_nic", "vm_interop"];

/// Longest that all of them may take in one guest: with two kernels, ten minutes together.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs programs (first words up to `--`) with the arguments behind, whatever becomes of each.
const EACH: &str = r#"
code=0; count=0
for word; do if [ "$word" = -- ]; then break; fi; count=$((count + 1)); done
programs=; while [ $count -gt 0 ]; do programs="$programs $1"; shift; count=$((count - 1)); done
shift
for program in $programs; do
    echo "== ${program##*/}"
    "$program" "$@" || code=1
done
exit $code
"#;

/// Which tests in which guests.
#[derive(Debug, PartialEq, Eq)]
pub struct Selection {
    /// All, if none is named.
    pub kernel: Option<Kernel>,
    pub accelerator: Accelerator,
    /// Parts of names of tests.
    pub filters: Vec<String>,
}

/// Ends the process; the last line it prints is the summary.
pub fn test(workspace: &Workspace, selection: &Selection) -> Result<()> {
    setup::root()?;
    setup::for_building(workspace)?;
    let (lb, programs) = build(workspace)?;
    let mut summary = Summary::default();
    let mut failed = Vec::new();
    let kernels =
        Kernel::ALL.into_iter().filter(|kernel| selection.kernel.is_none_or(|only| only == *kernel));
    for kernel in kernels {
        let image = match prepared(workspace, kernel) {
            Ok(Ok(image)) => image,
            Ok(Err(reason)) => {
                println!("== Linux {kernel}: SKIPPED, {} test programs: {reason}", PROGRAMS.len());
                summary.skipped += PROGRAMS.len() as u64;
                continue;
            }
            Err(error) => {
                println!("== Linux {kernel}: FAILED: {error:#}");
                summary.failed += 1;
                failed.push(format!("{kernel}"));
                continue;
            }
        };
        let mut guest = Guest { programs: &programs, lb: &lb, selection, summary: &mut summary };
        if !guest.run(&format!("Linux {}", image.release), workspace, &image) {
            failed.push(format!("Linux {kernel}"));
        }
    }
    println!();
    if !failed.is_empty() {
        println!("FAILED: {}", failed.join(", "));
    }
    println!("{summary}");
    io::stdout().flush()?;
    // The summary stays the last line: what failed has been said.
    let nothing = summary.ran() == 0;
    std::process::exit(if !failed.is_empty() {
        1
    } else if nothing {
        super::SKIPPED
    } else {
        0
    });
}

/// All test programs in one guest.
struct Guest<'a> {
    programs: &'a [PathBuf],
    lb: &'a Path,
    selection: &'a Selection,
    summary: &'a mut Summary,
}

impl Guest<'_> {
    /// Whether all succeeded.
    fn run(&mut self, title: &str, workspace: &Workspace, image: &image::Image) -> bool {
        println!("== {title}");
        let started = Instant::now();
        let mut command = ["sh", "-c", EACH, "sh"].map(str::to_owned).to_vec();
        command.extend(self.programs.iter().map(|program| program.display().to_string()));
        // One after the other: they use the same cards.
        command.extend(["--", "--include-ignored", "--nocapture", "--test-threads=1"].map(str::to_owned));
        command.extend(self.selection.filters.iter().cloned());
        let directory = workspace.root.join("tests");
        let environment = [("LB_BIN", self.lb.display().to_string())];
        let task =
            guest::Task { command: &command, directory: &directory, environment: &environment, limit: LIMIT };
        let mut lines =
            Lines { summary: self.summary, begun: Vec::new(), results: 0, shown: io::stdout().lock() };
        let ended = guest::run(image, self.selection.accelerator, &task, &mut lines);
        let results = lines.results;
        if let Err(error) = &ended {
            println!("{error:#}");
        }
        // A program that ended without a result line crashed, or the guest did: one failure each.
        self.summary.failed += (self.programs.len() as u64).saturating_sub(results);
        let succeeded = matches!(ended, Ok(0)) && results == self.programs.len() as u64;
        let outcome = if succeeded { "ok" } else { "FAILED" };
        println!("== {title}: {outcome} ({:.1} s)", started.elapsed().as_secs_f64());
        succeeded
    }
}

/// Shows what comes, and counts the result lines in it.
struct Lines<'a, W> {
    summary: &'a mut Summary,
    begun: Vec<u8>,
    results: u64,
    shown: W,
}

impl<W: Write> Write for Lines<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&self.begun);
                self.results += u64::from(line.starts_with("test result: "));
                self.summary.add(&line);
                self.begun.clear();
            } else {
                self.begun.push(*byte);
            }
        }
        self.shown.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.shown.flush()
    }
}

/// Builds `lb` and the test programs, as `cargo xtask test` does; returns where they are, in the order of
/// [`PROGRAMS`].
fn build(workspace: &Workspace) -> Result<(PathBuf, Vec<PathBuf>)> {
    let mut build = workspace.cargo(&["build", "--release", "--message-format", "json-render-diagnostics"]);
    build.args(["--package", "lb-userspace", "--bin", "lb", "--package", "lb-tests"]);
    for name in PROGRAMS {
        build.args(["--test", name]);
    }
    let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo build")?;
    if !output.status.success() {
        bail!("cargo build failed ({})", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let find = |name: &str| executable(&messages, name).with_context(|| format!("cargo built no {name}"));
    let programs = PROGRAMS.iter().map(|name| find(name)).collect::<Result<_>>()?;
    Ok((workspace.target_dir()?.join("release/lb"), programs))
}

/// The test program with this name in cargo's messages: `NAME-HASH`.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let paths = messages.lines().filter_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        Some(PathBuf::from(rest.split_once('"')?.0))
    });
    paths.into_iter().find(|path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        file.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::{Lines, executable};
    use crate::summary::Summary;

    #[test]
    fn a_programs_file_is_found_by_its_name() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":\"/t/vm_nic-1f\",\"fresh\":true}\n\
                        {\"executable\":null}\n{\"executable\":\"/t/vm_nic_more-2e\"}";
        assert_eq!(executable(messages, "vm_nic").as_deref(), Some(Path::new("/t/vm_nic-1f")));
        assert_eq!(executable(messages, "vm"), None);
    }

    #[test]
    fn result_lines_count_however_they_arrive() {
        let mut summary = Summary::default();
        let mut lines =
            Lines { summary: &mut summary, begun: Vec::new(), results: 0, shown: std::io::sink() };
        lines.write_all(b"test result: ok. 2 passed; 0 fa").unwrap();
        lines.write_all(b"iled; 1 ignored; 0 measured; 0 filtered out\ntest result: ok. 1 pa").unwrap();
        assert_eq!(lines.results, 1);
        assert_eq!(summary, Summary { passed: 2, failed: 0, skipped: 1 });
    }
}
