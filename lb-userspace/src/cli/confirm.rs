//! `lb attach --confirm`: undoes an attach that cut its operator off.

use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use super::args::Context;
use super::detach::detach_from;
use super::error::Failure;
use super::output;
use crate::daemon::{Instance, Saved};

/// How long after its time an undo counts as pending, in seconds.
const GRACE: u64 = 10;

/// Starts a process that outlives this one and its terminal, and detaches when time is up. To be done before the
/// attach, which may be the last that its operator hears of this machine.
pub(super) fn arm(
    context: &Context,
    instance: &Instance,
    interface: &str,
    patience: Duration,
) -> Result<(), Failure> {
    instance.prepare()?;
    let seconds = patience.as_secs().max(1);
    let end = Saved::now() + seconds;
    fs::write(&instance.pending, end.to_string()).map_err(Failure::failed)?;
    let own = std::env::current_exe().map_err(Failure::failed)?;
    let mut undo = Command::new(own);
    undo.arg("--bpffs").arg(&context.bpffs).arg("--run-dir").arg(&context.run_dir);
    undo.arg("--state-dir").arg(&context.state_dir);
    undo.arg("undo").arg(interface).arg(seconds.to_string());
    undo.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    undo.spawn().map_err(Failure::failed)?;
    Ok(())
}

/// Calls it off: there is nothing to undo.
pub(super) fn disarm(instance: &Instance) {
    let _never_armed = fs::remove_file(&instance.pending);
}

/// Refuses while an attach waits for confirmation: what is started now would be pulled away later.
pub(super) fn none_pending(instance: &Instance) -> Result<(), Failure> {
    let end = fs::read_to_string(&instance.pending).ok().and_then(|end| end.parse::<u64>().ok());
    match end.and_then(|end| (end + GRACE).checked_sub(Saved::now())) {
        Some(left) => {
            let message =
                format!("`lb attach --confirm` is undone in {left} s: `lb confirm` first to keep it");
            Err(Failure::failed(message))
        }
        // Whoever was to undo it has been killed, or the machine was started anew.
        None => Ok(()),
    }
}

/// `lb confirm`.
pub(super) fn confirm(context: &Context) -> Result<ExitCode, Failure> {
    let instance = context.instance()?;
    match fs::remove_file(&instance.pending) {
        Ok(()) => {
            output::text("confirmed: it stays attached\n")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(_) => Err(Failure::failed("no attach is waiting for confirmation")),
    }
}

/// The process that waits, in a session of its own: the lost connection is what it is there for.
pub(super) fn undo(context: &Context, interface: &str, seconds: u64) -> Result<ExitCode, Failure> {
    let instance = context.instance()?;
    let _own_session = nix::unistd::setsid();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        if !instance.pending.exists() {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // Another command may hold the lock for a moment.
    while instance.pending.exists() && detach_from(&instance, interface, true).is_err() {
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(ExitCode::SUCCESS)
}
