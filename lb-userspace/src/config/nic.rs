//! The settings of an interface: how they are written, and written back. Whether a driver can have them is not known here.

use std::fmt::Write;

use super::decode::{At, Fields, Shape, scalar, wrong_kind};
use super::diagnostic::{Findings, Report, code};
use super::node::{Kind, Node};
use super::schema::Interface;
use super::source::Span;
use super::value::{self, BOOL, Fault, Reader, number, word};
use crate::model::{InterfaceSettings, QueueCount, RingSizes, Spread, Steering, Toggle, UdpHash, Waiting};

pub(super) static INTERFACE: Shape = Shape {
    what: "an interface",
    keys: &[
        "name",
        "mode",
        "mtu",
        "queues",
        "rss",
        "udp_hash",
        "symmetric",
        "rings",
        "coalesce",
        "rps",
        "xps",
        "irq_affinity",
        "offloads",
        "keep",
    ],
    later: &["vlan"],
};
static RINGS: Shape = Shape { what: "`rings`", keys: &["rx", "tx"], later: &[] };
static COALESCE: Shape = Shape { what: "`coalesce`", keys: &["rx_usecs", "tx_usecs"], later: &[] };
static RSS: Shape = Shape { what: "`rss`", keys: &["weights"], later: &[] };

/// More queues than any NIC has.
const MOST_QUEUES: u64 = 1024;
/// The least that IPv6 works with (RFC 8200 section 5).
const LEAST_MTU: u32 = 1280;

const MTU: Reader<u32> =
    Reader { expected: "a number from 68 to 65535", parse: |text| below(text, 68, 65_535) };
const QUEUES: Reader<QueueCount> = Reader {
    expected: "auto, or a number from 1 to 1024",
    parse: |text| match text {
        "auto" => Ok(QueueCount::Auto),
        _ => below(text, 1, MOST_QUEUES).map(QueueCount::Exactly),
    },
};
const QUEUE: Reader<u32> =
    Reader { expected: "a queue's number, from 0 to 1023", parse: |text| below(text, 0, MOST_QUEUES - 1) };
const SHARE: Reader<u32> =
    Reader { expected: "a weight from 0 to 65535", parse: |text| below(text, 0, 65_535) };
const SPREAD: Reader<()> = Reader {
    expected: "equal, a list of queues such as [0, 1], or {weights: [2, 1]}",
    parse: |text| word(text, &[("equal", ())], &[]),
};
const HASH: Reader<UdpHash> = Reader {
    expected: "addresses or ports",
    parse: |text| word(text, &[("addresses", UdpHash::Addresses), ("ports", UdpHash::Ports)], &[]),
};
const RING: Reader<u32> =
    Reader { expected: "a number of descriptors from 1 to 65536", parse: |text| below(text, 1, 65_536) };
const USECS: Reader<u32> =
    Reader { expected: "microseconds from 0 to 65535", parse: |text| below(text, 0, 65_535) };
const ADAPTIVE: Reader<()> = Reader {
    expected: "adaptive, or a mapping such as {rx_usecs: 50, tx_usecs: 50}",
    parse: |text| word(text, &[("adaptive", ())], &[]),
};
const STEERING: Reader<Steering> = Reader {
    expected: "auto or off",
    parse: |text| word(text, &[("auto", Steering::Auto), ("off", Steering::Off)], &[]),
};
const AUTO: Reader<Steering> =
    Reader { expected: "auto", parse: |text| word(text, &[("auto", Steering::Auto)], &[]) };

fn below(text: &str, least: u64, most: u64) -> Result<u32, Fault> {
    u32::try_from(number(text, least, most)?).map_err(|_| Fault::Value)
}

/// Reads an interface.
pub(super) fn interface(fields: &Fields<'_>, out: &mut Findings<'_>) -> Interface {
    Interface {
        name: fields.required("name", &value::INTERFACE, out),
        mode: plain(fields.optional("mode", &value::MODE, out)).unwrap_or_default(),
        settings: settings(fields, out),
    }
}

