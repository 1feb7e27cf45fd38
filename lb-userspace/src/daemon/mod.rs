//! Where all modules meet: joins config, model, neighbours and data plane, once (`lb attach`, `lb apply`) or for as
//! long as the daemon runs.

mod announce;
mod assemble;
mod bandwidth;
mod blast;
mod check;
mod engine;
mod error;
mod follow;
mod gate;
mod guard;
mod health;
mod instance;
mod interfaces;
mod jobs;
mod leaving;
mod naming;
mod once;
mod overrides;
mod own;
mod pace;
mod paths;
mod probing;
mod report;
mod run;
mod saved;
mod simulation;
mod sizing;
mod socket;
mod stand_ins;
mod targets;
mod tell;
mod tuning;
mod work;

pub use assemble::{Assembled, Finding, Machine, assemble, next_hops};
pub use blast::{Accuracy, Blast, Flows};
pub use check::{Checked, check_once};
pub use engine::{Applied, Candidate, Engine, waiting};
pub use error::Error;
pub use gate::close as close_gate;
pub use instance::Instance;
pub use leaving::{Drained, Drains, Leaver};
pub use naming::names;
pub use once::{apply_once, attach_once, order_once};
pub use overrides::{InForce, Order, Word, orphans};
pub use run::{Options, run};
pub use saved::Saved;
pub use simulation::{Engine as SimulationEngine, EngineChoice, Simulation, mac_of, now};
pub use sizing::{Cpus, size, slots, wanted};
pub use socket::{Reply, Request, events, is_running, request};
pub use stand_ins::Known;
pub use tuning::{
    PartState, SettingState, lower_mtu, restore as restore_settings, restore_all as restore_all_settings,
    states as setting_states,
};
