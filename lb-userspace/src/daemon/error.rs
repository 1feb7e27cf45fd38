//! Failures of the daemon and of commands that do its work.

use std::io;
use std::path::PathBuf;

use super::Finding;
use crate::{config, dataplane, netlink, reconcile::PlanError};

/// Why nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config cannot be used.
    #[error("{}", with_cause(.0))]
    Config(#[from] config::Error),
    /// The config holds, but not on this machine or not now.
    #[error("{}", lines(.0))]
    Findings(Vec<Finding>),
    /// The data plane has no room, or cannot change that way.
    #[error("{}", lines(.0))]
    Plan(Vec<PlanError>),
    /// The kernel refused something.
    #[error(transparent)]
    DataPlane(#[from] dataplane::Error),
    /// A start failed, and what it had made is gone again.
    #[error("{0}\nNothing changed.")]
    Undone(Box<Error>),
    /// A plan stopped half-way.
    #[error(
        "{0}\nThe data plane is between two configs: what is new is in force as far as it got, and nothing \
         that was added goes again. A daemon tries the rest once a second; where none runs, apply again when the cause \
         is gone"
    )]
    Partly(dataplane::Error),
    /// The caller may not even look.
    #[error("lb needs root: it reads and changes BPF maps and network interfaces; use sudo")]
    NeedsRoot,
    /// A daemon has the data plane.
    #[error(
        "the daemon{} runs here{}; stop it first (SIGTERM to it: forwarding goes on), or change what it does with \
         `lb apply FILE`",
        process(.pid), on(.interfaces)
    )]
    DaemonRuns {
        /// Its process, where known.
        pid: Option<u32>,
        /// Interfaces that its program is on.
        interfaces: Vec<String>,
    },
    /// The daemon is busy.
    #[error("the daemon has not answered for {} s; it may still do it: `lb status` tells", .0.as_secs())]
    NoAnswer(std::time::Duration),
    /// Netlink failed.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// An interface is not there.
    #[error("there is no interface {name} in this network namespace; there are: {present}")]
    NoInterface {
        /// The name asked for.
        name: String,
        /// Names that exist.
        present: String,
    },
    /// The config names no interface.
    #[error("the config names no interface; add `interfaces: [{{name: eth0}}]`, or use `lb attach IFACE`")]
    NoInterfaces,
    /// Probes cannot go through the services.
    #[error("no way for probes through the services: {0}")]
    Gate(String),
    /// The operator has had enough.
    #[error("interrupted")]
    Interrupted,
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// Whether it is the input's fault (exit code 2) rather than the machine's.
    pub fn is_bad_input(&self) -> bool {
        if let Self::Undone(error) = self {
            return error.is_bad_input();
        }
        matches!(self, Self::Config(_) | Self::Findings(_) | Self::NoInterface { .. } | Self::NoInterfaces)
    }
}

/// The error and the system's reason, which its own words leave out.
fn with_cause(error: &config::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn process(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

fn on(interfaces: &[String]) -> String {
    if interfaces.is_empty() { String::new() } else { format!(", on {}", interfaces.join(", ")) }
}

fn lines<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
