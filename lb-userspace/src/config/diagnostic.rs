//! What is wrong with a config, said in the manner of rustc: code, place, line, caret, help.

use std::fmt;

use super::source::{Place, Source, Span};

/// More findings than this are only counted.
const MAX_FINDINGS: usize = 100;

/// The stable codes of this module.
pub mod code {
    /// The text is not YAML.
    pub const SYNTAX: &str = "LB101";
    /// A key is written twice in one mapping.
    pub const DUPLICATE_KEY: &str = "LB102";
    /// YAML that a config has no use for: tags, merge keys, several documents, runaway aliases.
    pub const UNSUPPORTED_YAML: &str = "LB103";
    /// A key that does not exist.
    pub const UNKNOWN_KEY: &str = "LB104";
    /// A key or value that a later version will know.
    pub const NOT_AVAILABLE: &str = "LB105";
    /// A required key is absent.
    pub const MISSING_KEY: &str = "LB106";
    /// A value of the wrong kind.
    pub const WRONG_TYPE: &str = "LB107";
    /// A value of the right kind that is not allowed.
    pub const BAD_VALUE: &str = "LB108";
    /// An address that cannot be used.
    pub const BAD_ADDRESS: &str = "LB109";
    /// The text is over the size limit.
    pub const TOO_LARGE: &str = "LB110";
    /// Parts of a health check that do not go together.
    pub const BAD_CHECK: &str = "LB111";
    /// A config that expands to more services, backends or source prefixes than there may be.
    pub const TOO_MANY: &str = "LB112";
    /// A file of source prefixes cannot be used.
    pub const LIST_FILE: &str = "LB113";
    /// A source prefix is both allowed and denied.
    pub const ALLOW_AND_DENY: &str = "LB114";
    /// An IPv4 and an IPv6 address where both must be of one family.
    pub const FAMILY: &str = "LB115";
    /// A backend in a VLAN without the MAC address of its next hop.
    pub const VLAN_WITHOUT_MAC: &str = "LB116";
    /// QUIC, or a server ID, that does not fit its service.
    pub const BAD_QUIC: &str = "LB117";
    /// A limit of new flows on a protocol whose packets do not show where a flow starts.
    pub const NO_NEW_FLOWS: &str = "LB118";
    /// Two services overlap, and neither is within the other.
    pub const CROSSING: &str = "LB119";
    /// Two services take the same traffic.
    pub const DUPLICATE_SERVICE: &str = "LB120";
    /// A name or address is used twice where it must be unique.
    pub const DUPLICATE: &str = "LB121";
    /// A pool that is not defined.
    pub const UNDEFINED_POOL: &str = "LB122";
    /// A service has both a pool and backends of its own, or neither.
    pub const POOL_OR_BACKENDS: &str = "LB123";
    /// No backend of a pool takes new flows.
    pub const ALL_DRAINED: &str = "LB124";
    /// A pool has no backends.
    pub const NO_BACKENDS: &str = "LB125";
    /// A backend's address is its service's.
    pub const BACKEND_IS_SERVICE: &str = "LB126";
    /// The key file cannot be used.
    pub const KEY_FILE: &str = "LB127";
    /// A limit is below what the config itself needs.
    pub const LIMIT_TOO_LOW: &str = "LB128";
    /// A pool has backups, but no backend in group 0.
    pub const NO_PRIMARY: &str = "LB129";
    /// Warning: no service uses a VIP.
    pub const UNUSED_VIP: &str = "LB130";
    /// Warning: no service uses a pool.
    pub const UNUSED_POOL: &str = "LB131";
    /// Warning: there are no services.
    pub const NO_SERVICES: &str = "LB132";
    /// Warning: `health` without a check or agent whose results it could be about.
    pub const UNUSED_HEALTH: &str = "LB133";
    /// Warning: a service takes part of another's traffic.
    pub const OVERLAP: &str = "LB134";
    /// Warning: backends without a server ID in a service that routes by them.
    pub const NO_SERVER_ID: &str = "LB135";
    /// An interface's `rss` that is no spread.
    pub const BAD_SPREAD: &str = "LB140";
    /// An interface's `rss` names queues that `queues` does not make.
    pub const NO_SUCH_QUEUE: &str = "LB141";
    /// An interface's MTU is too small for IPv6, or for anything.
    pub const SMALL_MTU: &str = "LB142";
    /// Warning: `keep` without a setting that could be kept.
    pub const NOTHING_TO_KEEP: &str = "LB143";
    /// An empty mapping of sizes or times.
    pub const NOTHING_SET: &str = "LB144";
    /// `tracking: never` with a policy that has to remember flows.
    pub const NEEDS_TRACKING: &str = "LB150";
    /// A policy by response time without a check that measures it.
    pub const NO_RESPONSE_TIME: &str = "LB151";
    /// Slots that would settle before older flows are known.
    pub const SHORT_UNSETTLED: &str = "LB152";
    /// Warning: a drain may take longer than slots stay unsettled.
    pub const LONG_DRAIN: &str = "LB154";
}

