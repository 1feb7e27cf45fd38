//! Packets through the balancer without a network: a language for them, files of them, and what is said of each.
//!
//! The decisions are the engine's; nothing here repeats one.

pub mod capture_file;
mod flow_words;
pub mod language;
mod overlay;
mod report;
#[cfg(test)]
mod tests;
mod trace;

use lb_common::datapath::host::{HostFrame, run};
use lb_common::datapath::{Tables, Verdict};

pub use overlay::Overlay;
pub use report::{Facts, MtuReport, Names, Report, SlotReport, address};
pub use trace::{Found, Noted, Trace};

/// What the engine made of a frame.
pub struct Outcome {
    /// Its verdict.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// What it looked up and counted.
    pub noted: Noted,
}

/// Runs a frame through the engine in this process.
pub fn decide(tables: &impl Tables, frame: &[u8]) -> Outcome {
    let trace = Trace::new(tables);
    let mut frame = HostFrame::new(frame);
    let verdict = run(&mut frame, &trace);
    Outcome { verdict, frame: frame.bytes().to_vec(), noted: trace.into_noted() }
}
