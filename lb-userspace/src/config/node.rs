//! YAML events to a tree of nodes that know their place. Knows YAML, nothing of what a config means.
//!
//! Built from the parser's events rather than through serde: a tree keeps every place, shows every duplicate
//! key, and a value of the wrong kind stays a value to be talked about.

use std::collections::HashMap;
use std::rc::Rc;

use serde_yaml::granit_parser::{self as yaml, Event, Parser, ScalarStyle, ScanError};

use super::diagnostic::{Findings, Report, code};
use super::source::Span;

/// Nodes after aliases are expanded: what a hostile text can make the decoder look at.
const MAX_NODES: usize = 1 << 20;

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) kind: Kind,
    /// Nodes in it, itself and expanded aliases included.
    size: usize,
}

/// What a node is.
#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// Text; what it means is the reader's business.
    Scalar(String),
    /// A list.
    Seq(Vec<Rc<Node>>),
    /// A mapping, in the text's order, without duplicate keys.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Rc<Node>,
}

/// A list or mapping under construction.
struct Open {
    span: Span,
    anchor: usize,
    size: usize,
    items: Items,
}

enum Items {
    Seq(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, seen: HashMap<String, Span>, key: Key },
}

enum Key {
    Awaited,
    /// Its value comes next.
    Read(String, Span),
    /// Its value comes next and is dropped: the key was refused.
    Refused,
}

struct Builder<'o, 'a> {
    out: &'o mut Findings<'a>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    nodes: usize,
}

/// Nothing more can be made of the text; the reason is among the findings.
struct Stop;

impl Kind {
    /// What a person calls it.
    pub(super) fn noun(&self) -> &'static str {
        match self {
            Kind::Null => "nothing",
            Kind::Scalar(_) => "a plain value",
            Kind::Seq(_) => "a list",
            Kind::Map(_) => "a mapping",
        }
    }
}

/// The one document of the text; `None` where the findings say why there is no tree.
pub(super) fn parse(text: &str, out: &mut Findings<'_>) -> Option<Rc<Node>> {
    let mut options = yaml::Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder { out, open: Vec::new(), anchors: HashMap::new(), root: None, nodes: 0 };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                builder.out.push(syntax(&error));
                Err(Stop)
            }
        };
        if let Err(Stop) = step {
            return None;
        }
    }
    let empty = || Rc::new(Node { span: Span::START, kind: Kind::Null, size: 1 });
    Some(builder.root.take().unwrap_or_else(empty))
}

fn syntax(error: &ScanError) -> Report {
    let at = Span::at(error.marker().byte_offset().unwrap_or(0));
    let report = Report::error(code::SYNTAX, at, format!("this is not YAML: {}", error.info()));
    use yaml::ErrorKind as E;
    match error.kind() {
        E::TabNotAllowed | E::TabInBlockIndentation | E::TabInIndentation => {
            report.help("indent with spaces; YAML allows no tabs there")
        }
        E::MappingValueNotAllowed => {
            report.help("a value that contains `: ` must be quoted; or the indentation is off")
        }
        E::UnknownAnchor => report.help("an alias (`*name`) stands after its anchor (`&name`)"),
        E::UnclosedQuotedScalar | E::InvalidQuotedScalarIndent => {
            report.help("is a quote left open on a line above?")
        }
        E::InvalidIndentation | E::ExpectedBlockSequenceEntry | E::ExpectedBlockMappingKey => {
            report.help("compare this line's indentation with the lines above")
        }
        _ => report,
    }
}

fn bytes(span: yaml::Span) -> Span {
    span.byte_range().map_or(Span::START, |range| Span::new(range.start, range.end))
}

impl Builder<'_, '_> {
    fn event(&mut self, event: Event<'_>, at: yaml::Span) -> Result<(), Stop> {
        if let Some(tag) = event.tag() {
            let report = Report::error(
                code::UNSUPPORTED_YAML,
                at.tag_span().map_or(bytes(at), bytes),
                format!("the tag `{}` is not supported", tag.original().escape_debug()),
            );
            self.out.push(report.help("remove the tag; quote the value if it is text"));
        }
        let span = bytes(at);
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                self.stop(span, "a config is a single YAML document", "remove everything from this `---` on")
            }
            Event::Scalar(text, style, anchor, _) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let kind = if null { Kind::Null } else { Kind::Scalar(text.into_owned()) };
                self.finish(Node { span, kind, size: 1 }, anchor)
            }
            Event::Alias(id) => self.alias(id, span),
            Event::SequenceStart(_, anchor, _) => self.start(span, anchor, Items::Seq(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                let items = Items::Map { entries: Vec::new(), seen: HashMap::new(), key: Key::Awaited };
                self.start(span, anchor, items)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            // Stream and document marks; comments and anchors' metadata are not asked for.
            _ => Ok(()),
        }
    }

    fn start(&mut self, span: Span, anchor: usize, items: Items) -> Result<(), Stop> {
        self.open.push(Open { span, anchor, size: 1, items });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Stop> {
        let Some(Open { span, anchor, size, items }) = self.open.pop() else {
            return Ok(()); // the parser's events are balanced
        };
        let kind = match items {
            Items::Seq(items) => Kind::Seq(items),
            Items::Map { entries, .. } => Kind::Map(entries),
        };
        self.finish(Node { span, kind, size }, anchor)
    }

    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        let span = node.span;
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.count(1, span)?;
        self.place(node, span);
        Ok(())
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&id).map(Rc::clone) else {
            return self.stop(span, "the alias stands inside what it repeats", "write the value out");
        };
        self.count(node.size, span)?;
        self.place(node, span);
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        self.stop(span, "aliases expand to more than 1,048,576 values", "write fewer or smaller aliases")
    }

    fn stop(&mut self, span: Span, message: &str, help: &str) -> Result<(), Stop> {
        self.out.push(Report::error(code::UNSUPPORTED_YAML, span, message.to_owned()).help(help));
        Err(Stop)
    }

    /// Puts a finished node where it belongs. `span` is where it is used, which an alias makes another place.
    fn place(&mut self, node: Rc<Node>, span: Span) {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        parent.size = parent.size.saturating_add(node.size);
        match &mut parent.items {
            Items::Seq(items) => items.push(node),
            Items::Map { entries, seen, key } => match std::mem::replace(key, Key::Awaited) {
                Key::Awaited => *key = read_key(&node, span, seen, self.out),
                Key::Read(key, key_span) => entries.push(Entry { key, key_span, value: node }),
                Key::Refused => {}
            },
        }
    }
}

fn read_key(node: &Node, span: Span, seen: &mut HashMap<String, Span>, out: &mut Findings<'_>) -> Key {
    let Kind::Scalar(text) = &node.kind else {
        let message = format!("a key must be a word, not {}", node.kind.noun());
        out.push(Report::error(code::UNSUPPORTED_YAML, span, message));
        return Key::Refused;
    };
    if let Some(first) = seen.get(text) {
        let message = format!("the key {} is written twice", super::decode::quoted(text));
        out.push(Report::error(code::DUPLICATE_KEY, span, message).also(*first, "first here"));
        return Key::Refused;
    }
    seen.insert(text.clone(), span);
    Key::Read(text.clone(), span)
}
