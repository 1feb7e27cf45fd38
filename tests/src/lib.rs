//! Helpers.

pub mod bpf;
pub mod everything;
pub mod frames;
pub mod fuzzing;
pub mod gate;
pub mod histories;
pub mod mutate;
pub mod oracle;
pub mod packets;
pub mod scene;

pub mod system;
pub mod tunnels;
