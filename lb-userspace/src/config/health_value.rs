//! Scalars of health checking: durations, percentages, statuses, parts of HTTP. Pure text in, value or fault out.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::value::{Fault, Reader, number, word};
use crate::model::{AllDown, Require, Via};

/// The most bytes of what is sent or expected.
const MAX_TEXT_BYTES: usize = 1024;
pub(super) const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;

/// `type` of a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CheckType {
    Icmp,
    Tcp,
    Http,
    Https,
    Udp,
}

impl CheckType {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Https => "https",
            Self::Udp => "udp",
        }
    }
}

pub(super) const TYPE: Reader<CheckType> = Reader {
    expected: "icmp, tcp, http, https or udp",
    parse: |text| {
        use CheckType::{Http, Https, Icmp, Tcp, Udp};
        word(text, &[("icmp", Icmp), ("tcp", Tcp), ("http", Http), ("https", Https), ("udp", Udp)], &[])
    },
};
pub(super) const VIA: Reader<Via> = Reader {
    expected: "service or direct",
    parse: |text| word(text, &[("service", Via::Service), ("direct", Via::Direct)], &[]),
};
pub(super) const REQUIRE: Reader<Require> = Reader {
    expected: "all or any",
    parse: |text| word(text, &[("all", Require::All), ("any", Require::Any)], &[]),
};
pub(super) const ALL_DOWN: Reader<AllDown> = Reader {
    expected: "last-known or reject",
    parse: |text| word(text, &[("last-known", AllDown::LastKnown), ("reject", AllDown::Reject)], &[]),
};
pub(super) const INTERVAL: Reader<Duration> =
    Reader { expected: "a duration from 100ms to 1h", parse: |text| duration(text, 100, HOUR) };
pub(super) const FAST_INTERVAL: Reader<Duration> =
    Reader { expected: "a duration from 10ms to 1h", parse: |text| duration(text, 10, HOUR) };
pub(super) const TIMEOUT: Reader<Duration> =
    Reader { expected: "a duration from 10ms to 1m", parse: |text| duration(text, 10, MINUTE) };
pub(super) const UP_TO_HOUR: Reader<Duration> =
    Reader { expected: "a duration from 0s to 1h", parse: |text| duration(text, 0, HOUR) };
pub(super) const UP_TO_DAY: Reader<Duration> =
    Reader { expected: "a duration from 0s to 24h", parse: |text| duration(text, 0, DAY) };
pub(super) const SECOND_TO_DAY: Reader<Duration> =
    Reader { expected: "a duration from 1s to 24h", parse: |text| duration(text, SECOND, DAY) };
pub(super) const PERCENT: Reader<u8> = Reader { expected: "a percentage from 1% to 100%", parse: percent };
pub(super) const THRESHOLD: Reader<u32> =
    Reader { expected: "a number from 1 to 100", parse: |text| small(text, 1, 100) };
pub(super) const MIN_ACTIVE: Reader<u32> =
    Reader { expected: "a number from 1 to 65535", parse: |text| small(text, 1, 65_535) };
pub(super) const PROBES: Reader<u32> =
    Reader { expected: "a number from 1 to 20000", parse: |text| small(text, 1, 20_000) };
pub(super) const GROUP: Reader<u8> = Reader {
    expected: "a number from 0 to 9",
    parse: |text| u8::try_from(number(text, 0, 9)?).map_err(|_| Fault::Value),
};
pub(super) const STATUS: Reader<RangeInclusive<u16>> =
    Reader { expected: "a status such as 200 or a range such as 200-399, within 100 to 599", parse: status };
pub(super) const TEXT: Reader<String> = Reader {
    expected: "a text of 1 to 1024 bytes",
    parse: |text| keep(text, (1..=MAX_TEXT_BYTES).contains(&text.len())),
};
pub(super) const ARGUMENT: Reader<String> =
    Reader { expected: "a text without zero bytes", parse: |text| keep(text, !text.contains('\0')) };
pub(super) const METHOD: Reader<String> = Reader {
    expected: "a method such as GET or HEAD, of at most 64 characters",
    parse: |text| keep(text, text.len() <= 64 && is_token(text)),
};
pub(super) const TARGET: Reader<String> = Reader {
    expected: "a path that starts with `/`, of at most 1024 visible ASCII characters",
    parse: |text| {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        keep(text, text.starts_with('/') && visible && text.len() <= MAX_TEXT_BYTES)
    },
};
pub(super) const HOST: Reader<String> = Reader {
    expected: "a host name or address, with a port if need be",
    parse: |text| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
        keep(text, (1..=255).contains(&text.len()) && text.bytes().all(allowed))
    },
};
pub(super) const SNI: Reader<String> = Reader {
    expected: "a host name",
    parse: |text| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let name = is_name(text) && text.bytes().all(allowed);
        keep(text, name && text.len() <= 253)
    },
};
pub(super) const HEADER_VALUE: Reader<String> = Reader {
    expected: "at most 1024 bytes without control characters",
    parse: |text| keep(text, text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control)),
};

/// Whether a `Host` header, its port aside, is a name rather than an address.
pub(super) fn is_name(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or(host);
    let address = name.parse::<Ipv4Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok();
    !name.is_empty() && !name.starts_with('[') && !address
}

/// `token` of RFC 9110, section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}

/// A duration as configs write it, in the largest unit that leaves a whole number.
pub(super) fn written(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("h", u128::from(HOUR)), ("m", u128::from(MINUTE)), ("s", u128::from(SECOND))];
    match units.into_iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

fn keep(text: &str, holds: bool) -> Result<String, Fault> {
    if holds { Ok(text.to_owned()) } else { Err(Fault::Value) }
}

fn small(text: &str, min: u64, max: u64) -> Result<u32, Fault> {
    u32::try_from(number(text, min, max)?).map_err(|_| Fault::Value)
}

/// A whole number with its unit, between two bounds in milliseconds.
pub(super) fn duration(text: &str, min: u64, max: u64) -> Result<Duration, Fault> {
    if let Ok(bare) = number(text, 0, u32::MAX.into()) {
        let fits = |unit: &u64| (min..=max).contains(&bare.saturating_mul(*unit));
        let fitting = [(SECOND, "s"), (1, "ms")].into_iter().filter(|(unit, _)| fits(unit));
        let meant: Vec<String> = fitting.map(|(_, unit)| format!("{bare}{unit}")).collect();
        return Err(if meant.is_empty() { Fault::Type } else { Fault::Unit(meant.join(" or ")) });
    }
    let (digits, unit) = [("ms", 1), ("s", SECOND), ("m", MINUTE), ("h", HOUR)]
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .ok_or(Fault::Type)?;
    let ms = number(digits, 0, u32::MAX.into())?.saturating_mul(unit);
    if (min..=max).contains(&ms) { Ok(Duration::from_millis(ms)) } else { Err(Fault::Value) }
}

fn percent(text: &str) -> Result<u8, Fault> {
    if let Ok(bare) = number(text, 1, 100) {
        return Err(Fault::Unit(format!("{bare}%")));
    }
    let number = number(text.strip_suffix('%').ok_or(Fault::Type)?, 1, 100)?;
    u8::try_from(number).map_err(|_| Fault::Value)
}

fn status(text: &str) -> Result<RangeInclusive<u16>, Fault> {
    let one = |text| u16::try_from(number(text, 100, 599)?).map_err(|_| Fault::Value);
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (one(from)?, one(to)?);
    if from <= to { Ok(from..=to) } else { Err(Fault::Reversed(to, from)) }
}
