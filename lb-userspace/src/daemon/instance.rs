//! One data plane per network namespace: its name, its pins, its files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use super::{Error, Saved, is_running};
use crate::dataplane::{self, Lock, Pins};
use crate::netlink;

/// How long the end of a process may take that has been killed.
const DYING: Duration = Duration::from_secs(3);
/// How often it is looked whether it is over.
const AGAIN: Duration = Duration::from_millis(50);

/// Where everything of one data plane is.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its pins.
    pub pins: Pins,
    /// What it remembers between commands.
    pub state: PathBuf,
    /// The daemon's control socket.
    pub socket: PathBuf,
    /// Present while an attach waits for `lb confirm`.
    pub pending: PathBuf,
    /// What interfaces were like before they were set.
    pub nic: PathBuf,
}

impl Instance {
    /// The instance of the current network namespace, with pins below `bpffs`, sockets below `run`, and its memory
    /// below `state`. A namespace does not survive a reboot, so what is remembered of one other than the host's lies
    /// below `run` as well.
    pub fn current(bpffs: &Path, run: &Path, state: &Path) -> Result<Self, Error> {
        let name = name()?;
        let pins = Pins::new(bpffs, &name)?;
        let file = |directory: &Path, extension| directory.join(format!("{name}.{extension}"));
        let memory = if name == HOST { state } else { run };
        Ok(Self {
            pins,
            state: file(memory, "json"),
            socket: file(run, "sock"),
            pending: file(run, "pending"),
            nic: file(run, "nic.json"),
        })
    }

    /// Takes the writers' lock, or says who has it. A process that is killed holds it until the kernel has taken it apart,
    /// and still looks alive so long: whoever starts right afterwards waits for that.
    pub fn lock(&self) -> Result<Lock, Error> {
        let begun = Instant::now();
        loop {
            match self.pins.lock() {
                Err(dataplane::Error::Locked { .. }) if begun.elapsed() < DYING => sleep(AGAIN),
                Err(dataplane::Error::Locked { pid }) if is_running(&self.socket) => {
                    let saved = Saved::load(&self.state)?.unwrap_or_default();
                    return Err(Error::DaemonRuns { pid, interfaces: saved.interfaces });
                }
                taken => return Ok(taken?),
            }
        }
    }

    /// A data plane beside this one, for as long as a command runs.
    pub(super) fn aside(&self) -> Self {
        Self {
            pins: self.pins.aside(),
            state: self.state.with_extension("check.json"),
            socket: self.socket.with_extension("check.sock"),
            pending: self.pending.with_extension("check.pending"),
            nic: self.nic.with_extension("check.json"),
        }
    }

    /// Removes what a killed command has left of a data plane aside; one in use is left alone.
    pub fn clear_aside(&self) {
        let aside = self.aside();
        if aside.pins.is_live()
            && let Ok(lock) = aside.pins.lock()
        {
            aside.pins.discard();
            aside.forget();
            drop(lock);
        }
    }

    /// Directories that its files are in.
    fn directories(&self) -> impl Iterator<Item = &Path> {
        [&self.state, &self.socket].into_iter().filter_map(|path| path.parent())
    }

    /// Makes the directories that its files are in.
    pub fn prepare(&self) -> Result<(), Error> {
        self.directories().try_for_each(|directory| {
            fs::create_dir_all(directory).map_err(|source| Error::File {
                action: "creating",
                path: directory.to_owned(),
                source,
            })
        })
    }

    /// Leaves the multicast groups that were joined for it, and removes its files, and the directories with the last of
    /// them.
    pub fn forget(&self) {
        let saved = Saved::load(&self.state).ok().flatten().unwrap_or_default();
        for group in saved.groups {
            if let Err(error) = netlink::leave_group(group) {
                tracing::warn!(%error, "a multicast group stays joined");
            }
        }
        for path in [&self.state, &self.socket, &self.pending] {
            let _absent = fs::remove_file(path);
        }
        for directory in self.directories() {
            let _shared = fs::remove_dir(directory);
        }
    }
}

/// The host's own network namespace.
const HOST: &str = "main";

/// [`HOST`] in the host's network namespace, otherwise the namespace's inode number, which is its identity.
fn name() -> Result<String, Error> {
    let inode = |path: &str| {
        fs::metadata(path).map(|found| found.ino()).map_err(|source| Error::File {
            action: "reading",
            path: path.into(),
            source,
        })
    };
    let own = inode("/proc/thread-self/ns/net")?;
    match inode("/proc/1/ns/net") {
        Ok(host) if host == own => Ok(HOST.to_owned()),
        // Without the right to look, this might be the host's: a guess would be another data plane than root's.
        Err(_) if !geteuid().is_root() => Err(Error::NeedsRoot),
        // Process 1 may be out of sight of root in a container.
        Ok(_) | Err(_) => Ok(format!("netns-{own}")),
    }
}
