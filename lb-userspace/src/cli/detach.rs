//! `lb detach`: nothing is left behind.

use std::process::ExitCode;
use std::time::Duration;

use nix::net::if_::{if_indextoname, if_nametoindex};

use super::args::Context;
use super::error::Failure;
use super::output;
use crate::daemon::{self, Instance};
use crate::dataplane::{Error, KernelPlane, attached, detach as detach_link};

/// `lb detach`.
pub(super) fn run(context: &Context, interface: &str, force: bool) -> Result<ExitCode, Failure> {
    let instance = context.instance()?;
    let done = detach_from(&instance, interface, force)?;
    output::text(&format!("{interface}: {done}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Detaches; what was done, in words.
pub(super) fn detach_from(
    instance: &Instance,
    interface: &str,
    force: bool,
) -> Result<&'static str, Failure> {
    let indices = indices(instance, interface)?;
    if daemon::is_running(&instance.socket) {
        let message = "the daemon is running and would attach again; stop it first (SIGTERM to `lb run`)";
        return Err(Failure::failed(message));
    }
    instance.clear_aside();
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
            // An attach that was killed may have left them.
            daemon::restore_all_settings(&instance.nic);
            instance.forget();
            return Ok("nothing was attached");
        }
        Err(error) => tracing::warn!(%error, "removed without looking inside"),
    }
    let lock = instance.pins.lock()?;
    instance.pins.prune(exists)?;
    daemon::lower_mtu(&instance.nic, interface);
    let mut last = false;
    for ifindex in indices {
        last = detach_link(&instance.pins, ifindex)?;
    }
    // Some drivers keep their queues as they are while a program is attached.
    daemon::restore_settings(&instance.nic, interface);
    drop(lock);
    if last {
        // Those of interfaces that are gone.
        daemon::restore_all_settings(&instance.nic);
        // A daemon that was killed may have left it.
        super::attach::runtime()?.block_on(daemon::close_gate());
        instance.forget();
    }
    Ok(if last { "detached; nothing is left behind" } else { "detached; other interfaces go on" })
}

/// Whether an interface has this index. (For one that is gone nix returns an empty name, not an error.)
fn exists(ifindex: u32) -> bool {
    if_indextoname(ifindex).is_ok_and(|name| !name.is_empty())
}

/// The interface's index; of one that is gone, the indices of all links whose interfaces are gone.
fn indices(instance: &Instance, interface: &str) -> Result<Vec<u32>, Failure> {
    if let Ok(ifindex) = if_nametoindex(interface) {
        return Ok(vec![ifindex]);
    }
    let links = attached(&instance.pins).into_iter().map(|found| found.ifindex);
    let gone: Vec<u32> = links.filter(|ifindex| !exists(*ifindex)).collect();
    if gone.is_empty() {
        let message = format!("there is no interface {interface} in this network namespace");
        return Err(Failure::bad_input(message));
    }
    Ok(gone)
}

/// Whether packets are being forwarded now.
fn flows(plane: &KernelPlane) -> Result<bool, Failure> {
    let forwarded =
        || -> Result<u64, Failure> { Ok(plane.counters()?.backends.values().map(|c| c.packets).sum()) };
    let before = forwarded()?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(forwarded()? != before)
}
