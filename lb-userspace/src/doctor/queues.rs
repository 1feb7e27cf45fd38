//! What about a NIC's queues, interrupts and offloads keeps native XDP away or packets on too few CPUs. Pure: facts come
//! from `nic`.

use std::collections::{BTreeMap, BTreeSet};

use super::kernel::number;
use super::load::{Share, balance};
use super::{Diagnosis, Finding, Remedy, Severity};
use crate::model::{InterfaceSettings, QueueCount, Steering};
use crate::nic::{Context, Facts, FlowType, Irq, Queues, Setting, Value, fields};

/// Drivers that refuse XDP above an MTU even for multi-buffer programs, in bytes (`ENA_XDP_MAX_MTU`, ena_netdev.h;
/// ixgbe's buffers of 3 KB).
const MTU_LIMITS: [(&str, u32); 2] = [("ena", 3498), ("ixgbe", 3050)];
/// What virtio_net took before Linux 6.3.
const OLD_VIRTIO_MTU: u32 = 4060;
/// First kernel whose virtio_net takes multi-buffer programs.
const VIRTIO_FRAGS: (u32, u32) = (6, 3);
/// Features that merge packets before XDP sees them, by the kernel's names.
const MERGING: [&str; 2] = ["rx-lro", "rx-gro-hw"];
/// What is known about a NIC.
#[derive(Clone, Debug, Default)]
pub struct Nic {
    /// What it tells of itself.
    pub facts: Facts,
    /// The machine's CPUs, and whether lb runs natively there.
    pub context: Context,
    /// As `uname -r` tells.
    pub release: String,
    /// A program runs that moves interrupts.
    pub irqbalance: bool,
    /// What the config wants of it.
    pub settings: InterfaceSettings,
    /// Packets per second that each queue received while it was watched.
    pub received: Vec<f64>,
}

impl Nic {
    /// What is to be said about it.
    pub fn findings(&self) -> Vec<Diagnosis> {
        let mut found = self.merging();
        found.extend(self.mtu());
        found.extend(self.queues());
        found.extend(self.interrupts());
        found.extend(self.spread());
        found
    }

    fn place(&self) -> &str {
        &self.facts.interface
    }

    fn is(&self, driver: &str) -> bool {
        self.facts.driver.as_deref() == Some(driver)
    }

    fn merging(&self) -> Vec<Diagnosis> {
        let Some(features) = &self.facts.features else { return Vec::new() };
        let on = MERGING.iter().filter_map(|name| Some((*name, *features.get(*name)?)));
        let found: Vec<Diagnosis> = on
            .filter(|(_, feature)| feature.on)
            .map(|(name, feature)| {
                let what = format!("{name} is on{}", if feature.fixed { " and cannot be switched off here" } else { "" });
                let finding = Finding::new("LB215", Severity::Warning, self.place(), what)
                    .why("packets are merged before XDP sees them: drivers refuse native XDP, or each merged one counts as too big");
                match feature.fixed {
                    true => finding
                        .fix("in the hypervisor: ctrl_guest_offloads=on, or guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off; else mode: generic")
                        .into(),
                    false => self.set(finding, vec![Value::Feature { name: name.to_owned(), on: false }]),
                }
            })
            .collect();
        match found.is_empty() {
            true => vec![Finding::ok("LB215", self.place(), "no offload merges packets").into()],
            false => found,
        }
    }

    fn set(&self, finding: Finding, values: Vec<Value>) -> Diagnosis {
        Diagnosis::mended_by(finding, Remedy::Set { interface: self.place().to_owned(), values })
    }

    /// The largest MTU that the driver takes with XDP, where it is known.
    fn mtu_limit(&self) -> Option<u32> {
        let driver = self.facts.driver.as_deref()?;
        let old_virtio =
            driver == "virtio_net" && number(&self.release).is_some_and(|version| version < VIRTIO_FRAGS);
        let listed = MTU_LIMITS.iter().find(|(name, _)| *name == driver).map(|(_, limit)| *limit);
        listed.or(old_virtio.then_some(OLD_VIRTIO_MTU))
    }

