//! Round trips, and what is said of lines that are no packets.

use proptest::prelude::*;

use super::{describe, parse};

/// Lines in the form in which they are described again.
const LINES: &[&str] = &[
    "tcp 198.51.100.7:4000 > 203.0.113.10:80 syn",
    "tcp 198.51.100.7:4000 > 203.0.113.10:80 syn ack mss 1460 ttl 3 tos 184 df id 7 len 1200",
    "tcp 198.51.100.7:4000 > 203.0.113.10:80 noflags options 40",
    "tcp [2001:db8::7]:4000 > [2001:db8::10]:80 ack psh label 12345 ext hbh ext route ext dest data 00ff",
    "udp [2001:db8::7]:4000 > [2001:db8::10]:53 len 1200",
    "udp 198.51.100.7:4000 > 203.0.113.10:53 frag 7 0 more len 1472",
    "udp 198.51.100.7 > 203.0.113.10 frag 7 1480 last len 500",
    "udp 2001:db8::7 > 2001:db8::10 ext hbh frag 4000000000 1480 more len 48",
    "sctp 198.51.100.7:4000 > 203.0.113.10:5060 len 20",
    "ip 198.51.100.7 > 203.0.113.10 proto 50 len 20",
    "icmp 198.51.100.7 > 203.0.113.10 echo id 1 seq 1 len 56",
    "icmp 2001:db8::7 > 2001:db8::10 echo-reply id 1 seq 1",
    "icmp 198.51.100.1 > 203.0.113.10 unreachable frag-needed mtu 1400 about tcp 203.0.113.10:80 > 198.51.100.7:4000 ttl 60 len 1400",
    "icmp 198.51.100.1 > 203.0.113.10 unreachable port quote 548 about udp 203.0.113.10:53 > 198.51.100.7:4000 len 900",
    "icmp 198.51.100.1 > 203.0.113.10 time-exceeded about udp 203.0.113.10:53 > 198.51.100.7:4000",
    "icmp 2001:db8::1 > 2001:db8::10 too-big mtu 1400 about tcp [2001:db8::10]:80 > [2001:db8::7]:4000 ack len 1400",
    "icmp 2001:db8::1 > 2001:db8::10 parameter-problem pointer 40 about tcp [2001:db8::10]:80 > [2001:db8::7]:4000 ack",
    "icmp 198.51.100.1 > 203.0.113.10 time-exceeded data ed00001c0000",
    "icmp 198.51.100.1 > 203.0.113.10 type 13 code 0 rest 00010002 len 12",
    "quic 198.51.100.7:4000 > 203.0.113.10:443 initial cid 0102030405060708 scid 11 len 1000",
    "quic 198.51.100.7:4000 > 203.0.113.10:443 handshake cid 0x nosum len 32",
    "vlan 100 tcp 198.51.100.7:4000 > 203.0.113.10:80 syn",
    "mac 02:00:00:00:00:01 > 02:00:00:00:00:02 vlan 100 vlan 7 udp 198.51.100.7:1 > 203.0.113.10:2",
    "ipip 192.0.2.1 > 192.0.2.31 df carrying tcp 198.51.100.7:4000 > 203.0.113.10:80 syn",
    "ipip 2001:db8::1 > 2001:db8::31 label 77 carrying udp 198.51.100.7:4000 > 203.0.113.10:53 len 9",
    "gre 192.0.2.1 > 192.0.2.31 carrying tcp [2001:db8::7]:4000 > [2001:db8::10]:80 fin",
    "gue 192.0.2.1:50000 > 192.0.2.31:6080 nosum carrying tcp 198.51.100.7:4000 > 203.0.113.10:80 syn",
    "gue 192.0.2.1:50000 > 192.0.2.31:6080 variant 0 carrying udp [2001:db8::7]:1 > [2001:db8::10]:2",
    "arp who-has 203.0.113.10 tell 203.0.113.1",
    "arp 203.0.113.10 is-at 02:00:00:00:00:09 tell 203.0.113.1",
    "ndp who-has 2001:db8::10 tell 2001:db8::1",
    "ndp 2001:db8::10 is-at 02:00:00:00:00:09 tell 2001:db8::1",
    "ether 0x88cc len 40",
    "raw 0102",
    "raw 0x",
];

#[test]
fn lines_come_back_as_they_were() {
    for line in LINES {
        let frame = parse(line).unwrap_or_else(|error| panic!("{line}\n{error}"));
        assert_eq!(describe(&frame), *line);
    }
}

