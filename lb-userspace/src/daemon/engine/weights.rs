//! Loads that policies compare and programs do not count.

use std::time::Instant;

use super::{Engine, Error};
use crate::daemon::bandwidth::Bandwidth;
use crate::dataplane::DataPlane;
use crate::model::Algorithm;

impl Engine {
    /// Measures the backends of services that go by bytes per second.
    pub(in crate::daemon) fn weigh(&mut self, bandwidth: &mut Bandwidth, now: Instant) -> Result<(), Error> {
        let wanted = |algorithm| algorithm == Algorithm::LeastBandwidth;
        if !self.model.services.iter().any(|service| wanted(service.flows.algorithm)) {
            return Ok(());
        }
        let measured = self.plane.glance()?.measured();
        let bytes = self.plane.bytes(&measured)?;
        self.plane.set_loads(&bandwidth.measure(&bytes, now));
        Ok(())
    }
}
