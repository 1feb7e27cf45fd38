//! What others do (Katran, Cilium): a Maglev ring, and a table that remembers every flow. A packet of a remembered flow
//! goes where the others went, any other where the ring says. For comparison only.

use lb_common::abi::{BackendId, BackendState, FlowEntry};

use super::Lru;
use super::packet::{From, Speech, key};
use super::plane::Plane;

/// The table.
pub struct Remembering(Lru);

impl Remembering {
    /// With room for so many flows.
    pub fn new(capacity: usize) -> Self {
        Self(Lru::new(capacity))
    }

    /// The backend that gets a packet.
    pub fn choose(&mut self, plane: &Plane, speech: Speech, from: From) -> Option<u8> {
        let key = key(speech, from);
        let (_, slot) = plane.slot(speech, &key)?;
        let lives = |id: &BackendId| {
            let entry = plane.tables.host.backends.get(&id.get());
            entry.is_some_and(|entry| BackendState::from_raw(entry.state).keeps_flows())
        };
        let known = self.0.get(&key).and_then(|entry| BackendId::new(entry.backend)).filter(lives);
        let id = known.unwrap_or(slot.current());
        if known.is_none() {
            self.0.put(key, FlowEntry { backend: id.get(), ..FlowEntry::default() });
        }
        plane.number(id)
    }

    /// How many flows are remembered.
    pub fn entries(&self) -> usize {
        self.0.len()
    }
}
