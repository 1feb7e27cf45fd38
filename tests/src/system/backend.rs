//! A backend of the lab as a machine that nobody has prepared, and `lb backend` on it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use lb_userspace::lab::{Role, VIP_IPIP, VIP_IPIP_V6, VIP_L2, VIP_L2_V6};
use serde_json::Value;

use super::{Rig, Run, binary};

/// What a backend may be left with, line by line.
const SHOWN: [&str; 5] = [
    "ip -d -oneline address",
    "ip -d -oneline link",
    "ip route show table all",
    "ip -6 route show table all",
    "sysctl -a -e -r ^net\\.ipv[46]\\.conf",
];

/// `lb backend` on a backend of the lab. Dropping it undoes what was done.
#[derive(Debug)]
pub struct Prepared<'a> {
    rig: &'a Rig,
    role: Role,
}

impl<'a> Prepared<'a> {
    /// Takes away what the lab has prepared: the machine is as it would be fresh from an installer, with a strict
    /// reverse path and ARP for everything.
    pub fn bare(rig: &'a Rig, number: u8) -> anyhow::Result<Self> {
        let role = Role::Backend(number);
        let mut script = "cd /proc/sys/net/ipv4/conf\n\
                          for i in all default lo eth0; do echo 0 >$i/arp_ignore; echo 0 >$i/arp_announce; done\n\
                          echo 1 >eth0/rp_filter\n"
            .to_owned();
        for address in [VIP_L2.to_string(), VIP_IPIP.to_string()] {
            script += &format!("ip address del {address}/32 dev lo\n");
        }
        for address in [VIP_L2_V6.to_string(), VIP_IPIP_V6.to_string()] {
            script += &format!("ip address del {address}/128 dev lo 2>/dev/null || true\n");
        }
        rig.script(role, &script)?;
        Ok(Self { rig, role })
    }

    /// `lb backend …` there.
    pub fn lb(&self, words: &str) -> anyhow::Result<Run> {
        let words = ["backend"].into_iter().chain(words.split_whitespace());
        self.rig.on(self.role, binary()?, words)
    }

    /// `lb doctor --backend …` there.
    pub fn doctor(&self, options: &str) -> anyhow::Result<Run> {
        let words = ["doctor", "--backend"].into_iter().chain(options.split_whitespace());
        self.rig.on(self.role, binary()?, words)
    }

    /// `lb explain CODE`.
    pub fn explain(&self, code: &str) -> anyhow::Result<Run> {
        self.rig.on(self.role, binary()?, ["explain", code])
    }

    /// A shell script there.
    pub fn script(&self, script: &str) -> anyhow::Result<()> {
        self.rig.script(self.role, script)
    }

    /// Addresses, links, routes and settings, without the numbers that differ each time.
    pub fn shown(&self) -> anyhow::Result<BTreeSet<String>> {
        let mut lines = BTreeSet::new();
        for command in SHOWN {
            let mut words = command.split(' ');
            let run = self.rig.on(self.role, words.next().unwrap_or(command), words)?.expect(0)?;
            lines.extend(run.out.lines().map(same_each_time));
        }
        Ok(lines)
    }

    /// Lines that are not in both.
    pub fn differences(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
        before.symmetric_difference(after).cloned().collect()
    }

    /// What `lb backend check` finds wrong with these options.
    pub fn wrong(&self, options: &str) -> anyhow::Result<Vec<Value>> {
        let run = self.lb(&format!("check {options} --output json"))?;
        ensure!(run.code <= 2, "{run}");
        let findings = run.json()?["findings"].as_array().cloned().context("no findings")?;
        Ok(findings.into_iter().filter(|finding| finding["severity"] != "ok").collect())
    }

    /// Where `lb backend up` writes down what it does.
    pub fn state(&self) -> anyhow::Result<PathBuf> {
        let run = self.rig.on(self.role, "stat", ["-Lc", "%i", "/proc/self/ns/net"])?.expect(0)?;
        Ok(PathBuf::from("/run/lb-backend").join(run.out.trim()))
    }

    /// The process that `lb backend up` has started.
    pub fn decap(&self) -> anyhow::Result<i32> {
        let state: Value = serde_json::from_slice(&std::fs::read(self.state()?.join("eth0.json"))?)?;
        let pid = state["decap"]["pid"].as_i64().context("no decapsulator in the state")?;
        i32::try_from(pid).context("no process id")
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        match self.lb("down") {
            Ok(run) if run.code == 0 => {}
            other => println!("lb backend down: {other:?}"),
        }
    }
}

/// A line without program ids and tags.
fn same_each_time(line: &str) -> String {
    let mut words = line.split_whitespace().peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if ["id", "tag", "btf_id", "expires", "load_time"].contains(&word) {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}
