//! What the fuzz targets (`fuzz/`) do with an input, so that tests can replay their corpora without libFuzzer.

pub mod config;
pub mod engine;
pub mod language;

// Where the targets of `fuzz/` have it.
use super::oracle;
