//! Why a probe failed, as values that can be compared, counted and read. Must not know which check was made.

use std::io::{self, ErrorKind};
use std::time::Duration;

use nix::errno::Errno;
use thiserror::Error;

use super::progress::Stage;

/// How much of an answer is quoted, in characters.
const EXCERPT: usize = 40;

/// Why a probe failed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Failure {
    /// Nobody listens.
    #[error("connection refused")]
    Refused,
    /// The time was over.
    #[error("{} within {after:?}", stage.missing())]
    Timeout {
        /// What was waited for.
        stage: Stage,
        /// How long the probe was given.
        after: Duration,
    },
    /// The network says that packets do not arrive.
    #[error("{0}")]
    Unreachable(Unreachable),
    /// This host knows no way to the target; the reason in words.
    #[error("{0}")]
    NoWay(String),
    /// The peer, or something on the way, broke the connection off.
    #[error("connection reset {}", stage.when())]
    Reset {
        /// What was waited for.
        stage: Stage,
    },
    /// The peer ended the connection too early.
    #[error("connection closed {}", stage.when())]
    Closed {
        /// What was waited for.
        stage: Stage,
    },
    /// A status that is not wanted.
    #[error("HTTP {got}, wanted {wanted}")]
    Status {
        /// The response's.
        got: u16,
        /// Those that pass.
        wanted: String,
    },
    /// A body that is not wanted.
    #[error("body {wanted}{}", quoted(got))]
    Body {
        /// What it lacks, as a predicate.
        wanted: String,
        /// How it begins, fit to be printed; may be empty.
        got: String,
    },
    /// Another answer than wanted.
    #[error("answer {wanted}{}", quoted(got))]
    Unexpected {
        /// What it lacks, as a predicate.
        wanted: String,
        /// How it begins, fit to be printed; may be empty.
        got: String,
    },
    /// The peer does not keep to the protocol; what is wrong in words.
    #[error("{0}")]
    Protocol(String),
    /// TLS failed; the reason in words.
    #[error("TLS: {0}")]
    Tls(String),
    /// The probe could not be made, for a reason on this host; in words.
    #[error("{0}")]
    Local(String),
}

/// What the network says about a target.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Unreachable {
    /// No such neighbour, or a router says so.
    #[error("host unreachable")]
    Host,
    /// No route here, or at a router.
    #[error("network unreachable")]
    Network,
    /// No UDP socket there.
    #[error("port unreachable")]
    Port,
    /// The host does not know the protocol.
    #[error("protocol unreachable")]
    Protocol,
    /// A router or the host does not let it pass.
    #[error("administratively prohibited")]
    Prohibited,
    /// The kernel gave up sending: nothing was acknowledged.
    #[error("target stopped acknowledging")]
    Unacknowledged,
}

impl Failure {
    /// A short stable word for columns and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout { .. } => "timeout",
            Self::Unreachable(_) | Self::NoWay(_) => "unreachable",
            Self::Reset { .. } => "reset",
            Self::Closed { .. } => "closed",
            Self::Status { .. } => "status",
            Self::Body { .. } => "body",
            Self::Unexpected { .. } => "answer",
            Self::Protocol(_) => "protocol",
            Self::Tls(_) => "tls",
            Self::Local(_) => "local",
        }
    }

    /// What an error of a stream means while `stage` is waited for.
    pub(super) fn from_io(error: &io::Error, stage: Stage) -> Self {
        if let Some(tls) = super::tls::words(error) {
            return Self::Tls(tls);
        }
        if error.kind() == ErrorKind::UnexpectedEof {
            return Self::Closed { stage };
        }
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ECONNREFUSED) => Self::Refused,
            Some(Errno::ECONNRESET | Errno::ECONNABORTED | Errno::EPIPE) => Self::Reset { stage },
            Some(Errno::EHOSTUNREACH | Errno::EHOSTDOWN) => Self::Unreachable(Unreachable::Host),
            Some(Errno::ENETUNREACH) => Self::Unreachable(Unreachable::Network),
            // What ICMP "protocol unreachable" becomes (icmp_err_convert in the kernel).
            Some(Errno::ENOPROTOOPT | Errno::EPROTO) => Self::Unreachable(Unreachable::Protocol),
            // What ICMPv6 "administratively prohibited" becomes; with IPv4 it is EHOSTUNREACH.
            Some(Errno::EACCES) => Self::Unreachable(Unreachable::Prohibited),
            Some(Errno::ETIMEDOUT) => Self::Unreachable(Unreachable::Unacknowledged),
            Some(errno) => Self::Local(local(errno)),
            None => Self::Local(error.to_string()),
        }
    }

    /// The same without a connection: what refuses a datagram is the port.
    pub(super) fn from_datagram(error: &io::Error, stage: Stage) -> Self {
        match Self::from_io(error, stage) {
            Self::Refused => Self::Unreachable(Unreachable::Port),
            other => other,
        }
    }
}

