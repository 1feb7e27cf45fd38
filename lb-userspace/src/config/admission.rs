//! `allow`, `deny` and `rate_limit`: whose packets a service takes, and how many. Lists may stand in files of their own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::decode::{At, Fields, Shape, quoted, scalar};
use super::diagnostic::{Findings, Report, code};
use super::node::{Kind, Node};
use super::source::Span;
use super::value::{self, PATH, RATE};
use super::value_net::{CLIENT_V4_LEN, CLIENT_V6_LEN, CLIENTS};
use crate::model::{Prefix, Rate, RateLimits};

/// Prefixes in one list.
const MAX_ENTRIES: usize = 100_000;
/// Bytes of a list's file: room for as many of the longest prefixes and a comment each.
pub(super) const MAX_FILE_BYTES: u64 = 16 << 20;
/// Wrong lines of a file that are shown.
const MAX_LINES: usize = 10;

pub(super) static LIST: Shape = Shape { what: "a list of prefixes", keys: &["file"], later: &[] };
pub(super) static RATE_LIMIT: Shape =
    Shape { what: "`rate_limit`", keys: &["new_flows", "packets", "per_source"], later: &[] };
pub(super) static PER_SOURCE: Shape =
    Shape { what: "`per_source`", keys: &["new_flows", "packets", "prefix_v4", "prefix_v6"], later: &[] };
pub(super) static BUCKET: Shape = Shape { what: "a rate", keys: &["rate", "burst"], later: &[] };

/// How a file's bytes are got, and at most how many.
pub(super) type FileReader<'a> = dyn Fn(&str, u64) -> io::Result<Vec<u8>> + 'a;

/// Files of lists, each read once however many services name it.
pub(super) struct Files<'a> {
    pub(super) read: &'a FileReader<'a>,
    /// `None`: refused, and reported.
    known: RefCell<BTreeMap<String, Option<Arc<[Prefix]>>>>,
}

/// What is written for a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission {
    pub(super) allow: List,
    pub(super) deny: List,
    pub(super) limits: RateLimits,
    /// Where a limit of new flows is written.
    pub(super) new_flows: Option<Span>,
}

/// A list of source prefixes.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    /// Sorted, without duplicates.
    pub(super) prefixes: Arc<[Prefix]>,
    /// The file it is in, as written.
    pub(super) file: Option<String>,
}

impl<'a> Files<'a> {
    pub(super) fn new(read: &'a FileReader<'a>) -> Files<'a> {
        Files { read, known: RefCell::default() }
    }

    fn list(&self, file: &At<String>, out: &mut Findings<'_>) -> Option<Arc<[Prefix]>> {
        if let Some(known) = self.known.borrow().get(&file.value) {
            return known.clone();
        }
        let list = match (self.read)(&file.value, MAX_FILE_BYTES + 1) {
            Ok(bytes) if bytes.len() as u64 > MAX_FILE_BYTES => {
                let message = format!("the list {} is over {MAX_FILE_BYTES} bytes", quoted(&file.value));
                out.push(Report::error(code::LIST_FILE, file.span, message).help("is this the right file?"));
                None
            }
            Ok(bytes) => lines(file, &String::from_utf8_lossy(&bytes), out),
            Err(error) => {
                let message = format!("cannot read the list {}: {error}", quoted(&file.value));
                let report = Report::error(code::LIST_FILE, file.span, message);
                out.push(report.help("a relative path starts at the config's directory"));
                None
            }
        };
        self.known.borrow_mut().insert(file.value.clone(), list.clone());
        list
    }
}

/// Reads what a service says of its clients.
pub(super) fn read(fields: &Fields<'_>, files: &Files<'_>, out: &mut Findings<'_>) -> Admission {
    let allow = fields.get("allow").map(|node| list("allow", node, files, out));
    let deny = fields.get("deny").map(|node| list("deny", node, files, out)).unwrap_or_default();
    if let (Some(None), Some(span)) = (&allow, fields.key_span("allow")) {
        let message = "`allow` has no entry: it would let everybody in".to_owned();
        out.push(Report::error(code::BAD_VALUE, span, message).help(
            "leave `allow` out to let everybody in; `deny: [0.0.0.0/0, \"::/0\"]` keeps everybody out",
        ));
    }
    let (allow, deny) = (allow.flatten().unwrap_or_default(), deny.unwrap_or_default());
    in_both(fields, &allow.prefixes, &deny.prefixes, out);
    let (limits, new_flows) =
        fields.get("rate_limit").map_or_else(Default::default, |node| limits(node, out));
    Admission { allow, deny, limits, new_flows }
}

/// A list and its file; `None` if it is well written and empty.
fn list(key: &str, node: &Node, files: &Files<'_>, out: &mut Findings<'_>) -> Option<List> {
    let list = match &node.kind {
        Kind::Map(_) => {
            let file = Fields::open(node, &LIST, out)?.required("file", &PATH, out);
            let prefixes = file.as_ref().and_then(|file| files.list(file, out));
            if prefixes.as_ref().is_some_and(|prefixes| prefixes.is_empty()) {
                return None;
            }
            List { prefixes: prefixes.unwrap_or_default(), file: file.map(|file| file.value) }
        }
        Kind::Seq(items) if items.is_empty() => return None,
        Kind::Seq(items) => {
            let prefixes = items.iter().filter_map(|item| scalar(item, key, &CLIENTS, out));
            let prefixes = collected(prefixes.map(|at| at.value).collect());
            let prefixes = few_enough(prefixes, key, node.span, out);
            List { prefixes: prefixes.unwrap_or_default(), file: None }
        }
        _ => {
            let message = format!("`{key}` must be a list of prefixes, or {{file: …}} that names one");
            out.push(Report::error(code::WRONG_TYPE, node.span, message));
            List::default()
        }
    };
    Some(list)
}

