//! The lab: client, router, balancer and backends in network namespaces, with real programs in them.
//!
//! `lb lab` uses it from the command line, the project's tests use it as a library. It knows the binary
//! `lb` only as a program to start, never its insides, so what it shows is what a user gets.
//!
//! ```text
//!  client ─── router ───┐                198.51.100.0/24: client .2, router .1
//!                       │ (fabric:       203.0.113.0/24:  router .1, balancer .5,
//!   b1  b2  b3 ─────────┤  a bridge)                      services .10 (l2) and .20 (ipip),
//!                       │                                 backends .21 .22 .23 …
//!                 lb ───┘
//! ```
//!
//! With [`Builder::ipv6`] also 2001:db8:1::/64 (client ::2, router ::1) and 2001:db8::/64 (router ::1, balancer ::5,
//! services ::10 and ::20, backends ::21 ::22 ::23 …).
//!
//! ```no_run
//! # use lb_userspace::lab::{Role, Topology, unique_prefix};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lab = Topology::builder(unique_prefix()).backends(3).build()?;
//! let page = lab.exec(Role::Client, "curl", ["-s", &format!("http://{}/", lab.backend_addr(1))])?;
//! assert!(page.starts_with("backend b1\n"));
//! # Ok(()) // dropping the topology removes namespaces, processes and files
//! # }
//! ```

mod address;
mod balancer;
mod builder;
mod chart;
mod cli;
mod config_file;
mod demo;
mod error;
mod interrupt;
mod netns;
mod nginx;
mod plumbing;
mod plumbing_v6;
mod process;
mod report;
mod state;
mod steps;
mod stub;
mod topology;
mod traffic;
mod wait;

pub use address::{
    BALANCER, BALANCER_V6, CLIENT, CLIENT_V6, ROUTER_CLIENT_SIDE, ROUTER_CLIENT_SIDE_V6, ROUTER_SERVER_SIDE,
    ROUTER_SERVER_SIDE_V6, VIP_IPIP, VIP_IPIP_V6, VIP_L2, VIP_L2_V6,
};
pub use balancer::Balancer;
pub use builder::{Builder, unique_prefix};
pub use cli::{LabCommand, run};
pub use config_file::{LabBackend, LabConfig};
pub use error::LabError;
pub use interrupt::Interrupt;
pub use netns::Netns;
pub use process::Process;
pub use state::{State, down, list, sweep_stale};
pub use topology::{Role, Topology};
pub use traffic::{Spread, port_bytes};
pub use wait::wait_for;
