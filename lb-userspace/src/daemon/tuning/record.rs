//! What interfaces were like before, on disk: in the run-time directory, since no setting survives a reboot.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::daemon::Error;
use crate::nic::Value;

/// The file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) interfaces: BTreeMap<String, Tuned>,
}

/// An interface with settings of ours.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(super) struct Tuned {
    /// Which interface of this name it was.
    pub(super) ifindex: u32,
    pub(super) keep: bool,
    /// In the order in which they were first looked at.
    pub(super) parts: Vec<Part>,
    pub(super) refused: Vec<Refused>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Part {
    pub(super) name: String,
    /// As it was at first.
    pub(super) before: Value,
    /// As it shall be; `None`: it is only put back.
    pub(super) wanted: Option<Value>,
}

/// A setting that could not be had.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Refused {
    pub(super) setting: String,
    pub(super) part: String,
    pub(super) why: String,
}

impl Tuned {
    /// Remembers what a part was like, if that is not known, and what it shall be, if it shall be anything.
    pub(super) fn note(&mut self, before: Value, wanted: Option<Value>) {
        let name = before.part();
        match self.parts.iter_mut().find(|part| part.name == name) {
            Some(part) => part.wanted = wanted.or(part.wanted.take()),
            None => self.parts.push(Part { name, before, wanted }),
        }
    }

    pub(super) fn refuse(&mut self, setting: &str, part: &str, why: &str) {
        let (setting, part, why) = (setting.to_owned(), part.to_owned(), why.to_owned());
        self.refused.push(Refused { setting, part, why });
    }
}

impl Record {
    /// Reads it; an empty one where there is none that can be understood.
    pub(super) fn load(path: &Path) -> Self {
        let Ok(text) = fs::read_to_string(path) else { return Self::default() };
        let damaged = |error: &serde_json::Error| tracing::warn!(path = %path.display(), %error, "ignored");
        serde_json::from_str(&text).inspect_err(damaged).unwrap_or_default()
    }

    /// Writes it in one step; an empty one removes the file.
    pub(super) fn store(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::File { action: "writing", path: path.to_owned(), source };
        if self.interfaces.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                Ok(()) | Err(_) => {
                    // Others may have files there.
                    let _shared = path.parent().map(fs::remove_dir);
                    Ok(())
                }
            };
        }
        let temporary = path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(io::Error::other(error)))?;
        let write = |mut file: File| file.write_all(&text).and_then(|()| file.sync_all());
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        File::create(&temporary).and_then(write).map_err(failed)?;
        fs::rename(&temporary, path).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_is_kept_whatever_comes_later() {
        let mut tuned = Tuned::default();
        tuned.note(Value::Mtu(1500), Some(Value::Mtu(9000)));
        tuned.note(Value::Mtu(9000), Some(Value::Mtu(4000)));
        tuned.note(Value::Mtu(4000), None);
        let part = &tuned.parts[0];
        assert_eq!((&part.before, &part.wanted), (&Value::Mtu(1500), &Some(Value::Mtu(4000))));
        assert_eq!(tuned.parts.len(), 1);
    }

    #[test]
    fn it_survives_the_disk_and_an_empty_one_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below").join("a.nic.json");
        let mut record = Record::default();
        assert!(record.store(&path).is_ok());
        assert_eq!(Record::load(&path), record);
        let mut tuned = Tuned { ifindex: 4, keep: true, ..Tuned::default() };
        let cpus = [0, 33].into_iter().collect();
        tuned.note(Value::Rps { queue: 1, cpus }, Some(Value::Rps { queue: 1, cpus: Default::default() }));
        tuned.refuse("rss", "rss", "Operation not supported");
        record.interfaces.insert("eth0".to_owned(), tuned);
        record.store(&path).unwrap();
        assert_eq!(Record::load(&path), record);
        Record::default().store(&path).unwrap();
        assert!(!path.exists() && !directory.path().join("below").exists());
    }

    #[test]
    fn a_damaged_file_is_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.nic.json");
        fs::write(&path, "{").unwrap();
        assert_eq!(Record::load(&path), Record::default());
    }
}
