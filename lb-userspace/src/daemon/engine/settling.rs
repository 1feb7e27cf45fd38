//! What time settles, as the engine drives it: second steps of plans, and sweeps of the recorded flows.
//!
//! A sweep begins and ends here; the reading between, which takes seconds where there are millions of flows, is a [`Look`]
//! that any thread can take.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_common::abi::BackendId;

use super::{Engine, Error};
use crate::dataplane::{DataPlane, Error as PlaneError, FlowReader, monotonic_ns};
use crate::model::Model;
use crate::reconcile::{Census, History, Observed, Plan, Sweep, corrections};

/// Bounds of the time between two sweeps.
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(60);
/// After how long something that was due and failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of the data plane's past, and what is to be done in its future.
pub(super) struct Settling {
    history: History,
    due_ns: Option<u64>,
    census: Option<Census>,
    /// Plans that have changed something.
    plans: u64,
    /// Nothing has changed since the census began.
    counted: bool,
    forced: u64,
    /// By service, as services are displayed.
    forced_of: BTreeMap<String, u64>,
}

impl Settling {
    /// Of a data plane that nobody has written to for some time.
    pub(super) fn adopt(observed: &Observed, untouched: Duration) -> Self {
        let untouched_ns = u64::try_from(untouched.as_nanos()).unwrap_or(u64::MAX);
        let history = History::adopt(observed, observed.now_ns.saturating_sub(untouched_ns));
        let forced_of = BTreeMap::new();
        Self { history, due_ns: None, census: None, plans: 0, counted: false, forced: 0, forced_of }
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// Notes what a plan has changed.
    pub(super) fn note(&mut self, observed: &Observed, plan: &Plan) {
        self.history.note(observed, plan);
        self.due_ns = plan.due_ns;
        self.counted &= plan.steps.is_empty();
        self.plans += u64::from(!plan.steps.is_empty());
    }

    /// Whether a sweep would find nothing that anybody waits for. Who leaves waits for one that has counted since the
    /// last plan, also where nothing is recorded: so it is known that it has no flows.
    fn is_idle(&self, needs_flows: bool, leaving: bool) -> bool {
        // What is recorded in slots that have settled dies as well.
        let some = self.census.as_ref().is_none_or(|census| census.entries() > 0);
        let awaited = leaving && !self.counted;
        !(some || needs_flows || awaited)
    }

    /// What the last sweep has found, if that still holds.
    pub(super) fn fresh_census(&self) -> Option<&Census> {
        self.census.as_ref().filter(|_| self.counted)
    }
}

/// A sweep, and the recorded flows it is to see.
pub struct Look {
    swept: Swept,
    reader: FlowReader,
}

/// A sweep, and what policies took backends' loads for when it began.
pub struct Swept {
    sweep: Sweep,
    loads: BTreeMap<BackendId, i64>,
    /// How many plans had been executed by then.
    plans: u64,
}

impl Look {
    /// Shows the sweep all flows. `None` where not all could be read: then nothing settles, and the next one tries again.
    pub fn read(mut self) -> Result<Option<Swept>, PlaneError> {
        let whole = self.reader.read(&mut self.swept.sweep)?;
        Ok(whole.then_some(self.swept))
    }
}

impl Engine {
    /// Begins a sweep; `None` where there is nothing to be found.
    pub fn begin_sweep(&self) -> Result<Option<Look>, Error> {
        let observed = self.plane.observe()?;
        let leaving = !self.saved.drains.leaving.is_empty();
        if self.settling.is_idle(observed.needs_flows(), leaving) {
            return Ok(None);
        }
        let reader = FlowReader::open(&self.instance.pins)?;
        let loads = self.plane.loads(&observed.counted());
        Ok(Some(Look {
            swept: Swept { sweep: Sweep::begin(&observed), loads, plans: self.settling.plans },
            reader,
        }))
    }

