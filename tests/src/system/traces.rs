//! What a data plane could leave on a machine: settings of its network namespace, objects in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use lb_userspace::lab::Role;
use serde_json::Value;

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
    /// The program's maps.
    pub maps: BTreeSet<u64>,
}

impl Kernel {
    /// The objects of what is attached now.
    pub fn of(rig: &Rig) -> anyhow::Result<Self> {
        let (link, program) = rig.attachment()?;
        let shown =
            bpftool(&["prog", "show", "id", &program.to_string()]).context("the program is not loaded")?;
        let maps = shown["map_ids"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        Ok(Self { link, program, maps })
    }

    /// Those that still exist.
    pub fn left(&self) -> Vec<String> {
        let maps = self.maps.iter().map(|id| ("map", *id));
        let all = maps.chain([("link", self.link), ("prog", self.program)]);
        let exists = |(kind, id): &(&str, u64)| bpftool(&[kind, "show", "id", &id.to_string()]).is_some();
        all.filter(exists).map(|(kind, id)| format!("{kind} {id}")).collect()
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

/// What bpftool shows as JSON; `None` if there is no such object.
fn bpftool(args: &[&str]) -> Option<Value> {
    let output = Command::new("bpftool").arg("-j").args(args).output().ok()?;
    let value: Value = serde_json::from_slice(&output.stdout).ok()?;
    (output.status.success() && value.get("error").is_none()).then_some(value)
}
