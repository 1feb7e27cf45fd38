//! By what services are found: their keys, records, prefixes and addresses, before and after.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{
    PrefixEntry, PrefixKey, RangeKey, ServiceEntry, ServiceKey, VipEntry, VipKey, prefix_address,
};

use super::layout::{self, Layout};
use super::{Desired, Observed, PlanError, Size, Step, TrieKey, record, wide};
use crate::model::ServiceId;

/// What is wanted of them.
pub(super) struct Keys {
    exact: BTreeMap<ServiceKey, ServiceEntry>,
    ranges: BTreeMap<TrieKey<RangeKey>, ServiceEntry>,
    records: BTreeMap<TrieKey<RangeKey>, ServiceEntry>,
    prefixes: BTreeMap<TrieKey<PrefixKey>, PrefixEntry>,
    vips: BTreeMap<VipKey, VipEntry>,
}

/// How many single ports of addresses services like these take.
pub fn key_count(services: impl Iterator<Item = ServiceId>) -> usize {
    let ids: Vec<ServiceId> = services.collect();
    layout::of(&ids, &BTreeMap::new(), &Observed::default()).exact.len()
}

impl Keys {
    /// The keys of services with these entries, in the order of the desired ones.
    pub(super) fn new(
        observed: &Observed,
        desired: &Desired,
        entries: &[ServiceEntry],
        errors: &mut Vec<PlanError>,
    ) -> Self {
        let ids: Vec<ServiceId> = desired.services.iter().map(|service| service.id).collect();
        let Layout { exact, ranges, prefixes } = layout::of(&ids, &desired.vips, observed);
        let entry = |index: usize| entries.get(index).copied().unwrap_or_default();
        let records = ids.iter().enumerate();
        // An address without an entry is nobody's: the data plane does not look for services there.
        let served = ids.iter().map(|id| (id.prefix(), VipEntry::default()));
        let vips = served.chain(desired.vips.iter().map(|(prefix, vip)| (*prefix, *vip)));
        let hosts = vips.filter(|(prefix, _)| prefix.is_host());
        let keys = Self {
            exact: exact.into_iter().map(|(key, index)| (key, entry(index))).collect(),
            ranges: ranges.into_iter().map(|(key, index)| (key, entry(index))).collect(),
            records: records.filter_map(|(index, id)| Some((record::of(*id)?, entry(index)))).collect(),
            prefixes,
            vips: hosts.map(|(prefix, vip)| (VipKey { address: wide(prefix.network) }, vip)).collect(),
        };
        keys.check_room(observed, errors);
        keys
    }

    pub(super) fn has_ranges(&self) -> bool {
        !self.ranges.is_empty()
    }

    pub(super) fn has_prefixes(&self) -> bool {
        !self.prefixes.is_empty()
    }

    /// New keys are there before old ones go: there is room for both.
    fn check_room(&self, observed: &Observed, errors: &mut Vec<PlanError>) {
        let mut room = |what, needed: usize, capacity: u32, limit| {
            let (needed, capacity) = (needed as u64, u64::from(capacity));
            if needed > capacity {
                errors.push(PlanError::Full { what, needed, capacity, limit });
            }
        };
        let exact: BTreeSet<_> = self.exact.keys().chain(observed.exact.keys()).collect();
        let ranges = self.ranges.keys().chain(self.records.keys()).chain(observed.ranges.keys());
        let ranges: BTreeSet<_> = ranges.collect();
        let prefixes: BTreeSet<_> = self.prefixes.keys().chain(observed.prefixes.keys()).collect();
        room("ports of service addresses", exact.len(), observed.size.keys, "services");
        room("blocks of ports", ranges.len(), Size::RANGES, "services");
        room("prefixes of service addresses", prefixes.len(), Size::PREFIXES, "services");
        room("service addresses", self.vips.len(), observed.size.vips, "services");
    }

