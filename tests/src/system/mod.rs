//! What the namespace tests share: a lab with a balancer in it, configs, clients, and looks at the machine.

mod config;
mod download;
mod flows;
mod rig;
mod run;
mod traces;

pub use config::{Config, Service, address};
pub use download::Download;
pub use flows::{Conversation, Echo, Request, fetch, fetch_all, inside};
pub use rig::Rig;
pub use run::{Run, until};
pub use traces::{Kernel, Settings, wait_gone};
