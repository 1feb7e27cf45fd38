//! What is known of a packet's flow, in words.

use lb_common::abi::{FlowTable, Reason};

use super::report::{Names, whose};
use super::trace::Noted;

/// What the tables say of the flow, and of the packet whose fragment this is.
pub(super) fn flow_words(noted: &Noted, names: &Names) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(named) = noted.named {
        lines.push(format!("flow: its connection ID names {}", whose(names, named.get())));
    }
    match noted.flow {
        Some(Some((table, flow))) => {
            let kind = match table {
                FlowTable::HalfOpen => "half open",
                FlowTable::Established => "established",
                FlowTable::Old => "older than a change",
            };
            let closing = if flow.is_closing() { ", closing" } else { "" };
            lines.push(format!("flow: recorded ({kind}{closing}), at {}", whose(names, flow.backend)));
        }
        Some(None) if noted.remark == Some(Reason::FlowAtRisk) => {
            lines.push("flow: not known, though all that live should be (flow_at_risk)".to_owned());
        }
        Some(None) if noted.recorded => lines.push("flow: was not known, and is recorded now".to_owned()),
        Some(None) => lines.push("flow: not known".to_owned()),
        None => {}
    }
    if let Some((_, _, true)) = noted.forwarded {
        lines.push("flow: begins with this packet".to_owned());
    }
    match noted.fragment {
        Some(Some(record)) => {
            lines.push(format!("fragment: the first one went to {}", whose(names, record.backend)))
        }
        Some(None) => lines.push("fragment: no first one has been seen".to_owned()),
        None if noted.first_fragment => {
            lines.push("fragment: the first one, recorded for the others".to_owned())
        }
        None => {}
    }
    lines
}
