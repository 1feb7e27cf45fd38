//! Notices that a file has a new content, however it got there.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Watches one file by looking at it: editors that replace it, symlinks that are swapped (ConfigMaps) and network file
/// systems all show, which no single notification mechanism manages.
pub(super) struct FileWatch {
    path: PathBuf,
    reported: Option<Stamp>,
    seen: Option<Stamp>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: Option<SystemTime>,
}

impl From<Metadata> for Stamp {
    fn from(found: Metadata) -> Self {
        Self { inode: (found.dev(), found.ino()), size: found.len(), modified: found.modified().ok() }
    }
}

impl FileWatch {
    /// Starts from the file as it is now.
    pub(super) fn new(path: &Path) -> Self {
        let stamp = stamp(path);
        Self { path: path.to_owned(), reported: stamp, seen: stamp }
    }

    /// Whether the file has changed since this last said so. To be called regularly: a change is reported when it has
    /// been the same twice in a row, so that a half-written file is not read.
    pub(super) fn changed(&mut self) -> bool {
        let now = stamp(&self.path);
        let steady = now == self.seen;
        self.seen = now;
        let changed = steady && now.is_some() && now != self.reported;
        if changed {
            self.reported = now;
        }
        changed
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    fs::metadata(path).ok().map(Stamp::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(watch: &mut FileWatch) -> bool {
        watch.changed() | watch.changed()
    }

    #[test]
    fn rewritten_replaced_and_swapped_files_are_noticed_once() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("lb.yaml"), directory.path().join("new"));
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::new(&path);
        assert!(!settled(&mut watch));
        fs::write(&path, "bb").unwrap();
        assert!(settled(&mut watch), "rewritten");
        assert!(!settled(&mut watch), "reported once");
        fs::write(&other, "bb").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(settled(&mut watch), "replaced");
        fs::remove_file(&path).unwrap();
        assert!(!settled(&mut watch), "gone: the last one stays in force");
        fs::write(directory.path().join("target"), "c").unwrap();
        std::os::unix::fs::symlink("target", &path).unwrap();
        assert!(settled(&mut watch), "a symlink in its place");
    }

    #[test]
    fn a_file_that_is_still_being_written_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lb.yaml");
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::new(&path);
        for size in 2..6 {
            fs::write(&path, "x".repeat(size)).unwrap();
            assert!(!watch.changed());
        }
        assert!(watch.changed());
    }
}
