//! The control plane of lb, one module per concern (see ARCHITECTURE.md).

pub mod config;
pub mod dataplane;
pub mod lab;
pub mod model;
pub mod netlink;
pub mod reconcile;
