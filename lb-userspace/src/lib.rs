//! The control plane of lb, one module per concern (see ARCHITECTURE.md).

pub mod backend;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod doctor;
pub mod health;
pub mod lab;
pub mod model;
pub mod netlink;
pub mod nic;
pub mod reconcile;
pub mod simulate;
