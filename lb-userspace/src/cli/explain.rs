//! `lb explain`: one packet against the live maps, which are only read; or what a code or a reason means.

use std::process::ExitCode;

use lb_common::abi::{ClampReason, DecapReason, Reason};
use nix::net::if_::if_nametoindex;
use serde_json::json;

use super::args::Context;
use super::error::Failure;
use super::packet_args::ExplainArgs;
use super::{output, view};
use crate::config;
use crate::daemon::{Saved, names};
use crate::dataplane::{KernelPlane, LiveTables, attached};
use crate::reconcile::Observed;
use crate::simulate::language::{Link, Mac, parse_on};
use crate::simulate::{Facts, Overlay, Report, decide};

/// The document that has all codes.
const CODES: &str = include_str!("../../../examples/CODES.md");

/// `lb explain`.
pub(super) fn run(context: &Context, args: &ExplainArgs) -> Result<ExitCode, Failure> {
    if let [word] = args.packet.as_slice()
        && let Some(meaning) = Meaning::of(word)
    {
        output::print(args.output, &meaning.json(), || meaning.text())?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = report(context, args)?;
    output::print(args.output, &report, || report.text())?;
    Ok(ExitCode::SUCCESS)
}

fn report(context: &Context, args: &ExplainArgs) -> Result<Report, Failure> {
    let line = args.packet.join(" ");
    // Before anything is asked of the machine, so that a slip is told first.
    parse_on(&line, &Link::default()).map_err(Failure::bad_input)?;
    let instance = context.instance()?;
    let plane = KernelPlane::open(&instance.pins)?;
    let observed = plane.glance()?;
    let index = match &args.interface {
        Some(name) => if_nametoindex(name.as_str())
            .map_err(|error| Failure::bad_input(format!("interface {name}: {error}")))?,
        None => attached(&instance.pins)
            .first()
            .map(|found| found.ifindex)
            .ok_or_else(|| Failure::failed("lb is attached to no interface here"))?,
    };
    let (ingress, mac) = port(&observed, index)?;
    let link = Link { destination: mac, ..Link::default() };
    let frame = parse_on(&line, &link).map_err(Failure::bad_input)?;
    let live = LiveTables::open(&instance.pins, ingress)?;
    let outcome = decide(&Overlay::new(&live), &frame);
    let facts = Facts {
        index: 0,
        engine: "host",
        verdict: outcome.verdict,
        before: &frame,
        after: &outcome.frame,
        noted: &outcome.noted,
        link: &link,
        ingress,
    };
    let saved = Saved::load(&instance.state)?.unwrap_or_default();
    let model = config::parse(&saved.origin, &saved.config).map(|loaded| loaded.model).ok();
    let names = model.map_or_else(Default::default, |model| names(&model, &observed, view::interface_name));
    Ok(Report::new(&facts, &names))
}

/// Number and MAC address of the port that is the interface with this index.
fn port(observed: &Observed, ifindex: u32) -> Result<(u16, Mac), Failure> {
    let found = observed.ports.iter().find(|(_, port)| port.ifindex == ifindex);
    let unknown = || Failure::bad_input(format!("lb knows no interface {}", view::interface_name(ifindex)));
    found.map(|(number, port)| (*number, Mac(port.mac))).ok_or_else(unknown)
}

/// What a code or a reason means.
#[derive(Debug, Eq, PartialEq)]
struct Meaning {
    /// It, and whose it is.
    title: String,
    /// The document's columns and what it says in them.
    rows: Vec<(String, String)>,
}

impl Meaning {
    /// The meaning of a word that the document has, or that is a reason.
    fn of(word: &str) -> Option<Self> {
        let code = word.to_ascii_uppercase();
        let known = ["LB", "lb"].iter().any(|prefix| word.starts_with(prefix));
        if known && let Some(rows) = rows(&code).into_iter().next() {
            return Some(Self { title: code, rows });
        }
        let name = word.to_ascii_lowercase();
        let balancer = Reason::ALL.iter().find(|reason| reason.name() == name);
        let decap = DecapReason::ALL.iter().find(|reason| reason.name() == name);
        let clamp = ClampReason::ALL.iter().find(|reason| reason.name() == name);
        let meant: Vec<(String, String)> = [
            balancer.map(|reason| ("balancer", reason.verdict(), reason.explanation())),
            decap.map(|reason| ("lb decap", reason.verdict(), reason.explanation())),
            clamp.map(|reason| ("lb decap --clamp-mss", reason.verdict(), reason.explanation())),
        ]
        .into_iter()
        .flatten()
        .map(|(who, what, why)| (who.to_owned(), format!("{} - {why}", what.name())))
        .collect();
        if meant.is_empty() {
            return None;
        }
        let advice = rows(&name)
            .into_iter()
            .flatten()
            .filter(|(column, text)| column == "what to do" && !text.is_empty());
        let rows = meant.into_iter().chain(advice).collect();
        Some(Self { title: name, rows })
    }

    fn text(&self) -> String {
        let lines = self.rows.iter().map(|(column, text)| format!("  {column}: {text}\n"));
        format!("{}\n{}", self.title, lines.collect::<String>())
    }

    fn json(&self) -> serde_json::Value {
        let rows: serde_json::Map<String, serde_json::Value> =
            self.rows.iter().map(|(column, text)| (column.clone(), text.clone().into())).collect();
        json!({ "code": self.title, "meaning": rows })
    }
}

/// The rows of the document's tables whose first cell is `wanted`, with the names of their columns.
fn rows(wanted: &str) -> Vec<Vec<(String, String)>> {
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut header: Vec<String> = Vec::new();
    let mut found = Vec::new();
    let mut before = "";
    for line in CODES.lines() {
        if line.starts_with("|---") {
            header = cells(before);
        } else if line.starts_with('|')
            && cells(line).first().is_some_and(|first| first.trim_matches('`') == wanted)
        {
            let named = header.iter().cloned().zip(cells(line)).skip(1);
            found.push(
                named
                    .map(|(column, text)| (if column.is_empty() { "kind".into() } else { column }, text))
                    .collect(),
            );
        }
        before = line;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons_are_found_in_the_document() {
        let code = Meaning::of("LB013").unwrap();
        assert!(code.text().contains("cause: the driver has no transmit queues"), "{}", code.text());
        assert!(Meaning::of("lb036").unwrap().text().contains("fix:"));
        let reason = Meaning::of("no_backend").unwrap();
        assert!(reason.text().contains("balancer: drop - ") && reason.text().contains("what to do: "));
        let both = Meaning::of("malformed").unwrap();
        assert!(both.text().contains("lb decap: drop"), "{}", both.text());
        assert!(Meaning::of("mss_lowered").unwrap().text().contains("--clamp-mss: pass"));
        assert_eq!(Meaning::of("LB999"), None);
        assert_eq!(Meaning::of("tcp"), None);
    }

    /// The document keeps up with the program.
    #[test]
    fn every_reason_is_in_the_document() {
        let names = Reason::ALL.iter().map(|r| r.name()).chain(DecapReason::ALL.iter().map(|r| r.name()));
        let missing: Vec<&str> = names.filter(|name| rows(name).is_empty()).collect();
        assert!(missing.is_empty(), "not in CODES.md: {missing:?}");
    }
}
