//! Sets of CPUs as the kernel writes them, and which CPU lies where. Pure, but for reading the topology.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::sysfs;

/// A set of CPUs.
#[derive(Clone, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct CpuSet(pub BTreeSet<u32>);

/// A CPU that is online.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cpu {
    /// Its number.
    pub id: u32,
    /// Memory it is near to.
    pub node: u32,
    /// Its place among the threads of its core; 0 is the first.
    pub thread: u32,
}

/// The CPUs of a machine.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Topology(pub Vec<Cpu>);

impl CpuSet {
    /// From a mask in hexadecimal words separated by commas, highest first.
    pub fn from_mask(text: &str) -> Option<Self> {
        let mut set = BTreeSet::new();
        for (place, word) in (0..).zip(text.rsplit(',')) {
            let bits = u32::from_str_radix(word, 16).ok()?;
            set.extend((0..32).filter(|bit| bits >> bit & 1 != 0).map(|bit| place * 32 + bit));
        }
        Some(Self(set))
    }

    /// The mask of [`Self::from_mask`].
    pub fn mask(&self) -> String {
        let words = self.0.last().map_or(1, |last| last / 32 + 1);
        let word = |place: u32| {
            let bits =
                self.0.range(place * 32..(place + 1) * 32).fold(0_u32, |bits, cpu| bits | 1 << (cpu % 32));
            format!("{bits:08x}")
        };
        (0..words).rev().map(word).collect::<Vec<_>>().join(",")
    }

    /// From a list such as `0-3,8`.
    pub fn from_list(text: &str) -> Option<Self> {
        let mut set = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            set.extend((first..=last).take(1 << 16));
        }
        Some(Self(set))
    }
}

/// As a list such as `0-3,8`; `none`.
impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for &cpu in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == cpu => *last = cpu,
                _ => ranges.push((cpu, cpu)),
            }
        }
        let range = |(first, last): (u32, u32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        f.write_str(&ranges.into_iter().map(range).collect::<Vec<_>>().join(","))
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl Topology {
    /// The machine's. A single CPU 0 where the kernel does not say.
    pub fn read() -> Self {
        let root = Path::new("/sys/devices/system");
        let list = |path: &Path| sysfs::read(path).ok().and_then(|text| CpuSet::from_list(&text));
        let online = list(&root.join("cpu/online")).unwrap_or_else(|| [0].into_iter().collect());
        let nodes: Vec<(u32, CpuSet)> = sysfs::numbered(root.join("node"), "node")
            .unwrap_or_default()
            .into_iter()
            .filter_map(|node| Some((node, list(&root.join(format!("node/node{node}/cpulist")))?)))
            .collect();
        let cpu = |id: u32| {
            let siblings = list(&root.join(format!("cpu/cpu{id}/topology/thread_siblings_list")));
            let thread = siblings.map_or(0, |siblings| siblings.0.range(..id).count());
            let node = nodes.iter().find(|(_, cpus)| cpus.0.contains(&id)).map_or(0, |(node, _)| *node);
            Cpu { id, node, thread: u32::try_from(thread).unwrap_or(0) }
        };
        Self(online.0.into_iter().map(cpu).collect())
    }

    /// The CPUs for an interface's packets, best first: those near it, one of each core before its siblings. Only where
    /// none is near, the others.
    pub fn for_packets(&self, node: Option<u32>) -> Vec<u32> {
        let near = |cpu: &&Cpu| node.is_none_or(|node| cpu.node == node);
        let mut cpus: Vec<Cpu> = self.0.iter().filter(near).copied().collect();
        if cpus.is_empty() {
            cpus.clone_from(&self.0);
        }
        cpus.sort_by_key(|cpu| (cpu.thread, cpu.id));
        cpus.into_iter().map(|cpu| cpu.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn masks_and_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(CpuSet::from_mask("3"), Some([0, 1].into_iter().collect()));
        assert_eq!(CpuSet::from_mask("1,00000000"), Some([32].into_iter().collect()));
        assert_eq!(CpuSet::from_mask("x"), None);
        assert_eq!(CpuSet::from_list("0-2,8"), Some([0, 1, 2, 8].into_iter().collect()));
        assert_eq!(CpuSet::from_list(""), Some(CpuSet::default()));
        assert_eq!(CpuSet::from_list("0-2,8").unwrap_or_default().to_string(), "0-2,8");
    }

    #[test]
    fn near_cores_come_before_their_siblings_and_far_ones_not_at_all() {
        let cpu = |id, node, thread| Cpu { id, node, thread };
        let machine = Topology(vec![cpu(0, 0, 0), cpu(1, 0, 1), cpu(2, 0, 0), cpu(3, 0, 1), cpu(4, 1, 0)]);
        assert_eq!(machine.for_packets(Some(0)), [0, 2, 1, 3]);
        assert_eq!(machine.for_packets(Some(1)), [4]);
        assert_eq!(machine.for_packets(None), [0, 2, 4, 1, 3]);
        assert_eq!(machine.for_packets(Some(7)), [0, 2, 4, 1, 3], "no CPU there");
    }

    #[test]
    fn this_machine_has_cpus() {
        assert!(!Topology::read().for_packets(None).is_empty());
    }

    proptest! {
        #[test]
        fn sets_survive_being_written(cpus in prop::collection::btree_set(0_u32..300, 0..40)) {
            let set = CpuSet(cpus);
            prop_assert_eq!(CpuSet::from_mask(&set.mask()), Some(set.clone()));
            let list = if set.0.is_empty() { String::new() } else { set.to_string() };
            prop_assert_eq!(CpuSet::from_list(&list), Some(set));
        }
    }
}
