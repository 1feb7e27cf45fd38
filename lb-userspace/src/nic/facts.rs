//! What an interface tells of itself. Reads only; what the driver cannot tell is absent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::cpus::CpuSet;
use super::ethtool::{self, Channels, Coalesce, Feature, FlowType, Rings, Rss};
use super::ioctl::Control;
use super::setting::Setting;
use super::sysfs::{self, Sysfs};

/// An interface as it is now. Everything is `None` for one that does not exist.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Facts {
    /// Its name.
    pub interface: String,
    /// Name of its driver.
    pub driver: Option<String>,
    /// Where it sits on its bus, such as `0000:01:00.0`; `None` also where it is virtual.
    pub bus: Option<String>,
    /// Largest layer-3 packet, in bytes.
    pub mtu: Option<u32>,
    /// Numbers of queues.
    pub channels: Option<Channels>,
    /// Sizes of descriptor rings.
    pub rings: Option<Rings>,
    /// How long interrupts wait.
    pub coalesce: Option<Coalesce>,
    /// Features by the kernel's names: `rx-lro`, `rx-gro-hw`, `rx-vlan-filter`, `rx-vlan-hw-parse`, …
    pub features: Option<BTreeMap<String, Feature>>,
    /// How packets are spread over queues.
    pub rss: Option<Rss>,
    /// Header fields in the hash of UDP, as in [`ethtool::fields`].
    pub udp_hash: Option<BTreeMap<FlowType, u64>>,
    /// Its interrupts, by number.
    pub irqs: Option<Vec<Irq>>,
    /// The memory that it is near to.
    pub numa_node: Option<u32>,
    /// By receive queue: the CPUs that the kernel hands its packets to; none: receive packet steering is off.
    pub rps: Option<Vec<CpuSet>>,
    /// By transmit queue: the CPUs that send through it; `None` where the kernel chooses by itself alone.
    pub xps: Option<Vec<CpuSet>>,
}

/// An interrupt.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Irq {
    /// Its number.
    pub number: u32,
    /// Who handles it, in the driver's words.
    pub name: String,
    /// CPUs it may be delivered to.
    pub cpus: CpuSet,
}

impl Facts {
    /// How many queues receive; 1 where the driver does not say.
    pub fn receive_queues(&self) -> u32 {
        let told = self.channels.map(|channels| channels.now.rx + channels.now.combined);
        told.filter(|queues| *queues > 0).unwrap_or(1)
    }
}

/// Reads all there is to know of an interface of the calling thread's network namespace.
pub fn facts(interface: &str) -> Facts {
    let mut facts = Facts { interface: interface.to_owned(), ..Facts::default() };
    let Ok(control) = Control::open(interface) else { return facts };
    let sysfs = Sysfs::open();
    let directory = sysfs.interface(interface);
    if let Ok((driver, bus)) = ethtool::driver(&control) {
        facts.driver = Some(driver).filter(|driver| !driver.is_empty());
        facts.bus = Some(bus).filter(|bus| !bus.is_empty());
    }
    facts.mtu = control.mtu().ok();
    facts.channels = ethtool::channels(&control).ok();
    facts.rings = ethtool::rings(&control).ok();
    facts.coalesce = ethtool::coalesce(&control).ok();
    facts.features = ethtool::features(&control).ok();
    facts.rss = ethtool::rss(&control).ok();
    facts.udp_hash = udp_hash(&control);
    facts.irqs = irqs(&directory);
    // -1 on machines that have one memory only.
    facts.numa_node = sysfs::read(directory.join("device/numa_node")).ok().and_then(|node| node.parse().ok());
    facts.rps = masks(&directory, "rx-", "rps_cpus");
    facts.xps = masks(&directory, "tx-", "xps_cpus");
    facts
}

/// Packets that went through each queue in native XDP or at all, as far as the driver tells: by queue, received and sent.
pub fn queue_packets(interface: &str) -> BTreeMap<u32, QueuePackets> {
    let counters = Control::open(interface).and_then(|control| ethtool::statistics(&control));
    by_queue(&counters.unwrap_or_default())
}

/// Packets of a queue since the driver began to count; `None` where it does not say.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct QueuePackets {
    /// Received.
    pub rx: Option<u64>,
    /// Sent.
    pub tx: Option<u64>,
}

fn by_queue(counters: &[(String, u64)]) -> BTreeMap<u32, QueuePackets> {
    let mut queues: BTreeMap<u32, QueuePackets> = BTreeMap::new();
    // A queue's own total, where there is one, follows what XDP saw of it.
    for total in [false, true] {
        for (name, count) in counters {
            let Some((queue, direction)) = queue_of(name, total) else { continue };
            let packets = queues.entry(queue).or_default();
            match direction {
                Direction::Receive => packets.rx = Some(*count),
                Direction::Send => packets.tx = Some(*count),
            }
        }
    }
    queues
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Receive,
    Send,
}

