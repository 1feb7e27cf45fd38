//! Where all modules meet: joins config, model, neighbours and data plane, once (`lb attach`, `lb apply`) or for as
//! long as the daemon runs.

mod announce;
mod assemble;
mod engine;
mod error;
mod follow;
mod guard;
mod instance;
mod interfaces;
mod once;
mod own;
mod run;
mod saved;
mod sizing;
mod socket;

pub use assemble::{Assembled, Finding, assemble, targets};
pub use engine::{Applied, Candidate, Engine};
pub use error::Error;
pub use guard::guard;
pub use instance::Instance;
pub use once::{apply_once, attach_once};
pub use run::{Options, run};
pub use saved::Saved;
pub use sizing::size;
pub use socket::{Reply, Request, is_running, request};
