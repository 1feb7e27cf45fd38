//! The data plane as the rest of the daemon sees it: something that can be observed and told single steps.
//!
//! The only module that knows aya. It decides nothing: `reconcile` does.

mod attach;
mod batch;
mod bench;
mod bpffs;
mod bring;
mod capacity;
mod copy;
mod counters;
mod decap;
mod decap_found;
mod error;
mod events;
mod flow_maps;
mod foreign;
mod kernel;
mod kernel_log;
mod live;
mod maps;
mod memory;
mod mmap;
mod object;
mod policy_maps;
mod probes;
mod refusal;
mod resize;
mod samples;
mod stages;
mod sweeping;

pub use attach::{Attachment, Mode, Target, attached, detach};
pub use bench::{Floor, Outcome, RESTORABLE, Repeated, Stopwatch, Vary};
pub use bpffs::{Lock, Pins};
pub use capacity::{Memory, PORTS as PORT_CAPACITY, memory, possible_cpus};
pub use counters::{Counters, ServiceDrops};
pub use decap::{ClampCounters, Decap, DecapCounters, DecapLists, DecapReader, Mss};
pub use decap_found::{Clamped, DecapFound, XdpFound, clamped, xdp_program};
pub use error::Error;
pub use events::Events;
pub use flow_maps::FlowUse;
pub use foreign::{Foreign, foreign};
pub use kernel::{KernelPlane, monotonic_ns};
pub use live::LiveTables;
pub use memory::MemoryPlane;
pub use object::{ProgramUse, TestProgram, objects, verify};
pub use probes::{Gate, ProbeTable};
pub use refusal::{Facts, Refusal};
pub use resize::{Brought, Resize, recover};
pub use samples::Sampling;
pub use sweeping::FlowReader;

use std::collections::BTreeMap;

use lb_common::abi::BackendId;

use crate::reconcile::{Flow, Observed, Plan, Step};

/// A data plane.
pub trait DataPlane {
    /// A snapshot of all maps that steps write, without recorded flows.
    fn observe(&self) -> Result<Observed, Error>;
    /// All recorded flows; `None` where they change too fast to be read completely.
    fn flows(&self) -> Result<Option<Vec<Flow>>, Error>;
    /// The loads of these backends; below zero where programs took off what they never added.
    fn loads(&self, backends: &[BackendId]) -> BTreeMap<BackendId, i64>;
    /// Adds to loads; what programs add meanwhile is kept.
    fn correct_loads(&mut self, by: &[(BackendId, i64)]);
    /// Sets loads that no program writes.
    fn set_loads(&mut self, loads: &[(BackendId, u64)]);
    /// Executes one step.
    fn execute(&mut self, step: &Step) -> Result<(), Error>;

    /// Executes a plan in order, up to the first failure.
    fn run(&mut self, plan: &Plan) -> Result<(), Error> {
        plan.steps.iter().try_for_each(|step| self.execute(step))
    }
}
