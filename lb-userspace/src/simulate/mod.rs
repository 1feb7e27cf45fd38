//! Packets through the balancer without a network: a language for them, files of them, and what is said of each.
//!
//! The decisions are the engine's; nothing here repeats one.

pub mod capture_file;
pub mod language;
