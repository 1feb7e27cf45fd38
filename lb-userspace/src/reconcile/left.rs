//! What is left of each backend's flows, as far as flow tables and slots tell.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{Protocol, SlotState};

use super::{Flow, Observed};
use crate::model::IdleTimes;

/// What is left of backends' flows, by their numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Left {
    /// Live recorded flows.
    pub flows: BTreeMap<u32, u64>,
    /// Backends that may have flows which nobody has recorded: slots name them as current owner, or as the one before
    /// and are fresh.
    pub unseen: BTreeSet<u32>,
}

impl Left {
    /// Counts the live ones of the flows that were observed.
    pub fn of(observed: &Observed) -> Self {
        let mut left = Self::default();
        for flow in observed.flows.iter().filter(|flow| is_live(flow, observed.now_ns)) {
            *left.flows.entry(flow.entry.backend).or_default() += 1;
        }
        for slot in observed.rings.values().flatten() {
            left.unseen.insert(slot.current().get());
            // A late one's older flows have all been recorded.
            if slot.state() == SlotState::Fresh {
                left.unseen.insert(slot.previous().get());
            }
        }
        left
    }

    /// Whether a backend has no flow, and may have none that nobody has recorded.
    pub fn is_done(&self, backend: u32) -> bool {
        !self.flows.contains_key(&backend) && !self.unseen.contains(&backend)
    }
}

fn is_live(flow: &Flow, now_ns: u64) -> bool {
    let protocol = Protocol::from_number(flow.key.protocol).unwrap_or(Protocol::Tcp);
    let idle_ns = IdleTimes::of(protocol).established.as_nanos();
    u128::from(now_ns.saturating_sub(flow.entry.last_seen_ns)) <= idle_ns
}
