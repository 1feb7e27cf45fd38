//! By what services are found: their keys, records, prefixes and addresses, before and after.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{PrefixEntry, PrefixKey, RangeKey, ServiceEntry, ServiceKey, VipEntry, VipKey};

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
        let hosts = desired.vips.iter().filter(|(prefix, _)| prefix.is_host());
        let keys = Self {
            exact: exact.into_iter().map(|(key, index)| (key, entry(index))).collect(),
            ranges: ranges.into_iter().map(|(key, index)| (key, entry(index))).collect(),
            records: records.filter_map(|(index, id)| Some((record::of(*id)?, entry(index)))).collect(),
            prefixes,
            vips: hosts.map(|(prefix, vip)| (VipKey { address: wide(prefix.network) }, *vip)).collect(),
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

    /// The way there. Longer matches come before the shorter ones that lie behind them, and go after them; a prefix is
    /// looked at only when everything for it is there. So whatever a packet finds in between is what it found before or
    /// what it finds in the end.
    pub(super) fn steps(&self, observed: &Observed, steps: &mut Vec<Step>) {
        let put_range = |(key, entry): (&TrieKey<RangeKey>, &ServiceEntry)| Step::PutRange(*key, *entry);
        steps.extend(changed(&self.records, &observed.ranges).map(put_range));
        steps
            .extend(changed(&self.exact, &observed.exact).map(|(key, entry)| Step::PutService(*key, *entry)));
        let mut ranges: Vec<(&TrieKey<RangeKey>, _)> = changed(&self.ranges, &observed.ranges).collect();
        ranges.sort_by_key(|(key, _)| std::cmp::Reverse(key.bits));
        steps.extend(ranges.into_iter().map(put_range));
        let prefixes = changed(&self.prefixes, &observed.prefixes);
        steps.extend(prefixes.map(|(key, entry)| Step::PutPrefix(*key, *entry)));
        // First those that go, which no wanted service has: the map may have no room for both.
        steps.extend(gone(&observed.vips, &self.vips).map(|key| Step::DeleteVip(*key)));
        steps.extend(changed(&self.vips, &observed.vips).map(|(key, entry)| Step::PutVip(*key, *entry)));
        steps.extend(gone(&observed.prefixes, &self.prefixes).map(|key| Step::DeletePrefix(*key)));
        let unwanted = gone(&observed.ranges, &self.ranges).filter(|key| !self.records.contains_key(*key));
        let (records, mut ranges): (Vec<&TrieKey<_>>, Vec<&TrieKey<_>>) =
            unwanted.partition(|key| record::service(key).is_some());
        ranges.sort_by_key(|key| key.bits);
        steps.extend(ranges.into_iter().map(|key| Step::DeleteRange(*key)));
        steps.extend(gone(&observed.exact, &self.exact).map(|key| Step::DeleteService(*key)));
        steps.extend(records.into_iter().map(|key| Step::DeleteRange(*key)));
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
