//! What about a machine stands in the way of the traffic, on a balancer or on a backend: facts are read, findings are
//! made of them by pure functions, and what can be mended is mended on demand. Knows nothing of the daemon.

mod backend;
mod finding;
mod interface;
mod kernel;
mod load;
mod node;
mod queues;
mod remedy;
mod root;
mod stack;
mod way;

pub use backend::backend;
pub use finding::{Finding, Report, Severity};
pub use node::Question;
pub use remedy::{Diagnosis, Remedy, RemedyError};
pub use root::Root;
