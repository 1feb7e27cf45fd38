//! HAProxy's agent-check: a line in which a server says how it wants to be used. Must not know what comes of it.

use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::dial::Dial;
use super::failure::{Failure, excerpt};
use super::progress::{Progress, Stage};
use super::within;

/// The longest line that is read, in bytes.
const LONGEST: usize = 1024;

/// The largest weight in percent that HAProxy takes (`server_parse_weight_change_request`); larger ones count as this.
const HEAVIEST: u32 = 25_600;

/// What an agent says. What it does not mention stays as it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AgentReport {
    /// Share of the configured weight, in percent; at most 25,600.
    pub weight_percent: Option<u32>,
    /// Whether the server works.
    pub operational: Option<Operational>,
    /// What the administrator wants.
    pub admin: Option<Admin>,
    /// Why, if it said whether the server works; fit to be printed.
    pub reason: Option<String>,
    /// The first word that means nothing, to be reported; fit to be printed.
    pub unknown: Option<String>,
}

/// Whether a server works, by its agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operational {
    /// It does.
    Up,
    /// It does not.
    Down,
    /// It is broken: its check found an error.
    Fail,
    /// Its service was stopped.
    Stopped,
}

/// What an administrator wants of a server, by its agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admin {
    /// Use it.
    Ready,
    /// Nothing new for it.
    Drain,
    /// Nothing at all for it.
    Maint,
}

/// A line without any word that an agent could say.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{0}` is no agent's answer")]
pub struct NotAReport(String);

impl Operational {
    /// Whether the server is to get connections.
    pub fn is_up(self) -> bool {
        self == Self::Up
    }

    fn named(word: &str) -> Option<Self> {
        let words =
            [("up", Self::Up), ("down", Self::Down), ("fail", Self::Fail), ("stopped", Self::Stopped)];
        named(word, words)
    }
}

impl Admin {
    fn named(word: &str) -> Option<Self> {
        named(word, [("ready", Self::Ready), ("drain", Self::Drain), ("maint", Self::Maint)])
    }
}

/// Reads an agent's line, as HAProxy does (`tcpcheck_agent_expect_reply`): words between spaces, tabs and commas in any
/// order and case, of which the last of a kind wins; words without a meaning are passed over; what follows a sharp is
/// the reason. Unlike there, the sharp may follow a word at once. An empty line says nothing and is a report.
pub fn parse(line: &str) -> Result<AgentReport, NotAReport> {
    let line = line.split(['\r', '\n']).next().unwrap_or_default();
    let (words, reason) = match line.split_once('#') {
        Some((words, reason)) => (words, Some(reason.trim())),
        None => (line, None),
    };
    let (mut report, mut understood) = (AgentReport::default(), false);
    for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        if let Some(operational) = Operational::named(word) {
            report.operational = Some(operational);
        } else if let Some(admin) = Admin::named(word) {
            report.admin = Some(admin);
        } else if let Some(percent) = percent(word) {
            report.weight_percent = Some(percent);
        } else if !is_maxconn(word) {
            report.unknown.get_or_insert_with(|| excerpt(word.as_bytes()));
            continue;
        }
        understood = true;
    }
    if !understood && report.unknown.is_some() {
        return Err(NotAReport(excerpt(line.as_bytes())));
    }
    if report.operational.is_some() {
        report.reason = reason.filter(|reason| !reason.is_empty()).map(|reason| excerpt(reason.as_bytes()));
    }
    Ok(report)
}

/// Asks an agent: connects, sends `send`, reads a line until its end or the connection's.
pub async fn ask(dial: &Dial, send: Option<&[u8]>, timeout: Duration) -> Result<AgentReport, Failure> {
    let progress = Progress::default();
    let line = within(timeout, &progress, line(dial, send, &progress)).await?;
    parse(&String::from_utf8_lossy(&line)).map_err(|error| Failure::Protocol(error.to_string()))
}

async fn line(dial: &Dial, send: Option<&[u8]>, progress: &Progress) -> Result<Vec<u8>, Failure> {
    let mut stream = dial.tcp().await?;
    if let Some(bytes) = send {
        progress.at(Stage::Send);
        stream.write_all(bytes).await.map_err(|e| Failure::from_io(&e, Stage::Send))?;
    }
    let mut line = Vec::new();
    let mut stream = stream.take(LONGEST as u64);
    progress.at(Stage::Answer);
    loop {
        let read = stream.read_buf(&mut line).await.map_err(|e| Failure::from_io(&e, progress.stage()))?;
        let ended = line.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        match read {
            _ if ended => return Ok(line),
            0 if line.is_empty() => return Err(Failure::Closed { stage: Stage::Answer }),
            0 if line.len() >= LONGEST => {
                return Err(Failure::Protocol("the agent's line is longer than 1 KiB".to_owned()));
            }
            0 => return Ok(line),
            _ => progress.at(Stage::Rest),
        }
    }
}

