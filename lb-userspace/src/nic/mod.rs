//! Settings of network interfaces beyond netlink: what `ethtool`, sysfs and procfs do. Decides nothing about packets.

mod cpus;
mod ethtool;
mod facts;
mod ioctl;
mod offload;
mod setting;
mod sysfs;
mod value;

pub use cpus::{Cpu, CpuSet, Topology};
pub use ethtool::{Channels, Coalesce, Feature, FlowType, Queues, RingSizes, Rings, Rss, fields};
pub use facts::{Facts, Irq, QueuePackets, facts, has_irqbalance, queue_packets, silence};
pub use offload::{Error, Offload, set_offload};
pub use setting::{Change, Context, Setting, Untold};
pub use value::Value;