/// Whether a finding refuses the config.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// The config is refused.
    Error,
    /// The config is taken.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// Whether it refuses the config.
    pub severity: Severity,
    /// Its stable code, one of [`code`].
    pub code: &'static str,
    /// The file's name.
    pub file: String,
    /// What it is about.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// A second place that matters, and why.
    pub related: Option<(Place, &'static str)>,
}

/// All errors of a config, in the order of the text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostics {
    /// The errors, the first hundred of them.
    pub list: Vec<Diagnostic>,
    /// How many there are.
    pub total: usize,
}

/// A finding before its place is looked up.
pub(super) struct Report {
    severity: Severity,
    code: &'static str,
    span: Span,
    message: String,
    help: Option<String>,
    related: Option<(Span, &'static str)>,
}

/// The findings so far.
pub(super) struct Findings<'a> {
    source: &'a Source<'a>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    error_count: usize,
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.list {
            writeln!(f, "{diagnostic}\n")?;
        }
        let file = self.list.first().map_or("", |first| first.file.as_str());
        match self.total {
            1 => write!(f, "{file}: 1 error"),
            total if total > self.list.len() => {
                write!(f, "{file}: {total} errors, the first {} shown", self.list.len())
            }
            total => write!(f, "{file}: {total} errors"),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let last_line = self.related.as_ref().map_or(0, |(place, _)| place.line).max(self.place.line);
        let gutter = last_line.to_string().len();
        let Place { line, column, .. } = self.place;
        writeln!(f, "{severity}[{}]: {}", self.code, self.message)?;
        writeln!(f, "{:gutter$}--> {}:{line}:{column}", "", self.file)?;
        write_place(f, gutter, &self.place, '^', "")?;
        if let Some((place, label)) = &self.related {
            write!(f, "\n{:gutter$}::: {}:{}:{}\n", "", self.file, place.line, place.column)?;
            write_place(f, gutter, place, '-', label)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n{:gutter$} = help: {help}", ""),
            None => Ok(()),
        }
    }
}

fn write_place(
    f: &mut fmt::Formatter<'_>,
    gutter: usize,
    place: &Place,
    mark: char,
    label: &str,
) -> fmt::Result {
    let marks = mark.to_string().repeat(place.width);
    let marked = format!("{:indent$}{marks} {label}", "", indent = place.indent);
    writeln!(f, "{:gutter$} |", "")?;
    writeln!(f, "{}", format!("{:>gutter$} | {}", place.line, place.snippet).trim_end())?;
    write!(f, "{:gutter$} | {}", "", marked.trim_end())
}

impl Report {
    pub(super) fn error(code: &'static str, span: Span, message: String) -> Report {
        Report { severity: Severity::Error, code, span, message, help: None, related: None }
    }

    pub(super) fn warning(code: &'static str, span: Span, message: String) -> Report {
        Report { severity: Severity::Warning, ..Report::error(code, span, message) }
    }

    /// Says what to do.
    pub(super) fn help(self, help: impl Into<String>) -> Report {
        Report { help: Some(help.into()), ..self }
    }

    /// Shows a second place.
    pub(super) fn also(self, span: Span, label: &'static str) -> Report {
        Report { related: Some((span, label)), ..self }
    }

    fn locate(self, source: &Source<'_>) -> Diagnostic {
        Diagnostic {
            severity: self.severity,
            code: self.code,
            file: source.name.to_owned(),
            place: source.place(self.span),
            message: self.message,
            help: self.help,
            related: self.related.map(|(span, label)| (source.place(span), label)),
        }
    }
}

impl<'a> Findings<'a> {
    pub(super) fn new(source: &'a Source<'a>) -> Findings<'a> {
        Findings { source, errors: Vec::new(), warnings: Vec::new(), error_count: 0 }
    }

    pub(super) fn push(&mut self, report: Report) {
        let is_error = report.severity == Severity::Error;
        let list = if is_error { &mut self.errors } else { &mut self.warnings };
        if list.len() < MAX_FINDINGS {
            let diagnostic = report.locate(self.source);
            // What an alias repeats is read again with each use.
            if list.contains(&diagnostic) {
                return;
            }
            list.push(diagnostic);
        }
        self.error_count += usize::from(is_error);
    }

    /// As `push`, for errors that take time to word: past the limit they are only counted.
    pub(super) fn push_error(&mut self, make: impl FnOnce() -> Report) {
        if self.errors.len() < MAX_FINDINGS {
            self.push(make());
        } else {
            self.error_count += 1;
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.error_count > 0
    }

    /// The errors alone: what warnings say of a broken config is often only the errors' echo.
    pub(super) fn into_errors(self) -> Diagnostics {
        Diagnostics { list: in_text_order(self.errors), total: self.error_count }
    }

    pub(super) fn into_warnings(self) -> Vec<Diagnostic> {
        in_text_order(self.warnings)
    }
}

fn in_text_order(mut list: Vec<Diagnostic>) -> Vec<Diagnostic> {
    list.sort_by_key(|diagnostic| (diagnostic.place.line, diagnostic.place.column));
    list
}
