//! A data plane for probes alone: all backends are there and no service is, so that whatever else comes in passes.

use std::collections::BTreeMap;

use super::{Candidate, Engine, Error, Instance, Machine, known, size};
use crate::daemon::{assemble, interfaces};
use crate::dataplane::{DataPlane, KernelPlane, MemoryPlane};
use crate::health::fleet::{Place, Uses};
use crate::reconcile::{History, Memo, Plan, Size, Step, plan};

impl Engine {
    /// Makes an empty data plane that nobody else knows of.
    pub fn aside(instance: &Instance, candidate: &Candidate) -> Result<Self, Error> {
        instance.prepare()?;
        let lock = instance.pins.lock()?;
        KernelPlane::open_or_create(&instance.pins, &size(&candidate.loaded.model))?;
        Self::adopt(instance, candidate, lock)
    }

    /// Fills it with the backends of its model and puts the program on the model's interfaces; the backends' numbers.
    pub fn stage(&mut self, machine: Machine<'_>) -> Result<BTreeMap<Place, u32>, Error> {
        self.interfaces = self.model.interfaces.clone();
        if self.interfaces.is_empty() {
            return Err(Error::NoInterfaces);
        }
        let attached = interfaces::find(&self.interfaces, machine.links)?;
        let assembled = assemble(&self.model, &attached, machine, &Uses::new());
        let empty = self.plane.observe()?;
        let planned = plan(&empty, &assembled.desired, &mut Memo::default(), &History::default())
            .map_err(Error::Plan)?;
        let numbers = numbers(&planned, empty.size)?;
        let steps = planned.steps.into_iter().filter(|step| !takes_traffic(step)).collect();
        self.plane.run(&Plan { steps, ..Plan::default() })?;
        let observed = self.plane.glance()?;
        for (interface, link) in self.interfaces.iter().zip(attached) {
            interfaces::attach(&self.plane, &observed, interface, link)?;
        }
        Ok(numbers)
    }
}

/// Whether a step has packets of others than probes looked at.
fn takes_traffic(step: &Step) -> bool {
    matches!(step, Step::PutService(..) | Step::PutRange(..) | Step::PutPrefix(..) | Step::PutVip(..))
}

/// The numbers that a plan gives to backends.
fn numbers(plan: &Plan, size: Size) -> Result<BTreeMap<Place, u32>, Error> {
    let mut made = MemoryPlane::new(size);
    made.run(plan)?;
    Ok(known::places(&made.observe()?).into_iter().map(|(place, (number, _))| (place, number)).collect())
}