#[test]
fn what_is_left_out_has_a_usual_value() {
    let pairs = [
        ("tcp 198.51.100.7:1>203.0.113.10:2", "tcp 198.51.100.7:1 > 203.0.113.10:2 ack"),
        ("icmp 198.51.100.7 > 203.0.113.10 echo", "icmp 198.51.100.7 > 203.0.113.10 echo id 1 seq 1"),
        (
            "quic 198.51.100.7:1 > 203.0.113.10:443 initial cid 01",
            "quic 198.51.100.7:1 > 203.0.113.10:443 initial cid 01 len 1192",
        ),
        (
            "quic 198.51.100.7:1 > 203.0.113.10:443 short cid 0102 len 1",
            "udp 198.51.100.7:1 > 203.0.113.10:443 data 40010201",
        ),
        (
            "udp 198.51.100.7:1 > 203.0.113.10:2 frag 7 8 last",
            "udp 198.51.100.7 > 203.0.113.10 frag 7 8 last",
        ),
        ("tcp 198.51.100.7:1 > 203.0.113.10:2 syn vlan 5", "vlan 5 tcp 198.51.100.7:1 > 203.0.113.10:2 syn"),
    ];
    for (line, described) in pairs {
        assert_eq!(describe(&parse(line).unwrap()), described);
    }
}

#[test]
fn errors_point_at_the_word() {
    let error = parse("tcp 198.51.100.7:4000 > 203.0.113.10:80 sny").unwrap_err().to_string();
    let expected = "error: `sny` cannot stand here
  |
  | tcp 198.51.100.7:4000 > 203.0.113.10:80 sny
  |                                         ^^^
  = help: allowed: ttl N, tos N, frag ID OFFSET more|last, df, id N, options N, syn, ack, fin, rst, psh, urg, ece, \
                    cwr, noflags, mss N, len N, data HEX, mac SRC > DST, vlan N [vlan M]";
    assert_eq!(error, expected);
    let cases = [
        ("", "ends too early", "tcp, udp"),
        ("tpc 1 > 2", "`tpc`", "tcp, udp"),
        ("tcp 198.51.100.7:4000", "ends too early", "allowed: >"),
        ("tcp 198.51.100.7 > 203.0.113.10:80", "a port is missing", "198.51.100.7:4000"),
        ("tcp 198.51.100.7:1 > [2001:db8::1]:80", "same family", "198.51.100.7"),
        ("tcp 198.51.100.7:1 > 203.0.113.10:80 ttl 256", "`256`", "0 to 255"),
        ("tcp 198.51.100.7:1 > 203.0.113.10:80 ext hbh", "`ext`", "df"),
        ("tcp [2001:db8::7]:1 > [2001:db8::1]:80 df", "`df`", "label N"),
        ("udp 198.51.100.7:1 > 203.0.113.10:80 syn", "`syn`", "len N"),
        ("udp 198.51.100.7:1 > 203.0.113.10:80 frag 1 7 more", "`7`", "multiple of 8"),
        ("udp 198.51.100.7:1 > 203.0.113.10:80 len 65535", "longer than an IP packet", "65535"),
        ("icmp 198.51.100.7 > 203.0.113.10 ping", "`ping`", "echo"),
        ("icmp 198.51.100.7 > 203.0.113.10 unreachable port about arp", "`arp`", "tcp"),
        ("icmp 198.51.100.7 > 203.0.113.10 echo frag 1 8 last", "no headers", "allowed: tcp"),
        ("vlan 1 vlan 2 vlan 3 tcp", "at most two", "take one out"),
        ("mac 02 > 03", "`02`", "MAC address"),
        ("raw 123", "`123`", "hex digits"),
        ("arp who-has 203.0.113.10 tell 203.0.113.1 syn", "`syn`", "the end"),
    ];
    for (line, message, help) in cases {
        let error = parse(line).expect_err(line).to_string();
        assert!(error.contains(message) && error.contains(help), "{line}\n{error}");
    }
    let deep = "ipip 192.0.2.1 > 192.0.2.2 carrying ".repeat(300);
    assert!(parse(&deep).unwrap_err().to_string().contains("within"));
}

fn number(most: u32) -> impl Strategy<Value = u32> {
    prop_oneof![0..=most, Just(0), Just(most)]
}

