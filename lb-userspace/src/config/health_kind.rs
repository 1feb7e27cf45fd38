//! What a check asks: the keys that belong to its type.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use super::decode::{Fields, Shape, quoted, scalar, wrong_kind};
use super::diagnostic::{Findings, Report, code};
use super::health_value::{self as value, CheckType, is_name, is_token};
use super::layers::Layers;
use super::node::{Kind, Node};
use super::value::{BOOL, PATH};
use crate::model::{BodyMatch, CheckKind, Exchange, HttpCheck, TlsCheck};

static BODY: Shape = Shape { what: "`expected_body`", keys: &["regex"], later: &[] };

const WITH_PORT: &[CheckType] = &[CheckType::Tcp, CheckType::Http, CheckType::Https, CheckType::Udp];
const STREAM: &[CheckType] = &[CheckType::Tcp, CheckType::Udp];
const HTTP: &[CheckType] = &[CheckType::Http, CheckType::Https];
const HTTPS: &[CheckType] = &[CheckType::Https];

/// The keys that not every type has, and the types that do.
pub(super) const KEYS: [(&str, &[CheckType]); 12] = [
    ("port", WITH_PORT),
    ("send", STREAM),
    ("expect", STREAM),
    ("method", HTTP),
    ("path", HTTP),
    ("host", HTTP),
    ("headers", HTTP),
    ("expected_status", HTTP),
    ("expected_body", HTTP),
    ("sni", HTTPS),
    ("verify", HTTPS),
    ("ca_file", HTTPS),
];

/// Reads what a check of this type asks.
pub(super) fn read(
    kind: CheckType,
    layers: &Layers<'_>,
    directory: &Path,
    out: &mut Findings<'_>,
) -> CheckKind {
    match kind {
        CheckType::Icmp => CheckKind::Icmp,
        CheckType::Tcp => CheckKind::Tcp(exchange(layers, out)),
        CheckType::Udp => CheckKind::Udp(exchange(layers, out)),
        CheckType::Http => CheckKind::Http(http(layers, out)),
        CheckType::Https => {
            let tls = Some(tls(layers, directory, out));
            CheckKind::Http(HttpCheck { tls, ..http(layers, out) })
        }
    }
}

/// Reports a check that verifies certificates without knowing whose.
pub(super) fn certificate_name(kind: &CheckKind, layers: &Layers<'_>, out: &mut Findings<'_>) {
    let CheckKind::Http(HttpCheck { tls: Some(TlsCheck { verify: true, .. }), host, .. }) = kind else {
        return;
    };
    // A host that was refused may have been meant as the name.
    let host_tells = match host {
        Some(host) => is_name(host),
        None => layers.get("host").is_some(),
    };
    if !host_tells && layers.get("sni").is_none() {
        let message = "`verify: true` needs a name that the certificate must be valid for".to_owned();
        let report = Report::error(code::BAD_CHECK, layers.span("verify"), message);
        out.push(report.help("add `sni`, or a `host` that is a name"));
    }
}

fn exchange(layers: &Layers<'_>, out: &mut Findings<'_>) -> Exchange {
    let mut bytes = |key| layers.read(key, &value::TEXT, out).map(|at| at.value.into_bytes());
    Exchange { send: bytes("send"), expect: bytes("expect") }
}

fn http(layers: &Layers<'_>, out: &mut Findings<'_>) -> HttpCheck {
    let mut text = |key, reader| layers.read(key, reader, out).map(|at| at.value);
    HttpCheck {
        tls: None,
        method: text("method", &value::METHOD).unwrap_or_else(|| "GET".to_owned()),
        path: text("path", &value::TARGET).unwrap_or_else(|| "/".to_owned()),
        host: text("host", &value::HOST),
        headers: layers.get("headers").map(|node| headers(node, out)).unwrap_or_default(),
        expected_status: layers
            .get("expected_status")
            .map_or_else(|| vec![200..=399], |node| statuses(node, out)),
        expected_body: layers.get("expected_body").and_then(|node| body(node, out)),
    }
}

fn tls(layers: &Layers<'_>, directory: &Path, out: &mut Findings<'_>) -> TlsCheck {
    let sni = layers.read("sni", &value::SNI, out).map(|at| at.value);
    let verify = layers.read("verify", &BOOL, out).is_some_and(|at| at.value);
    let file = layers.read("ca_file", &PATH, out).map(|at| directory.join(at.value));
    let absolute = |file| std::path::absolute(&file).unwrap_or(file);
    TlsCheck { sni, verify, ca_file: file.map(|file| absolute(file).to_string_lossy().into_owned()) }
}

fn headers(node: &Node, out: &mut Findings<'_>) -> Vec<(String, String)> {
    let Kind::Map(entries) = &node.kind else {
        out.push(wrong_kind(node, "headers", "a mapping of names to values"));
        return Vec::new();
    };
    let mut seen = BTreeSet::new();
    let mut headers = Vec::new();
    for entry in entries {
        let lower = entry.key.to_ascii_lowercase();
        let name = quoted(&entry.key);
        let refused = match lower.as_str() {
            "host" => {
                Some(("the header `Host` is written as `host`".to_owned(), "use the key `host` of the check"))
            }
            "connection" => Some(("the header `Connection` is the prober's own".to_owned(), "remove it")),
            _ if !is_token(&lower) => {
                Some((format!("{name} is not a header's name"), "it is made of letters, digits and `-`"))
            }
            _ if !seen.insert(lower.clone()) => {
                Some((format!("the header {name} is written twice"), "remove one"))
            }
            _ => None,
        };
        if let Some((message, help)) = refused {
            out.push(Report::error(code::BAD_VALUE, entry.key_span, message).help(help));
        } else if let Some(value) = scalar(&entry.value, &entry.key, &value::HEADER_VALUE, out) {
            headers.push((entry.key.clone(), value.value));
        }
    }
    headers
}

fn statuses(node: &Node, out: &mut Findings<'_>) -> Vec<RangeInclusive<u16>> {
    let mut one = |node: &Node| scalar(node, "expected_status", &value::STATUS, out).map(|at| at.value);
    match &node.kind {
        Kind::Seq(items) if items.is_empty() => {
            let message = "`expected_status` is an empty list".to_owned();
            let report = Report::error(code::BAD_VALUE, node.span, message);
            out.push(report.help("leave the key out: the default is 200-399"));
            Vec::new()
        }
        Kind::Seq(items) => items.iter().filter_map(|item| one(item)).collect(),
        _ => one(node).into_iter().collect(),
    }
}

fn body(node: &Node, out: &mut Findings<'_>) -> Option<BodyMatch> {
    if !matches!(node.kind, Kind::Map(_)) {
        return scalar(node, "expected_body", &value::TEXT, out).map(|at| BodyMatch::Contains(at.value));
    }
    let pattern = Fields::open(node, &BODY, out)?.required("regex", &value::TEXT, out)?;
    if let Err(error) = regex::Regex::new(&pattern.value) {
        // The crate draws the pattern over several lines; what is wrong is the last.
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        let message = format!("`regex` is not a regular expression: {}", reason.escape_debug());
        out.push(Report::error(code::BAD_VALUE, pattern.span, message));
        return None;
    }
    Some(BodyMatch::Regex(pattern.value))
}
