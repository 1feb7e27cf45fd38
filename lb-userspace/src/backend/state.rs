//! What `up` has changed, written down before it is changed, so that `down` can undo it: a file for each network
//! namespace and interface. Knows nothing of how it is undone.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::facts::Manner;
use crate::netlink::namespace_cookie;

/// Where such files are. Like everything they list, they are gone after a reboot.
const DIRECTORY: &str = "/run/lb-backend";

/// A setting that was changed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Changed {
    /// Its path below `/proc/sys`.
    pub(super) path: String,
    /// What it was.
    pub(super) before: i64,
    /// What it was changed to.
    pub(super) ours: i64,
}

/// A prefix that was made local.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct MadeLocal {
    /// Its first address.
    pub(super) network: IpAddr,
    /// Its length in bits.
    pub(super) length: u8,
}

/// A process that was started. Its id may be another's by now: then the time does not fit.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Started {
    /// Its id.
    pub(super) pid: u32,
    /// When it was started, in clock ticks since boot (field 22 of proc_pid_stat(5)).
    pub(super) ticks: u64,
    /// How it takes tunnels.
    pub(super) manner: Manner,
}

/// What was changed, in order.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct State {
    /// The network namespace's cookie. A file of another one is of a namespace that had this one's inode number before,
    /// and went with everything in it.
    pub(super) namespace: u64,
    /// Settings.
    pub(super) settings: Vec<Changed>,
    /// Addresses put on `lo`.
    pub(super) addresses: Vec<IpAddr>,
    /// Prefixes made local.
    pub(super) prefixes: Vec<MadeLocal>,
    /// The decapsulator.
    pub(super) decap: Option<Started>,
}

impl State {
    fn new(namespace: u64) -> Self {
        Self { namespace, ..Self::default() }
    }

    fn is_empty(&self) -> bool {
        *self == Self::new(self.namespace)
    }
}

/// The state of one interface, locked against others until dropped.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    _lock: Flock<File>,
    pub(super) state: State,
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

/// The directory of the current network namespace.
fn directory() -> Result<PathBuf, Error> {
    let namespace = Path::new("/proc/self/ns/net");
    let inode = fs::metadata(namespace).map_err(file("looking at", namespace))?.ino();
    Ok(Path::new(DIRECTORY).join(inode.to_string()))
}

/// Interfaces of the current network namespace that something was changed for.
pub(super) fn prepared() -> Result<Vec<String>, Error> {
    let directory = directory()?;
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(file("reading", &directory))?,
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// The decapsulator that was started for an interface, without waiting for whoever changes something now.
pub(super) fn started(interface: &str) -> Result<Option<Started>, Error> {
    let path = directory()?.join(format!("{interface}.json"));
    Ok(read(&path)?.decap)
}

fn read(path: &Path) -> Result<State, Error> {
    let namespace = namespace_cookie().map_err(file("asking which namespace this is for", path))?;
    let state: State = match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|source| Error::Damaged { path: path.to_owned(), source })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => State::new(namespace),
        Err(error) => return Err(file("reading", path)(error)),
    };
    Ok(if state.namespace == namespace { state } else { State::new(namespace) })
}

impl StateFile {
    /// Opens an interface's, which may not be there yet; waits while another process has it.
    pub(super) fn open(interface: &str) -> Result<Self, Error> {
        let directory = directory()?;
        fs::create_dir_all(&directory).map_err(file("making", &directory))?;
        let opened = File::open(&directory).map_err(file("opening", &directory))?;
        let locked = Flock::lock(opened, FlockArg::LockExclusive);
        let lock = locked.map_err(|(_, errno)| file("locking", &directory)(errno.into()))?;
        let path = directory.join(format!("{interface}.json"));
        let state = read(&path)?;
        Ok(Self { path, _lock: lock, state })
    }

    /// Where the decapsulator's words go.
    pub(super) fn log(&self) -> PathBuf {
        self.path.with_extension("log")
    }

    /// Writes it in one step; one that says nothing is removed, with all that belongs to it.
    pub(super) fn save(&self) -> Result<(), Error> {
        if self.state.is_empty() {
            let _never_written = fs::remove_file(&self.path);
            let _no_decapsulator = fs::remove_file(self.log());
            for directory in self.path.ancestors().skip(1).take(2) {
                let _others_have_theirs_there = fs::remove_dir(directory);
            }
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&self.state)
            .map_err(|source| Error::Damaged { path: self.path.clone(), source })?;
        let draft = self.path.with_extension("draft");
        let parent = self.path.parent().unwrap_or(Path::new(DIRECTORY));
        fs::create_dir_all(parent).map_err(file("making", parent))?;
        fs::write(&draft, text).map_err(file("writing", &draft))?;
        fs::rename(&draft, &self.path).map_err(file("writing", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_read_as_it_was_written() {
        let state = State {
            namespace: 4711,
            settings: vec![Changed { path: "net/ipv4/conf/eth0/rp_filter".into(), before: 1, ours: 2 }],
            addresses: vec!["203.0.113.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
            prefixes: vec![MadeLocal { network: "203.0.113.0".parse().unwrap(), length: 28 }],
            decap: Some(Started { pid: 7, ticks: 99, manner: Manner { gue_port: 6080, generic: true } }),
        };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state);
    }
}
