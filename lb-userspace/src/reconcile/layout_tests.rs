//! The keys give each packet to the service that the model says.

use super::*;
use proptest::prelude::*;
use std::net::IpAddr;

fn id(address: &str, prefix_len: u8, port: u16, last_port: u16) -> ServiceId {
    ServiceId { address: address.parse().unwrap(), prefix_len, protocol: Protocol::Tcp, port, last_port }
}

/// The service that the engine finds by the keys.
fn found(layout: &Layout, address: IpAddr, port: u16) -> Option<usize> {
    let at = |address: [u8; 16]| {
        let key = ServiceKey { address, port: port.to_be_bytes(), protocol: 6, reserved: 0, padding: 0 };
        let block = |key: &TrieKey<RangeKey>| {
            let there = u16::from_be_bytes(key.data.port);
            let differing = u32::from(there ^ port).leading_zeros() - 16;
            key.data.address == address && differing >= key.bits - RangeKey::PORT_AT
        };
        let range = layout.ranges.iter().filter(|(key, _)| block(key)).max_by_key(|(key, _)| key.bits);
        layout.exact.get(&key).or(range.map(|(_, index)| index)).copied()
    };
    let wanted = u128::from_be_bytes(wide(address));
    let fits = |key: &TrieKey<PrefixKey>| {
        let bits = key.bits - PrefixKey::ADDRESS_AT;
        (wanted ^ u128::from_be_bytes(key.data.address)).leading_zeros() >= bits
    };
    let prefix = layout.prefixes.iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| key.bits);
    at(wide(address)).or_else(|| at(prefix_address(prefix?.1.number)))
}

/// The service that shall get it.
fn wanted(ids: &[ServiceId], address: IpAddr, port: u16) -> Option<usize> {
    let takes = |id: &ServiceId| id.prefix().contains(address) && id.ports().contains(&port);
    let takes = ids.iter().enumerate().filter(|(_, id)| takes(id));
    let key = |id: &ServiceId| (std::cmp::Reverse(id.prefix_len), width(id.port, id.last_port), *id);
    takes.min_by_key(|(_, id)| key(id)).map(|(index, _)| index)
}

#[test]
fn few_keys_suffice() {
    let count = |ids: &[ServiceId]| {
        let layout = of(ids, &BTreeMap::new(), &Observed::default());
        (layout.exact.len(), layout.ranges.len())
    };
    assert_eq!(count(&[id("192.0.2.1", 32, 80, 80)]), (1, 0));
    assert_eq!(count(&[id("192.0.2.1", 32, 8000, 8063)]), (64, 0));
    assert_eq!(count(&[id("192.0.2.1", 32, 8000, 8064)]), (0, 2));
    assert_eq!(count(&[id("192.0.2.1", 32, 0, 65_535)]), (0, 1));
    let holes = [id("192.0.2.1", 32, 0, 65_535), id("192.0.2.1", 32, 80, 80), id("192.0.2.1", 32, 443, 443)];
    assert_eq!(count(&holes), (2, 1), "single ports do not cut ranges up");
    assert_eq!(count(&[id("192.0.2.1", 32, 1, 65_534)]), (0, 30));
}

#[test]
fn flags_come_from_the_longest_vip_prefix() {
    let vip = |text: &str, length, flags| {
        let prefix = Prefix { network: text.parse::<IpAddr>().unwrap(), length };
        (prefix, VipEntry { flags, reserved: 0 })
    };
    let vips = BTreeMap::from([vip("192.0.2.0", 24, 4), vip("192.0.2.0", 26, 2), vip("192.0.2.1", 32, 1)]);
    let layout =
        of(&[id("192.0.2.0", 28, 80, 80), id("192.0.2.64", 26, 80, 80)], &vips, &Observed::default());
    let flags: Vec<(u32, u32)> =
        layout.prefixes.iter().map(|(key, entry)| (key.bits - 128, entry.flags)).collect();
    assert_eq!(flags, [(24, 4), (26, 2), (28, 2), (26, 4)]);
}

fn any_id() -> impl Strategy<Value = ServiceId> {
    let prefix = prop_oneof![3 => Just(32u8), 1 => Just(31), 1 => Just(30), 1 => Just(29)];
    let port = prop_oneof![0u16..=300, 65_200u16..=65_535, any::<u16>()];
    let width = prop_oneof![4 => Just(0u16), 2 => 1u16..100, 3 => any::<u16>()];
    let address = (0u8..8).prop_map(|last| IpAddr::from([192, 0, 2, last]));
    (address, prefix, port, width, 0..8).prop_map(|(address, prefix_len, port, width, any)| {
        let port = port.max(1);
        let (port, last_port) = if any == 0 { (0, 65_535) } else { (port, port.saturating_add(width)) };
        let network = Prefix::containing(address, prefix_len).network;
        ServiceId { address: network, prefix_len, protocol: Protocol::Tcp, port, last_port }
    })
}

proptest! {
    #[test]
    fn the_most_specific_service_gets_a_packet(ids in proptest::collection::btree_set(any_id(), 1..12)) {
        let ids: Vec<ServiceId> = ids.into_iter().collect();
        let layout = of(&ids, &BTreeMap::new(), &Observed::default());
        let edges = ids.iter().flat_map(|id| [id.port.saturating_sub(1), id.port, id.last_port, id.last_port.saturating_add(1)]);
        let ports: BTreeSet<u16> = edges.chain([0, 1, 255, 256, 32_767, 32_768, 65_535]).collect();
        for address in (0u8..9).map(|last| IpAddr::from([192, 0, 2, last])) {
            for port in &ports {
                prop_assert_eq!(found(&layout, address, *port), wanted(&ids, address, *port), "{}:{}", address, port);
            }
        }
    }
}