/// A prefix per line; `#` starts a comment.
fn lines(file: &At<String>, text: &str, out: &mut Findings<'_>) -> Option<Arc<[Prefix]>> {
    let mut prefixes = Vec::new();
    let mut wrong = 0;
    for (number, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        match (CLIENTS.parse)(entry) {
            Ok(prefix) => prefixes.push(prefix),
            Err(fault) if wrong < MAX_LINES => {
                wrong += 1;
                let help = match fault {
                    value::Fault::HostBits(network, length) => format!("write {network}/{length}"),
                    _ => format!("each line is {}; `#` starts a comment", CLIENTS.expected),
                };
                let name = file.value.escape_debug();
                let message = format!("{name}:{}: {} is no prefix", number + 1, quoted(entry));
                out.push(Report::error(code::LIST_FILE, file.span, message).help(help));
            }
            Err(_) => wrong += 1,
        }
    }
    if wrong > MAX_LINES {
        let more = wrong - MAX_LINES;
        let message = format!("{}: {more} more lines are no prefixes", file.value.escape_debug());
        out.push(Report::error(code::LIST_FILE, file.span, message));
    }
    few_enough(collected(prefixes), &file.value, file.span, out).filter(|_| wrong == 0)
}

fn collected(mut prefixes: Vec<Prefix>) -> Arc<[Prefix]> {
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.into()
}

fn few_enough(list: Arc<[Prefix]>, name: &str, span: Span, out: &mut Findings<'_>) -> Option<Arc<[Prefix]>> {
    if list.len() <= MAX_ENTRIES {
        return Some(list);
    }
    let message = format!("{} has {} prefixes; {MAX_ENTRIES} are allowed", quoted(name), list.len());
    out.push(
        Report::error(code::TOO_MANY, span, message).help("merge neighbouring prefixes into shorter ones"),
    );
    None
}

/// Both lists are sorted: one walk finds what they share.
fn in_both(fields: &Fields<'_>, allow: &[Prefix], deny: &[Prefix], out: &mut Findings<'_>) {
    let mut allowed = allow.iter().peekable();
    let mut shared = deny.iter().filter(|denied| {
        while allowed.next_if(|allowed| allowed < denied).is_some() {}
        allowed.peek() == Some(denied)
    });
    let (Some(first), Some(span)) = (shared.next(), fields.key_span("deny")) else { return };
    let more = match shared.count() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let message = format!("{first} is in `allow` and in `deny`{more}");
    let report = Report::error(code::ALLOW_AND_DENY, span, message);
    let report = report.help("keep it in one; of prefixes within each other the longest decides");
    out.push(
        fields.key_span("allow").into_iter().fold(report, |report, allow| report.also(allow, "`allow`")),
    );
}

fn limits(node: &Node, out: &mut Findings<'_>) -> (RateLimits, Option<Span>) {
    let default = RateLimits::default();
    let Some(fields) = Fields::open(node, &RATE_LIMIT, out) else { return (default, None) };
    let source = fields.get("per_source").and_then(|node| Fields::open(node, &PER_SOURCE, out));
    let mut of_source =
        |key| source.and_then(|source| source.get(key)).and_then(|node| bucket(key, node, out));
    let (source_new_flows, source_packets) = (of_source("new_flows"), of_source("packets"));
    let mut length =
        |key, reader| source.and_then(|source| source.optional(key, reader, out)).map(|at| at.value);
    let (v4, v6) = (length("prefix_v4", &CLIENT_V4_LEN), length("prefix_v6", &CLIENT_V6_LEN));
    let mut whole = |key| fields.get(key).and_then(|node| bucket(key, node, out));
    let limits = RateLimits {
        new_flows: whole("new_flows"),
        packets: whole("packets"),
        source_new_flows,
        source_packets,
        source_v4_len: v4.unwrap_or(default.source_v4_len),
        source_v6_len: v6.unwrap_or(default.source_v6_len),
    };
    let of_source = || source.and_then(|source| source.key_span("new_flows"));
    (limits, fields.key_span("new_flows").or_else(of_source))
}

/// A rate alone, which is its burst too, or both.
fn bucket(key: &str, node: &Node, out: &mut Findings<'_>) -> Option<Rate> {
    if !matches!(node.kind, Kind::Map(_)) {
        let per_second = scalar(node, key, &RATE, out)?.value;
        return Some(Rate { per_second, burst: per_second });
    }
    let fields = Fields::open(node, &BUCKET, out)?;
    let burst = fields.optional("burst", &RATE, out);
    let per_second = fields.required("rate", &RATE, out)?.value;
    Some(Rate { per_second, burst: burst.map_or(per_second, |at| at.value) })
}
