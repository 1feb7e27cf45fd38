//! What the namespace tests share: a lab with a balancer in it, configs, clients, and looks at the machine.

mod config;
mod download;
mod faults;
mod flows;
mod listener;
mod requests;
mod rig;
mod run;
mod servers;
mod traces;
mod watched;

pub use config::{Config, Service, address};
pub use download::Download;
pub use faults::SOON;
pub use flows::{Conversation, Echo, Request, fetch, fetch_all, inside};
pub use listener::Listener;
pub use requests::{Answers, Requests};
pub use rig::{Rig, binary};
pub use run::{Run, until};
pub use servers::{Agent, UdpEcho, ask_udp};
pub use traces::{Kernel, Settings, wait_gone};
pub use watched::{FLAG, Watched};
