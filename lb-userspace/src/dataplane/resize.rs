//! Moves a data plane that forwards into maps of other sizes, without a gap: fresh maps are pinned beside the old ones
//! and filled, the programs are replaced through their links by instances on the new maps, what was recorded meanwhile is
//! brought after them, and the pins change places. It decides nothing: which sizes is for whoever asks.
//!
//! Killed anywhere, it is taken up or undone by [`recover`]: what the attached programs use tells how far it was.

use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

use aya::Ebpf;
use aya::maps::MapInfo;
use aya::programs::links::PinnedLink;
use aya::programs::loaded_programs;
use lb_common::abi::names::{BALANCER_MAPS, BALANCER_PROGRAM, CONTROL};
use nix::errno::Errno;

use super::bring::{Pass, Present, bring, count_clients};
use super::copy::{copy, copy_loads};
use super::error::is_because;
use super::flow_maps::FlowMaps;
use super::maps::Maps;
use super::{Error, Pins, attach, attached, monotonic_ns, object, stages};
use crate::reconcile::Size;

/// A move under way.
pub struct Resize {
    pins: Pins,
    next: Pins,
    old: Maps,
    new: Maps,
    /// When the last pass through the old tables began, on the monotonic clock; 0 before the first one.
    began_ns: u64,
    /// What becomes of what is in the new ones.
    present: Present,
    closed_cpus: usize,
}

/// What a move has brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Brought {
    /// Entries of the old maps (recorded flows, clients that are remembered), and of the new ones, where programs may
    /// have added some.
    pub entries: (usize, usize),
    /// CPUs that this process may not use, so that it could not fill their parts of the new tables.
    pub closed_cpus: usize,
    /// Whether some tables are smaller than they were.
    pub smaller: bool,
}

impl Brought {
    /// Whether some were lost.
    pub fn is_less(&self) -> bool {
        self.entries.1 < self.entries.0
    }
}

impl fmt::Display for Brought {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (were, are) = self.entries;
        write!(f, "{are} of {were} recorded flows and remembered clients are in the new maps")?;
        if self.closed_cpus > 0 {
            write!(
                f,
                "; {} CPUs are forbidden to lb, whose parts of the tables stay empty",
                self.closed_cpus
            )?;
        }
        if self.smaller {
            f.write_str("; there are smaller tables than before")?;
        }
        Ok(())
    }
}

impl Resize {
    /// Makes maps of this size and fills them. What forwards is not touched; a failure leaves nothing.
    pub fn prepare(pins: &Pins, size: &Size) -> Result<Self, Error> {
        let prepared = Self::create(pins, size);
        if prepared.is_err() {
            pins.next().discard();
        }
        prepared
    }

    fn create(pins: &Pins, size: &Size) -> Result<Self, Error> {
        let (old, next) = (open(pins)?, pins.next());
        let path = next.directory();
        fs::create_dir_all(&path).map_err(|source| Error::File { action: "making", path, source })?;
        // The programs of port 0 are nobody's: loading them makes the maps.
        drop(object::balancer(&next, size, 0)?);
        let mut new = open(&next)?;
        copy(&old, &mut new)?;
        let (pins, present) = (pins.clone(), Present::Replaced);
        let mut resize = Self { pins, next, old, new, began_ns: 0, present, closed_cpus: 0 };
        resize.pass(present)?;
        // Last, as whoever opens the maps looks there.
        resize.new.put_control(&resize.old.control());
        Ok(resize)
    }

    /// Has every attached program work on the new maps. If one interface fails, all go back to the old ones.
    pub fn switch(&mut self) -> Result<(), Error> {
        let instances = self.load(&self.next, &self.new)?;
        self.catch_up()?;
        let switched = self.replace(instances);
        if switched.is_err() {
            self.replace(self.load(&self.pins, &self.old)?)?;
        }
        switched
    }

    /// Brings what was recorded meanwhile (loading programs takes longest), again and again, each time only what is newer,
    /// until that takes next to no time, or as long as before: what begins from here on until [`Self::finish`] is
    /// unknown to the new maps.
    fn catch_up(&mut self) -> Result<(), Error> {
        let mut before = Duration::MAX;
        for _ in 0..PASSES {
            let took = self.pass(self.present)?;
            tracing::debug!(?took, "a pass through the flow tables");
            if took < SHORT || took > before / 4 * 3 {
                break;
            }
            before = took;
        }
        if self.present == Present::Replaced {
            copy_loads(&self.old, &self.new);
        }
        Ok(())
    }

    /// Brings what was written since the last pass began; how long it took. Whatever a program writes it stamps.
    fn pass(&mut self, present: Present) -> Result<Duration, Error> {
        let (began_ns, since_ns) = (monotonic_ns(), self.began_ns.saturating_sub(SLACK_NS));
        let pass = bring(&self.old, &mut self.new, since_ns, present)?;
        self.began_ns = began_ns;
        self.closed_cpus = pass.closed_cpus.max(self.closed_cpus);
        let Pass { incomplete, refused, .. } = pass;
        if incomplete > 0 || refused > 0 {
            tracing::warn!(incomplete, refused, "not all recorded flows could be read, or written");
        }
        Ok(Duration::from_nanos(monotonic_ns().saturating_sub(began_ns)))
    }

