//! Backends on their way out, as the engine keeps them.

use std::collections::BTreeMap;

use super::{Engine, Error, Saved, places};
use crate::daemon::leaving::{next_deadline, overdue};
use crate::daemon::{Drains, Leaver, overrides};
use crate::health::fleet::{Place, Uses};
use crate::model::{Backend, Model, Service};
use crate::reconcile::{Census, Observed};

/// What was saved, without those that the data plane does not have.
pub(super) fn found(mut saved: Saved, listed: &Model, observed: &Observed) -> Saved {
    saved.drains.let_go(listed, &places(observed), None, Saved::now());
    saved
}

impl Engine {
    /// Lets go of those that have left and of which the last sweep has found no flows, or that have no time any more;
    /// they are retired with the next [`Engine::follow`]. Returns them.
    pub fn let_go(&mut self) -> Result<Vec<Leaver>, Error> {
        if self.saved.drains.leaving.is_empty() {
            return Ok(Vec::new());
        }
        let observed = self.plane.glance()?;
        let mut left = self.settling.fresh_census().cloned();
        if let Some(left) = &mut left {
            self.keep_named(&observed, left)?;
        }
        Ok(self.release(&observed, left.as_ref()))
    }

    /// QUIC packets that name their server are recorded nowhere: such a backend may have flows until no packet has come
    /// for it for an idle time.
    fn keep_named(&mut self, observed: &Observed, left: &mut Census) -> Result<(), Error> {
        let leaving = &self.saved.drains.leaving;
        let reads_ids = |service: &&Service| service.quic.is_some_and(|quic| quic.server_id.is_some());
        let is_named = |service: &Service, backend: &Backend| {
            let leaves = leaving.iter().any(|leaver| {
                leaver.backend.address == backend.address && leaver.service == service.id.to_string()
            });
            leaves && backend.server_id.is_some()
        };
        let named: Vec<(Place, u128)> = self
            .model
            .services
            .iter()
            .filter(reads_ids)
            .flat_map(|service| service.backends.iter().map(move |backend| (service, backend)))
            .filter(|(service, backend)| is_named(service, backend))
            .map(|(service, b)| ((service.id, b.address), service.flows.idle.established.as_nanos()))
            .collect();
        if named.is_empty() {
            self.named.clear();
            return Ok(());
        }
        let (counted, places) = (self.plane.counters()?.backends, places(observed));
        for (place, idle_ns) in named {
            let Some((number, _)) = places.get(&place) else { continue };
            let packets = counted.get(number).map_or(0, |counted| counted.packets);
            let (seen, since_ns) = self.named.entry(*number).or_insert((packets, observed.now_ns));
            if *seen != packets {
                (*seen, *since_ns) = (packets, observed.now_ns);
            }
            if u128::from(observed.now_ns.saturating_sub(*since_ns)) < idle_ns {
                left.current.insert(*number);
            }
        }
        Ok(())
    }

    /// The same where no daemon runs, so that slots stay fresh for as long as nobody settles them.
    pub fn let_go_alone(&mut self) -> Result<Vec<Leaver>, Error> {
        let observed = self.plane.glance()?;
        let mut left = self.settling.fresh_census().cloned();
        if let Some(left) = &mut left {
            self.keep_named(&observed, left)?;
            self.saved.drains.heard_out(&self.listed, &places(&observed), left, Saved::now());
        }
        Ok(self.release(&observed, left.as_ref()))
    }

    /// Lets go of those that have left and whose time is over.
    pub fn expire(&mut self) -> Result<Vec<Leaver>, Error> {
        // What ends within this second has ended: times are compared in seconds.
        self.expired_to = Saved::now();
        if self.saved.drains.leaving.is_empty() {
            return Ok(Vec::new());
        }
        let observed = self.plane.glance()?;
        Ok(self.release(&observed, None))
    }

    fn release(&mut self, observed: &Observed, left: Option<&Census>) -> Vec<Leaver> {
        let gone = self.saved.drains.let_go(&self.listed, &places(observed), left, Saved::now());
        if !gone.is_empty() {
            self.model = self.saved.drains.join(&self.listed);
            self.remember();
        }
        gone
    }

    /// What backends get now: those whose time to drain is over get nothing.
    pub(super) fn uses_now(&self, model: &Model, drains: &Drains) -> Uses {
        overdue(&self.uses, &drains.deadlines(model, &self.saved.overrides), Saved::now())
    }

    /// When what is left of each drained backend's flows moves, in seconds since 1970.
    pub fn deadlines(&self) -> BTreeMap<Place, u64> {
        self.saved.drains.deadlines(&self.model, &self.saved.overrides)
    }

    /// How long until the next word of the operator or deadline ends.
    pub fn next_end(&self, now: u64) -> Option<std::time::Duration> {
        let deadline = next_deadline(&self.deadlines(), self.expired_to);
        let deadline = deadline.map(|end| std::time::Duration::from_secs(end.saturating_sub(now)));
        overrides::next_end(&self.saved.overrides, now).into_iter().chain(deadline).min()
    }
}