/// Reads the settings among an interface's keys.
fn settings(fields: &Fields<'_>, out: &mut Findings<'_>) -> InterfaceSettings {
    let toggle = |on: At<bool>| if on.value { Toggle::On } else { Toggle::Off };
    let queues = plain(fields.optional("queues", &QUEUES, out));
    let settings = InterfaceSettings {
        mtu: mtu(fields, out),
        queues,
        rss: fields.get("rss").and_then(|node| spread(node, queues, fields.key_span("queues"), out)),
        udp_hash: plain(fields.optional("udp_hash", &HASH, out)),
        symmetric: fields.optional("symmetric", &BOOL, out).map(toggle),
        rings: fields.get("rings").and_then(|node| rings(node, out)),
        coalesce: fields.get("coalesce").and_then(|node| coalesce(node, out)),
        rps: plain(fields.optional("rps", &STEERING, out)),
        xps: plain(fields.optional("xps", &STEERING, out)),
        irq_affinity: plain(fields.optional("irq_affinity", &AUTO, out)),
        offloads: plain(fields.optional("offloads", &AUTO, out)),
        keep: plain(fields.optional("keep", &BOOL, out)).unwrap_or(false),
    };
    if let Some(span) = fields.key_span("keep")
        && !INTERFACE.keys.iter().skip(2).any(|key| *key != "keep" && fields.get(key).is_some())
    {
        let message = "`keep` is about settings of the interface, and there are none".to_owned();
        out.push(Report::warning(code::NOTHING_TO_KEEP, span, message).help("remove it"));
    }
    settings
}

fn mtu(fields: &Fields<'_>, out: &mut Findings<'_>) -> Option<u32> {
    let At { value, span } = fields.optional("mtu", &MTU, out)?;
    if value < LEAST_MTU {
        let message = format!("`mtu: {value}` is too small: IPv6 needs {LEAST_MTU}");
        out.push(Report::error(code::SMALL_MTU, span, message).help("Ethernet has 1500, jumbo frames 9000"));
    }
    Some(value)
}

fn spread(
    node: &Node,
    queues: Option<QueueCount>,
    queues_span: Option<Span>,
    out: &mut Findings<'_>,
) -> Option<Spread> {
    let (spread, named) = match &node.kind {
        Kind::Scalar(_) => return scalar(node, "rss", &SPREAD, out).map(|_| Spread::Equal),
        Kind::Null => {
            out.push(wrong_kind(node, "rss", SPREAD.expected));
            return None;
        }
        Kind::Seq(items) => {
            let list: Vec<u32> =
                items.iter().filter_map(|item| Some(scalar(item, "rss", &QUEUE, out)?.value)).collect();
            let named = list.iter().max().map_or(0, |last| last + 1);
            (Spread::Queues(list), named)
        }
        Kind::Map(_) => {
            let fields = Fields::open(node, &RSS, out)?;
            fields.require("weights", "a list of numbers such as [2, 1], the first queue's first", out)?;
            let items = fields.list("weights", out)?;
            let weights: Vec<u32> =
                items.iter().filter_map(|item| Some(scalar(item, "weights", &SHARE, out)?.value)).collect();
            let named = u32::try_from(weights.len()).unwrap_or(u32::MAX);
            (Spread::Weights(weights), named)
        }
    };
    let receives = match &spread {
        Spread::Equal => true,
        Spread::Weights(weights) => weights.iter().any(|weight| *weight > 0),
        Spread::Queues(queues) => !queues.is_empty(),
    };
    if !receives {
        let message = "`rss` leaves no queue that receives packets".to_owned();
        out.push(
            Report::error(code::BAD_SPREAD, node.span, message).help(format!("it is {}", SPREAD.expected)),
        );
    }
    if let (Some(QueueCount::Exactly(made)), Some(span)) = (queues, queues_span)
        && named > made
    {
        let message = format!("`rss` is about {named} queues, and there are {made}");
        out.push(Report::error(code::NO_SUCH_QUEUE, node.span, message).also(span, "the queues"));
    }
    Some(spread)
}

