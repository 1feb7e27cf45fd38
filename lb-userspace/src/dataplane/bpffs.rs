//! Where maps and links are pinned, and the lock that all writers take.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::Error;

/// Pins of one data plane: `<bpffs>/lb/<instance>/`.
#[derive(Clone, Debug)]
pub struct Pins {
    bpffs: PathBuf,
    instance: String,
}

/// Holds off other writers until dropped.
#[derive(Debug)]
pub struct Lock {
    _directory: Flock<File>,
}

impl Pins {
    /// Pins below `bpffs` of the data plane named `instance` (one per network namespace).
    pub fn new(bpffs: &Path, instance: &str) -> Result<Self, Error> {
        let is_bpffs = statfs(bpffs).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
        if !is_bpffs {
            return Err(Error::NoBpffs { path: bpffs.to_owned() });
        }
        Ok(Self { bpffs: bpffs.to_owned(), instance: instance.to_owned() })
    }

    /// The directory of this data plane.
    pub fn directory(&self) -> PathBuf {
        self.bpffs.join("lb").join(&self.instance)
    }

    /// The pin of a map.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// The pin of the link that attaches the program to an interface.
    pub(super) fn link(&self, ifindex: u32) -> PathBuf {
        self.directory().join(format!("{LINK_PREFIX}{ifindex}"))
    }

    /// Interfaces that have a link pinned.
    pub(super) fn links(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(self.directory()) else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut links: Vec<u32> =
            names.filter_map(|name| name.strip_prefix(LINK_PREFIX)?.parse().ok()).collect();
        links.sort_unstable();
        links
    }

    /// Whether a program is attached through a pinned link.
    pub fn is_live(&self) -> bool {
        !self.links().is_empty()
    }

    /// Removes the pins of links whose interfaces `exists` does not know: they are attached to nothing.
    pub fn prune(&self, exists: impl Fn(u32) -> bool) -> Result<(), Error> {
        for ifindex in self.links().into_iter().filter(|ifindex| !exists(*ifindex)) {
            let path = self.link(ifindex);
            fs::remove_file(&path).map_err(|source| Error::File { action: "removing", path, source })?;
        }
        Ok(())
    }

    /// Pins of a second data plane in the same network namespace, which nobody takes for the first.
    pub fn aside(&self) -> Self {
        Self { bpffs: self.bpffs.clone(), instance: format!("{}-check", self.instance) }
    }

    /// Pins of the maps that this data plane is about to move to.
    pub(super) fn next(&self) -> Self {
        Self { bpffs: self.bpffs.clone(), instance: format!("{}/next", self.instance) }
    }

    /// Takes the writers' lock, or says who has it.
    pub fn lock(&self) -> Result<Lock, Error> {
        let path = self.directory();
        let file = |action| {
            let path = path.clone();
            move |source| Error::File { action, path, source }
        };
        // Another instance may remove the parent just now, as its last child.
        let open = || fs::create_dir_all(&path).and_then(|()| File::open(&path));
        let directory = open().or_else(|_| open()).map_err(file("opening"))?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(directory) => Ok(Lock { _directory: directory }),
            Err((directory, nix::errno::Errno::EWOULDBLOCK)) => {
                Err(Error::Locked { pid: holder(&directory) })
            }
            Err((_, errno)) => Err(file("locking")(io::Error::from(errno))),
        }
    }

    /// Removes what a failed start left.
    pub fn discard(&self) {
        if let Err(error) = self.remove_all() {
            tracing::warn!(%error, "pins left behind");
        }
    }

    /// Removes every pin and the directory.
    pub(super) fn remove_all(&self) -> Result<(), Error> {
        let path = self.directory();
        match fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::File { action: "removing", path, source }),
        }
        // The parent goes with its last child; others may still have theirs there.
        let _shared = fs::remove_dir(self.bpffs.join("lb"));
        Ok(())
    }
}

const LINK_PREFIX: &str = "link_";

/// The process that holds the lock on a file, as /proc/locks tells.
fn holder(file: &File) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{}", file.metadata().ok()?.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let line =
        locks.lines().find(|line| line.contains("FLOCK") && line.split(' ').any(|w| w.ends_with(&inode)))?;
    line.split_whitespace().nth(4)?.parse().ok()
}
