//! The daemon `lb run` in a lab, as a user would start it, and its complete removal.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::error::LabError;
use super::interrupt::Interrupt;
use super::netns::{self, Netns};
use super::process::Process;
use super::topology::{Role, Topology};

const INTERFACE: &str = "eth0";

/// A daemon in a lab's balancer namespace. Dropping it stops the daemon and detaches: pinned programs live
/// in bpffs and would outlive the namespace. Drop it before the lab.
#[derive(Debug)]
pub struct Balancer {
    binary: PathBuf,
    netns: Netns,
    daemon: Process,
    detached: bool,
}

impl Balancer {
    /// Starts `BINARY run --config CONFIG --watch` in the balancer's namespace, without waiting for it to
    /// serve.
    pub fn start(lab: &Topology, binary: &Path, config: &Path) -> Result<Self, LabError> {
        let mut command = lab.command(Role::Balancer, binary);
        command.arg("run").arg("--config").arg(config).arg("--watch");
        let daemon = lab.spawn("lb", &command)?;
        Ok(Self { binary: binary.to_owned(), netns: lab.netns(Role::Balancer), daemon, detached: false })
    }

    /// The daemon's process.
    pub fn daemon(&self) -> &Process {
        &self.daemon
    }

    /// A `lb` command beside the daemon; its exit code is the caller's to judge.
    pub fn lb<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Output, LabError> {
        let mut command = self.netns.command(&self.binary);
        command.args(args).stdin(Stdio::null()).output().map_err(LabError::start("lb"))
    }

    /// Ends the daemon with SIGTERM; what it attached stays.
    pub fn stop(&self, interrupt: &Interrupt) -> Result<(), LabError> {
        self.daemon.signal(Signal::SIGTERM)?;
        self.daemon.wait(Duration::from_secs(5), interrupt).map(drop)
    }

    /// Removes everything from the interface.
    pub fn detach(&mut self) -> Result<(), LabError> {
        detach(&self.binary, &self.netns)?;
        self.detached = true;
        Ok(())
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if self.stop(&Interrupt::never()).is_err() {
            self.daemon.end();
        }
        if !self.detached
            && let Err(error) = self.detach()
        {
            tracing::debug!(%error, "balancer in the lab not detached");
        }
    }
}

/// `lb detach` in a lab's balancer namespace.
pub(super) fn detach(binary: &Path, netns: &Netns) -> Result<(), LabError> {
    let mut command = netns.command(binary);
    command.args(["detach", INTERFACE, "--force"]);
    netns::finish(command).map(drop)
}

/// Whether the balancer's interface carries an XDP program.
pub(super) fn is_attached(netns: &Netns) -> bool {
    let mut command: Command = netns.command("ip");
    command.args(["-json", "link", "show", "dev", INTERFACE]);
    let json =
        netns::finish(command).ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    json.is_some_and(|json| json[0]["xdp"].is_object())
}
