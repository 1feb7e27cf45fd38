//! From what an operator wants of an interface and what it is like to the changes that make it so. Pure.

use std::fmt;

use super::cpus::{CpuSet, Topology};
use super::ethtool::{Coalesce, FlowType, Queues, RingSizes, fields};
use super::facts::{Facts, Irq};
use super::value::Value;
use crate::model::{InterfaceSettings, QueueCount, Spread, Steering, Toggle, UdpHash, Waiting};

/// A setting, called as in the config.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Setting {
    /// Numbers of queues.
    Queues,
    /// Largest layer-3 packet.
    Mtu,
    /// Sizes of descriptor rings.
    Rings,
    /// How long interrupts wait.
    Coalesce,
    /// Offloads that native XDP does not get on with.
    Offloads,
    /// Which queue gets how much.
    Rss,
    /// What the hash of UDP covers.
    UdpHash,
    /// Both directions to one queue.
    Symmetric,
    /// CPUs that receive.
    Rps,
    /// CPUs that send.
    Xps,
    /// CPUs that are interrupted.
    IrqAffinity,
}

/// What the plan must know beside the interface.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The machine's CPUs.
    pub cpus: Topology,
    /// Whether the program is to run in the driver.
    pub native: bool,
    /// Whether it is attached already.
    pub attached: bool,
}

/// A value that is to replace another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// As it is.
    pub before: Value,
    /// As it shall be.
    pub after: Value,
}

/// Why there is nothing to be planned: what the driver does not tell of itself cannot be set.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Untold(&'static str);

/// Offloads that native XDP does not get on with: merged packets do not fit what it is given, and the program would not
/// see the tag of a VLAN.
const NATIVE: [&str; 4] = ["rx-lro", "rx-gro-hw", "rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];
/// Those that generic XDP does not get on with: merged packets do not fit the way out.
const GENERIC: [&str; 3] = ["rx-lro", "rx-gro-hw", "rx-gro"];

/// Drivers that keep as many queues free for XDP's transmissions as there are for everything else.
const HALVED: [&str; 2] = ["ena", "gve"];

impl Setting {
    /// The order in which they are applied: numbers of queues first, since they bring the rest back to defaults.
    pub const ORDER: [Self; 11] = [
        Self::Queues,
        Self::Mtu,
        Self::Rings,
        Self::Coalesce,
        Self::Offloads,
        Self::Rss,
        Self::UdpHash,
        Self::Symmetric,
        Self::Rps,
        Self::Xps,
        Self::IrqAffinity,
    ];

    /// Its key in the config.
    pub fn key(self) -> &'static str {
        match self {
            Self::Queues => "queues",
            Self::Mtu => "mtu",
            Self::Rings => "rings",
            Self::Coalesce => "coalesce",
            Self::Offloads => "offloads",
            Self::Rss => "rss",
            Self::UdpHash => "udp_hash",
            Self::Symmetric => "symmetric",
            Self::Rps => "rps",
            Self::Xps => "xps",
            Self::IrqAffinity => "irq_affinity",
        }
    }

    /// Whether many drivers take the link down for a moment to set it.
    pub fn resets_link(self) -> bool {
        matches!(self, Self::Queues | Self::Mtu | Self::Rings | Self::Offloads)
    }

    /// Whether the operator named it.
    pub fn is_named(self, settings: &InterfaceSettings) -> bool {
        match self {
            Self::Queues => settings.queues.is_some(),
            Self::Mtu => settings.mtu.is_some(),
            Self::Rings => settings.rings.is_some(),
            Self::Coalesce => settings.coalesce.is_some(),
            Self::Offloads => settings.offloads.is_some(),
            Self::Rss => settings.rss.is_some(),
            Self::UdpHash => settings.udp_hash.is_some(),
            Self::Symmetric => settings.symmetric.is_some(),
            Self::Rps => settings.rps.is_some(),
            Self::Xps => settings.xps.is_some(),
            Self::IrqAffinity => settings.irq_affinity.is_some(),
        }
    }

    /// The values it means on this interface; none where it is not named.
    pub fn wanted(
        self,
        settings: &InterfaceSettings,
        facts: &Facts,
        context: &Context,
    ) -> Result<Vec<Value>, Untold> {
        let cpus = context.cpus.for_packets(facts.numa_node);
        let one = |value: Option<Value>| Ok(value.into_iter().collect());
        match self {
            Self::Mtu => one(settings.mtu.map(Value::Mtu)),
            Self::Queues => one(settings.queues.map(|count| queues(count, facts, context)).transpose()?),
            Self::Rings => {
                let Some(sizes) = settings.rings else { return Ok(Vec::new()) };
                let now = facts.rings.ok_or(Untold("the driver does not tell the sizes of its rings"))?.now;
                let (rx, tx) = (sizes.rx.unwrap_or(now.rx), sizes.tx.unwrap_or(now.tx));
                Ok(vec![Value::Rings(RingSizes { rx, tx })])
            }
            Self::Coalesce => one(settings.coalesce.map(|waiting| coalesce(waiting, facts)).transpose()?),
            Self::Offloads => match settings.offloads {
                Some(_) => harmful(facts, if context.native { &NATIVE } else { &GENERIC }),
                None => Ok(Vec::new()),
            },
            Self::Rss => one(settings.rss.as_ref().map(|spread| rss(spread, facts)).transpose()?),
            Self::UdpHash => settings.udp_hash.map_or(Ok(Vec::new()), |hash| udp_hash(hash, facts)),
            Self::Symmetric => {
                let Some(toggle) = settings.symmetric else { return Ok(Vec::new()) };
                facts.rss.as_ref().ok_or(Untold("the driver has no receive-side scaling that can be set"))?;
                Ok(vec![Value::InputXfrm(u8::from(toggle == Toggle::On))])
            }
            Self::Rps => settings.rps.map_or(Ok(Vec::new()), |steering| {
                let queues = facts.rps.as_ref().ok_or(Untold("the kernel shows no receive queues"))?.len();
                Ok(steer(steering, queues, &cpus, |queue, cpus| Value::Rps { queue, cpus }))
            }),
            Self::Xps => settings.xps.map_or(Ok(Vec::new()), |steering| {
                let queues = facts.xps.as_ref().filter(|queues| queues.len() > 1);
                let queues = queues.ok_or(Untold("there is a single transmit queue"))?.len();
                Ok(steer(steering, queues, &cpus, |queue, cpus| Value::Xps { queue, cpus }))
            }),
            Self::IrqAffinity => settings.irq_affinity.map_or(Ok(Vec::new()), |_| {
                let irqs = facts.irqs.as_ref().ok_or(Untold("the interface has no interrupts of its own"))?;
                Ok(affinity(irqs, &cpus))
            }),
        }
    }

    /// The changes that it takes; nothing where all is as it should be.
    pub fn plan(
        self,
        settings: &InterfaceSettings,
        facts: &Facts,
        context: &Context,
    ) -> Result<Vec<Change>, Untold> {
        let wanted = self.wanted(settings, facts, context)?;
        let change = |after: Value| Some(Change { before: after.now(facts)?, after });
        Ok(wanted.into_iter().filter_map(change).filter(|change| !change.after.is(&change.before)).collect())
    }
}

