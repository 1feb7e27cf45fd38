//! One thing of an interface that can be set: how it is read among the facts, written, and said.

use std::fmt;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use super::cpus::CpuSet;
use super::ethtool::{self, Coalesce, FlowType, Queues, RingSizes, fields};
use super::facts::Facts;
use super::ioctl::Control;
use super::setting::equal;
use super::sysfs::Sysfs;

/// A value of one part of an interface.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Numbers of queues.
    Queues(Queues),
    /// Largest layer-3 packet, in bytes.
    Mtu(u32),
    /// Sizes of descriptor rings.
    Rings(RingSizes),
    /// How long interrupts wait.
    Coalesce(Coalesce),
    /// A feature.
    Feature {
        /// The kernel's name of it.
        name: String,
        /// Whether it is on.
        on: bool,
    },
    /// The indirection table.
    Rss(Vec<u32>),
    /// Fields in a hash, as in [`fields`].
    UdpHash {
        /// Of which packets.
        flows: FlowType,
        /// The fields.
        covered: u64,
    },
    /// Transformation of the hash's input.
    InputXfrm(u8),
    /// CPUs for a receive queue's packets.
    Rps {
        /// The queue.
        queue: u32,
        /// Its CPUs.
        cpus: CpuSet,
    },
    /// CPUs that send through a queue.
    Xps {
        /// The queue.
        queue: u32,
        /// Its CPUs.
        cpus: CpuSet,
    },
    /// CPUs that an interrupt is delivered to.
    Irq {
        /// The interrupt.
        number: u32,
        /// Its CPUs.
        cpus: CpuSet,
    },
}

impl Value {
    /// What it is a value of: the setting's key in the config, and for some of them the part behind a space.
    pub fn part(&self) -> String {
        match self {
            Self::Queues(_) => "queues".to_owned(),
            Self::Mtu(_) => "mtu".to_owned(),
            Self::Rings(_) => "rings".to_owned(),
            Self::Coalesce(_) => "coalesce".to_owned(),
            Self::Feature { name, .. } => format!("offloads {name}"),
            Self::Rss(_) => "rss".to_owned(),
            Self::UdpHash { flows: FlowType::UdpV4, .. } => "udp_hash IPv4".to_owned(),
            Self::UdpHash { flows: FlowType::UdpV6, .. } => "udp_hash IPv6".to_owned(),
            Self::InputXfrm(_) => "symmetric".to_owned(),
            Self::Rps { queue, .. } => format!("rps rx-{queue}"),
            Self::Xps { queue, .. } => format!("xps tx-{queue}"),
            Self::Irq { number, .. } => format!("irq_affinity {number}"),
        }
    }

    /// The value that its part has now; `None` where the interface has no such part, or does not tell.
    pub fn now(&self, facts: &Facts) -> Option<Self> {
        let cpus = |list: &Option<Vec<CpuSet>>, queue: u32| list.as_ref()?.get(queue as usize).cloned();
        Some(match self {
            Self::Queues(_) => Self::Queues(facts.channels?.now),
            Self::Mtu(_) => Self::Mtu(facts.mtu?),
            Self::Rings(_) => Self::Rings(facts.rings?.now),
            Self::Coalesce(_) => Self::Coalesce(facts.coalesce?),
            Self::Feature { name, .. } => {
                Self::Feature { name: name.clone(), on: facts.features.as_ref()?.get(name)?.on }
            }
            Self::Rss(_) => Self::Rss(facts.rss.as_ref()?.table.clone()),
            Self::UdpHash { flows, .. } => {
                Self::UdpHash { flows: *flows, covered: *facts.udp_hash.as_ref()?.get(flows)? }
            }
            Self::InputXfrm(_) => Self::InputXfrm(facts.rss.as_ref()?.input_xfrm),
            Self::Rps { queue, .. } => Self::Rps { queue: *queue, cpus: cpus(&facts.rps, *queue)? },
            Self::Xps { queue, .. } => Self::Xps { queue: *queue, cpus: cpus(&facts.xps, *queue)? },
            Self::Irq { number, .. } => {
                let irq = facts.irqs.as_ref()?.iter().find(|irq| irq.number == *number)?;
                Self::Irq { number: *number, cpus: irq.cpus.clone() }
            }
        })
    }