    /// The way there. What decides first is there before what decides later, and goes after it: the keys of addresses,
    /// then those of each prefix from the longest to the shortest, which is looked at only when all of its keys are
    /// there; among the keys of one, single ports, then blocks from the smallest to the largest. So whatever a packet
    /// finds in between is what it found before or what it finds in the end.
    pub(super) fn steps(&self, observed: &Observed, steps: &mut Vec<Step>) {
        let put_range = |(key, entry): (&TrieKey<RangeKey>, &ServiceEntry)| Step::PutRange(*key, *entry);
        steps.extend(changed(&self.records, &observed.ranges).map(put_range));
        let order = Order::new(self, observed);
        let exact = changed(&self.exact, &observed.exact)
            .map(|(key, entry)| (order.exact(key), Step::PutService(*key, *entry)));
        let ranges = changed(&self.ranges, &observed.ranges)
            .map(|(key, entry)| (order.range(key), put_range((key, entry))));
        let prefixes = changed(&self.prefixes, &observed.prefixes)
            .map(|(key, entry)| (order.prefix(key), Step::PutPrefix(*key, *entry)));
        let mut puts: Vec<(Place, Step)> = exact.chain(ranges).chain(prefixes).collect();
        puts.sort_by_key(|(place, _)| *place);
        steps.extend(puts.into_iter().map(|(_, step)| step));
        // First those that go, which no wanted service has: the map may have no room for both.
        steps.extend(gone(&observed.vips, &self.vips).map(|key| Step::DeleteVip(*key)));
        steps.extend(changed(&self.vips, &observed.vips).map(|(key, entry)| Step::PutVip(*key, *entry)));
        let unwanted = gone(&observed.ranges, &self.ranges).filter(|key| !self.records.contains_key(*key));
        let (records, ranges): (Vec<&TrieKey<_>>, Vec<&TrieKey<_>>) =
            unwanted.partition(|key| record::service(key).is_some());
        let exact =
            gone(&observed.exact, &self.exact).map(|key| (order.exact(key), Step::DeleteService(*key)));
        let ranges = ranges.into_iter().map(|key| (order.range(key), Step::DeleteRange(*key)));
        let prefixes =
            gone(&observed.prefixes, &self.prefixes).map(|key| (order.prefix(key), Step::DeletePrefix(*key)));
        let mut deletes: Vec<(Place, Step)> = exact.chain(ranges).chain(prefixes).collect();
        deletes.sort_by_key(|(place, _)| Reverse(*place));
        steps.extend(deletes.into_iter().map(|(_, step)| step));
        steps.extend(records.into_iter().map(|key| Step::DeleteRange(*key)));
    }
}

/// When something decides about a packet: by the bits of its prefix, and then by the bits of its block of ports, both
/// from many to few.
type Place = (Reverse<u32>, Reverse<u32>);

/// The order in which keys decide.
struct Order {
    /// Bits of each prefix by what stands for it.
    bits: BTreeMap<[u8; 16], u32>,
}

impl Order {
    fn new(keys: &Keys, observed: &Observed) -> Self {
        let all = keys.prefixes.iter().chain(&observed.prefixes);
        Self { bits: all.map(|(key, entry)| (prefix_address(entry.number), key.bits)).collect() }
    }

    fn at(&self, address: &[u8; 16]) -> Reverse<u32> {
        Reverse(self.bits.get(address).copied().unwrap_or(u32::MAX))
    }

    fn exact(&self, key: &ServiceKey) -> Place {
        (self.at(&key.address), Reverse(u32::MAX))
    }

    fn range(&self, key: &TrieKey<RangeKey>) -> Place {
        (self.at(&key.data.address), Reverse(key.bits))
    }

    /// A prefix lets its keys decide.
    fn prefix(&self, key: &TrieKey<PrefixKey>) -> Place {
        (Reverse(key.bits), Reverse(0))
    }
}

/// Wanted entries that are not there as they shall be.
fn changed<'a, K: Ord, V: PartialEq>(
    wanted: &'a BTreeMap<K, V>,
    present: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    wanted.iter().filter(|(key, entry)| present.get(*key) != Some(*entry))
}

/// Keys of entries that are not wanted.
fn gone<'a, K: Ord, V>(
    present: &'a BTreeMap<K, V>,
    wanted: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    present.keys().filter(|key| !wanted.contains_key(*key))
}
