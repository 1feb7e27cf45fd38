//! The data plane: the steps' in-memory one for all but flows, which are in tables like a kernel's.

use std::collections::HashMap;

use lb_common::abi::{BackendId, FlowKey, ServiceEntry, ServiceKey, Slot, SlotState};
use lb_common::datapath::host::{HostFrame, HostTables, run};
use lb_common::datapath::{Verdict, hash};
use lb_userspace::dataplane::{DataPlane, MemoryPlane};
use lb_userspace::reconcile::{Observed, Size, Step, narrow};

use super::packet::{Speech, VIP, receiver};
use super::words::fresh;
use super::{LruTables, Rule};

const SECOND_NS: u64 = 1_000_000_000;

/// It, and since when its slots are unsettled.
pub struct Plane {
    memory: MemoryPlane,
    /// What packets find.
    pub tables: LruTables,
    broken: Option<Rule>,
    /// For slots that are not settled, the event that unsettled them.
    unsettled: HashMap<u32, u64>,
    /// Counts whatever happens, so that it can be told what came first.
    pub events: u64,
}

impl Plane {
    /// An empty one.
    pub fn new(size: Size, capacity: usize, broken: Option<Rule>) -> Self {
        let mut plane = Self {
            memory: MemoryPlane::new(size),
            tables: LruTables::new(capacity, broken),
            broken,
            unsettled: HashMap::new(),
            events: 0,
        };
        plane.set_clock(1000);
        plane.reread();
        plane
    }

    /// Sets the clock, in seconds.
    pub fn set_clock(&mut self, seconds: u64) {
        self.memory.set_clock(seconds * SECOND_NS);
        self.tables.host.now_ns.set(seconds * SECOND_NS);
    }

    /// The maps but for flows.
    pub fn observe(&self) -> Observed {
        self.memory.observe().expect("memory can be read")
    }

    /// Executes a step.
    pub fn execute(&mut self, step: &Step) {
        self.events += 1;
        match step {
            Step::DeleteFlow(table, key, seen_ns) => self.tables.delete(*table, key, *seen_ns),
            Step::WriteSlots { start, words } => self.write(*start, words),
            step => {
                self.memory.execute(step).expect("memory can be written");
                self.reread();
            }
        }
    }

    fn write(&mut self, start: u32, words: &[Option<Slot>]) {
        let mut written = words.to_vec();
        for (index, word) in (start..).zip(&mut written) {
            let Some(word) = word else { continue };
            let before = self.tables.host.rings[index as usize];
            *word = self.spoilt(before, *word);
            self.tables.host.rings[index as usize] = *word;
            match word.state() {
                SlotState::Settled => drop(self.unsettled.remove(&index)),
                SlotState::Fresh | SlotState::Late => {
                    self.unsettled.entry(index).or_insert(self.events);
                }
            }
        }
        let step = Step::WriteSlots { start, words: written };
        self.memory.execute(&step).expect("memory can be written");
    }

    /// What is written where a rule about a slot's owners is broken.
    fn spoilt(&self, before: Slot, word: Slot) -> Slot {
        let moved = word.current() != before.current() && word.state() != SlotState::Settled;
        match self.broken {
            Some(Rule::OldestPrevious) if moved && before.state() != SlotState::Settled => {
                fresh(word.current(), before.current())
            }
            Some(Rule::MarkStays) if moved && word.current() == word.previous() => {
                Slot::settled(word.current())
            }
            _ => word,
        }
    }

    /// Brings what packets find to what steps have made.
    fn reread(&mut self) {
        let before = std::mem::take(&mut self.tables.host);
        self.tables.host = HostTables {
            ingress: 1,
            now_ns: before.now_ns,
            reasons: before.reasons,
            drops: before.drops,
            ..self.memory.tables()
        };
    }

    /// Sends a frame through the engine; the backend it comes out for.
    pub fn send(&mut self, frame: &[u8]) -> Option<u8> {
        self.events += 1;
        let mut frame = HostFrame::new(frame);
        match run(&mut frame, &self.tables) {
            Verdict::Transmit => receiver(frame.bytes()),
            _ => None,
        }
    }

    fn service(&self, speech: Speech) -> Option<&ServiceEntry> {
        self.tables.host.services.get(&ServiceKey::v4(VIP.octets(), speech.protocol(), speech.port()))
    }

    /// Whether all flows of a service are recorded.
    pub fn is_tracked(&self, speech: Speech) -> bool {
        self.service(speech).is_some_and(|service| service.flags & ServiceEntry::TRACKED != 0)
    }

    /// The slot of a flow, and its place in the pool.
    pub fn slot(&self, speech: Speech, key: &FlowKey) -> Option<(u32, Slot)> {
        let host = &self.tables.host;
        let service = self.service(speech)?;
        let FlowKey { source, destination, source_port, destination_port, protocol, .. } = *key;
        let key = host.control.hash_key;
        let hash = match service.flags & ServiceEntry::BY_SOURCE {
            0 => hash::flow(key, source, destination, source_port, destination_port, protocol),
            _ => hash::source(key, source),
        };
        let index = service.ring_start + hash::slot(hash, service.ring_size);
        Some((index, *host.rings.get(index as usize)?))
    }

    /// The event that unsettled a slot.
    pub fn unsettled_at(&self, index: u32) -> Option<u64> {
        self.unsettled.get(&index).copied()
    }

    /// The share of slots that are unsettled.
    pub fn unsettled_share(&self) -> f64 {
        let services = self.tables.host.services.values();
        let rings = services.map(|service| service.ring_start..service.ring_start + service.ring_size);
        let (mut unsettled, mut all) = (0, 0);
        for ring in rings {
            all += ring.len();
            let slots = &self.tables.host.rings[ring.start as usize..ring.end as usize];
            unsettled += slots.iter().filter(|slot| slot.state() != SlotState::Settled).count();
        }
        unsettled as f64 / all.max(1) as f64
    }

    /// The number of the backend with this id, if it is there.
    pub fn number(&self, id: BackendId) -> Option<u8> {
        let entry = self.tables.host.backends.get(&id.get())?;
        match narrow(entry.address) {
            std::net::IpAddr::V4(address) => Some(address.octets()[3]),
            std::net::IpAddr::V6(_) => None,
        }
    }
}
