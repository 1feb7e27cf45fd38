//! What the kernel lets XDP programs do here: version, BPF settings, rights, clock. Facts are read from files; findings
//! are made of them by pure functions.

use std::path::{Path, PathBuf};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::{Diagnosis, Finding, Remedy, Root, Severity};

/// First kernel that takes multi-buffer XDP programs (`BPF_F_XDP_HAS_FRAGS`), and lets frames of a test run leave.
const OLDEST: (u32, u32) = (5, 18);
/// First kernel that charges maps to control groups and not to the limit of locked memory.
const MAPS_NOT_LOCKED: (u32, u32) = (5, 11);
/// What the maps of a small config take, in bytes.
const LOCKED_WANTED: u64 = 256 << 20;
/// Clocks that are read from a device, which takes the time of dozens of packets.
const SLOW_CLOCKS: [&str; 5] = ["hpet", "acpi_pm", "pit", "jiffies", "refined-jiffies"];

/// Capabilities that `lb` needs (include/uapi/linux/capability.h). `CAP_SYS_ADMIN` includes the others.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
const SYS_ADMIN: u32 = 21;

/// What is known about the kernel.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Kernel {
    /// As `uname -r` tells.
    pub release: String,
    /// It describes its types (CONFIG_DEBUG_INFO_BTF).
    pub btf: bool,
    /// `net.core.bpf_jit_enable`; the host's network namespace only has it.
    pub jit: Option<u8>,
    /// `net.core.bpf_jit_harden`.
    pub jit_harden: Option<u8>,
    /// Where pins belong.
    pub bpffs: PathBuf,
    /// Whether a BPF file system is there.
    pub bpffs_mounted: bool,
    /// The clock in use.
    pub clock: Option<String>,
    /// All that there are.
    pub clocks: Vec<String>,
    /// Effective capabilities of this process, a bit each.
    pub capabilities: Option<u64>,
    /// Limit of locked memory in bytes; `None`: unlimited.
    pub locked_memory: Option<u64>,
}

impl Kernel {
    /// Looks at the machine.
    pub fn read(root: &Root, bpffs: &Path) -> Self {
        let clock = |name| root.text(&format!("/sys/devices/system/clocksource/clocksource0/{name}"));
        let limits = root.text("/proc/self/limits").unwrap_or_default();
        Self {
            release: root.text("/proc/sys/kernel/osrelease").unwrap_or_default(),
            btf: root.exists("/sys/kernel/btf/vmlinux"),
            jit: root.number("/proc/sys/net/core/bpf_jit_enable"),
            jit_harden: root.number("/proc/sys/net/core/bpf_jit_harden"),
            bpffs: bpffs.to_owned(),
            bpffs_mounted: statfs(bpffs).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC),
            clock: clock("current_clocksource"),
            clocks: clock("available_clocksource")
                .map(|names| names.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            capabilities: capabilities(&root.text("/proc/self/status").unwrap_or_default()),
            locked_memory: locked_memory(&limits),
        }
    }

    /// What is to be said about it.
    pub fn findings(&self) -> Vec<Diagnosis> {
        let checks = [
            Some(self.version()),
            Some(self.types()),
            self.compiled(),
            self.hardened(),
            Some(self.file_system()),
            self.rights(),
            self.memory(),
            self.time(),
        ];
        checks.into_iter().flatten().collect()
    }

    fn version(&self) -> Diagnosis {
        let what = format!("Linux {}", self.release);
        if number(&self.release).is_some_and(|version| version < OLDEST) {
            return Finding::new("LB200", Severity::Problem, "kernel", what)
                .why("XDP programs for packets in several buffers (jumbo frames) are refused before 5.18")
                .fix("install a kernel of 5.18 or later; Debian 12 has 6.1")
                .into();
        }
        Finding::ok("LB200", "kernel", format!("{what}: multi-buffer XDP, links, live frames")).into()
    }

    fn types(&self) -> Diagnosis {
        if self.btf {
            return Finding::ok("LB201", "kernel", "describes its types (BTF)").into();
        }
        Finding::new("LB201", Severity::Notice, "kernel", "has no /sys/kernel/btf/vmlinux")
            .why("lb itself does without; tools that look into programs (bpftool, bpftrace) show less")
            .fix("a kernel built with CONFIG_DEBUG_INFO_BTF=y")
            .into()
    }

