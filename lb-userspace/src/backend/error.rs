//! Why a machine could not be made a backend, or be asked.

use std::io;
use std::path::PathBuf;

use crate::{dataplane, netlink};

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The data plane could not be read.
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
    /// A file could not be read or written.
    #[error("{action} {path}: {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The state file is not what this program writes.
    #[error("{path} is damaged: {source}; remove it, and what it lists by hand")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// No interface of that name.
    #[error("there is no interface {0} in this network namespace")]
    NoInterface(String),
    /// Which interface is meant cannot be told.
    #[error("name the interface that packets come in by with --interface; there are {0}")]
    WhichInterface(String),
    /// The decapsulator ended at once.
    #[error("lb decap ended at once ({status}):\n{said}")]
    DecapEnded {
        /// How.
        status: String,
        /// Its last lines.
        said: String,
    },
    /// The decapsulator is not attached in time.
    #[error("lb decap (process {pid}) is not attached after {seconds} s; its log is {log}")]
    DecapLate {
        /// Its process.
        pid: u32,
        /// How long it was waited for.
        seconds: u64,
        /// What it has said.
        log: PathBuf,
    },
    /// The decapsulator does not end.
    #[error("lb decap (process {0}) does not end")]
    DecapStays(u32),
    /// A decapsulator that somebody else started does not take everything.
    #[error(
        "{interface} has a decapsulator that was not started by `lb backend up` (program {program_id}), and it does \
         not take all of this: stop it, or start it as\n  {command}"
    )]
    ForeignDecap {
        /// The interface.
        interface: String,
        /// The kernel's id of its program.
        program_id: u32,
        /// How it should have been started.
        command: String,
    },
    /// Something else has the interface.
    #[error(
        "{interface} has another XDP program already, {name} (program {program_id}): an interface has room for one. \
         Whoever attached it must take it off"
    )]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// The kernel's id of it.
        program_id: u32,
        /// Its name.
        name: String,
    },
    /// A step has no effect.
    #[error("done, but without effect: {0}")]
    NoEffect(String),
}
