//! Scalars of health checking, one reader at a time: what is taken, what is refused, and what a person is told to
//! write instead.

use std::time::Duration;

use crate::config::health_value::*;
use crate::config::value::{Fault, Reader};
use crate::model::{AllDown, Require, Via};

/// What a person is told to write.
fn unit(text: &str) -> Fault {
    Fault::Unit(text.to_owned())
}

#[test]
fn durations_have_a_unit_and_bounds() {
    let ms = Duration::from_millis;
    for (text, expected) in [
        ("100ms", Ok(ms(100))),
        ("2s", Ok(ms(2_000))),
        ("5m", Ok(ms(300_000))),
        ("1h", Ok(ms(3_600_000))),
        ("60m", Ok(ms(3_600_000))),
        ("99ms", Err(Fault::Value)),
        ("3601s", Err(Fault::Value)),
        ("0s", Err(Fault::Value)),
        ("-2s", Err(Fault::Value)),
        ("4294967295h", Err(Fault::Value)),
        ("99999999999999999999s", Err(Fault::Value)),
        ("2", Err(unit("2s"))),
        ("500", Err(unit("500s or 500ms"))),
        ("100000", Err(unit("100000ms"))),
        ("0", Err(Fault::Type)),
        ("4000000000", Err(Fault::Type)),
        ("", Err(Fault::Type)),
        ("s", Err(Fault::Type)),
        ("2 s", Err(Fault::Type)),
        (" 2s", Err(Fault::Type)),
        ("2S", Err(Fault::Type)),
        ("1.5s", Err(Fault::Type)),
        ("02s", Err(Fault::Type)),
        ("+2s", Err(Fault::Type)),
        ("1d", Err(Fault::Type)),
        ("2us", Err(Fault::Type)),
        ("٢s", Err(Fault::Type)),
    ] {
        assert_eq!((INTERVAL.parse)(text), expected, "{text:?}");
    }
}

#[test]
fn each_kind_of_duration_has_its_own_bounds() {
    for (reader, least, most, outside) in [
        (&INTERVAL, "100ms", "1h", ["99ms", "3600001ms"]),
        (&FAST_INTERVAL, "10ms", "1h", ["9ms", "3600001ms"]),
        (&TIMEOUT, "10ms", "1m", ["9ms", "60001ms"]),
        (&UP_TO_HOUR, "0s", "1h", ["-1s", "3600001ms"]),
        (&UP_TO_DAY, "0s", "24h", ["-1s", "86400001ms"]),
        (&SECOND_TO_DAY, "1s", "24h", ["999ms", "25h"]),
    ] {
        assert_eq!(reader.expected, format!("a duration from {least} to {most}"));
        for text in [least, most] {
            assert_eq!((reader.parse)(text).as_ref().map(|d| written(*d)), Ok(text.to_owned()));
        }
        for text in outside {
            assert_eq!((reader.parse)(text), Err(Fault::Value), "{text}: {}", reader.expected);
        }
    }
}

