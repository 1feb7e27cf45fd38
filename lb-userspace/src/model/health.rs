//! How backends are checked, and what becomes of the results, as plain values.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// One check of a backend.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Check {
    /// What is asked, and what the answer must be.
    pub kind: CheckKind,
    /// Which way the probe takes.
    pub via: Via,
    /// Probes this address rather than the backend's; only with [`Via::Direct`].
    pub address: Option<IpAddr>,
    /// Probes this port rather than the service's.
    pub port: Option<u16>,
    /// Source address of direct probes, and the node's address in those through the service.
    pub source: Option<IpAddr>,
    /// Interface that direct probes leave by (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
    /// When it is probed, and how many results decide.
    pub timing: Timing,
}

/// Which way a probe takes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Via {
    /// To the backend's own address, by the host's routes.
    Direct,
    /// To the service address, forwarded to the backend as a client's packet would be.
    Service,
}

/// When a check is made, and how many results decide.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Timing {
    /// From the start of one probe to the start of the next, while nothing changes.
    pub interval: Duration,
    /// The same while results disagree with the standing: a failed probe is repeated after this, or at once where it
    /// took longer. At most `interval`.
    pub fast_interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Successes in a row after which a failing check passes.
    pub healthy_threshold: u32,
    /// Failures in a row after which a passing check fails.
    pub unhealthy_threshold: u32,
    /// The longest interval that a check which keeps failing is slowed down to; at least `interval`.
    pub max_interval: Duration,
}

/// What is asked.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum CheckKind {
    /// ICMP or ICMPv6 echo.
    Icmp,
    /// A TCP connection.
    Tcp(Exchange),
    /// HTTP/1.1, over TLS if `tls` says how.
    Http(HttpCheck),
    /// A datagram and its answer. Without `expect` any answer will do, and silence too: only a port unreachable fails.
    Udp(Exchange),
}

impl CheckKind {
    /// The word for it in configs and tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Tcp(_) => "tcp",
            Self::Http(HttpCheck { tls: None, .. }) => "http",
            Self::Http(_) => "https",
            Self::Udp(_) => "udp",
        }
    }
}

/// What is sent after connecting, and what the answer must contain.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Exchange {
    /// Sent first.
    pub send: Option<Vec<u8>>,
    /// The answer contains this.
    pub expect: Option<Vec<u8>>,
}

/// An HTTP request and what its response must be.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HttpCheck {
    /// TLS, for https.
    pub tls: Option<TlsCheck>,
    /// The method, such as `GET`.
    pub method: String,
    /// The request target, starting with `/`.
    pub path: String,
    /// The `Host` header; `None`: the address that is probed, with the port where it is not the scheme's own.
    pub host: Option<String>,
    /// Other headers, as name and value.
    pub headers: Vec<(String, String)>,
    /// The response's status is in one of these.
    pub expected_status: Vec<RangeInclusive<u16>>,
    /// What the first 64 KiB of the body must hold.
    pub expected_body: Option<BodyMatch>,
}

/// What a body must hold.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum BodyMatch {
    /// This text.
    Contains(String),
    /// A match of this regular expression (syntax of the crate `regex`).
    Regex(String),
}

/// TLS of an https check.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct TlsCheck {
    /// Server name to ask for; `None`: the host header's, if it has a name.
    pub sni: Option<String>,
    /// Whether the certificate must be valid for that name.
    pub verify: bool,
    /// PEM file with the authorities to trust; `None`: the system's.
    pub ca_file: Option<String>,
}

/// Whether several checks of a backend must all pass.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Require {
    /// All of them.
    #[default]
    All,
    /// One of them.
    Any,
}

/// HAProxy's agent-check: a TCP port on the backend that says in a line how it wants to be used.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AgentCheck {
    /// TCP port.
    pub port: u16,
    /// From one question to the next.
    pub interval: Duration,
    /// How long the answer may take.
    pub timeout: Duration,
    /// Sent after connecting.
    pub send: Option<Vec<u8>>,
}

/// How a backend's check results become its state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HealthPolicy {
    /// What several checks mean together.
    pub require: Require,
    /// How long a backend that fails again and again is held down after it passes: this after its second failure
    /// within `flap_window`, then double each time; zero: never.
    pub hold_down: Duration,
    /// The longest hold-down.
    pub max_hold_down: Duration,
    /// For how long a failure counts as one of several.
    pub flap_window: Duration,
    /// A backend that was down for at least this long comes back on trial.
    pub trial_after: Duration,
    /// How long a trial lasts; zero: none.
    pub trial_time: Duration,
    /// Share of its weight that it has while on trial, in percent.
    pub trial_share: u8,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            require: Require::All,
            hold_down: Duration::from_secs(5),
            max_hold_down: Duration::from_secs(300),
            flap_window: Duration::from_secs(300),
            trial_after: Duration::from_secs(60),
            trial_time: Duration::from_secs(10),
            trial_share: 10,
        }
    }
}

/// What a service does when its backends fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FailurePolicy {
    /// When no backend is left.
    pub all_down: AllDown,
    /// If more than this share of its backends fails at once, in percent, the failures are not believed; 100: always
    /// believed while one is left.
    pub max_failed: u8,
    /// Backups enter while fewer backends than this are up.
    pub min_active: u32,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self { all_down: AllDown::LastKnown, max_failed: 100, min_active: 1 }
    }
}

/// What happens to a service without a backend that is up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AllDown {
    /// Packets go on to those that were up last: probes may err.
    #[default]
    LastKnown,
    /// Packets are dropped.
    Reject,
}