impl Change {
    /// The change that undoes it.
    pub fn inverse(self) -> Self {
        Self { before: self.after, after: self.before }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.after.part(), self.before, self.after)
    }
}

fn queues(count: QueueCount, facts: &Facts, context: &Context) -> Result<Value, Untold> {
    let channels = facts.channels.ok_or(Untold("the driver has no number of queues that can be set"))?;
    let (max, now) = (channels.max, channels.now);
    let most = if max.combined > 0 { max.combined } else { max.rx.min(max.tx) };
    let count = match count {
        QueueCount::Exactly(count) => count,
        QueueCount::Auto => {
            let cpus = count32(context.cpus.for_packets(facts.numa_node).len());
            cpus.min(room(most, count32(context.cpus.0.len()), facts.driver.as_deref(), context.native))
                .max(1)
        }
    };
    Ok(Value::Queues(match max.combined > 0 {
        true => Queues { combined: count, ..now },
        false => Queues { rx: count, tx: count, ..now },
    }))
}

/// How many of `most` queues leave room for the transmissions of native XDP.
fn room(most: u32, cpus: u32, driver: Option<&str>, native: bool) -> u32 {
    match driver {
        Some(driver) if native && HALVED.contains(&driver) => most / 2,
        // A queue for each CPU beside the others, or else all of them are locked.
        Some("virtio_net") if native && most > cpus => most - cpus,
        _ => most,
    }
}

fn coalesce(waiting: Waiting, facts: &Facts) -> Result<Value, Untold> {
    let now = facts.coalesce.ok_or(Untold("the driver does not tell how long interrupts wait"))?;
    Ok(Value::Coalesce(match waiting {
        // Receiving is where the interrupts are; few drivers adapt for both.
        Waiting::Adaptive => Coalesce { adaptive_rx: true, ..now },
        Waiting::Fixed { rx_usecs, tx_usecs } => Coalesce {
            adaptive_rx: now.adaptive_rx && rx_usecs.is_none(),
            adaptive_tx: now.adaptive_tx && tx_usecs.is_none(),
            rx_usecs: rx_usecs.unwrap_or(now.rx_usecs),
            tx_usecs: tx_usecs.unwrap_or(now.tx_usecs),
        },
    }))
}