    /// Ends a sweep that has seen all flows: settles slots and frees ids where it is time.
    pub fn finish_sweep(&mut self, swept: Swept) -> Result<(), Error> {
        let observed = self.plane.observe()?;
        let (plan, census) = swept.sweep.finish(&observed, &mut self.settling.history);
        self.plane.run(&plan)?;
        self.plane.correct_loads(&corrections(&swept.loads, &census.open));
        if census.forced > 0 {
            tracing::warn!(
                slots = census.forced,
                "settled because they have been unsettled for too long; some of their flows may move"
            );
        }
        self.settling.forced += census.forced;
        for (id, entry) in observed.services() {
            let forced = census.forced_of.get(&entry.id);
            if let Some(slots) = forced {
                *self.settling.forced_of.entry(id.to_string()).or_default() += slots;
            }
        }
        self.settling.census = Some(census);
        // A flow that began on a backend behind the read position, before a plan took its slots away, is not in it.
        self.settling.counted = swept.plans == self.settling.plans;
        Ok(())
    }

    /// A whole sweep, here and now.
    pub fn sweep(&mut self) -> Result<(), Error> {
        let Some(look) = self.begin_sweep()? else { return Ok(()) };
        match look.read()? {
            Some(sweep) => self.finish_sweep(sweep),
            None => Ok(()),
        }
    }

    /// How long until the next sweep: each flow is seen a few times in its life.
    pub fn sweep_interval(&self) -> Duration {
        interval(&self.model)
    }

    /// How long until something that waits for its second step is due.
    pub fn due_in(&self) -> Option<Duration> {
        self.settling.due_ns.map(|due_ns| Duration::from_nanos(due_ns.saturating_sub(monotonic_ns())))
    }

    /// Has what is due and could not be done wait.
    pub fn postpone(&mut self) {
        self.settling.due_ns = Some(monotonic_ns() + AGAIN.as_nanos() as u64);
    }

    /// What the last sweep has found.
    pub fn census(&self) -> Option<&Census> {
        self.settling.census.as_ref()
    }

    /// Slots that have settled only because it took too long, since this engine began.
    pub fn forced(&self) -> u64 {
        self.settling.forced
    }

    /// The same by service, as services are displayed.
    pub fn forced_of(&self) -> &BTreeMap<String, u64> {
        &self.settling.forced_of
    }

    /// In how many seconds the first slot settles by force that had a backend, by its number, as of the last sweep.
    pub fn settling_s(&self) -> BTreeMap<u32, u64> {
        let now_ns = monotonic_ns();
        let known = self.settling.census.iter().flat_map(|census| &census.forced_at_ns);
        known.map(|(id, at_ns)| (*id, at_ns.saturating_sub(now_ns) / 1_000_000_000)).collect()
    }
}

/// A quarter of the shortest time after which a flow is dead.
fn interval(model: &Model) -> Duration {
    let times = model.services.iter().map(|service| {
        let idle = service.flows.idle;
        idle.established.min(idle.half_open).min(idle.closing)
    });
    times.min().map_or(LONGEST, |shortest| (shortest / 4).clamp(SHORTEST, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::Step;

    /// A sweep has found nothing, then a plan changes what has nothing to do with any slot: those who leave wait for
    /// another sweep, or they would wait for ever.
    #[test]
    fn who_leaves_is_counted_anew_after_a_plan() {
        let observed = Observed::default();
        let mut settling = Settling::adopt(&observed, Duration::ZERO);
        assert!(!settling.is_idle(false, false), "nobody has looked yet");
        (settling.census, settling.counted) = (Some(Census::default()), true);
        assert!(settling.is_idle(false, true) && !settling.is_idle(true, false));
        settling.note(&observed, &Plan { steps: vec![Step::TakeServiceId(1)], ..Plan::default() });
        assert!(settling.fresh_census().is_none());
        assert!(settling.is_idle(false, false), "nobody waits");
        assert!(!settling.is_idle(false, true));
    }
}
