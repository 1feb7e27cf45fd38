//! Scalars: how each kind of value is written, and which are allowed. Pure text in, value or fault out.

use std::net::IpAddr;

use super::source::is_unprintable;
use crate::model::{Advertise, AttachMode, OtherPorts};

/// A key file longer than this is not one.
pub(super) const MAX_KEY_FILE_BYTES: u64 = 256;
/// Names are labels of metrics and words of commands.
const MAX_NAME_BYTES: usize = 63;
/// `IFNAMSIZ` less the terminating zero.
const MAX_INTERFACE_BYTES: usize = 15;
const MAX_LIMIT: u64 = 16 << 20;
const MAX_RATE: u64 = 10_000_000;

/// A kind of scalar: what a person is told to write, and how it is read.
pub(super) struct Reader<T> {
    /// Completes "must be …".
    pub(super) expected: &'static str,
    pub(super) parse: fn(&str) -> Result<T, Fault>,
}

/// Why a text is not the value asked for.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// Not of this kind at all.
    Type,
    /// Of this kind, but not allowed.
    Value,
    /// None of the words; perhaps this one was meant.
    Word(Option<&'static str>),
    /// A word that a later version will know.
    Later,
    /// An address of a sort that no machine answers for.
    Address(&'static str),
    /// A number without its unit; what to write for it.
    Unit(String),
    /// A range with its ends exchanged; the lower and the higher.
    Reversed(u16, u16),
    /// A ring size between primes; the next one.
    NotPrime(u32),
    /// A prefix with bits set behind its length; the prefix without them.
    HostBits(IpAddr, u8),
}

pub(super) const VERSION: Reader<()> = Reader { expected: "1", parse: |text| number(text, 1, 1).map(drop) };
pub(super) const NAME: Reader<String> =
    Reader { expected: "1 to 63 bytes without spaces, control characters or `/`", parse: name };
pub(super) const INTERFACE: Reader<String> =
    Reader { expected: "an interface's name: 1 to 15 bytes without spaces, `/` or `:`", parse: interface };
pub(super) const PATH: Reader<String> = Reader { expected: "a path", parse: path };
pub(super) const PORT: Reader<u16> =
    Reader { expected: "a number from 1 to 65535", parse: |text| small(text, 1) };
pub(super) const WEIGHT: Reader<u16> =
    Reader { expected: "a number from 0 to 65535", parse: |text| small(text, 0) };
pub(super) const BOOL: Reader<bool> =
    Reader { expected: "true or false", parse: |text| word(text, &[("true", true), ("false", false)], &[]) };
pub(super) const MAC: Reader<[u8; 6]> =
    Reader { expected: "a unicast MAC address such as 02:00:5e:10:00:01", parse: mac };
pub(super) const RING_SIZE: Reader<u32> =
    Reader { expected: "a prime number from 101 to 655373", parse: ring_size };
pub(super) const COUNT: Reader<u32> = Reader {
    expected: "a count from 1 to 16Mi, such as 5000, 10k or 64Ki",
    parse: |text| count(text, MAX_LIMIT),
};
/// Tokens per second, and tokens.
pub(super) const RATE: Reader<u32> =
    Reader { expected: "a count from 1 to 10M, such as 500 or 50k", parse: |text| count(text, MAX_RATE) };
pub(super) const MODE: Reader<AttachMode> = Reader {
    expected: "auto, native or generic",
    parse: |text| {
        use AttachMode::{Auto, Generic, Native};
        word(text, &[("auto", Auto), ("native", Native), ("generic", Generic)], &[])
    },
};
pub(super) const ADVERTISE: Reader<Advertise> = Reader {
    expected: "arp or none",
    parse: |text| word(text, &[("arp", Advertise::Arp), ("none", Advertise::None)], &["route"]),
};
pub(super) const OTHER_PORTS: Reader<OtherPorts> = Reader {
    expected: "drop or pass",
    parse: |text| word(text, &[("drop", OtherPorts::Drop), ("pass", OtherPorts::Pass)], &[]),
};
/// `forwarding` as a word.
pub(super) const FORWARDING: Reader<ForwardingType> = Reader {
    expected: "l2, ipip, gue, gre, or a mapping such as {type: gue, source: auto}",
    parse: forwarding_type,
};
/// `type` in a forwarding's mapping.
pub(super) const FORWARDING_TYPE: Reader<ForwardingType> =
    Reader { expected: "l2, ipip, gue or gre", parse: forwarding_type };
/// `format` of a server ID.
pub(super) const ID_FORMAT: Reader<IdFormat> = Reader {
    expected: "draft (draft-ietf-quic-load-balancers in plain text) or katran",
    parse: |text| word(text, &[("draft", IdFormat::Draft), ("katran", IdFormat::Katran)], &[]),
};

/// `forwarding` without its options.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ForwardingType {
    L2,
    Ipip,
    Gue,
    Gre,
}

