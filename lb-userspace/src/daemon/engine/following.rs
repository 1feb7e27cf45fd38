//! The data plane follows the machine, and what waits for its time.

use super::{Engine, Error, Machine};
use crate::daemon::{assemble, interfaces};
use crate::dataplane::{Attachment, DataPlane, attached};
use crate::model::Interface;
use crate::netlink::{Link, Snapshot};
use crate::reconcile::{self, Observed, Plan, PlanError, Step};

impl Engine {
    /// Takes the steps of a plan that was made for `observed`.
    pub(super) fn execute(&mut self, observed: &Observed, plan: &Plan) -> Result<(), Error> {
        let done = self.plane.run(plan);
        self.settling.note(observed, plan);
        done.map_err(|error| {
            self.postpone();
            Error::Partly(error)
        })
    }

    /// Whether the last config is there only in part, so that the rest of it is still to come.
    pub fn is_between(&self) -> bool {
        self.between
    }

    /// The last config is there as a whole.
    fn arrived(&mut self) {
        if std::mem::take(&mut self.between) {
            tracing::info!("the config that was applied only in part is in force as a whole");
            self.saved.last_error = None;
            self.remember();
        }
    }

    /// Follows the machine: next hops, interfaces' addresses and MTU, and interfaces that went and came back. Returns
    /// what changed.
    pub fn follow(&mut self, machine: Machine<'_>) -> Result<Vec<String>, Error> {
        self.instance.pins.prune(|ifindex| machine.links.by_index(ifindex).is_some())?;
        let present = self.present(machine.links);
        let observed = self.plane.observe()?;
        let attached = interfaces::find(&present, machine.links)?;
        let uses = self.uses_now(&self.model, &self.saved.drains);
        let mut assembled = assemble(&self.model, &attached, machine, &uses);
        self.paths.limit(&mut assembled.desired);
        assembled.findings.clear();
        assembled.desired.generation = observed.control.generation;
        let history = self.settling.history();
        let plan = reconcile::follow(&observed, &assembled.desired, &mut self.memo, history);
        let plan = plan.map_err(Error::Plan)?;
        self.execute(&observed, &plan)?;
        self.tell_lacking(&plan.lacking);
        self.arrived();
        self.assembled = assembled;
        if self.listen() {
            self.remember();
        }
        let mut changes: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        let observed = self.plane.glance()?;
        for (interface, link) in present.iter().zip(attached) {
            if !self.is_attached(link) {
                // The kernel has taken an interface that went away out of the redirect map.
                self.renew_port(&observed, link.ifindex)?;
                changes.push(interfaces::attach(&self.plane, &observed, interface, link)?);
            }
        }
        Ok(changes)
    }

    /// Warns of what services go without, once.
    fn tell_lacking(&mut self, lacking: &[PlanError]) {
        let before = std::mem::replace(&mut self.lacking, lacking.to_vec());
        for error in lacking.iter().filter(|error| !before.contains(error)) {
            tracing::warn!(%error, "{}", error.without());
        }
        if lacking.is_empty() && !before.is_empty() {
            tracing::info!("services have again what they went without");
        }
    }

    /// Interfaces of ours that are there now.
    pub(super) fn present(&self, links: &Snapshot) -> Vec<Interface> {
        self.interfaces.iter().filter(|interface| links.by_name(&interface.name).is_some()).cloned().collect()
    }

    fn is_attached(&self, link: &Link) -> bool {
        let running = link.xdp.as_ref().map(|xdp| xdp.program_id);
        let ours = |found: &Attachment| found.ifindex == link.ifindex && Some(found.program_id) == running;
        attached(&self.instance.pins).iter().any(ours)
    }

    pub(super) fn renew_port(&mut self, observed: &Observed, ifindex: u32) -> Result<(), Error> {
        let port = observed.ports.iter().find(|(_, port)| port.ifindex == ifindex);
        Ok(port.map_or(Ok(()), |(number, port)| self.plane.execute(&Step::PutPort(*number, *port)))?)
    }
}
