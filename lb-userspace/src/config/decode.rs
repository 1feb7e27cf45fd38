//! Readers over nodes: mappings with known keys, lists, scalars. Each says what is wrong and goes on.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::diagnostic::{Findings, Report, code};
use super::near::nearest;
use super::node::{Entry, Kind, Node};
use super::source::Span;
use super::value::{Fault, Reader};

/// The longest text that is repeated in a message.
const QUOTED_CHARS: usize = 40;

/// Where a required key is missing, as many keys are looked at for a slip of it.
const MAX_SLIPS: usize = 64;

/// A value and where it was written.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// The keys that a mapping may have.
pub(super) struct Shape {
    /// What the mapping describes, with its article.
    pub(super) what: &'static str,
    pub(super) keys: &'static [&'static str],
    /// Keys that a later version will know.
    pub(super) later: &'static [&'static str],
}

/// A mapping whose keys are all known, or reported.
#[derive(Clone, Copy)]
pub(super) struct Fields<'n> {
    shape: &'static Shape,
    /// The place to name where a key is missing.
    pub(super) span: Span,
    entries: &'n [Entry],
}

/// A text of the config, fit for a message.
pub(super) fn quoted(text: &str) -> String {
    if text.is_empty() {
        return "an empty string".to_owned();
    }
    let mut shown: String = text.chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED_CHARS).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

impl Shape {
    fn knows(&self, key: &str) -> bool {
        self.keys.contains(&key)
    }

    /// The key that an unknown one is a slip of.
    fn meant(&self, key: &str) -> Option<&'static str> {
        if self.knows(key) { None } else { nearest(key, self.keys.iter().copied()) }
    }
}

