//! Helpers.

pub mod bpf;
pub mod gate;
pub mod mutate;
pub mod packets;
pub mod scene;

pub mod system;