    /// Loads an instance on these maps for each interface.
    fn load(&self, pins: &Pins, maps: &Maps) -> Result<Vec<(u32, Ebpf)>, Error> {
        let mut instances = Vec::new();
        for ifindex in self.pins.links() {
            let Some(port) = maps.port_of(ifindex)? else { continue };
            let mut object = object::balancer(pins, &maps.size, port)?;
            stages::set(pins, &mut object, port)?;
            object::program(&mut object, BALANCER_PROGRAM)?;
            instances.push((ifindex, object));
        }
        Ok(instances)
    }

    /// Puts instances onto their interfaces, as many as can be; the first failure. No packet comes in where an
    /// interface is gone and has left its link behind, so that is none (`ENOLINK`: `bpf_xdp_link_update` in
    /// net/core/dev.c).
    fn replace(&self, instances: Vec<(u32, Ebpf)>) -> Result<(), Error> {
        let mut done = Ok(());
        for (ifindex, object) in instances {
            match self.replace_one(ifindex, object) {
                Err(error) if is_because(&error, Errno::ENOLINK) => {
                    tracing::debug!(ifindex, "a link whose interface is gone");
                }
                other => done = done.and(other),
            }
        }
        done
    }

    fn replace_one(&self, ifindex: u32, mut object: Ebpf) -> Result<(), Error> {
        let name = format!("interface {ifindex}");
        let link = PinnedLink::from_pin(self.pins.link(ifindex))
            .map_err(|error| attach::link_error(&name, &error))?;
        attach::replace(object::loaded(&mut object, BALANCER_PROGRAM)?, link, &name).map(drop)
    }

    /// Brings what was recorded since the last pass, and puts the new maps' pins where the old ones were.
    pub fn finish(mut self) -> Result<Brought, Error> {
        // The programs work on the new maps already: there is no way back for a few flows' sake.
        if let Err(error) = self.pass(Present::Kept) {
            tracing::error!(%error, "some flows were not brought to the new maps");
        }
        commit(&self.pins, &self.next)?;
        let counted = count(&self.old).and_then(|were| Ok((were, count(&self.new)?)));
        Ok(Brought {
            // The move has been made, whatever can be said of it.
            entries: counted.unwrap_or_default(),
            closed_cpus: self.closed_cpus,
            smaller: smaller(&self.new.size, &self.old.size),
        })
    }
}

/// Most passes before the programs are replaced.
const PASSES: usize = 5;
/// A pass that is short enough to replace the programs behind it.
const SHORT: Duration = Duration::from_millis(50);
/// Longest between a program's look at the clock and what it writes with it.
const SLACK_NS: u64 = 100_000_000;

/// Recorded flows and remembered clients.
fn count(maps: &Maps) -> Result<usize, Error> {
    let flows: usize = maps.flows.used()?.iter().map(|used| used.entries).sum();
    Ok(flows + count_clients(&maps.affinity, maps.size.affinity)?)
}

/// Whether any table of flows or clients is smaller than another's.
fn smaller(size: &Size, than: &Size) -> bool {
    size.affinity < than.affinity
        || FlowMaps::all().any(|(table, tcp)| size.flows(table, tcp) < than.flows(table, tcp))
}

fn open(pins: &Pins) -> Result<Maps, Error> {
    Maps::open(pins)?.ok_or_else(|| Error::NotLoaded { path: pins.directory() })
}

/// Moves the pins. The control block comes last: while it is still beside, the rest may be anywhere.
fn commit(pins: &Pins, next: &Pins) -> Result<(), Error> {
    let others = BALANCER_MAPS.into_iter().filter(|name| *name != CONTROL);
    for name in others.chain([CONTROL]) {
        let path = next.map(name);
        match fs::rename(&path, pins.map(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::File { action: "moving", path, source }),
        }
    }
    let path = next.directory();
    fs::remove_dir(&path).map_err(|source| Error::File { action: "removing", path, source })
}

/// Ends a move that its process did not: forward, if an attached program uses the new maps already, else back. To be
/// called by whoever holds the lock, before the maps are opened.
pub fn recover(pins: &Pins) -> Result<(), Error> {
    let next = pins.next();
    if !next.directory().exists() {
        return Ok(());
    }
    if !is_used(pins, &next) {
        tracing::warn!("a move to maps of other sizes was interrupted before it took effect: undone");
        return fs::remove_dir_all(next.directory()).map_err(|source| Error::File {
            action: "removing",
            path: next.directory(),
            source,
        });
    }
    tracing::warn!("a move to maps of other sizes was interrupted: ended now");
    if BALANCER_MAPS.iter().all(|name| next.map(name).exists()) {
        let mut resize = Resize {
            old: open(pins)?,
            new: open(&next)?,
            pins: pins.clone(),
            next,
            began_ns: 0,
            // Some programs work on them already.
            present: Present::Kept,
            closed_cpus: 0,
        };
        resize.switch()?;
        return resize.finish().map(drop);
    }
    commit(pins, &next)
}

/// Whether an attached program works on the maps in `next`.
fn is_used(pins: &Pins, next: &Pins) -> bool {
    let Ok(control) = MapInfo::from_pin(next.map(CONTROL)) else { return false };
    let running: Vec<u32> = attached(pins).iter().map(|found| found.program_id).collect();
    let uses = |ids: Vec<u32>| ids.contains(&control.id());
    loaded_programs()
        .flatten()
        .filter(|program| running.contains(&program.id()))
        .any(|program| program.map_ids().ok().flatten().is_some_and(uses))
}
