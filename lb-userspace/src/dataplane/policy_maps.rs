//! What services pick backends by, in mapped memory: policies, weights, loads.

use std::collections::BTreeMap;

use lb_common::abi::{BackendId, LoadEntry, PolicyEntry};

use super::mmap::Words;

/// Words of a service's policy.
pub(super) const POLICY_WORDS: usize = size_of::<PolicyEntry>() / 8;
/// Words of a backend's load.
pub(super) const LOAD_WORDS: usize = size_of::<LoadEntry>() / 8;
/// Which of them the load is, and which the weight.
const LOAD: usize = 0;
const WEIGHT: usize = 1;

/// Both maps.
pub(super) struct PolicyMaps {
    /// By service id.
    pub(super) policies: Words,
    /// By backend id.
    pub(super) loads: Words,
}

impl PolicyMaps {
    /// All policies that are not all zero, of service ids below `services`.
    pub(super) fn policies(&self, services: u32) -> BTreeMap<u32, PolicyEntry> {
        let policy = |id: u32| {
            let start = id as usize * POLICY_WORDS;
            PolicyEntry::from_words(std::array::from_fn(|word| self.policies.load(start + word)))
        };
        let all = (0..services).map(|id| (id, policy(id)));
        all.filter(|(_, policy)| *policy != PolicyEntry::default()).collect()
    }

    /// Sets a policy. Its schedule comes first, which is there whatever the kind says meanwhile.
    pub(super) fn put_policy(&self, service: u32, entry: &PolicyEntry) {
        let start = service as usize * POLICY_WORDS;
        for (word, value) in entry.words().into_iter().enumerate() {
            self.policies.store(start + word, value);
        }
    }

    /// A backend's weight.
    pub(super) fn weight(&self, backend: u32) -> u64 {
        self.loads.load(backend as usize * LOAD_WORDS + WEIGHT)
    }

    /// Sets it.
    pub(super) fn put_weight(&self, backend: BackendId, weight: u64) {
        self.loads.store(backend.get() as usize * LOAD_WORDS + WEIGHT, weight);
    }

    /// A backend's load.
    pub(super) fn load(&self, backend: BackendId) -> u64 {
        self.loads.load(backend.get() as usize * LOAD_WORDS + LOAD)
    }

    /// Sets it.
    pub(super) fn set_load(&self, backend: BackendId, load: u64) {
        self.loads.store(backend.get() as usize * LOAD_WORDS + LOAD, load);
    }

    /// Adds to it; what programs add meanwhile is kept.
    pub(super) fn add_load(&self, backend: BackendId, by: i64) {
        self.loads.add(backend.get() as usize * LOAD_WORDS + LOAD, by);
    }
}
