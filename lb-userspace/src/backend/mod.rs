//! What a machine needs to be a backend: the service addresses on `lo`, silence about them on the segment, and a
//! decapsulator where packets come through tunnels. Facts are collected, a pure plan says what is missing, and that is
//! printed as commands or done; what was done is written down and can be undone. Knows nothing of the daemon.

mod apply;
mod collect;
mod error;
mod facts;
mod plan;
mod process;
mod room;
mod script;
mod settings;
mod state;
mod wanted;

pub use apply::{down, up};
pub use collect::{collect, incoming};
pub use error::Error;
pub use facts::{Facts, Held, Listener, Manner, PortState, SegmentLink, Settings};
pub use plan::{Act, DecapCommand, Setting, Step, missing, plan, short, unclamped};
pub use room::Room;
pub use script::{Invocation, script, sizes, unit};
pub use wanted::{MssWish, Port, Transport, Wanted, Way};

#[cfg(test)]
mod tests;
