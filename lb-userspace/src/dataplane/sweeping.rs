//! The recorded flows, read for a sweep on a thread of its own with descriptors of its own.

use lb_common::abi::{FlowEntry, FlowKey, FlowTable};

use super::batch::Batches;
use super::flow_maps::FlowMaps;
use super::{Error, Pins, maps};
use crate::reconcile::{Flow, Sweep};

/// The flow tables, open.
pub struct FlowReader {
    read: FlowMaps,
    written: FlowMaps,
    batches: Batches<FlowKey, FlowEntry>,
}

impl FlowReader {
    /// Opens the pinned tables.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let open = || FlowMaps::open(|name| maps::open(pins, name));
        Ok(Self { read: open()?, written: open()?, batches: Batches::new() })
    }

    /// Shows a sweep every recorded flow, and deletes those that it finds dead, each batch before the next one. `false`
    /// where not all could be read: half a view must neither settle a slot nor free an id.
    pub fn read(&mut self, sweep: &mut Sweep) -> Result<bool, Error> {
        let Self { read, written, batches } = self;
        for (table, tcp) in FlowMaps::all() {
            let whole = read.each((table, tcp), batches, |keys, entries| {
                for (key, entry) in keys.iter().zip(entries) {
                    if sweep.take(&Flow { table, key: *key, entry: *entry }).is_some() {
                        written.delete(table, key, entry.last_seen_ns);
                    }
                }
            })?;
            if !whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Records many flows at once, as the program would one by one; for measurements.
    pub fn record(
        &mut self,
        (table, tcp): (FlowTable, bool),
        keys: &[FlowKey],
        entries: &[FlowEntry],
    ) -> Result<(), Error> {
        self.written.update((table, tcp), keys, entries)
    }
}
