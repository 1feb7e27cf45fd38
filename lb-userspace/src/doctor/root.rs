//! Files under /proc and /sys, below a prefix that tests put in front. Knows nothing of what they mean.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The directory that stands for `/`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Root(PathBuf);

impl Default for Root {
    fn default() -> Self {
        Self(PathBuf::from("/"))
    }
}

impl Root {
    /// Files below this directory instead of the machine's.
    pub fn below(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.0.join(absolute.trim_start_matches('/'))
    }

    /// A file's text without blanks around it; `None` where it cannot be read.
    pub fn text(&self, absolute: &str) -> Option<String> {
        fs::read_to_string(self.path(absolute)).ok().map(|text| text.trim().to_owned())
    }

    /// The number that a file has.
    pub fn number<T: FromStr>(&self, absolute: &str) -> Option<T> {
        self.text(absolute)?.parse().ok()
    }

    /// Whether there is such a file.
    pub fn exists(&self, absolute: &str) -> bool {
        self.path(absolute).exists()
    }

    /// Names in a directory, sorted; none where it cannot be read.
    pub fn names(&self, absolute: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(absolute)).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// Writes a setting.
    pub fn write(&self, absolute: &str, value: &str) -> io::Result<()> {
        fs::write(self.path(absolute), value)
    }
}
