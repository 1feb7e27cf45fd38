//! `lb detach`: nothing is left behind.

use std::process::ExitCode;
use std::time::Duration;

use super::args::Context;
use super::error::Failure;
use crate::daemon::{self, Instance};
use crate::dataplane::{Error, KernelPlane, detach as detach_link};

/// `lb detach`.
pub(super) fn run(context: &Context, interface: &str, force: bool) -> Result<ExitCode, Failure> {
    let instance = context.instance()?;
    let done = detach_from(&instance, interface, force)?;
    println!("{interface}: {done}");
    Ok(ExitCode::SUCCESS)
}

/// Detaches; what was done, in words.
pub(super) fn detach_from(
    instance: &Instance,
    interface: &str,
    force: bool,
) -> Result<&'static str, Failure> {
    let ifindex = nix::net::if_::if_nametoindex(interface).map_err(|_| {
        Failure::bad_input(format!("there is no interface {interface} in this network namespace"))
    })?;
    if daemon::is_running(&instance.socket) {
        let message = "the daemon is running and would attach again; stop it first (SIGTERM to `lb run`)";
        return Err(Failure::failed(message));
    }
    match KernelPlane::open(&instance.pins) {
        // Whatever does not open can still be removed.
        Ok(plane) if !force && flows(&plane)? => {
            let message =
                format!("traffic flows through {interface}; it would stop. `lb detach {interface} --force`");
            return Err(Failure::failed(message));
        }
        Ok(_) => {}
        Err(Error::NotLoaded { .. }) => {
            instance.pins.discard();
            instance.forget();
            return Ok("nothing was attached");
        }
        Err(error) => tracing::warn!(%error, "removed without looking inside"),
    }
    let lock = instance.pins.lock()?;
    let last = detach_link(&instance.pins, ifindex)?;
    drop(lock);
    if last {
        instance.forget();
    }
    Ok(if last { "detached; nothing is left behind" } else { "detached; other interfaces go on" })
}

/// Whether packets are being forwarded now.
fn flows(plane: &KernelPlane) -> Result<bool, Failure> {
    let forwarded =
        || -> Result<u64, Failure> { Ok(plane.counters()?.backends.values().map(|c| c.packets).sum()) };
    let before = forwarded()?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(forwarded()? != before)
}
