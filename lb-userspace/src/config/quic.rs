//! `quic`: how a UDP service treats QUIC.

use super::decode::{Fields, Shape};
use super::diagnostic::{Findings, Report, code};
use super::node::Node;
use super::value::{ID_FORMAT, IdFormat};
use super::value_net::{CONFIG_ID, ID_LEN};
use crate::model::{Quic, ServerIdFormat};

pub(super) static QUIC: Shape = Shape { what: "`quic`", keys: &["server_id"], later: &[] };
pub(super) static SERVER_ID: Shape =
    Shape { what: "`server_id`", keys: &["format", "config_id", "length"], later: &[] };

/// Reads `quic`.
pub(super) fn read(node: &Node, out: &mut Findings<'_>) -> Option<Quic> {
    let fields = Fields::open(node, &QUIC, out)?;
    Some(Quic { server_id: fields.get("server_id").and_then(|node| server_id(node, out)) })
}

fn server_id(node: &Node, out: &mut Findings<'_>) -> Option<ServerIdFormat> {
    let fields = Fields::open(node, &SERVER_ID, out)?;
    match fields.required("format", &ID_FORMAT, out)?.value {
        IdFormat::Draft => {
            let config_id = fields.optional("config_id", &CONFIG_ID, out);
            let length = fields.required("length", &ID_LEN, out)?.value;
            Some(ServerIdFormat::Draft { config_id: config_id.map_or(0, |at| at.value), length })
        }
        IdFormat::Katran => {
            for key in ["config_id", "length"] {
                if let Some(span) = fields.key_span(key) {
                    let message = format!("the format `katran` has no `{key}`");
                    let help = "its versions 1 and 2 are told apart by the connection ID itself; remove it";
                    out.push(Report::error(code::BAD_VALUE, span, message).help(help));
                }
            }
            Some(ServerIdFormat::Katran)
        }
    }
}
