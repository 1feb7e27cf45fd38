//! One data plane per network namespace: its name, its pins, its files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Error;
use crate::dataplane::Pins;

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
}

impl Instance {
    /// The instance of the current network namespace, with pins below `bpffs` and files below `run`.
    pub fn current(bpffs: &Path, run: &Path) -> Result<Self, Error> {
        let name = name()?;
        let pins = Pins::new(bpffs, &name)?;
        let file = |extension| run.join(format!("{name}.{extension}"));
        Ok(Self { pins, state: file("json"), socket: file("sock"), pending: file("pending") })
    }

    /// Makes the directory that its files are in.
    pub fn prepare(&self) -> Result<(), Error> {
        let directory = self.state.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(|source| Error::File {
            action: "creating",
            path: directory.to_owned(),
            source,
        })
    }

    /// Removes its files, and the directory with the last of them.
    pub fn forget(&self) {
        for path in [&self.state, &self.socket, &self.pending] {
            let _absent = fs::remove_file(path);
        }
        if let Some(directory) = self.state.parent() {
            let _shared = fs::remove_dir(directory);
        }
    }
}

/// `main` in the host's network namespace, otherwise the namespace's inode number, which is its identity.
fn name() -> Result<String, Error> {
    let inode = |path: &str| {
        fs::metadata(path).map(|found| found.ino()).map_err(|source| Error::File {
            action: "reading",
            path: path.into(),
            source,
        })
    };
    let own = inode("/proc/thread-self/ns/net")?;
    Ok(if inode("/proc/1/ns/net").ok() == Some(own) { "main".to_owned() } else { format!("netns-{own}") })
}
