//! Settings below `/proc/sys`, of the current network namespace. Decides nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::Error;

fn file(path: &str) -> PathBuf {
    Path::new("/proc/sys").join(path)
}

/// A setting's value; `None` where the kernel, or the interface, has no such setting.
pub(super) fn read(path: &str) -> Result<Option<i64>, Error> {
    let path = file(path);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { action: "reading", path, source }),
    }
}

/// Changes a setting, and looks whether it has changed.
pub(super) fn write(path: &str, value: i64) -> Result<(), Error> {
    let file = file(path);
    fs::write(&file, value.to_string()).map_err(|source| Error::File {
        action: "writing",
        path: file,
        source,
    })?;
    match read(path)? {
        Some(now) if now == value => Ok(()),
        now => Err(Error::NoEffect(format!("{path} should be {value} and is {now:?}"))),
    }
}
