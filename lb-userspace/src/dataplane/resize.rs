//! Moves a data plane that forwards into maps of other sizes, without a gap: fresh maps are pinned beside the old ones
//! and filled, the programs are replaced through their links by instances on the new maps, what was recorded meanwhile is
//! brought after them, and the pins change places. It decides nothing: which sizes is for whoever asks.
//!
//! Killed anywhere, it is taken up or undone by [`recover`]: what the attached programs use tells how far it was.

use std::fs;
use std::io;

use aya::Ebpf;
use aya::maps::MapInfo;
use aya::programs::links::PinnedLink;
use aya::programs::loaded_programs;
use lb_common::abi::names::{BALANCER_MAPS, BALANCER_PROGRAM, CONTROL};
use nix::errno::Errno;

use super::copy::{copy, copy_since};
use super::error::is_because;
use super::maps::Maps;
use super::{Error, Pins, attach, attached, monotonic_ns, object, stages};
use crate::reconcile::Size;

/// A move under way.
pub struct Resize {
    pins: Pins,
    next: Pins,
    old: Maps,
    new: Maps,
    /// When the copy began, on the monotonic clock.
    began_ns: u64,
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
        let began_ns = monotonic_ns();
        copy(&old, &mut new)?;
        Ok(Self { pins: pins.clone(), next, old, new, began_ns })
    }

    /// Has every attached program work on the new maps. If one interface fails, all go back to the old ones.
    pub fn switch(&mut self) -> Result<(), Error> {
        let instances = self.load(&self.next, &self.new)?;
        // What was recorded while the programs were loaded, which takes longest.
        copy_since(&self.old, &mut self.new, self.began_ns.saturating_sub(SLACK_NS))?;
        let switched = self.replace(instances);
        if switched.is_err() {
            self.replace(self.load(&self.pins, &self.old)?)?;
        }
        switched
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

    /// Brings what was recorded since the copy, and puts the new maps' pins where the old ones were.
    pub fn finish(mut self) -> Result<(), Error> {
        // Stamps are exact to a second.
        let since_ns = self.began_ns.saturating_sub(SLACK_NS);
        // The programs work on the new maps already: there is no way back for a few flows' sake.
        if let Err(error) = copy_since(&self.old, &mut self.new, since_ns) {
            tracing::error!(%error, "some flows were not brought to the new maps");
        }
        commit(&self.pins, &self.next)
    }
}

/// Time stamps of flows are this exact, and the copy may have met a flow just before it was stamped.
const SLACK_NS: u64 = 2_000_000_000;

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
        let mut resize =
            Resize { old: open(pins)?, new: open(&next)?, began_ns: 0, pins: pins.clone(), next };
        resize.switch()?;
        return resize.finish();
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