/// A share of the weight: digits and a percent sign.
fn percent(word: &str) -> Option<u32> {
    let digits = word.strip_suffix('%').filter(|digits| !digits.is_empty())?;
    let valid = digits.bytes().all(|digit| digit.is_ascii_digit());
    // What is too large to be a number is too heavy all the same.
    valid.then(|| digits.parse().unwrap_or(HEAVIEST).min(HEAVIEST))
}

/// Whether the word limits connections, which an L4 balancer that keeps no connections cannot do.
fn is_maxconn(word: &str) -> bool {
    let Some((name, limit)) = word.split_once(':') else { return false };
    name.eq_ignore_ascii_case("maxconn") && !limit.is_empty() && limit.bytes().all(|b| b.is_ascii_digit())
}

fn named<T, const N: usize>(word: &str, words: [(&str, T); N]) -> Option<T> {
    words.into_iter().find(|(name, _)| word.eq_ignore_ascii_case(name)).map(|(_, meaning)| meaning)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(weight: Option<u32>, operational: Option<Operational>, admin: Option<Admin>) -> AgentReport {
        AgentReport { weight_percent: weight, operational, admin, ..AgentReport::default() }
    }

    #[test]
    fn what_agents_say() {
        use Admin::{Drain, Maint, Ready};
        use Operational::{Down, Fail, Stopped, Up};
        let cases = [
            ("", report(None, None, None)),
            ("75%", report(Some(75), None, None)),
            ("0%\n", report(Some(0), None, None)),
            ("up", report(None, Some(Up), None)),
            ("UP\r\nmaint", report(None, Some(Up), None)),
            ("stopped", report(None, Some(Stopped), None)),
            ("fail", report(None, Some(Fail), None)),
            ("75%,maxconn:30,maint,down\n", report(Some(75), Some(Down), Some(Maint))),
            ("ready\tup 50%, 100%", report(Some(100), Some(Up), Some(Ready))),
            ("up down ready drain", report(None, Some(Down), Some(Drain))),
            ("300%", report(Some(300), None, None)),
            ("99999999999999999999%", report(Some(25_600), None, None)),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn reasons() {
        for line in ["down # disk full", "down #disk full\n", "down#disk full", "drain,down,  #  disk full "]
        {
            assert_eq!(parse(line).unwrap().reason.as_deref(), Some("disk full"), "{line}");
        }
        assert_eq!(parse("50% # nobody cares").unwrap().reason, None, "no state is announced");
        assert_eq!(parse("down #").unwrap().reason, None);
        assert_eq!(parse("down # \x1b[2J").unwrap().reason.as_deref(), Some("\\u{1b}[2J"));
    }

    #[test]
    fn words_without_a_meaning() {
        let found = parse("up 50 maxconn:x -1% 5%%").unwrap();
        assert_eq!((found.operational, found.unknown.as_deref()), (Some(Operational::Up), Some("50")));
        assert_eq!(
            parse("HTTP/1.1 400 Bad").unwrap_err().to_string(),
            "`HTTP/1.1 400 Bad` is no agent's answer"
        );
        assert!(parse("%").is_err());
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in ".{0,200}") {
            let _ = parse(&line);
        }

        #[test]
        fn the_last_of_a_kind_wins(
            words in prop::collection::vec(
                prop::sample::select(vec!["up", "DOWN", "fail", "stopped", "ready", "drain", "Maint", "10%", "70%"]),
                1..8,
            ),
            separator in prop::sample::select(vec![" ", ",", "\t", " , "]),
        ) {
            let all = parse(&words.join(separator)).unwrap();
            let last = |pick: fn(&AgentReport) -> bool| words.iter().rev().map(|w| parse(w).unwrap()).find(pick);
            prop_assert_eq!(all.operational, last(|r| r.operational.is_some()).and_then(|r| r.operational));
            prop_assert_eq!(all.admin, last(|r| r.admin.is_some()).and_then(|r| r.admin));
            prop_assert_eq!(all.weight_percent, last(|r| r.weight_percent.is_some()).and_then(|r| r.weight_percent));
        }
    }
}
