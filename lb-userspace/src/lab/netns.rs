//! One network namespace by name: entering it, and finding the processes that live in it.
//!
//! Entered with `nsenter --net`, not `ip netns exec`: that one remounts /sys and so hides bpffs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::LabError;

/// A named network namespace (`/run/netns/NAME`), which may or may not exist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Netns(String);

impl Netns {
    /// Names a namespace; makes nothing.
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// A command that will run `program` in this namespace. Arguments are added as usual.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a shell script inside; any failing line fails it.
    pub(super) fn script(&self, script: &str) -> Result<(), LabError> {
        let mut shell = self.command("sh");
        shell.args(["-eu", "-s"]);
        feed(shell, &format!("set-up script in {}", self.0), script).map(drop)
    }

    /// Which namespace it is, whatever its name.
    fn identity(&self) -> Option<(u64, u64)> {
        fs::metadata(self.path()).ok().map(|meta| (meta.dev(), meta.ino()))
    }
}

/// Runs `ip -batch` in the current namespace.
pub(super) fn ip_batch(lines: &[String]) -> Result<(), LabError> {
    let mut ip = Command::new("ip");
    ip.args(["-batch", "-"]);
    feed(ip, "ip -batch", &(lines.join("\n") + "\n")).map(drop)
}

/// Every process in any of these namespaces, except this one and its ancestors.
///
/// A process's namespace, unlike a recorded pid, cannot have been reused by a stranger, and it also finds
/// what the user started in the lab by hand.
pub(super) fn inhabitants(namespaces: &[Netns]) -> BTreeSet<i32> {
    let wanted: BTreeSet<_> = namespaces.iter().filter_map(Netns::identity).collect();
    if wanted.is_empty() {
        return BTreeSet::new();
    }
    let spared = ancestry();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| !spared.contains(pid))
        .filter(|pid| {
            // A process that has just ended has no namespace any more.
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|meta| wanted.contains(&(meta.dev(), meta.ino())))
        })
        .collect()
}

/// Sends `signal` to all; a process that is gone already is fine.
pub(super) fn signal_all(pids: &BTreeSet<i32>, signal: Signal) {
    for &pid in pids {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// This process, its parent, its parent's parent, …
fn ancestry() -> BTreeSet<i32> {
    let parent = |pid: i32| -> Option<i32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    let own = i32::try_from(std::process::id()).ok();
    std::iter::successors(own, |&pid| parent(pid).filter(|&parent| parent > 0)).collect()
}

/// Runs a command to its end and returns its standard output; a failure carries what it said.
pub(super) fn finish(mut command: Command) -> Result<String, LabError> {
    let what = describe(&command);
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(LabError::start(&program))?;
    judge(&what, output)
}

fn feed(mut command: Command, what: &str, input: &str) -> Result<String, LabError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LabError::start(&program))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that fails early closes its end; its own message says more than the broken pipe.
        let _ = stdin.write_all(input.as_bytes());
    }
    judge(what, child.wait_with_output().map_err(LabError::io(format!("wait for {what}")))?)
}

fn judge(what: &str, output: Output) -> Result<String, LabError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::Command { command: what.to_owned(), status: output.status, stderr })
}

/// The command line without the wrapping that the lab put around it.
fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let program = words.iter().position(|word| word == "--").map_or(0, |at| at + 1);
    words[program..].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_command_the_user_knows() {
        let mut command = Netns::named("t-lb").command("ip");
        command.args(["link", "show"]);
        assert_eq!(describe(&command), "ip link show");
    }

    #[test]
    fn the_own_process_is_spared() {
        assert!(ancestry().contains(&i32::try_from(std::process::id()).unwrap()));
    }
}