/// Harmful offloads off; those that are off for good are not mentioned.
fn harmful(facts: &Facts, names: &[&str]) -> Result<Vec<Value>, Untold> {
    let features = facts.features.as_ref().ok_or(Untold("the driver does not tell its offloads"))?;
    let matters = |name: &&str| features.get(*name).is_some_and(|feature| feature.on || !feature.fixed);
    let off = |name: &str| Value::Feature { name: name.to_owned(), on: false };
    Ok(names.iter().copied().filter(matters).map(off).collect())
}

fn rss(spread: &Spread, facts: &Facts) -> Result<Value, Untold> {
    let rss = facts.rss.as_ref().ok_or(Untold("the driver has no receive-side scaling that can be set"))?;
    let slots = rss.table.len();
    Ok(Value::Rss(match spread {
        Spread::Equal => equal(slots, facts.receive_queues()),
        Spread::Queues(queues) => queues.iter().copied().cycle().take(slots).collect(),
        Spread::Weights(weights) => weighted(slots, weights),
    }))
}

/// The table that drivers make by themselves.
pub(super) fn equal(slots: usize, queues: u32) -> Vec<u32> {
    (0..queues.max(1)).cycle().take(slots).collect()
}

/// Slots in proportion to weights, each queue's in one piece, rounded so that all slots are given away.
fn weighted(slots: usize, weights: &[u32]) -> Vec<u32> {
    let sum: u64 = weights.iter().copied().map(u64::from).sum();
    let mut table = Vec::with_capacity(slots);
    let mut before = 0_u64;
    for (queue, weight) in (0..).zip(weights) {
        before += u64::from(*weight);
        let end = (slots as u64 * before).checked_div(sum).unwrap_or(0);
        table.resize(usize::try_from(end).unwrap_or(slots), queue);
    }
    table
}

fn udp_hash(hash: UdpHash, facts: &Facts) -> Result<Vec<Value>, Untold> {
    let known = facts.udp_hash.as_ref().ok_or(Untold("the driver does not tell what its hash covers"))?;
    let covered = match hash {
        UdpHash::Addresses => fields::ADDRESSES,
        UdpHash::Ports => fields::ADDRESSES | fields::PORTS,
    };
    Ok(known.keys().map(|flows: &FlowType| Value::UdpHash { flows: *flows, covered }).collect())
}

/// CPUs for each queue: the queues share them out, or, where there are more queues than CPUs, take turns.
///
/// Receiving, a queue for each CPU is spread by its interrupts already, and handing packets on would only cost: the same
/// queue's packets stay where they are.
fn steer(
    steering: Steering,
    queues: usize,
    cpus: &[u32],
    value: impl Fn(u32, CpuSet) -> Value,
) -> Vec<Value> {
    let share = |queue: usize| -> CpuSet {
        match steering {
            Steering::Off => CpuSet::default(),
            Steering::Auto if queues < cpus.len() => {
                cpus.iter().copied().skip(queue).step_by(queues).collect()
            }
            Steering::Auto => cpus.get(queue % cpus.len().max(1)).copied().into_iter().collect(),
        }
    };
    let value = |queue: usize| match value(count32(queue), share(queue)) {
        Value::Rps { queue, .. } if queues >= cpus.len() => Value::Rps { queue, cpus: CpuSet::default() },
        value => value,
    };
    (0..queues).map(value).collect()
}

/// A CPU for each queue's interrupts.
fn affinity(irqs: &[Irq], cpus: &[u32]) -> Vec<Value> {
    let place = |irq: &Irq| {
        let queue = queue_of(&irq.name)?;
        let cpu = cpus.get(queue % cpus.len().max(1))?;
        Some(Value::Irq { number: irq.number, cpus: [*cpu].into_iter().collect() })
    };
    irqs.iter().filter_map(place).collect()
}

/// The queue whose interrupt has this name: `virtio0-input.3`, `eth0-TxRx-3`, `mlx5_comp3@pci:0000:01:00.0`.
fn queue_of(name: &str) -> Option<usize> {
    const OTHERS: [&str; 5] = ["async", "config", "mgmnt", "misc", "control"];
    let name = name.split('@').next().unwrap_or(name);
    if OTHERS.iter().any(|other| name.contains(other)) {
        return None;
    }
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name.split_at(name.len() - digits).1.parse().ok()
}

fn count32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "setting_tests.rs"]
mod tests;
