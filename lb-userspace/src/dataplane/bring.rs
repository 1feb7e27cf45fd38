//! Brings recorded flows, and clients that are remembered, from one data plane's tables into another's: all of them, or
//! those seen since some time. When, and how often, is for whoever asks.

use std::io;
use std::os::fd::AsFd;

use aya::Pod;
use aya::maps::{HashMap, IterableMap, MapData};
use lb_common::abi::names::{AFFINITY, flow_table};
use lb_common::abi::{AffinityEntry, AffinityKey};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::Error;
use super::batch::{self, Batches};
use super::error::is_because;
use super::flow_maps::FlowMaps;
use super::maps::Maps;

/// What becomes of an entry that is there already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Present {
    /// It is replaced: it is what an earlier pass has brought, as no program works on these tables yet.
    Replaced,
    /// It stays: a program may have written it, and what is brought is older.
    Kept,
}

/// What a pass met.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Pass {
    /// Tables that changed too fast to be read to their end.
    pub(super) incomplete: usize,
    /// CPUs that this process may not use, so that their parts of the tables were not filled.
    pub(super) closed_cpus: usize,
    /// Entries that the kernel had no room for.
    pub(super) refused: usize,
}

/// Brings what was seen since then (monotonic nanoseconds).
pub(super) fn bring(old: &Maps, new: &mut Maps, since_ns: u64, present: Present) -> Result<Pass, Error> {
    let mut pass = Pass::default();
    let (mut spread, mut batches) = (Spread::new()?, Batches::new());
    for (table, tcp) in FlowMaps::all() {
        let mut put = Put { name: flow_table(table, tcp), present, refused: 0, failed: None };
        let target = new.flows.table_mut(table, tcp);
        let whole = old.flows.each((table, tcp), &mut batches, |keys, entries| {
            let fresh = recent(keys, entries, |entry| entry.last_seen_ns >= since_ns);
            put.all(target, &fresh, &mut spread);
        })?;
        pass.incomplete += usize::from(!whole);
        pass.refused += put.done()?;
    }
    pass.closed_cpus = spread.closed;
    drop(spread);
    let mut put = Put { name: AFFINITY, present, refused: 0, failed: None };
    let whole = batch::walk(&old.affinity, old.size.affinity, &mut Batches::new(), |clients, entries| {
        let fresh = recent(clients, entries, |entry| entry.last_seen_ns >= since_ns);
        put.chunk(&mut new.affinity, &fresh.0, &fresh.1);
    });
    pass.incomplete += usize::from(!whole.map_err(unread)?);
    pass.refused += put.done()?;
    Ok(pass)
}

/// Clients that are remembered in a table with room for `capacity`.
pub(super) fn count_clients(
    clients: &HashMap<MapData, AffinityKey, AffinityEntry>,
    capacity: u32,
) -> Result<usize, Error> {
    let mut count = 0;
    batch::walk(clients, capacity, &mut Batches::new(), |keys, _| count += keys.len()).map_err(unread)?;
    Ok(count)
}

fn unread(source: io::Error) -> Error {
    Error::File { action: "reading map", path: AFFINITY.into(), source }
}

/// Those of a batch that are wanted.
fn recent<K: Copy, V: Copy>(keys: &[K], values: &[V], wanted: impl Fn(&V) -> bool) -> (Vec<K>, Vec<V>) {
    let pairs = keys.iter().zip(values).filter(|(_, value)| wanted(value));
    pairs.map(|(key, value)| (*key, *value)).unzip()
}

/// Puts entries into a table.
struct Put {
    name: &'static str,
    present: Present,
    refused: usize,
    /// The first failure: a walk cannot be left.
    failed: Option<Error>,
}

impl Put {
    /// Shares them out to the CPUs.
    fn all<K: Pod, V: Pod>(
        &mut self,
        map: &mut HashMap<MapData, K, V>,
        (keys, values): &(Vec<K>, Vec<V>),
        spread: &mut Spread,
    ) {
        let turn = spread.turn_of(keys.len());
        for (keys, values) in keys.chunks(turn).zip(values.chunks(turn)) {
            spread.turn();
            self.chunk(map, keys, values);
        }
    }

    fn chunk<K: Pod, V: Pod>(&mut self, map: &mut HashMap<MapData, K, V>, keys: &[K], values: &[V]) {
        if keys.is_empty() || self.failed.is_some() {
            return;
        }
        // The kernel's batches replace what is there.
        if self.present == Present::Replaced {
            match batch::update(map.map().fd().as_fd(), keys, values) {
                Err(error) if !is_because(&error, Errno::ENOMEM) => {
                    let path = self.name.into();
                    self.failed = Some(Error::File { action: "writing map", path, source: error });
                    return;
                }
                Ok(()) => return,
                Err(_no_room) => {}
            }
        }
        keys.iter().zip(values).for_each(|(key, value)| self.one(map, key, value));
    }

    fn one<K: Pod, V: Pod>(&mut self, map: &mut HashMap<MapData, K, V>, key: &K, value: &V) {
        let flags = if self.present == Present::Kept { IF_ABSENT } else { 0 };
        match map.insert(key, value, flags).map_err(Error::map(self.name)) {
            Ok(()) => {}
            Err(error) if is_because(&error, Errno::EEXIST) => {}
            // Of what evicts there may be nothing to evict for an instant.
            Err(error) if is_because(&error, Errno::ENOMEM) => self.refused += 1,
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
    }

    fn done(self) -> Result<usize, Error> {
        self.failed.map_or(Ok(self.refused), Err)
    }
}

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h).
const IF_ABSENT: u64 = 1;

/// Has this thread take turns on all CPUs: each has a part of a flow table that only it can fill
/// (`BPF_F_NO_COMMON_LRU`). Also on those that its process was not meant for (`taskset`, `CPUAffinity=`), unless the
/// kernel forbids it (cpusets). It is back where it was when this is dropped.
struct Spread {
    before: CpuSet,
    cpus: Vec<u32>,
    /// Whose turn is next.
    next: usize,
    /// CPUs that the kernel forbids.
    closed: usize,
}

/// Fewest insertions that are worth the way to another CPU.
const TURN: usize = 256;

impl Spread {
    fn new() -> Result<Self, Error> {
        let failed = |source| Error::File { action: "asking for CPUs of", path: "/proc/self".into(), source };
        let before = sched_getaffinity(THIS_THREAD).map_err(|errno| failed(errno.into()))?;
        let cpus = aya::util::online_cpus().map_err(|(_, source)| failed(source))?;
        Ok(Self { before, cpus, next: 0, closed: 0 })
    }

    /// How many of so many insertions are one CPU's.
    fn turn_of(&self, insertions: usize) -> usize {
        insertions.div_ceil(self.cpus.len().max(1)).max(TURN)
    }

    /// Goes to the next CPU; stays where none may be used.
    fn turn(&mut self) {
        while !self.cpus.is_empty() {
            self.next %= self.cpus.len();
            if self.cpus.get(self.next).is_some_and(|cpu| stay_on(*cpu).is_ok()) {
                self.next += 1;
                return;
            }
            self.cpus.remove(self.next);
            self.closed += 1;
        }
    }
}

fn stay_on(cpu: u32) -> nix::Result<()> {
    let mut one = CpuSet::new();
    one.set(cpu as usize).and_then(|()| sched_setaffinity(THIS_THREAD, &one))
}

impl Drop for Spread {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(THIS_THREAD, &self.before) {
            tracing::warn!(%error, "this thread stays on one CPU");
        }
    }
}

const THIS_THREAD: Pid = Pid::from_raw(0);