    /// Whether another value of the same part is as good as this: times that the driver chooses do not count.
    pub fn is(&self, other: &Self) -> bool {
        let chosen = |coalesce: &Coalesce| Coalesce {
            rx_usecs: if coalesce.adaptive_rx { 0 } else { coalesce.rx_usecs },
            tx_usecs: if coalesce.adaptive_tx { 0 } else { coalesce.tx_usecs },
            ..*coalesce
        };
        match (self, other) {
            (Self::Coalesce(one), Self::Coalesce(other)) => chosen(one) == chosen(other),
            (one, other) => one == other,
        }
    }

    /// Sets it on an interface of the calling thread's network namespace.
    pub fn set(&self, interface: &str) -> io::Result<()> {
        let control = Control::open(interface)?;
        let queue = |directory: String, file: &str, cpus: &CpuSet| {
            // Its files are there as long as it is held.
            let sysfs = Sysfs::open();
            fs::write(sysfs.interface(interface).join("queues").join(directory).join(file), cpus.mask())
        };
        match self {
            Self::Queues(queues) => ethtool::set_channels(&control, *queues),
            Self::Mtu(mtu) => control.set_mtu(*mtu),
            Self::Rings(sizes) => ethtool::set_rings(&control, *sizes),
            Self::Coalesce(wanted) => ethtool::set_coalesce(&control, *wanted),
            Self::Feature { name, on } => ethtool::set_feature(&control, name, *on),
            Self::Rss(table) => {
                let now = super::facts(interface);
                // The driver's own table follows later changes of the number of queues; one that is set does not.
                let own = *table == equal(table.len(), now.receive_queues());
                ethtool::set_rss_table(&control, Some(&**table).filter(|_| !own))
            }
            Self::UdpHash { flows, covered } => ethtool::set_hash_fields(&control, *flows, *covered),
            Self::InputXfrm(input_xfrm) => ethtool::set_input_xfrm(&control, *input_xfrm),
            Self::Rps { queue: number, cpus } => queue(format!("rx-{number}"), "rps_cpus", cpus),
            Self::Xps { queue: number, cpus } => queue(format!("tx-{number}"), "xps_cpus", cpus),
            Self::Irq { number, cpus } => {
                fs::write(format!("/proc/irq/{number}/smp_affinity_list"), cpus.to_string())
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queues(Queues { rx, tx, combined: 0 }) => write!(f, "{rx} rx, {tx} tx"),
            Self::Queues(Queues { rx: 0, tx: 0, combined }) => write!(f, "{combined}"),
            Self::Queues(Queues { rx, tx, combined }) => write!(f, "{combined}, {rx} rx, {tx} tx"),
            Self::Mtu(mtu) => write!(f, "{mtu}"),
            Self::Rings(RingSizes { rx, tx }) => write!(f, "{rx} rx, {tx} tx"),
            Self::Coalesce(coalesce) => {
                let wait = |adaptive: bool, usecs: u32| match adaptive {
                    true => "adaptive".to_owned(),
                    false => format!("{usecs} µs"),
                };
                let (rx, tx) = (
                    wait(coalesce.adaptive_rx, coalesce.rx_usecs),
                    wait(coalesce.adaptive_tx, coalesce.tx_usecs),
                );
                write!(f, "{rx} rx, {tx} tx")
            }
            Self::Feature { on, .. } => f.write_str(if *on { "on" } else { "off" }),
            Self::Rss(table) => {
                let queues: std::collections::BTreeMap<u32, usize> =
                    table.iter().fold(Default::default(), |mut queues, queue| {
                        *queues.entry(*queue).or_default() += 1;
                        queues
                    });
                let shares = queues.iter().map(|(queue, slots)| format!("{queue}:{slots}"));
                f.write_str(&shares.collect::<Vec<_>>().join(" "))
            }
            Self::UdpHash { covered, .. } => f.write_str(match covered & fields::PORTS {
                0 => "addresses",
                _ => "ports",
            }),
            Self::InputXfrm(input_xfrm) => f.write_str(if *input_xfrm == 0 { "off" } else { "on" }),
            Self::Rps { cpus, .. } | Self::Xps { cpus, .. } | Self::Irq { cpus, .. } => {
                write!(f, "CPUs {cpus}")
            }
        }
    }
}