    fn mtu(&self) -> Option<Diagnosis> {
        let (limit, mtu) = (self.mtu_limit()?, self.facts.mtu?);
        let driver = self.facts.driver.as_deref().unwrap_or_default();
        if mtu <= limit {
            return Some(
                Finding::ok("LB214", self.place(), format!("MTU {mtu}; {driver} takes {limit} with XDP"))
                    .into(),
            );
        }
        let what = format!("MTU {mtu}, but {driver} takes {limit} at most with native XDP");
        let finding = Finding::new("LB214", Severity::Problem, self.place(), what)
            .why("native XDP is refused, or cannot be taken off again");
        Some(self.set(finding, vec![Value::Mtu(limit)]))
    }

    fn queues(&self) -> Option<Diagnosis> {
        let channels = self.facts.channels?;
        let (max, now) = (channels.max, channels.now);
        if self.is("ena") && now.combined > max.combined / 2 {
            let what = format!("{} of {} channels are in use", now.combined, max.combined);
            let finding = Finding::new("LB213", Severity::Problem, self.place(), what)
                .why("ena needs as many again for XDP, and refuses it");
            let half = Queues { combined: (max.combined / 2).max(1), ..now };
            return Some(self.set(finding, vec![Value::Queues(half)]));
        }
        if self.is("bnxt_en") && now.rx > 0 {
            return Some(
                Finding::new(
                    "LB213",
                    Severity::Problem,
                    self.place(),
                    "channels for receiving and sending are separate",
                )
                .why("bnxt refuses native XDP")
                .fix(format!("ethtool -L {} combined {} rx 0 tx 0", self.place(), max.combined.max(1)))
                .into(),
            );
        }
        self.number_of_queues()
    }

    /// What a setting of the config would make of it, left to `auto`.
    fn auto(&self, setting: Setting) -> Vec<Value> {
        let auto = InterfaceSettings {
            queues: Some(QueueCount::Auto),
            irq_affinity: Some(Steering::Auto),
            ..InterfaceSettings::default()
        };
        // What the driver does not tell cannot be judged either.
        setting.wanted(&auto, &self.facts, &self.context).unwrap_or_default()
    }

    fn number_of_queues(&self) -> Option<Diagnosis> {
        let wanted = match self.auto(Setting::Queues).as_slice() {
            [Value::Queues(Queues { rx, combined, .. })] => (*combined).max(*rx),
            _ => return None,
        };
        let (queues, cpus) = (self.facts.receive_queues(), self.cpus().len());
        let what = format!("{queues} receive queues, {cpus} CPUs near it; {wanted} would be right");
        if queues >= wanted || self.settings.queues.is_some() {
            return Some(Finding::ok("LB216", self.place(), what).into());
        }
        // What is virtual can steer packets without queues of its own.
        let severity = if self.facts.bus.is_some() { Severity::Warning } else { Severity::Notice };
        let finding = Finding::new("LB216", severity, self.place(), what)
            .why("a queue's packets are one CPU's work; the other CPUs cannot help")
            .fix("`queues: auto` of the interface in the config (set before attaching: the link may reset)");
        Some(finding.into())
    }

    fn cpus(&self) -> Vec<u32> {
        self.context.cpus.for_packets(self.facts.numa_node)
    }

    fn interrupts(&self) -> Vec<Diagnosis> {
        let wanted = self.auto(Setting::IrqAffinity);
        if self.facts.receive_queues() < 2 || self.cpus().len() < 2 || wanted.len() < 2 {
            return Vec::new();
        }
        let mut found = vec![self.affinity(wanted)];
        if self.irqbalance {
            let finding = Finding::new("LB223", Severity::Notice, self.place(), "irqbalance runs");
            found.push(
                finding
                    .why("it moves interrupts by its own lights, also away from where they were set")
                    .fix("`irq_affinity: auto` in the config with irqbalance's --banirq or --banmod for this NIC, or stop it")
                    .into(),
            );
        }
        found
    }

