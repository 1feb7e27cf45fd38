//! What moves by itself: loads that policies compare, and latencies that shares follow. Weights in slow start move by
//! the timers of `health`.

use std::time::Instant;

use super::Daemon;
use crate::daemon::bandwidth::Bandwidth;

impl Daemon {
    /// Measures what is to be measured; to be called once a second.
    pub(in crate::daemon) fn weigh(&mut self, bandwidth: &mut Bandwidth) {
        if let Err(error) = self.engine.weigh(bandwidth, Instant::now()) {
            tracing::error!(%error, "loads not measured");
        }
        self.health.ask_latencies();
    }
}
