//! What can go wrong with a lab, in words for the person who asked for it.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use super::address::MAX_BACKENDS;

/// Why a lab could not be built, used or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// Interface and namespace names leave little room.
    #[error("lab name {0:?}: 1 to 8 characters of a-z, 0-9 and '-', beginning with a letter")]
    Name(String),
    /// More or fewer backends than there are addresses for.
    #[error("a lab has 1 to {MAX_BACKENDS} backends, not {0}")]
    Backends(u8),
    /// The name is taken by a lab that is up.
    #[error("lab {0} is already up; `lb lab down --name {0}` removes it")]
    AlreadyUp(String),
    /// Namespaces and interfaces need privileges.
    #[error("a lab needs root (it makes network namespaces); try it with sudo")]
    NotRoot,
    /// A helper program is not installed.
    #[error("{program} is not installed; `cargo xtask setup` or your package manager brings it")]
    Missing {
        /// The program's name.
        program: String,
    },
    /// A program ran and failed.
    #[error("{command} failed ({status}){}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    Command {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The operating system refused.
    #[error("cannot {attempt}: {source}")]
    Io {
        /// What was attempted, on which object.
        attempt: String,
        /// The refusal.
        source: io::Error,
    },
    /// Something was waited for in vain.
    #[error("{what}: not within {} s", after.as_secs_f32())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// A program that should run has ended; the last lines of its log.
    #[error("{program} ended by itself{}{log}", if log.is_empty() { "" } else { ":\n" })]
    Ended {
        /// Which program.
        program: String,
        /// The end of its log.
        log: String,
    },
    /// A demonstration did not show what it should.
    #[error("{0}")]
    Unexpected(Box<str>),
    /// Something outlived the removal of its lab.
    #[error("lab {name} left behind: {what}")]
    Leftovers {
        /// The lab.
        name: String,
        /// What is still there.
        what: String,
    },
    /// The user asked to stop (Ctrl-C, SIGTERM).
    #[error("interrupted")]
    Interrupted,
}

impl LabError {
    /// For `map_err`: names what was attempted.
    pub(super) fn io(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempt = attempt.into();
        move |source| Self::Io { attempt, source }
    }

    /// For `map_err` on starting `program`: a missing program has a way out, other errors a reason.
    pub(super) fn start(program: &str) -> impl FnOnce(io::Error) -> Self + use<> {
        let program = program.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { program },
            _ => Self::Io { attempt: format!("start {program}"), source },
        }
    }

    pub(super) fn unexpected(what: impl Into<Box<str>>) -> Self {
        Self::Unexpected(what.into())
    }
}