#[test]
fn durations_are_written_in_the_largest_unit_that_fits() {
    for (ms, text) in [
        (0, "0s"),
        (1, "1ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (1_500, "1500ms"),
        (60_000, "1m"),
        (90_000, "90s"),
        (3_600_000, "1h"),
        (86_400_000, "24h"),
    ] {
        assert_eq!(written(Duration::from_millis(ms)), text);
    }
}

#[test]
fn percentages_have_their_sign() {
    for (text, expected) in [
        ("1%", Ok(1)),
        ("100%", Ok(100)),
        ("0%", Err(Fault::Value)),
        ("101%", Err(Fault::Value)),
        ("10", Err(unit("10%"))),
        ("0", Err(Fault::Type)),
        ("200", Err(Fault::Type)),
        ("%", Err(Fault::Type)),
        ("10 %", Err(Fault::Type)),
        ("0.5%", Err(Fault::Type)),
        ("010%", Err(Fault::Type)),
    ] {
        assert_eq!((PERCENT.parse)(text), expected, "{text:?}");
    }
}

#[test]
fn a_status_is_one_or_a_range() {
    for (text, expected) in [
        ("200", Ok(200..=200)),
        ("100-599", Ok(100..=599)),
        ("404-404", Ok(404..=404)),
        ("300-200", Err(Fault::Reversed(200, 300))),
        ("99", Err(Fault::Value)),
        ("200-600", Err(Fault::Value)),
        ("-200", Err(Fault::Type)),
        ("200-", Err(Fault::Type)),
        ("200--300", Err(Fault::Value)),
        ("200 - 300", Err(Fault::Type)),
        ("200-300-400", Err(Fault::Type)),
        ("2xx", Err(Fault::Type)),
        ("", Err(Fault::Type)),
    ] {
        assert_eq!((STATUS.parse)(text), expected, "{text:?}");
    }
}

#[test]
fn numbers_keep_their_bounds() {
    for (reader, outside) in [(&THRESHOLD, ["0", "101"]), (&MIN_ACTIVE, ["0", "65536"])] {
        for text in outside {
            assert_eq!((reader.parse)(text), Err(Fault::Value), "{text}");
        }
    }
    assert_eq!(((THRESHOLD.parse)("100"), (MIN_ACTIVE.parse)("65535")), (Ok(100), Ok(65_535)));
    assert_eq!(((PROBES.parse)("20000"), (PROBES.parse)("20001")), (Ok(20_000), Err(Fault::Value)));
    assert_eq!(((GROUP.parse)("0"), (GROUP.parse)("9")), (Ok(0), Ok(9)));
    assert_eq!(((GROUP.parse)("10"), (GROUP.parse)("-1")), (Err(Fault::Value), Err(Fault::Value)));
    assert_eq!((GROUP.parse)("one"), Err(Fault::Type));
}

#[test]
fn words_forgive_slips_with_help() {
    assert_eq!((TYPE.parse)("https"), Ok(CheckType::Https));
    assert_eq!((TYPE.parse)("HTTP"), Err(Fault::Word(Some("http"))));
    assert_eq!((TYPE.parse)("ping"), Err(Fault::Word(None)));
    assert_eq!((VIA.parse)("Direct"), Err(Fault::Word(Some("direct"))));
    assert_eq!((ALL_DOWN.parse)("last_known"), Err(Fault::Word(Some("last-known"))));
    assert_eq!((REQUIRE.parse)("some"), Err(Fault::Word(None)));
    assert_eq!(((VIA.parse)("service"), (REQUIRE.parse)("any")), (Ok(Via::Service), Ok(Require::Any)));
    assert_eq!((ALL_DOWN.parse)("reject"), Ok(AllDown::Reject));
}

#[test]
fn parts_of_http_are_what_http_allows() {
    let holds = |reader: &Reader<String>, text: &str| (reader.parse)(text).is_ok();
    let long = |len: usize, start: &str| start.to_owned() + &"a".repeat(len - start.len());
    for (reader, good, bad) in [
        (&METHOD, vec!["GET", "M-SEARCH", "!#$"], vec!["", "G T", "GET\r\n", "GÉT", "a:b"]),
        (&TARGET, vec!["/", "/a?b=c#d", "/%20\"\\"], vec!["", "a", "*", "/a b", "/a\n", "/é"]),
        (&HOST, vec!["a", "a.example:80", "[2001:db8::1]:80", "192.0.2.1"], vec!["", "a b", "a/b", "a\n"]),
        (&SNI, vec!["a", "a.example", "a_b"], vec!["", "192.0.2.1", "a:443", "[::1]", "é", "a b"]),
        (&HEADER_VALUE, vec!["", "a b", "é"], vec!["a\nb", "a\r", "\0", "\u{7f}", "\u{85}"]),
        (&TEXT, vec!["a", "\n", "\u{1}é"], vec![""]),
        (&ARGUMENT, vec!["", "a b", "--x"], vec!["a\0b"]),
    ] {
        good.into_iter().for_each(|text| assert!(holds(reader, text), "{text:?}: {}", reader.expected));
        bad.into_iter().for_each(|text| assert!(!holds(reader, text), "{text:?}: {}", reader.expected));
    }
    for (reader, longest, start) in
        [(&METHOD, 64, "a"), (&TARGET, 1024, "/"), (&HOST, 255, "a"), (&SNI, 253, "a"), (&TEXT, 1024, "a")]
    {
        assert!(holds(reader, &long(longest, start)), "{longest}: {}", reader.expected);
        assert!(!holds(reader, &long(longest + 1, start)), "{}: {}", longest + 1, reader.expected);
    }
}

#[test]
fn names_are_told_from_addresses() {
    for name in ["a", "a.example", "a.example:8443", "1.2.3.4.example", "256.1.1.1"] {
        assert!(is_name(name), "{name}");
    }
    for other in ["", ":80", "192.0.2.1", "192.0.2.1:8443", "[2001:db8::1]:443", "[::1]"] {
        assert!(!is_name(other), "{other}");
    }
}
