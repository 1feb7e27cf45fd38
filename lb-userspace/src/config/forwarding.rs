//! `forwarding`: a word, or a mapping with the keys that belong to its type.

use super::decode::{At, Fields, Shape, scalar, wrong_kind};
use super::diagnostic::{Findings, Report, code};
use super::node::{Kind, Node};
use super::value::{self, ForwardingType};
use super::value_net as net;
use crate::model::{Encap, Forwarding, GueVariant, Tunnel};

pub(super) static FORWARDING: Shape = Shape {
    what: "`forwarding`",
    keys: &["type", "source", "dscp", "ttl", "variant", "port"],
    later: &["nat"],
};

const TUNNEL_KEYS: [&str; 3] = ["source", "dscp", "ttl"];
const GUE_KEYS: [&str; 2] = ["variant", "port"];

/// Reads `forwarding`.
pub(super) fn read(node: &Node, out: &mut Findings<'_>) -> Option<Forwarding> {
    match &node.kind {
        Kind::Map(_) => {}
        Kind::Scalar(_) => {
            let kind = scalar(node, "forwarding", &value::FORWARDING, out)?.value;
            return Some(
                encap(kind, None, None)
                    .map_or(Forwarding::L2, |encap| Forwarding::Tunnel(Tunnel::new(encap))),
            );
        }
        Kind::Null | Kind::Seq(_) => {
            out.push(wrong_kind(node, "forwarding", value::FORWARDING.expected));
            return None;
        }
    }
    let fields = Fields::open(node, &FORWARDING, out)?;
    let kind = fields.required("type", &value::FORWARDING_TYPE, out);
    let source = fields.optional("source", &net::TUNNEL_SOURCE, out);
    let dscp = fields.optional("dscp", &net::DSCP, out);
    let ttl = fields.optional("ttl", &net::TTL, out);
    let variant = fields.optional("variant", &net::VARIANT, out);
    let port = fields.optional("port", &value::PORT, out);
    let kind = kind?.value;
    misplaced(kind, &fields, out);
    let Some(encap) = encap(kind, variant, port) else { return Some(Forwarding::L2) };
    let default = Tunnel::new(encap);
    Some(Forwarding::Tunnel(Tunnel {
        source: source.map_or(default.source, |at| at.value),
        dscp: dscp.map_or(default.dscp, |at| at.value),
        ttl: ttl.map_or(default.ttl, |at| at.value),
        ..default
    }))
}

fn encap(kind: ForwardingType, variant: Option<At<GueVariant>>, port: Option<At<u16>>) -> Option<Encap> {
    match kind {
        ForwardingType::L2 => None,
        ForwardingType::Ipip => Some(Encap::Ipip),
        ForwardingType::Gre => Some(Encap::Gre),
        ForwardingType::Gue => Some(Encap::Gue {
            variant: variant.map_or_else(GueVariant::default, |at| at.value),
            port: port.map_or(Encap::GUE_PORT, |at| at.value),
        }),
    }
}

/// Reports keys that the type has no use for.
fn misplaced(kind: ForwardingType, fields: &Fields<'_>, out: &mut Findings<'_>) {
    let name = match kind {
        ForwardingType::L2 => "l2",
        ForwardingType::Ipip => "ipip",
        ForwardingType::Gre => "gre",
        ForwardingType::Gue => return,
    };
    let refuse = |key: &str, why: &str, help: &str, out: &mut Findings<'_>| {
        if let Some(span) = fields.key_span(key) {
            let message = format!("`{name}` has {why}, so no `{key}`");
            out.push(Report::error(code::BAD_VALUE, span, message).help(help));
        }
    };
    for key in TUNNEL_KEYS.into_iter().filter(|_| kind == ForwardingType::L2) {
        refuse(key, "no tunnel", "remove it, or use `type: ipip`, `gue` or `gre`", out);
    }
    for key in GUE_KEYS {
        refuse(key, "no UDP header", "remove it, or use `type: gue`", out);
    }
}