impl<'n> Fields<'n> {
    /// Reads a mapping. No value at all counts as an empty one; anything else is reported.
    pub(super) fn open(node: &'n Node, shape: &'static Shape, out: &mut Findings<'_>) -> Option<Fields<'n>> {
        let entries: &[Entry] = match &node.kind {
            Kind::Map(entries) => entries,
            Kind::Null => &[],
            other => {
                let message = format!("{} must be a mapping, not {}", shape.what, found(other));
                let help = format!("its keys are {}", shape.keys.join(", "));
                out.push(Report::error(code::WRONG_TYPE, node.span, message).help(help));
                return None;
            }
        };
        for entry in entries {
            if !shape.knows(&entry.key) {
                out.push_error(|| unknown_key(entry, shape));
            }
        }
        // A block mapping's own place is its first key.
        let span = entries.first().map_or(node.span, |entry| entry.key_span);
        Some(Fields { shape, span, entries })
    }

    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &*entry.value)
    }

    /// The place of a key, where it is given.
    pub(super) fn key_span(&self, key: &str) -> Option<Span> {
        self.entry(key).map(|entry| entry.key_span)
    }

    /// The node of a required key; `expected` says what to write there.
    pub(super) fn require(&self, key: &str, expected: &str, out: &mut Findings<'_>) -> Option<&'n Node> {
        let node = self.get(key);
        if node.is_none() && !self.has_slip_of(key) {
            let message = format!("{} needs the key `{key}`", self.shape.what);
            out.push(Report::error(code::MISSING_KEY, self.span, message).help(format!("it is {expected}")));
        }
        node
    }

    /// Whether a slip of the key has been reported, with this key as what was meant.
    fn has_slip_of(&self, key: &str) -> bool {
        self.entries.iter().take(MAX_SLIPS).any(|entry| self.shape.meant(&entry.key) == Some(key))
    }

    /// What is written under a key for one, or under another for a list of them; one of the two is required.
    pub(super) fn one_or_many<T: Ord>(
        &self,
        (one, many): (&str, &str),
        as_: &Reader<T>,
        out: &mut Findings<'_>,
    ) -> Vec<At<T>> {
        let single = match self.get(one) {
            Some(node) if matches!(node.kind, Kind::Seq(_)) => {
                out.push(wrong_kind(node, one, as_.expected).help(format!("write `{many}` for a list")));
                None
            }
            _ => self.optional(one, as_, out),
        };
        let Some(span) = self.key_span(many) else {
            if self.get(one).is_none() && !self.has_slip_of(many) {
                self.require(one, as_.expected, out);
            }
            return single.into_iter().collect();
        };
        if let Some(other) = self.key_span(one) {
            let message = format!("{} has either `{one}` or `{many}`", self.shape.what);
            out.push(
                Report::error(code::BAD_VALUE, span, message).also(other, "the other").help("remove one"),
            );
        }
        let items = self.list(many, out);
        if items.is_some_and(<[_]>::is_empty) {
            let message = format!("`{many}` is an empty list");
            out.push(
                Report::error(code::BAD_VALUE, span, message).help(format!("each entry is {}", as_.expected)),
            );
        }
        let values: Vec<At<T>> =
            items.unwrap_or_default().iter().filter_map(|node| scalar(node, many, as_, out)).collect();
        let mut first = BTreeMap::new();
        for At { value, span } in &values {
            if let Some(first) = first.insert(value, *span) {
                let message = format!("`{many}` has an entry twice");
                out.push(Report::error(code::DUPLICATE, *span, message).also(first, "first here"));
            }
        }
        values
    }

    /// The value of an optional key.
    pub(super) fn optional<T>(&self, key: &str, as_: &Reader<T>, out: &mut Findings<'_>) -> Option<At<T>> {
        scalar(self.get(key)?, key, as_, out)
    }

    /// The value of a required key.
    pub(super) fn required<T>(&self, key: &str, as_: &Reader<T>, out: &mut Findings<'_>) -> Option<At<T>> {
        scalar(self.require(key, as_.expected, out)?, key, as_, out)
    }

    /// The entries of a list; `None` where the key is absent or not a list.
    pub(super) fn list(&self, key: &str, out: &mut Findings<'_>) -> Option<&'n [Rc<Node>]> {
        let node = self.get(key)?;
        match &node.kind {
            Kind::Seq(items) => Some(items),
            Kind::Null => Some(&[]),
            other => {
                let message = format!("`{key}` must be a list, not {}", found(other));
                let report = Report::error(code::WRONG_TYPE, node.span, message);
                out.push(report.help("each entry starts with `- `"));
                None
            }
        }
    }

    fn entry(&self, key: &str) -> Option<&'n Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

fn unknown_key(entry: &Entry, shape: &Shape) -> Report {
    let key = entry.key.as_str();
    let name = quoted(key);
    if shape.later.contains(&key) {
        let message = format!("the key {name} of {} is not available in this version", shape.what);
        let report = Report::error(code::NOT_AVAILABLE, entry.key_span, message);
        return match (key, shape.meant(key)) {
            ("port", _) => report.help(
                "the destination port may differ only with `nat`, which a later version will know; \
                 until then backends listen on the service's port",
            ),
            (_, Some(meant)) => report.help(format!("write `{meant}`")),
            (_, None) => report,
        };
    }
    if key == "<<" {
        let message = "merge keys (`<<`) are not supported".to_owned();
        return Report::error(code::UNSUPPORTED_YAML, entry.key_span, message)
            .help("an alias (`*name`) repeats a whole value");
    }
    let allowed = format!("allowed: {}", shape.keys.join(", "));
    let help = match shape.meant(key) {
        Some(meant) => format!("did you mean `{meant}`? {allowed}"),
        None => allowed,
    };
    Report::error(code::UNKNOWN_KEY, entry.key_span, format!("{} has no key {name}", shape.what)).help(help)
}

/// Reads a scalar.
pub(super) fn scalar<T>(node: &Node, key: &str, as_: &Reader<T>, out: &mut Findings<'_>) -> Option<At<T>> {
    let Kind::Scalar(text) = &node.kind else {
        out.push(wrong_kind(node, key, as_.expected));
        return None;
    };
    match (as_.parse)(text) {
        Ok(value) => Some(At { value, span: node.span }),
        Err(fault) => {
            out.push(refusal(node.span, key, text, as_.expected, &fault));
            None
        }
    }
}

/// The report of a value that should have been something else.
pub(super) fn wrong_kind(node: &Node, key: &str, expected: &str) -> Report {
    let message = match &node.kind {
        Kind::Null => format!("`{key}` has no value; it must be {expected}"),
        other => format!("`{key}` must be {expected}, not {}", found(other)),
    };
    Report::error(code::WRONG_TYPE, node.span, message)
}

fn found(kind: &Kind) -> String {
    match kind {
        Kind::Scalar(text) => quoted(text),
        other => other.noun().to_owned(),
    }
}

fn refusal(span: Span, key: &str, text: &str, expected: &str, fault: &Fault) -> Report {
    let text = quoted(text);
    let plain = |code| Report::error(code, span, format!("`{key}` must be {expected}, not {text}"));
    match fault {
        Fault::Type if expected.starts_with("a duration") => {
            plain(code::WRONG_TYPE).help("a duration is a whole number with its unit: 500ms, 2s, 5m or 6h")
        }
        Fault::Type => plain(code::WRONG_TYPE),
        Fault::Value | Fault::Word(None) => plain(code::BAD_VALUE),
        Fault::Word(Some(meant)) => plain(code::BAD_VALUE).help(format!("did you mean `{meant}`?")),
        Fault::Unit(meant) => plain(code::WRONG_TYPE).help(format!("write {meant}")),
        Fault::Reversed(low, high) => plain(code::BAD_VALUE).help(format!("write {low}-{high}")),
        Fault::NotPrime(next) => plain(code::BAD_VALUE).help(format!("the next prime is {next}")),
        Fault::HostBits(network, length) => {
            let message = format!("the prefix {text} has bits set behind its length");
            Report::error(code::BAD_VALUE, span, message).help(format!("write {network}/{length}"))
        }
        Fault::Later => {
            let message = format!("`{key}: {}` is not available in this version", text.trim_matches('`'));
            Report::error(code::NOT_AVAILABLE, span, message).help(format!("it must be {expected}"))
        }
        Fault::Address(sort) => {
            let message = format!("{text} is {sort}; `{key}` must be {expected}");
            Report::error(code::BAD_ADDRESS, span, message)
        }
    }
}
