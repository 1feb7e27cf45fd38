//! A data plane for probes alone: all backends are there and no service is, so that whatever else comes in passes.

use std::collections::BTreeMap;

use super::{Candidate, Engine, Error, Instance, Machine, known, size};
use crate::daemon::{assemble, interfaces};
use crate::dataplane::{DataPlane, KernelPlane};
use crate::health::fleet::{Place, Uses};
use crate::model::ServiceId;
use crate::reconcile::{Memo, Plan, Step, plan};

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
        let planned =
            plan(&self.plane.observe()?, &assembled.desired, &mut Memo::default()).map_err(Error::Plan)?;
        let numbers = numbers(&planned);
        let takes_traffic = |step: &Step| matches!(step, Step::PutService(..) | Step::PutVip(..));
        let steps = planned.steps.into_iter().filter(|step| !takes_traffic(step)).collect();
        self.plane.run(&Plan { steps })?;
        let observed = self.plane.glance()?;
        for (interface, link) in self.interfaces.iter().zip(attached) {
            interfaces::attach(&self.plane, &observed, interface, link)?;
        }
        Ok(numbers)
    }
}

/// The numbers that a plan gives to backends.
fn numbers(plan: &Plan) -> BTreeMap<Place, u32> {
    let service = |step: &Step| match step {
        Step::PutService(key, entry) => Some((entry.id, known::service_id(key)?)),
        _ => None,
    };
    let services: BTreeMap<u32, ServiceId> = plan.steps.iter().filter_map(service).collect();
    let backend = |step: &Step| match step {
        Step::PutBackend { id, entry, .. } => {
            let address = lb_common::abi::unmapped(entry.address)?;
            Some(((*services.get(&entry.service)?, address.into()), id.get()))
        }
        _ => None,
    };
    plan.steps.iter().filter_map(backend).collect()
}
