//! What services need besides backends and rings: limits, source lists, QUIC server ids.

use std::collections::BTreeSet;

use lb_common::abi::{BackendId, Rate as RateWords, RateEntry, ServiceEntry};

use super::services::Services;
use super::{Observed, PlanError, Size, Step};
use crate::model::{Rate, RateLimits};

impl Services {
    /// Obstacles.
    pub(super) fn check_room(&self, errors: &mut Vec<PlanError>) {
        let mut room = |what, needed: u64, capacity: u32| {
            if needed > u64::from(capacity) {
                errors.push(PlanError::TooMany { what, needed, capacity: capacity.into() });
            }
        };
        room("prefixes in source lists", self.lists.len(), Size::ACL);
        room("QUIC server ids", self.quic.len() as u64, Size::QUIC_IDS);
    }

    /// Puts it there.
    pub(super) fn needs(&self, observed: &Observed, steps: &mut Vec<Step>) {
        steps.extend(self.fresh.iter().map(|id| Step::TakeServiceId(*id)));
        let rates = self.rates.iter().filter(|(id, entry)| observed.rates.get(*id) != Some(*entry));
        steps.extend(rates.map(|(id, entry)| Step::PutRates(*id, *entry)));
        let present = lists(observed);
        let new = self.lists.numbers().filter(|list| !present.contains(list));
        steps.extend(new.map(|list| Step::PutAcl { list, entries: self.lists.entries(list) }));
        let quic = self.quic.iter().filter(|(key, id)| observed.quic.get(*key) != Some(*id));
        steps.extend(quic.filter_map(|(key, id)| Some(Step::PutQuic(*key, BackendId::new(*id)?))));
    }

    /// Removes what nothing needs any more.
    pub(super) fn leftovers(&self, observed: &Observed, steps: &mut Vec<Step>) {
        let unwanted = observed.quic.keys().filter(|key| !self.quic.contains_key(*key));
        steps.extend(unwanted.map(|key| Step::DeleteQuic(*key)));
        let wanted: BTreeSet<u32> = self.lists.numbers().collect();
        if lists(observed).difference(&wanted).next().is_some() {
            steps.push(Step::KeepAcl(wanted));
        }
    }
}

/// Lists that are there whole: a service is turned to one only then.
fn lists(observed: &Observed) -> BTreeSet<u32> {
    let entries = observed.ranges.values().chain(observed.exact.values());
    entries.filter(|entry| entry.flags & ServiceEntry::ACL != 0).map(|entry| entry.acl).collect()
}

/// A service's limits as the maps have them; `None` if it has none.
pub(super) fn rates(limits: &RateLimits) -> Option<RateEntry> {
    let words = |rate: Option<Rate>| {
        let Some(Rate { per_second, burst }) = rate else { return RateWords::default() };
        let interval_ns = 1_000_000_000 / u64::from(per_second.max(1));
        RateWords { interval_ns, tolerance_ns: u64::from(burst.saturating_sub(1)) * interval_ns }
    };
    let entry = RateEntry {
        new_flows: words(limits.new_flows),
        packets: words(limits.packets),
        source_new_flows: words(limits.source_new_flows),
        source_packets: words(limits.source_packets),
        source_v4_bits: 96 + u32::from(limits.source_v4_len),
        source_v6_bits: limits.source_v6_len.into(),
    };
    let all = [limits.new_flows, limits.packets, limits.source_new_flows, limits.source_packets];
    all.iter().any(Option::is_some).then_some(entry)
}
