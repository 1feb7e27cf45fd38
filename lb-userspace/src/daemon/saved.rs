//! What survives a command or a daemon: the last good config and why the newest one was refused.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Error;
use super::leaving::Drains;
use super::overrides::InForce;
use crate::netlink::Membership;

/// The state file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Saved {
    /// File the config came from.
    pub origin: String,
    /// Its text.
    pub config: String,
    /// Interfaces attached by name.
    pub interfaces: Vec<String>,
    /// When it was applied, in seconds since 1970.
    pub applied_at: u64,
    /// Process of the daemon that follows it, if there is one.
    pub daemon: Option<u32>,
    /// Why the newest config was refused, if it was.
    pub last_error: Option<String>,
    /// The operator's words about backends.
    pub overrides: Vec<InForce>,
    /// Backends on their way out.
    pub drains: Drains,
    /// Multicast groups that were joined for service addresses.
    pub groups: BTreeSet<Membership>,
}

impl Saved {
    /// Reads it; `None` if there is none that can be understood.
    pub fn load(path: &Path) -> Result<Option<Self>, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::File { action: "reading", path: path.to_owned(), source }),
        };
        // Cut short by a power failure, say: only comfort is lost.
        let damaged = |error: &serde_json::Error| tracing::warn!(path = %path.display(), %error, "ignored");
        Ok(serde_json::from_str(&text).inspect_err(damaged).ok())
    }

    /// Writes it in one step: a reader sees the old one or the new one.
    pub fn store(&self, path: &Path) -> Result<(), Error> {
        let temporary = path.with_extension("json.new");
        let failed = |source| Error::File { action: "writing", path: path.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(io::Error::other(error)))?;
        let write = |mut file: File| file.write_all(&text).and_then(|()| file.sync_all());
        File::create(&temporary).and_then(write).map_err(failed)?;
        fs::rename(&temporary, path).map_err(failed)
    }

    /// For how long it has not been written; no time, if that cannot be told.
    pub fn age(path: &Path) -> Duration {
        let written = fs::metadata(path).and_then(|file| file.modified()).ok();
        written.and_then(|written| written.elapsed().ok()).unwrap_or_default()
    }

    /// The time now, as stored.
    pub fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}