/// What is wrong on this host, in words.
fn local(errno: Errno) -> String {
    match errno {
        Errno::EMFILE | Errno::ENFILE => "no file descriptor left".to_owned(),
        Errno::ENOBUFS | Errno::ENOMEM => "no memory left for sockets".to_owned(),
        Errno::EPERM => "not permitted: a packet filter of this host, or a missing capability".to_owned(),
        Errno::ENETDOWN => "the interface is down".to_owned(),
        Errno::ENODEV => "the interface is gone".to_owned(),
        Errno::EADDRNOTAVAIL => "no free local port".to_owned(),
        other => format!("socket error: {}", other.desc()),
    }
}

/// The beginning of `bytes` with everything escaped that is not fit to be printed in a line.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    // A character takes at most four bytes.
    let head = bytes.get(..EXCERPT * 4).unwrap_or(bytes);
    let text = String::from_utf8_lossy(head);
    let mut out = String::new();
    for c in text.chars().take(EXCERPT) {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(EXCERPT).is_some() {
        out.push('…');
    }
    out
}

fn quoted(got: &str) -> String {
    match got {
        "" => String::new(),
        got => format!(" but begins with `{got}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_words_and_a_label() {
        let (stage, after) = (Stage::Header, Duration::from_millis(1500));
        let cases = [
            (Failure::Refused, "refused", "connection refused"),
            (Failure::Timeout { stage, after }, "timeout", "no complete response header within 1.5s"),
            (Failure::Unreachable(Unreachable::Network), "unreachable", "network unreachable"),
            (Failure::Reset { stage: Stage::Send }, "reset", "connection reset while the request was sent"),
            (Failure::Closed { stage: Stage::Answer }, "closed", "connection closed before an answer"),
            (Failure::Status { got: 503, wanted: "200–399".into() }, "status", "HTTP 503, wanted 200–399"),
            (
                Failure::Body { wanted: "does not contain `ok`".into(), got: String::new() },
                "body",
                "body does not contain `ok`",
            ),
            (
                Failure::Unexpected { wanted: "does not contain `ok`".into(), got: "no".into() },
                "answer",
                "answer does not contain `ok` but begins with `no`",
            ),
            (Failure::Protocol("not HTTP".into()), "protocol", "not HTTP"),
            (Failure::Tls("certificate expired".into()), "tls", "TLS: certificate expired"),
            (Failure::Local("no free local port".into()), "local", "no free local port"),
        ];
        for (failure, label, words) in cases {
            assert_eq!((failure.label(), failure.to_string().as_str()), (label, words));
        }
    }

    #[test]
    fn what_the_kernel_says() {
        let stage = Stage::Connect;
        let cases = [
            (Errno::ECONNREFUSED, "connection refused"),
            (Errno::ECONNRESET, "connection reset while connecting"),
            (Errno::EHOSTUNREACH, "host unreachable"),
            (Errno::ENETUNREACH, "network unreachable"),
            (Errno::ENOPROTOOPT, "protocol unreachable"),
            (Errno::EACCES, "administratively prohibited"),
            (Errno::ETIMEDOUT, "target stopped acknowledging"),
            (Errno::EMFILE, "no file descriptor left"),
            (Errno::EADDRNOTAVAIL, "no free local port"),
            (Errno::EINVAL, "socket error: Invalid argument"),
        ];
        for (errno, words) in cases {
            assert_eq!(Failure::from_io(&io::Error::from(errno), stage).to_string(), words);
        }
        let refused = io::Error::from(Errno::ECONNREFUSED);
        assert_eq!(Failure::from_datagram(&refused, stage).to_string(), "port unreachable");
    }

    #[test]
    fn excerpts_are_short_and_printable() {
        assert_eq!(excerpt(b"a\x1b[31m\r\n\"q\" \xff"), "a\\u{1b}[31m\\r\\n\"q\" \u{fffd}");
        assert_eq!(excerpt("ä".repeat(41).as_bytes()), format!("{}…", "ä".repeat(40)));
        assert_eq!(excerpt(&[b'x'; 40]), "x".repeat(40));
        assert_eq!(excerpt(b""), "");
    }
}
