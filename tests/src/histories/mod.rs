//! Histories of flows and backends, lived through by the packet engine and the control plane on tables in memory, and
//! compared with a model of what ought to happen: a packet of a live flow goes to the flow's backend for as long as
//! that has been up.
//!
//! The model knows flows, who has which backend, and nothing of slots, tables or rings. What is checked of those after
//! every step is the invariant of the design: in a settled slot every live flow is on the current owner; in an unsettled
//! one every live flow is recorded, or older than the slot's first change and on the previous owner.

use lb_userspace::model::{Algorithm, Tracking};

mod action;
mod clients;
mod control;
mod lru;
mod packet;
mod plane;
mod remember;
mod shorten;
mod words;
mod world;

pub use action::{Action, Rng};
pub use lru::{Lru, LruTables};
pub use packet::{From, Speech, Word, client, frame, key, receiver, stranger};
pub use shorten::{history, shortened, told};
pub use world::{Outcome, World};

/// A rule of the design, to be broken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// An unsettled slot keeps its oldest previous owner. Broken: it takes the newest.
    OldestPrevious,
    /// A slot stays unsettled where both owners become equal again. Broken: it settles.
    MarkStays,
    /// A slot settles when its live flows are on the current owner. Broken: when enough time has passed.
    FlowsSettle,
    /// Older flows are recorded in a table of their own. Broken: in that of established ones.
    TableOfOldFlows,
    /// An idle time after the last change strays are not recorded any more. Broken: they always are.
    LateState,
    /// A SYN of a known flow keeps its backend. Broken: it is a new flow.
    HelloKeeps,
    /// Slots are marked a while before their owner changes as planned. Broken: at once.
    TwoSteps,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::OldestPrevious,
        Self::MarkStays,
        Self::FlowsSettle,
        Self::TableOfOldFlows,
        Self::LateState,
        Self::HelloKeeps,
        Self::TwoSteps,
    ];
}

/// Who chooses backends.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Chooser {
    /// The packet engine.
    #[default]
    Engine,
    /// A ring and one table, as large as the engine's three, of all flows.
    Remembering,
}

/// Where histories take place.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What the services speak; one each at most.
    pub services: Vec<Speech>,
    /// How many backends there are room for; half of them are there at the beginning.
    pub backends: u8,
    /// Slots of each service's ring.
    pub ring: u32,
    /// Entries of each flow table.
    pub capacity: usize,
    /// Packets of flows that do not exist, in a second.
    pub strays: u32,
    /// Flows that do not go on behind their first packet, in a second.
    pub hellos: u32,
    /// How slots are chosen at the beginning.
    pub algorithm: Algorithm,
    /// Which flows are recorded at the beginning.
    pub tracking: Tracking,
    /// Who chooses backends.
    pub chooser: Chooser,
    /// The rule that is broken.
    pub broken: Option<Rule>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            services: vec![Speech::Tcp],
            backends: 6,
            ring: 31,
            capacity: 400,
            strays: 0,
            hellos: 0,
            algorithm: Algorithm::Maglev,
            tracking: Tracking::Auto,
            chooser: Chooser::Engine,
            broken: None,
        }
    }
}

/// After how many seconds a silent flow is dead.
pub const IDLE: u64 = 60;
/// Likewise if it is half open.
pub const HALF_OPEN: u64 = 20;
/// Likewise if it is closing.
pub const CLOSING: u64 = 15;
/// Seconds between two sweeps.
pub const SWEEP: u64 = 20;