    /// Whether the interrupts that `wanted` places have CPUs of their own.
    fn affinity(&self, wanted: Vec<Value>) -> Diagnosis {
        let is_queue = |irq: &&Irq| {
            wanted.iter().any(|value| matches!(value, Value::Irq { number, .. } if *number == irq.number))
        };
        let irqs: Vec<&Irq> = self.facts.irqs.iter().flatten().filter(is_queue).collect();
        let used: BTreeSet<u32> = irqs.iter().flat_map(|irq| &irq.cpus.0).copied().collect();
        let wandering = irqs.iter().filter(|irq| irq.cpus.0.len() > 1).count();
        let fair = self.cpus().len().min(self.facts.receive_queues() as usize);
        let what = match wandering {
            0 => format!("{} interrupts of queues on {} CPUs", irqs.len(), used.len()),
            _ => format!("{wandering} of {} interrupts of queues may go to several CPUs", irqs.len()),
        };
        if used.len() >= fair && wandering == 0 {
            return Finding::ok("LB222", self.place(), what).into();
        }
        // Where each may go to all, the hardware takes one, often the same.
        let severity = if used.len() < fair { Severity::Warning } else { Severity::Notice };
        let finding = Finding::new("LB222", severity, self.place(), what)
            .why("queues that share a CPU share its time; those that wander miss its caches");
        self.set(finding, wanted)
    }

    fn spread(&self) -> Vec<Diagnosis> {
        let mut found = Vec::new();
        found.extend(self.table());
        found.extend(self.hash());
        if self.received.len() > 1 {
            let share = Share { code: "LB225", place: self.place(), of_what: "packets", each: "queue" };
            found.push(balance(share, &self.received));
        }
        found
    }

    fn table(&self) -> Option<Diagnosis> {
        let (table, queues) = (&self.facts.rss.as_ref()?.table, self.facts.receive_queues());
        if table.is_empty() || queues < 2 || self.settings.rss.is_some() {
            return None;
        }
        let mut slots: BTreeMap<u32, u32> = BTreeMap::new();
        table.iter().for_each(|queue| *slots.entry(*queue).or_default() += 1);
        let most = slots.values().copied().max().unwrap_or(0);
        let fair = (table.len() as u32).div_ceil(queues);
        let what = format!("RSS table of {} entries over {} of {queues} queues", table.len(), slots.len());
        if most <= fair.saturating_add(1) && slots.len() as u32 == queues {
            return Some(Finding::ok("LB224", self.place(), what).into());
        }
        let finding = Finding::new("LB224", Severity::Warning, self.place(), what)
            .why("queues that the table leaves out or favours get no packets, or too many");
        let equal = (0..table.len() as u32).map(|slot| slot % queues).collect();
        Some(self.set(finding, vec![Value::Rss(equal)]))
    }

    fn hash(&self) -> Option<Diagnosis> {
        let hash = self.facts.udp_hash.as_ref().filter(|_| self.facts.receive_queues() > 1)?;
        let blind = hash.iter().filter(|(_, covered)| **covered & fields::PORTS == 0);
        let values: Vec<Value> = blind
            .map(|(flows, covered)| Value::UdpHash { flows: *flows, covered: covered | fields::PORTS })
            .collect();
        if values.is_empty() || self.settings.udp_hash.is_some() {
            return None;
        }
        let finding =
            Finding::new("LB226", Severity::Notice, self.place(), "UDP is hashed over addresses only")
                .why("all of a client's UDP, and all of a tunnel between two hosts, comes to one queue");
        Some(self.set(finding, values))
    }
}

/// As `ethtool` would set it.
pub(super) fn command(interface: &str, value: &Value) -> String {
    match value {
        Value::Queues(queues) => format!("ethtool -L {interface} combined {}", queues.combined),
        Value::Mtu(mtu) => format!("ip link set dev {interface} mtu {mtu}"),
        Value::Feature { name, on } => {
            format!("ethtool -K {interface} {name} {}", if *on { "on" } else { "off" })
        }
        Value::Rss(table) => {
            let queues: BTreeSet<&u32> = table.iter().collect();
            format!("ethtool -X {interface} equal {}", queues.len())
        }
        Value::UdpHash { flows, .. } => {
            let flows = if *flows == FlowType::UdpV4 { "udp4" } else { "udp6" };
            format!("ethtool -N {interface} rx-flow-hash {flows} sdfn")
        }
        Value::Irq { number, cpus } => format!("echo {cpus} > /proc/irq/{number}/smp_affinity_list"),
        other => format!("{interface}: {} {other}", other.part()),
    }
}

#[cfg(test)]
mod tests;
