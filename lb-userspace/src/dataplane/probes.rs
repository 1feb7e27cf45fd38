//! The table of probes under way, and the program at the gate of the prober's namespace.

use aya::maps::MapData;
use aya::programs::links::FdLink;
use lb_common::abi::names::{PROBE_PROGRAM, PROBES};
use lb_common::abi::{PROBE_SLOTS, ProbeEntry};

use super::attach::{Mode, link_error, refused};
use super::mmap::Words;
use super::{Error, Facts, Pins, object};
use crate::reconcile::Size;

const WORDS: usize = size_of::<ProbeEntry>() / 8;

/// Which source port stands for which backend. Each slot has one writer.
#[derive(Debug)]
pub struct ProbeTable(Words);

impl ProbeTable {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        let map = MapData::from_pin(pins.map(PROBES)).map_err(Error::map(PROBES))?;
        let words = Words::map(map.fd(), PROBE_SLOTS as usize * WORDS);
        let failed = |source| Error::File { action: "mapping", path: pins.map(PROBES), source };
        Ok(Self(words.map_err(failed)?))
    }

    /// Lets no packet through.
    pub fn clear(&self) {
        for slot in 0..PROBE_SLOTS as usize {
            self.0.store(slot * WORDS, 0);
        }
    }

    /// Lets packets with this slot's source port through, to the backend that the entry names.
    pub fn arm(&self, slot: u32, entry: &ProbeEntry) {
        let start = slot as usize * WORDS;
        // The first word brings the entry to life.
        for (word, value) in entry.words().into_iter().enumerate().rev() {
            self.0.store(start + word, value);
        }
    }
}

/// The program at the gate. It goes with this value, and with the process.
#[derive(Debug)]
pub struct Gate(#[expect(dead_code, reason = "held, not used: dropping it detaches the program")] FdLink);

impl Gate {
    /// Puts the program on the gate, which is port number `port`. In generic mode, where frames leave as the stack's
    /// own packets do, through NICs of any driver; probes are too few for speed to matter.
    pub(super) fn attach(
        pins: &Pins,
        size: &Size,
        interface: &str,
        ifindex: u32,
        port: u16,
    ) -> Result<Self, Error> {
        let mut object = object::balancer(pins, size, port)?;
        let program = object::program(&mut object, PROBE_PROGRAM)?;
        let facts = Facts { interface: interface.to_owned(), ..Facts::default() };
        let refused = |error| refused(&facts, Mode::Generic, &error, None);
        let id = program.attach_to_if_index(ifindex, Mode::Generic.into()).map_err(refused)?;
        let link = program.take_link(id).map_err(refused)?;
        FdLink::try_from(link).map(Self).map_err(|error| link_error(interface, &error))
    }
}
