//! A world in which a history takes place, and what came of it.

use std::collections::BTreeMap;

use lb_common::abi::{BackendId, FlowTable, Reason, SlotState};
use lb_userspace::model::{Algorithm, Tracking};
use lb_userspace::reconcile::DesiredTunnel;

use super::clients::Client;
use super::control::{Daemon, Member, size};
use super::packet::{From, Speech, Word, frame, key, stranger};
use super::plane::Plane;
use super::remember::Remembering;
use super::{Action, Chooser, Rng, Rule, Setup};

/// What came of a history.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Packets of live flows.
    pub packets: u64,
    /// Flows.
    pub flows: u64,
    /// Flows of which a packet went elsewhere while their backend was up.
    pub broken: u64,
    /// The most entries of all flow tables.
    pub most_entries: usize,
    /// The share of slots that were unsettled, over time.
    pub unsettled: f64,
    /// The share of slots that are unsettled in the end.
    pub unsettled_in_the_end: f64,
    /// Packets of unknown flows that came too late to be recorded.
    pub at_risk: u64,
    /// Plans that could not be had.
    pub refused: u64,
    /// What was wrong, in words: broken flows, and where the invariant did not hold.
    pub wrong: Vec<String>,
}

/// How many wrongs are told.
const TOLD: usize = 5;

/// The world.
pub struct World {
    pub(super) setup: Setup,
    pub(super) plane: Plane,
    /// What chooses in the engine's place.
    remembering: Option<Remembering>,
    pub(super) daemon: Option<Daemon>,
    /// When the next daemon comes.
    pub(super) back_at: u64,
    /// After how many steps the daemon is killed.
    pub(super) fuse: Option<u8>,
    pub(super) members: BTreeMap<u8, Member>,
    pub(super) ring: u32,
    pub(super) algorithm: Algorithm,
    pub(super) tracking: Tracking,
    pub(super) tunnel: Option<DesiredTunnel>,
    pub(super) clients: Vec<Client>,
    /// Ports that can be used again.
    pub(super) closed: Vec<(Speech, From)>,
    /// Seconds since the beginning.
    pub(super) now: u64,
    rng: Rng,
    unsettled_share: f64,
    pub(super) outcome: Outcome,
}

impl World {
    /// One in which nothing has happened yet.
    pub fn new(setup: &Setup) -> Self {
        let mut world = Self {
            plane: Plane::new(size(setup), setup.capacity, setup.broken),
            remembering: (setup.chooser == Chooser::Remembering)
                .then(|| Remembering::new(setup.capacity * FlowTable::ALL.len())),
            setup: setup.clone(),
            daemon: Some(Daemon::default()),
            back_at: 0,
            fuse: None,
            members: (1..=setup.backends / 2).map(|number| (number, Member::default())).collect(),
            ring: setup.ring,
            algorithm: setup.algorithm,
            tracking: setup.tracking,
            tunnel: None,
            clients: Vec::new(),
            closed: Vec::new(),
            now: 1000,
            rng: Rng(7),
            unsettled_share: 0.0,
            outcome: Outcome::default(),
        };
        world.plan();
        world
    }

    /// Lives through a history.
    pub fn run(setup: &Setup, history: &[Action]) -> Outcome {
        let mut world = Self::new(setup);
        for action in history {
            world.act(*action);
        }
        world.end(history.len())
    }

    fn end(mut self, len: usize) -> Outcome {
        self.outcome.unsettled = self.unsettled_share / len.max(1) as f64;
        self.outcome.unsettled_in_the_end = self.plane.unsettled_share();
        let drops = self.plane.tables.host.drops.borrow();
        let at_risk = drops.iter().filter(|((_, reason), _)| *reason == Reason::FlowAtRisk as u32);
        self.outcome.at_risk = at_risk.map(|(_, count)| count).sum();
        drop(drops);
        self.outcome
    }

    /// One thing happens, and a second passes.
    pub fn act(&mut self, action: Action) {
        match action {
            Action::Wait => {}
            Action::Open(coins) => self.open(coins),
            Action::Close(n) => self.close(n),
            Action::HalfClose(n) => self.half_close(n),
            Action::Reset(n) => self.reset(n),
            Action::Vanish(n) => self.vanish(n),
            Action::Reuse(n) => self.reuse(n),
            Action::SpoofReset(n) => self.spoof(n, Word::Rst),
            Action::SpoofFin(n) => self.spoof(n, Word::Fin),
            Action::SpoofHello(n) => self.spoof(n, Word::Hello),
            action => self.operate(action),
        }
        if action != Action::Wait {
            self.check(&format!("{action:?}"));
        }
        self.pass();
    }

