//! What lb's kernel and user side share, in three floors that each know only those below:
//!
//! - [`abi`]: map keys, values, names and counters, what both sides must agree on byte for byte;
//! - [`wire`]: bytes ↔ meaning, a file per protocol, and checksum arithmetic;
//! - [`datapath`]: the packet engine, one safe function over abstract frames and tables, so that the same code runs
//!   in the kernel, in host tests and in the differential test.
//!
//! It must not know aya's program side, the operating system or the config.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod abi;
pub mod datapath;
pub mod wire;
