//! What a service takes, written into the maps where its keys do not say it.
//!
//! A service of one port of one address has one key, which says it all. One of a range or a prefix has many, or shares
//! what stands for a prefix with others. It has a record besides: a key of [`RANGES`](lb_common::abi::names::RANGES)
//! that no packet is looked up with, because what is zero in a packet's key holds the last port and the prefix length.

use lb_common::abi::{Protocol, RangeKey};

use super::{TrieKey, narrow, wide};
use crate::model::{Prefix, ServiceId};

/// The record's key; `None` where the service's only key says it all.
pub(super) fn of(id: ServiceId) -> Option<TrieKey<RangeKey>> {
    if !id.is_prefix() && id.port == id.last_port {
        return None;
    }
    let [high, low] = id.last_port.to_be_bytes();
    let data = RangeKey {
        reserved: [id.prefix_len, high, low],
        ..RangeKey::new(wide(id.address), id.protocol, id.port.to_be_bytes())
    };
    Some(TrieKey { data, bits: RangeKey::BITS })
}

/// The service that a key is the record of; `None` for those that packets are looked up with.
pub(super) fn service(key: &TrieKey<RangeKey>) -> Option<ServiceId> {
    let [length, high, low] = key.data.reserved;
    // Last ports are never 0.
    let last_port = u16::from_be_bytes([high, low]);
    let Prefix { network, length } = Prefix::containing(narrow(key.data.address), length);
    (last_port != 0).then_some(ServiceId {
        address: network,
        prefix_len: length,
        protocol: Protocol::from_number(key.data.protocol)?,
        port: u16::from_be_bytes(key.data.port),
        last_port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_say_what_their_services_take() {
        let id = |address: &str, prefix_len, port, last_port| ServiceId {
            address: address.parse().unwrap(),
            prefix_len,
            protocol: Protocol::Udp,
            port,
            last_port,
        };
        for wanted in [
            id("203.0.113.10", 32, 0, 65_535),
            id("203.0.113.10", 32, 80, 81),
            id("203.0.113.0", 28, 80, 80),
            id("2001:db8::", 64, 80, 80),
            id("::", 0, 1, 65_535),
        ] {
            assert_eq!(of(wanted).as_ref().and_then(service), Some(wanted), "{wanted}");
        }
        assert_eq!(of(ServiceId::single([203, 0, 113, 10], Protocol::Tcp, 80)), None);
    }

    #[test]
    fn what_packets_are_looked_up_with_is_no_record() {
        let data = RangeKey::new(wide([203, 0, 113, 10].into()), Protocol::Tcp, [0, 80]);
        assert_eq!(service(&TrieKey { data, bits: RangeKey::BITS }), None);
    }
}
