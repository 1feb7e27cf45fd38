//! Asks a backend whether it works, once: a prober per kind of check, and what came of it. Must not know when probes
//! are made, what results mean for a backend, or where configs come from.

mod agent;
mod answer;
mod dial;
mod failure;
mod http;
mod icmp;
mod progress;
mod request;
mod tcp;
mod tls;
mod udp;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{self, Instant};

pub use agent::{Admin, AgentReport, NotAReport, Operational, ask, parse};
pub use dial::Dial;
pub use failure::{Failure, Unreachable};
pub use progress::{Progress, Stage};

use crate::model::CheckKind;

/// A probe under way. Dropping it frees its sockets.
pub type Probing<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// One kind of probe, ready to be made of any number of backends.
pub trait Prober {
    /// Makes one probe. It notes in `progress` what it waits for and takes no notice of the time: [`run`] ends it.
    fn probe<'a>(&'a self, dial: &'a Dial, progress: &'a Progress) -> Probing<'a>;
}

/// What came of a probe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// From its start to its result.
    pub latency: Duration,
    /// Whether it passed.
    pub result: Result<(), Failure>,
}

/// Why no probe can be made of a check.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Unusable {
    /// `method` is no HTTP method that a check could use.
    #[error("`{0}` is not an HTTP method for checks")]
    Method(String),
    /// `path` is no request target.
    #[error("`{0}` is not a request path")]
    Path(String),
    /// A header has no valid name, or a value that cannot be sent.
    #[error("header `{0}` cannot be sent: its name or value has forbidden characters")]
    Header(String),
    /// The regular expression is wrong.
    #[error("regular expression `{pattern}`: {why}")]
    Regex {
        /// What was written.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// `sni` is neither a DNS name nor an address.
    #[error("`{0}` is not a server name")]
    ServerName(String),
    /// The file with the trusted authorities cannot be used.
    #[error("cannot use the authorities in {path}: {why}")]
    Authorities {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The system's authorities cannot be used.
    #[error("cannot use the system's authorities: {0}")]
    System(String),
    /// The TLS library refuses its own settings.
    #[error("TLS: {0}")]
    Tls(String),
}

/// The prober for a check: expressions, authorities and requests are read and compiled here, once, and shared by all
/// backends. Reads the file with the authorities, so not for every probe.
pub fn prober(check: &CheckKind) -> Result<Arc<dyn Prober + Send + Sync>, Unusable> {
    Ok(match check {
        CheckKind::Icmp => Arc::new(icmp::Echo::new()),
        CheckKind::Tcp(exchange) => Arc::new(tcp::Connection::new(exchange)),
        CheckKind::Udp(exchange) => Arc::new(udp::Datagram::new(exchange)),
        CheckKind::Http(check) => Arc::new(http::Request::new(check)?),
    })
}

/// Makes one probe and ends it when `timeout` is over.
pub async fn run(prober: &dyn Prober, dial: &Dial, timeout: Duration) -> Outcome {
    let start = Instant::now();
    let progress = Progress::default();
    let result = within(timeout, &progress, prober.probe(dial, &progress)).await;
    let result = match result {
        // Nothing more had to come.
        Err(Failure::Timeout { stage: Stage::Silence, .. }) => Ok(()),
        result => result,
    };
    Outcome { latency: start.elapsed(), result }
}

/// What `work` gives, or a failure that names what it was waiting for when `timeout` was over.
async fn within<T>(
    timeout: Duration,
    progress: &Progress,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match time::timeout(timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Timeout { stage: progress.stage(), after: timeout }),
    }
}

#[cfg(test)]
mod tests;
