//! Where things stand in the text: offsets to lines and columns, and the line to show.

/// Lines longer than this are shown in part.
const SHOWN_CHARS: usize = 100;
/// How much of a long line is shown before the marked text.
const LEAD_CHARS: usize = 30;

/// A range of bytes in the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Span {
    start: usize,
    end: usize,
}

impl Span {
    /// The text's first byte.
    pub(super) const START: Span = Span { start: 0, end: 0 };

    /// The byte range `start..end`.
    pub(super) fn new(start: usize, end: usize) -> Span {
        Span { start, end: end.max(start) }
    }

    /// A place without extent.
    pub(super) fn at(offset: usize) -> Span {
        Span { start: offset, end: offset }
    }
}

/// A text with a name and an index of its lines.
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
}

/// A place in the text, as people count it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line's text; a part of it where it is very long.
    pub snippet: String,
    /// Characters of the snippet before the marked ones.
    pub(super) indent: usize,
    /// Marked characters, at least 1.
    pub(super) width: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a str, text: &'a str) -> Source<'a> {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Source { name, text, line_starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// The place of a span: its start, and as much of it as is on the same line.
    pub(super) fn place(&self, span: Span) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= span.start);
        let line_start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let rest = self.text.get(line_start..).unwrap_or("");
        let content = rest.split('\n').next().unwrap_or("").trim_end_matches('\r');

        let before = chars_within(content, span.start.saturating_sub(line_start));
        let until = chars_within(content, span.end.saturating_sub(line_start));
        let width = (until.saturating_sub(before)).max(1);
        let (snippet, indent) = shown(content, before);
        let width = width.min((SHOWN_CHARS + 2).saturating_sub(indent)).max(1);
        Place { line, column: before + 1, snippet, indent, width }
    }
}

/// Characters that move the cursor, take no room or turn the writing direction: shown, they would lie about the
/// text around them.
pub(super) fn is_unprintable(c: char) -> bool {
    let invisible = '\u{200b}'..='\u{200f}';
    let direction = '\u{202a}'..='\u{202e}';
    let isolate = '\u{2060}'..='\u{206f}';
    c.is_control()
        || c == '\u{feff}'
        || invisible.contains(&c)
        || direction.contains(&c)
        || isolate.contains(&c)
}

/// How many characters of `line` start before its byte `offset`.
fn chars_within(line: &str, offset: usize) -> usize {
    line.char_indices().take_while(|(at, _)| *at < offset).count()
}

/// The part of a line to print, and how many of its characters come before the character number `at`.
fn shown(line: &str, at: usize) -> (String, usize) {
    let printable = |c: char| match c {
        '\t' => ' ',
        c if is_unprintable(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    if line.chars().nth(SHOWN_CHARS).is_none() {
        return (line.chars().map(printable).collect(), at);
    }
    let skipped = if at > SHOWN_CHARS - LEAD_CHARS { at - LEAD_CHARS } else { 0 };
    let mut snippet = String::new();
    if skipped > 0 {
        snippet.push('…');
    }
    snippet.extend(line.chars().skip(skipped).take(SHOWN_CHARS).map(printable));
    if line.chars().nth(skipped + SHOWN_CHARS).is_some() {
        snippet.push('…');
    }
    (snippet, at - skipped + usize::from(skipped > 0))
}
