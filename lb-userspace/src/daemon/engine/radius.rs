//! What a config would do to the flows there are, as far as maps and counters tell.

use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, Error, Prepared};
use crate::daemon::blast::{Blast, Scene, blast};
use crate::dataplane::{DataPlane as _, monotonic_ns};
use crate::reconcile::{Census, Step};

impl Engine {
    /// Counts new flows, so that it is known later how many began of late.
    pub fn note_pace(&mut self) -> Result<(), Error> {
        let now_ns = monotonic_ns();
        if self.pace.is_due(now_ns) {
            let counted = self.new_flows()?;
            self.pace.note(now_ns, counted);
        }
        Ok(())
    }

    fn new_flows(&self) -> Result<BTreeMap<u32, u64>, Error> {
        let counters = self.plane.counters()?.backends;
        Ok(counters.into_iter().map(|(number, counted)| (number, counted.flows)).collect())
    }

    /// What a config would do to the flows there are.
    pub(super) fn blast(&self, prepared: &Prepared) -> Result<Vec<Blast>, Error> {
        let observed = &prepared.observed;
        // In a daemon the last sweep has counted: reading millions of flows would hold its loop.
        let left = match self.census() {
            Some(census) => Some(census.clone()),
            None => self.plane.flows()?.map(|flows| Census::of(observed, &flows)),
        };
        let written = prepared.plan.steps.iter().filter_map(|step| match step {
            Step::WriteSlots { start, .. } => Some(*start),
            _ => None,
        });
        Ok(blast(&Scene {
            observed,
            before: &self.model,
            after: &prepared.model,
            desired: &prepared.assembled.desired,
            uses: &self.uses,
            left: left.as_ref(),
            counted: &self.new_flows()?,
            pace: &self.pace,
            written: &written.collect::<BTreeSet<u32>>(),
        }))
    }
}
