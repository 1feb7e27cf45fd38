//! Live flows per backend, as policies that go by them have it. Programs add the flows that they record and take off
//! those that close; what falls out of a full table, or falls silent, nobody takes off. So every sweep says what is right.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendId, PolicyKind};

use super::Observed;

impl Observed {
    /// Backends whose service goes by how many live flows they have.
    pub fn counted(&self) -> Vec<BackendId> {
        self.backends_by(PolicyKind::FewerFlows)
    }

    /// Backends whose service goes by what userspace measures of them.
    pub fn measured(&self) -> Vec<BackendId> {
        self.backends_by(PolicyKind::LessLoad)
    }

    fn backends_by(&self, kind: PolicyKind) -> Vec<BackendId> {
        let by = self.policies.iter().filter(|(_, policy)| PolicyKind::from_raw(policy.kind) == kind);
        let services: BTreeSet<u32> = by.map(|(id, _)| *id).collect();
        let ours = self.backends.iter().filter(|(_, backend)| services.contains(&backend.service));
        ours.filter_map(|(id, _)| BackendId::new(*id)).collect()
    }
}

/// What is to be added to loads. `before` has those that were there when the sweep began; `live` the flows that it found,
/// without those that are closing. It is added rather than written, so that what programs count meanwhile is kept. A flow
/// that begins or closes under the sweep may be counted twice or not at all, until the next one.
pub fn corrections(before: &BTreeMap<BackendId, i64>, live: &BTreeMap<u32, u64>) -> Vec<(BackendId, i64)> {
    let right =
        |id: &BackendId| live.get(&id.get()).map_or(0, |count| i64::try_from(*count).unwrap_or(i64::MAX));
    let wrong = before.iter().map(|(id, load)| (*id, right(id).wrapping_sub(*load)));
    wrong.filter(|(_, by)| *by != 0).collect()
}
