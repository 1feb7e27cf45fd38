//! What a data plane could leave on a machine: settings of its network namespace, objects in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use aya::maps::loaded_maps;
use aya::programs::{ProgramInfo, loaded_links, loaded_programs};
use lb_userspace::lab::Role;

use super::{Rig, until};

/// Settings of the balancer's namespace, by the command that shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings(BTreeMap<&'static str, Vec<String>>);

const COMMANDS: [&str; 7] = [
    "ip -d -j -p addr",
    "ip -d -j -p link",
    "ip route show table all",
    "ip rule",
    "ethtool -k eth0",
    "ethtool -l eth0",
    "sysctl -a -e -r ^net\\.(ipv4|core)\\.",
];

impl Settings {
    /// Reads them.
    pub fn of(rig: &Rig) -> anyhow::Result<Self> {
        let shown = COMMANDS.into_iter().map(|line| {
            let mut words = line.split(' ');
            let run = rig.on(Role::Balancer, words.next().unwrap_or(line), words)?.expect(0)?;
            let lines: Vec<_> = run.out.lines().map(str::to_owned).collect();
            Ok((line, lines))
        });
        shown.collect::<anyhow::Result<_>>().map(Self)
    }

    /// How many single facts there are.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lines that are in one but not in the other, with the command.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (command, lines) in &self.0 {
            let others = other.0.get(command).map_or(&[][..], Vec::as_slice);
            let gone = lines.iter().filter(|line| !others.contains(line));
            differences.extend(gone.map(|line| format!("{command}: - {line}")));
            let new = others.iter().filter(|line| !lines.contains(line));
            differences.extend(new.map(|line| format!("{command}: + {line}")));
        }
        differences
    }
}

/// Ids of a data plane's objects in the kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The link.
    pub link: u64,
    /// The program.
    pub program: u64,
    /// What the kernel has computed of its instructions.
    pub tag: u64,
    /// The program's maps.
    pub maps: BTreeSet<u64>,
}

impl Kernel {
    /// The objects of what is attached now.
    pub fn of(rig: &Rig) -> anyhow::Result<Self> {
        let (link, program) = rig.attachment()?;
        let same = |info: &ProgramInfo| u64::from(info.id()) == program;
        let info = loaded_programs().flatten().find(same).context("the program is not loaded")?;
        let maps = info.map_ids().context("the program's maps")?.unwrap_or_default();
        Ok(Self { link, program, tag: info.tag(), maps: maps.into_iter().map(u64::from).collect() })
    }

    /// Those that still exist.
    pub fn left(&self) -> Vec<String> {
        let maps = loaded_maps().flatten().map(|info| u64::from(info.id()));
        let maps = maps.filter(|id| self.maps.contains(id)).map(|id| format!("map {id}"));
        let links = loaded_links().flatten().map(|info| u64::from(info.id()));
        let links = links.filter(|id| *id == self.link).map(|id| format!("link {id}"));
        let programs = loaded_programs().flatten().map(|info| u64::from(info.id()));
        let programs = programs.filter(|id| *id == self.program).map(|id| format!("prog {id}"));
        maps.chain(links).chain(programs).collect()
    }
}

/// Waits until the kernel has none of the objects; it frees them with a delay.
pub fn wait_gone(kernel: &Kernel) -> anyhow::Result<()> {
    until("programs, maps and links gone", Duration::from_secs(10), || {
        let left = kernel.left();
        anyhow::ensure!(left.is_empty(), "left: {left:?}");
        Ok(Some(()))
    })
}