    /// A second passes.
    fn pass(&mut self) {
        self.now += 1;
        self.plane.set_clock(self.now);
        self.work();
        self.flood();
        self.talk();
        self.check("a second");
        self.unsettled_share += self.plane.unsettled_share();
        let entries = self.remembering.as_ref().map_or(self.plane.tables.len(), Remembering::entries);
        self.outcome.most_entries = self.outcome.most_entries.max(entries);
    }

    /// What comes from nobody's clients.
    fn flood(&mut self) {
        let kinds = [(Word::Data, self.setup.strays), (Word::Hello, self.setup.hellos)];
        for (word, count) in kinds {
            for n in 0..count {
                let speech = self.setup.services[n as usize % self.setup.services.len()];
                let from = stranger(&mut self.rng);
                self.deliver(speech, from, word);
            }
        }
    }

    /// Sends a packet of a flow; the backend that gets it.
    pub(super) fn send(&mut self, speech: Speech, from: From, word: Word) -> Option<u8> {
        if word == Word::Hello && self.setup.broken == Some(Rule::HelloKeeps) {
            self.plane.tables.forget(&key(speech, from));
        }
        self.deliver(speech, from, word)
    }

    fn deliver(&mut self, speech: Speech, from: From, word: Word) -> Option<u8> {
        let receiver = match &mut self.remembering {
            Some(remembering) => remembering.choose(&self.plane, speech, from),
            None => self.plane.send(&frame(speech, from, word)),
        };
        // What nobody has told the balancer it cannot know.
        let told = self.daemon.is_some();
        if let Some(down) = receiver.filter(|number| told && !self.is_up(*number)) {
            self.wrong(format!("{word:?} of {speech:?} {}:{} went to {down}, which is down", from.0, from.1));
        }
        receiver
    }

    /// Whether a backend is there and works.
    pub(super) fn is_up(&self, number: u8) -> bool {
        self.members.get(&number).is_some_and(|member| !member.failed)
    }

    /// Notes what is wrong.
    pub(super) fn wrong(&mut self, what: String) {
        if self.outcome.wrong.len() < TOLD {
            self.outcome.wrong.push(format!("after {} s: {what}", self.now - 1000));
        }
    }

    /// The invariant, for every live flow.
    pub(super) fn check(&mut self, after: &str) {
        if self.setup.tracking == Tracking::Never {
            return;
        }
        let faults: Vec<String> = self.clients.iter().filter_map(|client| self.fault(client)).collect();
        for fault in faults {
            self.wrong(format!("{fault} (after {after})"));
        }
    }

    /// What is wrong with a flow's slot.
    fn fault(&self, client: &Client) -> Option<String> {
        let key = key(client.speech, client.from);
        let Some((index, slot)) = self.plane.slot(client.speech, &key) else {
            return Some(format!("{client} has no slot"));
        };
        let owner = |id: BackendId| self.plane.number(id);
        let told = |what: &str| Some(format!("{client}: {what}, in {slot:?}"));
        if slot.state() == SlotState::Settled && !self.plane.is_tracked(client.speech) {
            // Nobody looks into flow tables.
            let here = owner(slot.current()) == Some(client.backend);
            return if here { None } else { told("elsewhere, settled") };
        }
        match (slot.state(), self.plane.tables.recorded(&key).and_then(|flow| BackendId::new(flow.backend))) {
            (_, Some(id)) => {
                return if owner(id) == Some(client.backend) { None } else { told("recorded elsewhere") };
            }
            (SlotState::Settled, None) if owner(slot.current()) == Some(client.backend) => return None,
            (SlotState::Settled, None) => return told("elsewhere and not recorded"),
            (SlotState::Fresh | SlotState::Late, None) => {}
        }
        let older = self.plane.unsettled_at(index).is_some_and(|event| client.begun < event);
        match (older, owner(slot.previous()) == Some(client.backend), slot.state()) {
            (true, true, SlotState::Fresh) => None,
            (true, true, _) => told("late, and not recorded"),
            (true, false, _) => told("not recorded, and not on the previous owner"),
            (false, ..) => told("not recorded, and younger than the change"),
        }
    }
}
