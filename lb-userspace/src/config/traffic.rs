//! What a service takes: every combination of its addresses, protocols and ports.

use super::decode::{At, Fields};
use super::diagnostic::Findings;
use super::source::Span;
use super::value_net::{ADDRESSES, PORTS, PROTOCOL, Ports};
use crate::model::{Prefix, Protocol, ServiceId};

/// What a service takes, as written.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    pub(super) addresses: Vec<At<Prefix>>,
    pub(super) protocols: Vec<At<Protocol>>,
    pub(super) ports: Vec<At<Ports>>,
}

impl Traffic {
    pub(super) fn read(fields: &Fields<'_>, out: &mut Findings<'_>) -> Traffic {
        Traffic {
            addresses: fields.one_or_many(("address", "addresses"), &ADDRESSES, out),
            protocols: fields.one_or_many(("protocol", "protocols"), &PROTOCOL, out),
            ports: fields.one_or_many(("port", "ports"), &PORTS, out),
        }
    }

    /// How many combinations there are.
    pub(super) fn count(&self) -> usize {
        self.addresses.len().saturating_mul(self.protocols.len()).saturating_mul(self.ports.len())
    }

    /// Every combination, and the place to point to: its port.
    pub(super) fn ids(&self) -> impl Iterator<Item = (ServiceId, Span)> + '_ {
        self.addresses.iter().flat_map(move |address| {
            self.protocols.iter().flat_map(move |protocol| {
                self.ports
                    .iter()
                    .map(move |ports| (id(address.value, protocol.value, ports.value), ports.span))
            })
        })
    }
}

fn id(address: Prefix, protocol: Protocol, ports: Ports) -> ServiceId {
    ServiceId {
        address: address.network,
        prefix_len: address.length,
        protocol,
        port: ports.first,
        last_port: ports.last,
    }
}
