//! Counters, summed over CPUs; and packets of each CPU, summed over everything else.

use std::collections::BTreeMap;

use aya::maps::PerCpuArray;
use lb_common::abi::{BackendCounters, BackendId, REASON_SLOTS, Reason, names::*};

use super::Error;
use super::maps::Maps;

/// Packets of one service by reason.
pub type ServiceDrops = BTreeMap<&'static str, u64>;

/// A reading of all counters.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// By backend id.
    pub backends: BTreeMap<u32, BackendCounters>,
    /// Dropped ones by service id; only reasons that occurred.
    pub drops: BTreeMap<u32, ServiceDrops>,
    /// The same of what is said of forwarded ones ([`Reason::is_note`]).
    pub notes: BTreeMap<u32, ServiceDrops>,
    /// Packets of no service, by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Packets that each CPU has worked on, by its number.
    pub cpus: Vec<u64>,
}

impl Counters {
    /// Reads what belongs to these backends and services, and everything that belongs to none.
    pub(super) fn read(maps: &Maps, backends: &[u32], services: &[u32]) -> Result<Self, Error> {
        let mut counters = Self::default();
        for id in backends {
            let values = maps.backend_counters.get(id, 0).map_err(Error::map(BACKEND_COUNTERS))?;
            let sum = values.iter().fold(BackendCounters::default(), |sum, cpu| BackendCounters {
                packets: sum.packets + cpu.packets,
                bytes: sum.bytes + cpu.bytes,
                flows: sum.flows + cpu.flows,
            });
            counters.add_cpus(values.iter().map(|cpu| cpu.packets));
            counters.backends.insert(*id, sum);
        }
        for id in services {
            let (mut drops, mut notes) = (ServiceDrops::new(), ServiceDrops::new());
            for reason in Reason::ALL {
                let values = by_cpu(&maps.service_drops, SERVICE_DROPS, id * REASON_SLOTS + *reason as u32)?;
                let count = values.iter().sum();
                // Packets with a note are counted for their backends.
                let counted = if reason.is_note() {
                    &mut notes
                } else {
                    counters.add_cpus(values.into_iter());
                    &mut drops
                };
                if count > 0 {
                    counted.insert(reason.name(), count);
                }
            }
            counters.drops.insert(*id, drops);
            counters.notes.insert(*id, notes);
        }
        for reason in Reason::ALL {
            let values = by_cpu(&maps.reasons, REASONS, *reason as u32)?;
            counters.reasons.insert(reason.name(), values.iter().sum());
            counters.add_cpus(values.into_iter());
        }
        Ok(counters)
    }

    fn add_cpus(&mut self, packets: impl Iterator<Item = u64>) {
        for (cpu, packets) in packets.enumerate() {
            match self.cpus.get_mut(cpu) {
                Some(sum) => *sum += packets,
                None => self.cpus.push(packets),
            }
        }
    }
}

/// Packets that each CPU has had in our programs, whatever became of them: those of these backends, and those that have
/// a reason.
pub(super) fn per_cpu(maps: &Maps, backends: impl Iterator<Item = u32>) -> Result<Vec<u64>, Error> {
    let mut cpus: Vec<u64> = Vec::new();
    let mut add = |cpu: usize, packets: u64| {
        cpus.resize(cpus.len().max(cpu + 1), 0);
        cpus[cpu] += packets;
    };
    for id in backends {
        let values = maps.backend_counters.get(&id, 0).map_err(Error::map(BACKEND_COUNTERS))?;
        values.iter().enumerate().for_each(|(cpu, counted)| add(cpu, counted.packets));
    }
    for reason in Reason::ALL {
        let values = maps.reasons.get(&(*reason as u32), 0).map_err(Error::map(REASONS))?;
        values.iter().enumerate().for_each(|(cpu, packets)| add(cpu, *packets));
    }
    Ok(cpus)
}

/// Bytes that backends have been sent.
pub(super) fn bytes(maps: &Maps, backends: &[BackendId]) -> Result<BTreeMap<BackendId, u64>, Error> {
    let bytes = |id: &BackendId| {
        let values = maps.backend_counters.get(&id.get(), 0).map_err(Error::map(BACKEND_COUNTERS))?;
        Ok((*id, values.iter().map(|cpu| cpu.bytes).sum()))
    };
    backends.iter().map(bytes).collect()
}

pub(super) fn sum<T: std::borrow::Borrow<aya::maps::MapData>>(
    map: &PerCpuArray<T, u64>,
    name: &'static str,
    index: u32,
) -> Result<u64, Error> {
    Ok(by_cpu(map, name, index)?.into_iter().sum())
}

fn by_cpu<T: std::borrow::Borrow<aya::maps::MapData>>(
    map: &PerCpuArray<T, u64>,
    name: &'static str,
    index: u32,
) -> Result<Vec<u64>, Error> {
    Ok(map.get(&index, 0).map_err(Error::map(name))?.iter().copied().collect())
}
