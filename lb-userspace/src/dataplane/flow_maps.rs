//! The six flow tables as maps.

use std::io;
use std::os::fd::AsFd;

use aya::maps::{HashMap, IterableMap, Map, MapData};
use lb_common::abi::{FlowEntry, FlowKey, FlowTable, names};

use super::Error;
use super::batch::{self, Batches};
use crate::reconcile::FlowSizes;

/// One of them.
type Table = HashMap<MapData, FlowKey, FlowEntry>;

/// A flow table, and how full it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlowUse {
    /// The table.
    pub table: FlowTable,
    /// Whether it is TCP's.
    pub tcp: bool,
    /// Entries in it; more or less where they change while they are counted.
    pub entries: usize,
    /// Entries that fit.
    pub capacity: u32,
}

/// All of them, open.
pub(super) struct FlowMaps {
    /// Of TCP, in the order of [`FlowTable::ALL`].
    tcp: [Table; 3],
    /// Of everything else.
    datagram: [Table; 3],
    sizes: [FlowSizes; 2],
}

impl FlowMaps {
    /// Opens each by its name.
    pub(super) fn open(mut map: impl FnMut(&'static str) -> Result<MapData, Error>) -> Result<Self, Error> {
        let mut sizes = [FlowSizes::default(); 2];
        let [tcp_size, udp_size] = &mut sizes;
        let [tcp, datagram] = [(true, tcp_size), (false, udp_size)].map(|(tcp, size)| {
            let mut table = |table, entries: &mut u32| {
                let name = names::flow_table(table, tcp);
                let map = map(name)?;
                *entries = map.info().map_err(Error::map(name))?.max_entries();
                HashMap::try_from(Map::LruHashMap(map)).map_err(Error::map(name))
            };
            let half_open = table(FlowTable::HalfOpen, &mut size.half_open)?;
            let established = table(FlowTable::Established, &mut size.established)?;
            Ok::<_, Error>([half_open, established, table(FlowTable::Old, &mut size.old)?])
        });
        Ok(Self { tcp: tcp?, datagram: datagram?, sizes })
    }

    /// Capacities of the tables of TCP, and of everything else.
    pub(super) fn sizes(&self) -> [FlowSizes; 2] {
        self.sizes
    }

    /// How full each is.
    pub(super) fn used(&self) -> Result<Vec<FlowUse>, Error> {
        let [tcp_size, udp_size] = &self.sizes;
        let mut batches = Batches::new();
        let used = |(table, tcp)| {
            let capacity = if tcp { tcp_size.of(table) } else { udp_size.of(table) };
            let mut entries = 0;
            self.each((table, tcp), &mut batches, |keys, _| entries += keys.len())?;
            Ok(FlowUse { table, tcp, entries, capacity })
        };
        Self::all().map(used).collect()
    }

    /// A table of TCP, or of everything else.
    pub(super) fn table(&self, table: FlowTable, tcp: bool) -> &Table {
        let [half_open, established, old] = if tcp { &self.tcp } else { &self.datagram };
        match table {
            FlowTable::HalfOpen => half_open,
            FlowTable::Established => established,
            FlowTable::Old => old,
        }
    }

    /// The same, to be written.
    pub(super) fn table_mut(&mut self, table: FlowTable, tcp: bool) -> &mut Table {
        let [half_open, established, old] = if tcp { &mut self.tcp } else { &mut self.datagram };
        match table {
            FlowTable::HalfOpen => half_open,
            FlowTable::Established => established,
            FlowTable::Old => old,
        }
    }

    /// Shows all flows of a table, some thousands at a time; see [`batch::walk`].
    pub(super) fn each(
        &self,
        (table, tcp): (FlowTable, bool),
        batches: &mut Batches<FlowKey, FlowEntry>,
        see: impl FnMut(&[FlowKey], &[FlowEntry]),
    ) -> Result<bool, Error> {
        let [tcp_sizes, udp_sizes] = &self.sizes;
        let capacity = if tcp { tcp_sizes } else { udp_sizes }.of(table);
        batch::walk(self.table(table, tcp), capacity, batches, see).map_err(failed("reading map", table, tcp))
    }

    /// Records many flows in a table at once.
    pub(super) fn update(
        &self,
        (table, tcp): (FlowTable, bool),
        keys: &[FlowKey],
        entries: &[FlowEntry],
    ) -> Result<(), Error> {
        let map = self.table(table, tcp).map();
        batch::update(map.fd().as_fd(), keys, entries).map_err(failed("writing map", table, tcp))
    }

    /// Deletes a flow that is still what was last seen then: read again just before, so that one that lives on is left
    /// alone.
    pub(super) fn delete(&mut self, table: FlowTable, key: &FlowKey, last_seen_ns: u64) {
        let table = self.table_mut(table, key.is_tcp());
        if table.get(key, 0).is_ok_and(|flow| flow.last_seen_ns == last_seen_ns) {
            let _evicted_meanwhile = table.remove(key);
        }
    }

    /// Each table and whether it is TCP's, in the order in which they are to be read: a flow that moves from one to
    /// another meanwhile is in the later one.
    pub(super) fn all() -> impl Iterator<Item = (FlowTable, bool)> {
        FlowTable::ALL.into_iter().flat_map(|table| [(table, true), (table, false)])
    }
}

fn failed(action: &'static str, table: FlowTable, tcp: bool) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { action, path: names::flow_table(table, tcp).into(), source }
}
