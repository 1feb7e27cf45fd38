//! The decapsulator's process: started so that it outlives this one, found again, ended. Decides nothing.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::sleep;

use super::error::Error;
use super::facts::Manner;
use super::plan::{DecapCommand, missing};
use super::state::Started;
use crate::dataplane::{XdpFound, xdp_program};
use crate::netlink::Netlink;

/// How long the kernel may take to look through the programs.
const ATTACH: Duration = Duration::from_secs(40);
/// How long it may take to end.
const END: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// Lines of the log that are quoted.
const QUOTED: usize = 8;

/// Starts a decapsulator and waits until it is attached. It has a process group of its own, so that the end of a
/// session's foreground job is not its.
pub(super) async fn start(netlink: &Netlink, command: &DecapCommand, log: &Path) -> Result<Started, Error> {
    let failed = |action| move |source| Error::File { action, path: log.to_owned(), source };
    let output = File::create(log).map_err(failed("writing"))?;
    let errors = output.try_clone().map_err(failed("writing"))?;
    let binary = std::env::current_exe().map_err(failed("finding lb for"))?;
    let mut child = Command::new(binary)
        .args(command.arguments())
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(failed("starting lb decap with"))?;
    let attached = attached(netlink, command, &mut child, log).await;
    match (attached, ticks(child.id())) {
        (Ok(()), Some(ticks)) => {
            let manner = Manner { gue_port: command.gue_port, generic: command.generic };
            Ok(Started { pid: child.id(), ticks, manner })
        }
        (attached, _) => {
            let _ended = child.kill();
            let _status = child.wait();
            attached?;
            Err(ended("unknown".to_owned(), log))
        }
    }
}

async fn attached(
    netlink: &Netlink,
    command: &DecapCommand,
    child: &mut Child,
    log: &Path,
) -> Result<(), Error> {
    let begun = Instant::now();
    while begun.elapsed() < ATTACH {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(ended(status.to_string(), log));
        }
        let links = netlink.links().await?;
        let xdp = links.by_name(&command.interface).and_then(|link| link.xdp);
        let found = xdp.map(|xdp| xdp_program(xdp.program_id)).transpose()?.flatten();
        if let Some(XdpFound::Decap(found)) = found
            && missing(&command.vips, &found.vips).is_empty()
            && missing(&command.from, &found.sources).is_empty()
        {
            return Ok(());
        }
        sleep(LOOK).await;
    }
    Err(Error::DecapLate { pid: child.id(), seconds: ATTACH.as_secs(), log: log.to_owned() })
}

fn ended(status: String, log: &Path) -> Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let said = lines.get(lines.len().saturating_sub(QUOTED)..).unwrap_or_default().join("\n");
    Error::DecapEnded { status, said }
}

/// Whether it still runs.
pub(super) fn runs(started: &Started) -> bool {
    ticks(started.pid) == Some(started.ticks)
}

/// Ends it and waits for that; what has ended already is fine.
pub(super) async fn stop(started: &Started) -> Result<(), Error> {
    let pid = Pid::from_raw(i32::try_from(started.pid).unwrap_or_default());
    let begun = Instant::now();
    if pid.as_raw() > 0 && runs(started) {
        let _gone_meanwhile = kill(pid, Signal::SIGTERM);
    }
    while runs(started) {
        if begun.elapsed() > END {
            return Err(Error::DecapStays(started.pid));
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// When a process was started, in clock ticks since boot; `None` for one that is not there or has ended.
fn ticks(pid: u32) -> Option<u64> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The program's name stands in brackets and may contain anything.
fn parse(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // Of the fields behind the name, the state is the 3rd and the start the 22nd.
    (state != "Z" && state != "X").then(|| fields.nth(18)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = ticks(std::process::id()).unwrap();
        let (pid, ticks) = (std::process::id(), own);
        let manner = Manner { gue_port: 6080, generic: false };
        assert!(runs(&Started { pid, ticks, manner }));
        assert!(!runs(&Started { pid, ticks: ticks + 1, manner }));
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 0";
        assert_eq!(parse(line), Some(4711));
        assert_eq!(parse(&line.replace(" S ", " Z ")), None);
        assert_eq!(parse(""), None);
    }
}
