//! A config before and after it is in force.

use std::path::Path;

use crate::config::{self, Loaded};
use crate::daemon::{Blast, Error, Finding};

/// A config that is to be applied.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// File it came from.
    pub origin: String,
    /// The checked config.
    pub loaded: Loaded,
    /// Whether guard rails are overruled.
    pub force: bool,
}

impl Candidate {
    /// Reads a file. Its name is made absolute, so that it means the same to everybody who reads it later.
    pub fn read(path: &Path, force: bool) -> Result<Self, Error> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { origin: path.display().to_string(), loaded: config::load(&path)?, force })
    }

    /// Takes a text as if it were in the file `origin`.
    pub fn parse(origin: &str, text: &str, force: bool) -> Result<Self, Error> {
        let loaded = config::parse(origin, text).map_err(config::Error::from)?;
        Ok(Self { origin: origin.to_owned(), loaded, force })
    }
}

/// What applying did, or would do.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The steps, as text.
    pub steps: Vec<String>,
    /// Warnings.
    pub warnings: Vec<Finding>,
    /// What guard rails have against it; only of what was not done.
    pub objections: Vec<Finding>,
    /// What it would do to flows; only of what was not done.
    pub blast: Vec<Blast>,
    /// Number of the configuration that is in force.
    pub generation: u64,
}
