//! `lb detach`: nothing is left behind.

use std::process::ExitCode;
use std::time::Duration;

use nix::net::if_::{if_indextoname, if_nametoindex};

use super::args::Context;
use super::error::Failure;
use super::output;
use crate::daemon::{self, Instance};
use crate::dataplane::{Error, KernelPlane, attached, detach as detach_link};
use crate::netlink::{XdpMode, links};
use crate::nic;

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
    // What we have raised ourselves need not be refused for.
    daemon::lower_mtu(&instance.nic, interface);
    indices.iter().try_for_each(|ifindex| removable(*ifindex))?;
    let lock = instance.lock()?;
    instance.pins.prune(exists)?;
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

/// An error where the kernel could not remove the program now. It would keep one that nobody owns any more.
fn removable(ifindex: u32) -> Result<(), Failure> {
    // Without an answer nothing stands in the way.
    let Ok(snapshot) = super::attach::runtime()?.block_on(links()) else { return Ok(()) };
    let Some(link) = snapshot.by_index(ifindex) else { return Ok(()) };
    let native = link.xdp.is_some_and(|xdp| xdp.mode != XdpMode::Generic);
    let (name, mtu) = (&link.name, link.mtu);
    let driver = nic::facts(name).driver.unwrap_or_default();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if !native || !holds_on(&driver, mtu, &release) {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "the driver of {name} ({driver}, Linux {}) cannot remove a program while the MTU is {mtu}; nothing was \
         changed\n  fix: ip link set dev {name} mtu 1500, then detach again; the MTU may be {mtu} again after that",
        release.trim()
    )))
}

/// Whether a driver refuses to remove a program for its interface's MTU: virtio_net before Linux 6.3 checks what only
/// matters for attaching (`virtnet_xdp_set`), and takes a larger MTU while a program is attached.
fn holds_on(driver: &str, mtu: u32, release: &str) -> bool {
    /// The largest with which 6.1 removes a program.
    const REMOVABLE_MTU: u32 = 4064;
    let mut numbers = release.split('.').map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next(), numbers.next());
    driver == "virtio_net" && mtu > REMOVABLE_MTU && version.1.is_some() && version < (Some(6), Some(3))
}

/// Whether packets are being forwarded now.
fn flows(plane: &KernelPlane) -> Result<bool, Failure> {
    let forwarded =
        || -> Result<u64, Failure> { Ok(plane.counters()?.backends.values().map(|c| c.packets).sum()) };
    let before = forwarded()?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(forwarded()? != before)
}

#[cfg(test)]
mod tests {
    use super::holds_on;

    #[test]
    fn old_virtio_net_wants_a_small_mtu() {
        assert!(holds_on("virtio_net", 9000, "6.1.0-50-amd64\n"));
        assert!(holds_on("virtio_net", 4065, "5.15.0"));
        assert!(!holds_on("virtio_net", 4064, "6.1.0"));
        assert!(!holds_on("virtio_net", 9000, "6.12.95+deb12-amd64"));
        assert!(!holds_on("veth", 9000, "6.1.0"));
        assert!(!holds_on("virtio_net", 9000, ""));
    }
}