/// A packet of any family and kind; `depth` packets may be within it.
fn line(depth: u32) -> BoxedStrategy<String> {
    let ends = (any::<bool>(), any::<[u8; 4]>(), any::<[u8; 4]>(), any::<[u16; 2]>());
    let header =
        (number(255), number(255), any::<bool>(), number(65_535), number(0xf_ffff), 0..=10u8, 0..=3usize);
    let fragment = proptest::option::weighted(0.2, (number(65_535), 0..100u32, any::<bool>()));
    let rest = (0..=9u8, number(255), 0..300usize, proptest::collection::vec(any::<u8>(), 0..20), fragment);
    let inner = if depth == 0 { Just(String::new()).boxed() } else { line(depth - 1) };
    (ends, header, rest, inner)
        .prop_map(|((v6, from, to, ports), (ttl, tos, df, id, label, options, extensions), rest, inner)| {
            let (kind, bits, len, bytes, fragment) = rest;
            let address = |bytes: [u8; 4]| match v6 {
                true => format!("2001:db8::{:x}:{:x}", u16::from_be_bytes([bytes[0], bytes[1]]), bytes[2]),
                false => std::net::Ipv4Addr::from(bytes).to_string(),
            };
            let end = |bytes, port| match v6 {
                true => format!("[{}]:{port}", address(bytes)),
                false => format!("{}:{port}", address(bytes)),
            };
            let ends = format!("{} > {}", end(from, ports[0]), end(to, ports[1]));
            let bare = format!("{} > {}", address(from), address(to));
            let mut header = format!(" ttl {ttl} tos {tos}");
            header += &match v6 {
                true => format!(" label {label}") + &" ext hbh ext route ext dest"[..9 * extensions.min(1)],
                false => format!("{} id {id} options {}", if df { " df" } else { "" }, options * 4),
            };
            if let Some((id, eighths, more)) = fragment {
                let eighths = if (4..10).contains(&kind) { 0 } else { eighths };
                header += &format!(" frag {id} {} {}", eighths * 8, if more { "more" } else { "last" });
            }
            let hex = format!("0x{}", super::payload::hex(&bytes));
            let flags: Vec<&str> = super::options::FLAGS
                .iter()
                .filter(|(_, bit)| bits as u8 & bit != 0)
                .map(|(n, _)| *n)
                .collect();
            // A checksum over what is not quoted cannot be made again.
            let quote = if ["tcp", "sctp", "ip "].iter().any(|head| inner.starts_with(head)) {
                ""
            } else {
                " quote 65535"
            };
            let about = if inner.is_empty() { String::new() } else { format!("{quote} about {inner}") };
            match kind {
                0 | 1 => format!("tcp {ends} {} mss {id}{header} len {len}", flags.join(" ")),
                2 => format!("udp {ends}{header} data {hex}"),
                3 => format!("sctp {ends}{header} len {len}"),
                4 => format!("quic {ends} initial cid {hex}{header} len {len}"),
                5 => format!("icmp {bare} echo id {id} seq {bits}{header} len {len}"),
                6 => format!("icmp {bare} unreachable code {}{header}{about}", bits % 16),
                7 if !inner.is_empty() => format!("ipip {bare}{header} carrying {inner}"),
                8 if !inner.is_empty() => format!("gue {ends} variant {}{header} carrying {inner}", bits % 2),
                9 if !inner.is_empty() => format!("gre {bare}{header} carrying {inner}"),
                _ => format!("ip {bare} proto {}{header} len {len}", 70 + bits % 60),
            }
        })
        .boxed()
}

proptest! {
    /// A frame and the frame of its description are the same.
    #[test]
    fn a_description_makes_the_same_frame(line in line(2)) {
        let frame = parse(&line).unwrap();
        let described = describe(&frame);
        let again = parse(&described).map_err(|error| TestCaseError::fail(format!("{line}\n{error}")))?;
        prop_assert!(again == frame, "{}\n{}", line, described);
    }

    #[test]
    fn no_line_and_no_frame_is_too_strange(text in "(\\PC| |\t|\n){0,80}", bytes: Vec<u8>, line in line(2), at: usize, byte: u8) {
        let _any = parse(&text);
        describe(&bytes);
        let mut frame = parse(&line).unwrap();
        let (at, cut) = (at % frame.len(), at / 7 % frame.len());
        frame[at] = byte;
        describe(&frame);
        describe(&frame[..cut]);
        let words: Vec<&str> = line.split(' ').collect();
        let _any = parse(&words[..at % words.len()].join(" "));
    }
}