fn rings(node: &Node, out: &mut Findings<'_>) -> Option<RingSizes> {
    let fields = Fields::open(node, &RINGS, out)?;
    something(&fields, &RINGS, out);
    let rx = plain(fields.optional("rx", &RING, out));
    Some(RingSizes { rx, tx: plain(fields.optional("tx", &RING, out)) })
}

fn coalesce(node: &Node, out: &mut Findings<'_>) -> Option<Waiting> {
    match &node.kind {
        Kind::Map(_) => {
            let fields = Fields::open(node, &COALESCE, out)?;
            something(&fields, &COALESCE, out);
            let rx_usecs = plain(fields.optional("rx_usecs", &USECS, out));
            Some(Waiting::Fixed { rx_usecs, tx_usecs: plain(fields.optional("tx_usecs", &USECS, out)) })
        }
        Kind::Scalar(_) => scalar(node, "coalesce", &ADAPTIVE, out).map(|_| Waiting::Adaptive),
        Kind::Null | Kind::Seq(_) => {
            out.push(wrong_kind(node, "coalesce", ADAPTIVE.expected));
            None
        }
    }
}

/// Reports a mapping that sets nothing.
fn something(fields: &Fields<'_>, shape: &Shape, out: &mut Findings<'_>) {
    if shape.keys.iter().all(|key| fields.get(key).is_none()) {
        let message = format!("{} sets nothing", shape.what);
        let help = format!("its keys are {}", shape.keys.join(", "));
        out.push(Report::error(code::NOTHING_SET, fields.span, message).help(help));
    }
}

fn plain<T>(value: Option<At<T>>) -> Option<T> {
    value.map(|at| at.value)
}

/// The settings as they are written in the flow of an interface's mapping, each with a comma before it.
pub(super) fn effective(settings: &InterfaceSettings) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut key = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(text, ", {name}: {value}");
        }
    };
    let steering = |steering: Steering| match steering {
        Steering::Auto => "auto".to_owned(),
        Steering::Off => "\"off\"".to_owned(),
    };
    key("mtu", settings.mtu.map(|mtu| mtu.to_string()));
    key(
        "queues",
        settings.queues.map(|queues| match queues {
            QueueCount::Auto => "auto".to_owned(),
            QueueCount::Exactly(count) => count.to_string(),
        }),
    );
    key(
        "rss",
        settings.rss.as_ref().map(|spread| match spread {
            Spread::Equal => "equal".to_owned(),
            Spread::Weights(weights) => format!("{{weights: {weights:?}}}"),
            Spread::Queues(queues) => format!("{queues:?}"),
        }),
    );
    key(
        "udp_hash",
        settings.udp_hash.map(|hash| match hash {
            UdpHash::Addresses => "addresses".to_owned(),
            UdpHash::Ports => "ports".to_owned(),
        }),
    );
    key("symmetric", settings.symmetric.map(|toggle| (toggle == Toggle::On).to_string()));
    key("rings", settings.rings.map(|sizes| pairs([("rx", sizes.rx), ("tx", sizes.tx)])));
    key(
        "coalesce",
        settings.coalesce.map(|waiting| match waiting {
            Waiting::Adaptive => "adaptive".to_owned(),
            Waiting::Fixed { rx_usecs, tx_usecs } => pairs([("rx_usecs", rx_usecs), ("tx_usecs", tx_usecs)]),
        }),
    );
    key("rps", settings.rps.map(steering));
    key("xps", settings.xps.map(steering));
    key("irq_affinity", settings.irq_affinity.map(steering));
    key("offloads", settings.offloads.map(steering));
    key("keep", settings.keep.then(|| "true".to_owned()));
    text
}

fn pairs(pairs: [(&str, Option<u32>); 2]) -> String {
    let written = pairs.iter().filter_map(|(key, value)| Some(format!("{key}: {}", (*value)?)));
    format!("{{{}}}", written.collect::<Vec<_>>().join(", "))
}
