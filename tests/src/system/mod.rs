//! What the namespace tests share: a lab with a balancer in it, configs, clients, and looks at the machine.

mod backend;
mod capture;
mod config;
mod download;
mod faults;
mod flows;
mod listener;
mod quic;
mod raw;
mod requests;
mod rig;
mod run;
mod segment;
mod servers;
mod traces;
mod upload;
mod watched;

pub use backend::Prepared;
pub use capture::{Capture, Seen};
pub use config::{Config, Service, address};
pub use download::Download;
pub use faults::SOON;
pub use flows::{Conversation, Echo, Request, fetch, fetch_all, inside};
pub use listener::Listener;
pub use quic::{Identity, Ids, QuicClient, QuicServer};
pub use raw::{datagram, fragments, send_raw, too_big};
pub use requests::{Answers, Requests};
pub use rig::{Rig, binary};
pub use run::{Run, until};
pub use segment::second_address;
pub use servers::{Agent, Datagrams, Names, UdpEcho, ask_name, ask_udp};
pub use traces::{Kernel, Settings, wait_gone};
pub use upload::{Sink, upload};
pub use watched::{FLAG, Watched};
