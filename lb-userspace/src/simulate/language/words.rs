//! The words of a line with their places, and what is said of one that cannot be used. Knows no protocol.

use std::fmt;
use std::str::FromStr;

/// Longer lines are no packet's.
const MAX_BYTES: usize = 16 * 1024;

/// Why a line describes no packet: the line, a caret, what is allowed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct ParseError {
    line: String,
    /// Characters in front of the offending word.
    indent: usize,
    /// Characters of it.
    width: usize,
    message: String,
    help: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let marks = "^".repeat(self.width.max(1));
        writeln!(f, "error: {}", self.message)?;
        writeln!(f, "  |\n  | {}\n  | {:indent$}{marks}", self.line, "", indent = self.indent)?;
        write!(f, "  = help: {}", self.help)
    }
}

/// A word and where it stands, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    start: usize,
}

/// A line, read from left to right.
pub(super) struct Words<'a> {
    line: &'a str,
    words: Vec<Word<'a>>,
    next: usize,
}

impl<'a> Words<'a> {
    /// Splits a line; `>` is a word of its own also where no blank surrounds it.
    pub(super) fn new(line: &'a str) -> Result<Self, ParseError> {
        if line.len() > MAX_BYTES {
            let words = Self { line: "", words: Vec::new(), next: 0 };
            return Err(words.missing(&format!("the description is over {MAX_BYTES} bytes"), "one line"));
        }
        let mut words = Vec::new();
        let mut start = None;
        for (at, c) in line.char_indices().chain([(line.len(), ' ')]) {
            if c.is_whitespace() || c == '>' {
                let text = start.take().map(|start| Word { text: &line[start..at], start });
                words.extend(text);
                if c == '>' {
                    words.push(Word { text: &line[at..=at], start: at });
                }
            } else {
                start = start.or(Some(at));
            }
        }
        Ok(Self { line, words, next: 0 })
    }

    /// The next word, which stays.
    pub(super) fn peek(&self) -> Option<Word<'a>> {
        self.words.get(self.next).copied()
    }

    /// Takes the next word.
    pub(super) fn next(&mut self) -> Option<Word<'a>> {
        let word = self.peek();
        self.next += usize::from(word.is_some());
        word
    }

    /// Takes the next word if it is this one.
    pub(super) fn accept(&mut self, text: &str) -> bool {
        let found = self.peek().is_some_and(|word| word.text == text);
        self.next += usize::from(found);
        found
    }

    /// Takes the next word, or says that `what` is missing.
    pub(super) fn want(&mut self, what: &str) -> Result<Word<'a>, ParseError> {
        self.next().ok_or_else(|| self.missing("the description ends too early", what))
    }

    /// Takes this word.
    pub(super) fn expect(&mut self, text: &str) -> Result<(), ParseError> {
        let word = self.want(text)?;
        if word.text == text { Ok(()) } else { Err(self.refuse(word, text)) }
    }

    /// Takes a value of some type.
    pub(super) fn value<T: FromStr>(&mut self, what: &str) -> Result<T, ParseError> {
        let word = self.want(what)?;
        word.text.parse().map_err(|_| self.refuse(word, what))
    }

    /// Takes a number, decimal or with `0x`, of at most `most`.
    pub(super) fn number(&mut self, most: u32) -> Result<u32, ParseError> {
        let what = format!("a number of 0 to {most}");
        let word = self.want(&what)?;
        let number = match word.text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => word.text.parse().ok(),
        };
        number.filter(|number| *number <= most).ok_or_else(|| self.refuse(word, &what))
    }

    /// As [`Words::number`], for 16 bits.
    pub(super) fn short(&mut self) -> Result<u16, ParseError> {
        Ok(self.number(u16::MAX.into())? as u16)
    }

    /// As [`Words::number`], for 8 bits.
    pub(super) fn byte(&mut self) -> Result<u8, ParseError> {
        Ok(self.number(u8::MAX.into())? as u8)
    }

    /// Takes bytes in hex digits, `0x` or not; at most `most` of them.
    pub(super) fn hex(&mut self, most: usize) -> Result<Vec<u8>, ParseError> {
        let what = format!("up to {most} bytes in hex digits");
        let word = self.want(&what)?;
        let digits = word.text.strip_prefix("0x").unwrap_or(word.text);
        let bytes = hex(digits).filter(|bytes| bytes.len() <= most);
        bytes.ok_or_else(|| self.refuse(word, &what))
    }

    /// What to say of a word that cannot stand where it does.
    pub(super) fn refuse(&self, word: Word<'_>, allowed: &str) -> ParseError {
        self.object(word, format!("`{}` cannot stand here", word.text), format!("allowed: {allowed}"))
    }

    /// What to say of a word that means something that cannot be.
    pub(super) fn object(&self, word: Word<'_>, message: String, help: String) -> ParseError {
        let indent = self.line.get(..word.start).map_or(0, |before| before.chars().count());
        let width = word.text.chars().count();
        ParseError { line: self.shown(), indent, width, message, help }
    }

    /// What to say where a word is missing.
    pub(super) fn missing(&self, message: &str, allowed: &str) -> ParseError {
        let indent = self.line.trim_end().chars().count() + usize::from(!self.line.is_empty());
        let help = format!("allowed: {allowed}");
        ParseError { line: self.shown(), indent, width: 1, message: message.to_owned(), help }
    }

    /// The line without what would break the picture.
    fn shown(&self) -> String {
        self.line.chars().map(|c| if c.is_whitespace() || c.is_control() { ' ' } else { c }).collect()
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let nibbles: Option<Vec<u8>> = digits.chars().map(|c| Some(c.to_digit(16)? as u8)).collect();
    let nibbles = nibbles.filter(|nibbles| nibbles.len() % 2 == 0)?;
    Some(nibbles.chunks(2).map(|pair| pair.iter().fold(0, |byte, nibble| byte << 4 | nibble)).collect())
}
