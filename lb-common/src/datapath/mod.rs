//! The packet engine: [`process`] decides about one frame, over abstract [`Frame`]s and [`Tables`].
//!
//! Pure and safe: it never panics, loops, locks or trusts a length. Who owns the bytes and the maps is the adapters'
//! business (`lb-ebpf` in the kernel, [`host`] in tests).

mod arp;
mod choose;
mod decap;
mod forward;
mod frame;
pub mod hash;
#[cfg(any(test, feature = "host"))]
pub mod host;
mod parse;
mod probe;
mod process;
mod tables;
#[cfg(test)]
mod tests;

pub use choose::TOUCH_INTERVAL_NS;
pub use decap::{DecapTables, decapsulate};
pub use frame::Frame;
pub use probe::probe;
pub use process::{Verdict, process};
pub use tables::Tables;