/// A server ID's format without its options.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum IdFormat {
    Draft,
    Katran,
}

/// The key in a key file: 16 raw bytes, or 32 hex digits.
pub(super) fn key(bytes: &[u8]) -> Option<[u8; 16]> {
    if let Ok(raw) = bytes.try_into() {
        return Some(raw);
    }
    let digits = bytes.trim_ascii();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let number = u128::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some(number.to_be_bytes())
}

/// One of some words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&'static str, T)], later: &[&str]) -> Result<T, Fault> {
    if let Some((_, value)) = words.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    if later.contains(&text) {
        return Err(Fault::Later);
    }
    Err(Fault::Word(super::near::nearest(text, words.iter().map(|(name, _)| *name))))
}

fn forwarding_type(text: &str) -> Result<ForwardingType, Fault> {
    use ForwardingType::{Gre, Gue, Ipip, L2};
    word(text, &[("l2", L2), ("ipip", Ipip), ("gue", Gue), ("gre", Gre)], &["nat"])
}

/// A decimal number. Leading zeros are refused: YAML 1.1 read them as octal.
pub(super) fn number(text: &str, min: u64, max: u64) -> Result<u64, Fault> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let padded = digits.len() > 1 && digits.starts_with('0');
    if digits.is_empty() || padded || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::Type);
    }
    text.parse().ok().filter(|number| (min..=max).contains(number)).ok_or(Fault::Value)
}

pub(super) fn small(text: &str, min: u16) -> Result<u16, Fault> {
    let number = number(text, min.into(), u16::MAX.into())?;
    u16::try_from(number).map_err(|_| Fault::Value)
}

/// A count with an optional suffix: `k`, `M` are powers of 1000, `Ki`, `Mi` of 1024.
fn count(text: &str, max: u64) -> Result<u32, Fault> {
    let (digits, unit) = [("Ki", 1 << 10), ("Mi", 1 << 20), ("k", 1_000), ("M", 1_000_000)]
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .unwrap_or((text, 1));
    let count = number(digits, 1, max)?.saturating_mul(unit);
    u32::try_from(count).ok().filter(|count| u64::from(*count) <= max).ok_or(Fault::Value)
}

fn ring_size(text: &str) -> Result<u32, Fault> {
    let size = number(text, 101, 655_373)?;
    let size = u32::try_from(size).map_err(|_| Fault::Value)?;
    match (size..=655_373).find(|candidate| is_prime(*candidate)) {
        Some(prime) if prime == size => Ok(size),
        Some(prime) => Err(Fault::NotPrime(prime)),
        None => Err(Fault::Value),
    }
}

fn is_prime(number: u32) -> bool {
    number >= 2 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

fn name(text: &str) -> Result<String, Fault> {
    let refused = |c: char| c.is_whitespace() || is_unprintable(c) || c == '/';
    if text.is_empty() || text.len() > MAX_NAME_BYTES || text.contains(refused) {
        return Err(Fault::Value);
    }
    Ok(text.to_owned())
}

/// The kernel's `dev_valid_name`.
fn interface(text: &str) -> Result<String, Fault> {
    let refused = |c: char| c.is_whitespace() || is_unprintable(c) || c == '/' || c == ':';
    let special = matches!(text, "" | "." | "..");
    if special || text.len() > MAX_INTERFACE_BYTES || text.contains(refused) {
        return Err(Fault::Value);
    }
    Ok(text.to_owned())
}

fn path(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.contains('\0') { Err(Fault::Value) } else { Ok(text.to_owned()) }
}

fn mac(text: &str) -> Result<[u8; 6], Fault> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2).ok_or(Fault::Type)?;
        if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(Fault::Type);
        }
        *byte = u8::from_str_radix(part, 16).map_err(|_| Fault::Type)?;
    }
    if parts.next().is_some() {
        return Err(Fault::Type);
    }
    let group = mac[0] & 1 != 0;
    if group || mac == [0; 6] { Err(Fault::Value) } else { Ok(mac) }
}
