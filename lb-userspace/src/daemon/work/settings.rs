//! What the daemon does about settings of interfaces.

use super::Daemon;
use crate::daemon::Candidate;
use crate::model::{Interface, Model};

impl Daemon {
    pub(super) fn warn_of_interfaces(&self, candidate: &Candidate) {
        let attaching = |model: &Model| -> Vec<_> {
            model.interfaces.iter().map(|interface| (interface.name.clone(), interface.mode)).collect()
        };
        if attaching(&candidate.loaded.model) != attaching(self.engine.model()) {
            tracing::warn!("interfaces changed in the config: they take effect when the daemon starts again");
        }
    }

    /// Has the interfaces set as the config in force wants them.
    pub(super) fn tune(&mut self) {
        let listed = &self.engine.model().interfaces;
        let ours =
            |interface: &&Interface| self.engine.interfaces().iter().any(|own| own.name == interface.name);
        let interfaces = listed.iter().filter(ours).cloned().collect();
        self.tuner.want(interfaces, self.engine.attached());
    }

    /// Looks whether interfaces are still set as they should be.
    pub(in crate::daemon) async fn watch_settings(&mut self) {
        self.tuner.tick().await;
    }

    /// The same, if the program is on an interface that was not there before: it came back as another one.
    pub(super) fn tune_new(&mut self) {
        if self.tuner.has_not_seen(&self.engine.attached()) {
            self.tune();
        }
    }
}