/// The queue and direction whose packets a counter of this name counts: `rx_queue_0_packets` (ixgbe, virtio_net),
/// `rx0_packets` (mlx5), `rx-0.packets` (i40e), `queue_0_rx_cnt` (ena); `rx_queue_0_xdp_packets` and `tx_queue_0_xdp_xmit`
/// (veth) are no totals.
fn queue_of(name: &str, total: bool) -> Option<(u32, Direction)> {
    let start = name.find(|c: char| c.is_ascii_digit())?;
    let (before, rest) = name.split_at(start);
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let (number, after) = rest.split_at(end);
    let trim = |text: &str| text.trim_matches(['_', '-', '.']).to_owned();
    let direction = match (trim(before).as_str(), trim(after).as_str(), total) {
        ("rx" | "rx_queue", "packets", true) | ("queue", "rx_cnt", true) => Direction::Receive,
        ("rx" | "rx_queue", "xdp_packets", false) => Direction::Receive,
        ("tx" | "tx_queue", "packets", true) | ("queue", "tx_cnt", true) => Direction::Send,
        ("tx" | "tx_queue", "xdp_xmit", false) => Direction::Send,
        _ => return None,
    };
    Some((number.parse().ok()?, direction))
}

/// The kernel's words where it tells nothing of a setting.
pub fn silence(interface: &str, setting: Setting) -> Option<io::Error> {
    let control = match Control::open(interface) {
        Ok(control) => control,
        Err(error) => return Some(error),
    };
    match setting {
        Setting::Queues => ethtool::channels(&control).err(),
        Setting::Rings => ethtool::rings(&control).err(),
        Setting::Coalesce => ethtool::coalesce(&control).err(),
        Setting::Rss | Setting::Symmetric => ethtool::rss(&control).err(),
        Setting::UdpHash => ethtool::hash_fields(&control, FlowType::UdpV4).err(),
        _ => None,
    }
}

/// Whether a program runs that moves interrupts between CPUs.
pub fn has_irqbalance() -> bool {
    let processes = sysfs::numbered("/proc", "").unwrap_or_default();
    processes.iter().any(|id| sysfs::read(format!("/proc/{id}/comm")).is_ok_and(|name| name == "irqbalance"))
}

fn udp_hash(control: &Control) -> Option<BTreeMap<FlowType, u64>> {
    let covered = |flows| Some((flows, ethtool::hash_fields(control, flows).ok()?));
    let found: BTreeMap<FlowType, u64> =
        [FlowType::UdpV4, FlowType::UdpV6].into_iter().filter_map(covered).collect();
    Some(found).filter(|found| !found.is_empty())
}

/// A mask for each queue of a kind.
fn masks(directory: &Path, prefix: &str, file: &str) -> Option<Vec<CpuSet>> {
    let queues = directory.join("queues");
    let mask = |number: u32| {
        let text = sysfs::read(queues.join(format!("{prefix}{number}")).join(file)).ok()?;
        CpuSet::from_mask(&text)
    };
    let masks: Option<Vec<CpuSet>> = sysfs::numbered(&queues, prefix).ok()?.into_iter().map(mask).collect();
    masks.filter(|masks| !masks.is_empty())
}

/// The message-signalled interrupts of the device, which on virtio is one below the bus's.
fn irqs(directory: &Path) -> Option<Vec<Irq>> {
    let places = ["device/msi_irqs", "device/../msi_irqs"];
    let numbers = places.iter().find_map(|place| sysfs::numbered(directory.join(place), "").ok())?;
    let irqs = numbers.into_iter().filter_map(|number| {
        let place = Path::new("/proc/irq").join(number.to_string());
        let cpus = CpuSet::from_list(&sysfs::read(place.join("smp_affinity_list")).ok()?)?;
        Some(Irq { number, name: handler(&place)?, cpus })
    });
    Some(irqs.collect())
}

/// Who handles an interrupt: the name of a directory below the interrupt's.
fn handler(place: &Path) -> Option<String> {
    let directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let entry = fs::read_dir(place).ok()?.flatten().find(directory)?;
    Some(entry.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_queues_are_known_by_their_names() {
        use Direction::{Receive, Send};
        let totals = [
            ("rx_queue_3_packets", (3, Receive)),
            ("rx0_packets", (0, Receive)),
            ("tx12_packets", (12, Send)),
            ("rx-7.packets", (7, Receive)),
            ("queue_2_tx_cnt", (2, Send)),
        ];
        for (name, wanted) in totals {
            assert_eq!(queue_of(name, true), Some(wanted), "{name}");
            assert_eq!(queue_of(name, false), None, "{name}");
        }
        assert_eq!(queue_of("rx_queue_1_xdp_packets", false), Some((1, Receive)));
        for name in
            ["rx_packets", "rx_queue_0_bytes", "rx_queue_0_xdp_drops", "rx0", "q", "rx_64_byte_packets"]
        {
            assert_eq!((queue_of(name, true), queue_of(name, false)), (None, None), "{name}");
        }
    }

    #[test]
    fn a_queues_total_replaces_what_xdp_saw() {
        let counters =
            [("rx_queue_0_packets", 9), ("rx_queue_0_xdp_packets", 4), ("rx_queue_1_xdp_packets", 5)];
        let counters: Vec<(String, u64)> = counters.map(|(name, count)| (name.to_owned(), count)).into();
        let rx: Vec<Option<u64>> = by_queue(&counters).values().map(|queue| queue.rx).collect();
        assert_eq!(rx, [Some(9), Some(5)]);
    }

    #[test]
    fn loopback_tells_little_and_nothing_tells_nothing() {
        let lo = facts("lo");
        assert!(lo.mtu.is_some() && lo.channels.is_none() && lo.irqs.is_none(), "{lo:?}");
        let absent = facts("not-there-0");
        assert_eq!(absent, Facts { interface: "not-there-0".to_owned(), ..Facts::default() });
    }
}
