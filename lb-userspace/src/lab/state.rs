//! What is known about labs outside the process that made them: one small file per lab.
//!
//! Written before the first namespace is made, so whatever happens `lb lab down` can find the pieces.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::error::LabError;
use super::netns::{self, Netns};

const STATE_DIR: &str = "/run/lb/lab";
/// How a lab's file directory is named, under the system's temporary directory.
pub(super) const FILES_PREFIX: &str = "lb-lab-";

/// One lab, as `/run/lb/lab/NAME.json` records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The lab's name: the prefix of its namespaces.
    pub name: String,
    /// Its namespaces.
    pub netns: Vec<String>,
    /// Its files: configurations, logs.
    pub dir: PathBuf,
    /// The servers' process ids, for information: removal looks at namespaces, not at these.
    pub pids: BTreeMap<String, u32>,
    /// The process that removes the lab when it ends; none for `lb lab up`.
    pub owner: Option<Owner>,
}

/// A process, told from later ones with the same pid by its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pid: u32,
    started_ticks: u64,
}

impl Owner {
    pub(super) fn this_process() -> Self {
        let pid = std::process::id();
        Self { pid, started_ticks: started_ticks(pid).unwrap_or(0) }
    }

    fn lives(&self) -> bool {
        started_ticks(self.pid) == Some(self.started_ticks)
    }
}

impl State {
    /// Records a new lab; an error if the name is taken.
    pub(super) fn create(&self) -> Result<(), LabError> {
        let draft = self.draft()?;
        // Unlike a rename, a hard link fails if the target exists: two `up`s cannot both win.
        let linked = fs::hard_link(&draft, path(&self.name));
        let _ = fs::remove_file(&draft);
        linked.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => LabError::AlreadyUp(self.name.clone()),
            _ => LabError::io(format!("write {}", path(&self.name).display()))(error),
        })
    }

    /// Replaces the record.
    pub(super) fn update(&self) -> Result<(), LabError> {
        let target = path(&self.name);
        fs::rename(self.draft()?, &target).map_err(LabError::io(format!("write {}", target.display())))
    }

    /// The record of the lab `name`, if there is one. An unreadable one is an error, not an absence.
    pub fn load(name: &str) -> Result<Option<Self>, LabError> {
        let path = path(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LabError::io(format!("read {}", path.display()))(error)),
        };
        let state = serde_json::from_str(&text).map_err(io::Error::other);
        state.map(Some).map_err(LabError::io(format!("read {}", path.display())))
    }

    /// Whether some living process will remove this lab by itself.
    pub fn is_owned(&self) -> bool {
        self.owner.as_ref().is_some_and(Owner::lives)
    }

    /// Whether it stands whole: all namespaces there, all servers in them, and nobody killed half-way.
    pub fn is_up(&self) -> bool {
        let spaces = self.namespaces();
        let inside = netns::inhabitants(&spaces);
        (self.owner.is_none() || self.is_owned())
            && !self.pids.is_empty()
            && spaces.iter().all(Netns::exists)
            && self.pids.values().all(|&pid| i32::try_from(pid).is_ok_and(|pid| inside.contains(&pid)))
    }

    /// The namespaces by name.
    pub fn namespaces(&self) -> Vec<Netns> {
        self.netns.iter().map(Netns::named).collect()
    }

    fn draft(&self) -> Result<PathBuf, LabError> {
        fs::create_dir_all(STATE_DIR).map_err(LabError::io(format!("make {STATE_DIR}")))?;
        let draft = Path::new(STATE_DIR).join(format!(".{}.{}", self.name, std::process::id()));
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other);
        text.and_then(|text| fs::write(&draft, text + "\n"))
            .map_err(LabError::io(format!("write {}", draft.display())))?;
        Ok(draft)
    }
}

/// All recorded labs, by name.
pub fn list() -> Result<Vec<State>, LabError> {
    let Ok(entries) = fs::read_dir(STATE_DIR) else { return Ok(Vec::new()) };
    let files = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = files
        .filter_map(|file| file.strip_suffix(".json").map(str::to_owned))
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names.iter().filter_map(|name| State::load(name).transpose()).collect()
}

/// Removes a lab and everything that belongs to it: processes, namespaces with their interfaces, files,
/// the record. Does as much as it can and reports what is left.
pub fn down(state: &State) -> Result<(), LabError> {
    let spaces = state.namespaces();
    end_inhabitants(&spaces);
    let present: Vec<_> = spaces.iter().filter(|space| space.exists()).collect();
    let lines: Vec<_> = present.iter().map(|space| format!("netns del {}", space.name())).collect();
    // One may have gone meanwhile; what counts is checked below.
    let deleted = if lines.is_empty() { Ok(()) } else { netns::ip_batch(&lines) };
    if spaces.iter().any(Netns::exists) {
        let left: Vec<_> = spaces.iter().filter(|space| space.exists()).map(Netns::name).collect();
        deleted?;
        return Err(LabError::Leftovers { name: state.name.clone(), what: left.join(", ") });
    }
    // The record is data: it must not be able to name any other directory.
    let ours = state.dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FILES_PREFIX));
    if ours && state.dir.exists() {
        fs::remove_dir_all(&state.dir).map_err(LabError::io(format!("remove {}", state.dir.display())))?;
    }
    match fs::remove_file(path(&state.name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LabError::io(format!("remove {}", path(&state.name).display()))(error))
        }
        _ => Ok(()),
    }
}

/// Removes labs whose owner was killed before it could.
pub fn sweep_stale() -> Result<Vec<String>, LabError> {
    let stale = list()?.into_iter().filter(|lab| lab.owner.is_some() && !lab.is_owned());
    stale.map(|lab| down(&lab).map(|()| lab.name)).collect()
}

/// Asks all processes in these namespaces to end, then makes them.
pub(super) fn end_inhabitants(spaces: &[Netns]) {
    let start = Instant::now();
    for (signal, limit_ms) in [(Signal::SIGTERM, 1000), (Signal::SIGKILL, 4000)] {
        let mut told = BTreeSet::new();
        while start.elapsed() < Duration::from_millis(limit_ms) {
            let left = netns::inhabitants(spaces);
            if left.is_empty() {
                return;
            }
            // Some may have been born, or have entered, meanwhile.
            netns::signal_all(&left.difference(&told).copied().collect(), signal);
            told.extend(left);
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(STATE_DIR).join(format!("{name}.json"))
}

/// Field 22 of /proc/PID/stat (proc(5)); the program's name before it may contain spaces and brackets.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_another_start_does_not() {
        let owner = Owner::this_process();
        assert!(owner.lives());
        assert!(!Owner { started_ticks: owner.started_ticks + 1, ..owner }.lives());
    }
}