    fn compiled(&self) -> Option<Diagnosis> {
        if self.jit? > 0 {
            return Some(Finding::ok("LB202", "kernel", "BPF programs are compiled").into());
        }
        let finding = Finding::new("LB202", Severity::Warning, "kernel", "BPF programs are interpreted")
            .why("a packet takes several times as long");
        Some(Diagnosis::mended_by(finding, Remedy::sysctl("net.core.bpf_jit_enable", 1)))
    }

    fn hardened(&self) -> Option<Diagnosis> {
        if self.jit_harden? < 2 {
            return None;
        }
        let what = "net.core.bpf_jit_harden is 2: constants in all BPF programs are blinded";
        let finding = Finding::new("LB203", Severity::Warning, "kernel", what)
            .why("root's programs get larger and slower too; 1 hardens those of other users only")
            .fix("echo 1 > /proc/sys/net/core/bpf_jit_harden, then attach anew; a decision about security");
        Some(finding.into())
    }

    fn file_system(&self) -> Diagnosis {
        let place = self.bpffs.display().to_string();
        if self.bpffs_mounted {
            return Finding::ok("LB204", place, "a BPF file system").into();
        }
        let finding = Finding::new("LB204", Severity::Problem, place, "no BPF file system is mounted here")
            .why("programs, maps and links are pinned there; nothing can be attached without");
        Diagnosis::mended_by(finding, Remedy::MountBpffs(self.bpffs.clone()))
    }

    fn rights(&self) -> Option<Diagnosis> {
        let held = self.capabilities?;
        let has = |bit: u32| held >> bit & 1 == 1;
        let missing = NEEDED.iter().filter(|(bit, name)| {
            let stand_in = *name != "CAP_NET_ADMIN" && has(SYS_ADMIN);
            !has(*bit) && !stand_in
        });
        let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
        if missing.is_empty() {
            return Some(Finding::ok("LB205", "rights", "all that lb needs").into());
        }
        let what = format!("this process lacks {}", missing.join(", "));
        let finding = Finding::new("LB205", Severity::Problem, "rights", what)
            .why("loading and attaching programs is refused")
            .fix("run lb as root, or with these capabilities (systemd: AmbientCapabilities=)");
        Some(finding.into())
    }

    fn memory(&self) -> Option<Diagnosis> {
        let limit = self.locked_memory?;
        if number(&self.release)? >= MAPS_NOT_LOCKED || limit >= LOCKED_WANTED {
            return None;
        }
        let what = format!("at most {} KiB of memory may be locked", limit >> 10);
        let finding = Finding::new("LB206", Severity::Problem, "rights", what)
            .why("kernels before 5.11 count maps as locked memory; making them fails with EPERM")
            .fix("ulimit -l unlimited (systemd: LimitMEMLOCK=infinity)");
        Some(finding.into())
    }

    fn time(&self) -> Option<Diagnosis> {
        let clock = self.clock.as_deref()?;
        if !SLOW_CLOCKS.contains(&clock) {
            return Some(Finding::ok("LB207", "kernel", format!("clock source {clock}")).into());
        }
        let finding = Finding::new("LB207", Severity::Warning, "kernel", format!("clock source {clock}"))
            .why("reading it goes to a device; packets of changing rings and rate limits read it");
        let better = self.clocks.iter().find(|name| !SLOW_CLOCKS.contains(&name.as_str()));
        Some(match better {
            Some(name) => {
                let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
                Diagnosis::mended_by(finding, Remedy::Write { path: path.into(), value: name.clone() })
            }
            None => finding.fix("`dmesg | grep -i tsc` says why the kernel does not trust the TSC").into(),
        })
    }
}

/// Major and minor number of a release such as `6.1.0-18-amd64`.
pub(super) fn number(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// `CapEff` in /proc/PID/status.
fn capabilities(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

/// The soft limit in /proc/PID/limits, in bytes.
fn locked_memory(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests;
