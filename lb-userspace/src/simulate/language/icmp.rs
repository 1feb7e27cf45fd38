//! Names of ICMP messages, both families.

use super::words::{ParseError, Words};

const ECHO_REPLY: [u8; 2] = [0, 129];
const ECHO: [u8; 2] = [8, 128];
const UNREACHABLE: [u8; 2] = [3, 1];
const TIME_EXCEEDED: [u8; 2] = [11, 3];
const PARAMETER_PROBLEM: [u8; 2] = [12, 4];
/// RFC 4443 section 3.2; IPv4 says it by a code.
const TOO_BIG: u8 = 2;
const FRAGMENTATION_NEEDED: u8 = 4;

/// Codes of unreachable that have names.
const CODES: [&[(&str, u8)]; 2] = [
    &[
        ("net", 0),
        ("host", 1),
        ("protocol", 2),
        ("port", 3),
        ("frag-needed", FRAGMENTATION_NEEDED),
        ("prohibited", 13),
    ],
    &[("no-route", 0), ("prohibited", 1), ("address", 3), ("port", 4)],
];

/// A message without what follows its first 8 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) rest: [u8; 4],
}

impl Message {
    /// Whether it is an error about a packet, which it quotes.
    pub(super) fn is_error(self, v6: bool) -> bool {
        let families = [UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM];
        (v6 && self.kind == TOO_BIG) || families.iter().any(|kinds| kinds[usize::from(v6)] == self.kind)
    }

    /// Reads the words that name one.
    pub(super) fn read(words: &mut Words<'_>, v6: bool) -> Result<Self, ParseError> {
        let last = if v6 { "too-big" } else { "type N code N" };
        let allowed =
            format!("echo, echo-reply, unreachable, time-exceeded, parameter-problem, type N code N, {last}");
        let word = words.want(&allowed)?;
        let family = usize::from(v6);
        let plain = |kind: [u8; 2]| Self { kind: kind[family], code: 0, rest: [0; 4] };
        let message = match word.text {
            "echo" => Self { rest: id_and_sequence(words)?, ..plain(ECHO) },
            "echo-reply" => Self { rest: id_and_sequence(words)?, ..plain(ECHO_REPLY) },
            "unreachable" => {
                let code = code(words, family)?;
                let mtu = if code == FRAGMENTATION_NEEDED && !v6 && words.accept("mtu") {
                    words.short()?
                } else {
                    0
                };
                let [high, low] = mtu.to_be_bytes();
                Self { code, rest: [0, 0, high, low], ..plain(UNREACHABLE) }
            }
            "time-exceeded" if words.accept("reassembly") => Self { code: 1, ..plain(TIME_EXCEEDED) },
            "time-exceeded" => plain(TIME_EXCEEDED),
            "parameter-problem" => {
                let pointer = if words.accept("pointer") { words.number(u32::MAX)? } else { 0 };
                let rest = if v6 { pointer.to_be_bytes() } else { [pointer as u8, 0, 0, 0] };
                Self { rest, ..plain(PARAMETER_PROBLEM) }
            }
            "too-big" if v6 => {
                words.expect("mtu")?;
                Self { kind: TOO_BIG, code: 0, rest: words.number(u32::MAX)?.to_be_bytes() }
            }
            "type" => other(words)?,
            _ => return Err(words.refuse(word, &allowed)),
        };
        Ok(message)
    }

    /// The words that name it, and whether `about` may follow.
    pub(super) fn words(self, v6: bool) -> (String, bool) {
        let family = usize::from(v6);
        let Self { kind, code, rest } = self;
        let [a, b, c, d] = rest;
        let (first, second) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let whole = u32::from_be_bytes(rest);
        let echo = |name| (format!("{name} id {first} seq {second}"), false);
        match (kind, code) {
            (k, 0) if k == ECHO[family] => return echo("echo"),
            (k, 0) if k == ECHO_REPLY[family] => return echo("echo-reply"),
            (TOO_BIG, 0) if v6 => return (format!("too-big mtu {whole}"), true),
            (k, 0) if k == TIME_EXCEEDED[family] && whole == 0 => return ("time-exceeded".into(), true),
            (k, 1) if k == TIME_EXCEEDED[family] && whole == 0 => {
                return ("time-exceeded reassembly".into(), true);
            }
            (k, 0) if k == PARAMETER_PROBLEM[family] && (v6 || [b, c, d] == [0; 3]) => {
                let pointer = if v6 { whole } else { a.into() };
                return (format!("parameter-problem pointer {pointer}"), true);
            }
            (k, _) if k == UNREACHABLE[family] && first == 0 => {
                let name = CODES[family].iter().find(|(_, number)| *number == code);
                let name = name.map_or_else(|| format!("code {code}"), |(name, _)| (*name).to_owned());
                let needs_mtu = code == FRAGMENTATION_NEEDED && !v6;
                if needs_mtu {
                    return (format!("unreachable {name} mtu {second}"), true);
                }
                if second == 0 {
                    return (format!("unreachable {name}"), true);
                }
            }
            _ => {}
        }
        let rest = if whole == 0 { String::new() } else { format!(" rest {}", super::payload::hex(&rest)) };
        (format!("type {kind} code {code}{rest}"), self.is_error(v6))
    }
}

fn id_and_sequence(words: &mut Words<'_>) -> Result<[u8; 4], ParseError> {
    let id = if words.accept("id") { words.short()? } else { 1 };
    let sequence = if words.accept("seq") { words.short()? } else { 1 };
    let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
    Ok([a, b, c, d])
}

fn code(words: &mut Words<'_>, family: usize) -> Result<u8, ParseError> {
    let names: Vec<&str> = CODES[family].iter().map(|(name, _)| *name).collect();
    let allowed = format!("{}, code N", names.join(", "));
    let word = words.want(&allowed)?;
    if word.text == "code" {
        return words.byte();
    }
    let found = CODES[family].iter().find(|(name, _)| *name == word.text);
    found.map(|(_, code)| *code).ok_or_else(|| words.refuse(word, &allowed))
}

fn other(words: &mut Words<'_>) -> Result<Message, ParseError> {
    let kind = words.byte()?;
    words.expect("code")?;
    let code = words.byte()?;
    let mut rest = [0; 4];
    if words.accept("rest") {
        for (byte, read) in rest.iter_mut().zip(words.hex(4)?) {
            *byte = read;
        }
    }
    Ok(Message { kind, code, rest })
}
