//! Settings of network interfaces beyond netlink: what `ethtool` does. Decides nothing.

mod ethtool;

pub use ethtool::{Error, Offload, set_offload};
