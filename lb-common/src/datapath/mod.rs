//! The packet engine: [`process`] decides about one frame, over abstract [`Frame`]s and [`Tables`].
//!
//! A frame is first given to [`process`]; where that says [`Verdict::Slow`], to [`slow`].
//!
//! Pure and safe: it never panics, loops without bound, locks or trusts a length. Who owns the bytes and the maps is the adapters'
//! business (`lb-ebpf` in the kernel, [`host`] in tests).

mod admission;
mod arp;
mod choose;
mod clamp;
mod decap;
mod encap;
mod forward;
mod frame;
pub mod hash;
#[cfg(any(test, feature = "host"))]
pub mod host;
mod icmp;
mod lookup;
mod ndp;
mod parse;
mod pick;
mod probe;
mod process;
mod quic;
pub mod sample;
mod serve;
mod slow;
mod tables;
#[cfg(test)]
mod tests;
mod too_big;
mod work;

pub use choose::TOUCH_INTERVAL_NS;
pub use clamp::{Clamp, ClampTables, Lower, clamp};
pub use decap::{DecapTables, decapsulate};
pub use frame::Frame;
pub use probe::probe;
pub use process::{Verdict, process, sampled};
pub use slow::{FRAGMENT_LIFE_NS, Finish, slow};
pub use tables::{Recorded, Tables};
pub use work::Work;
