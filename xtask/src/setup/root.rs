//! Checks for root, and for the capabilities root lacks in most containers.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};

/// Bit numbers from linux/capability.h.
const NEEDED: [(&str, u32); 4] = [("NET_ADMIN", 12), ("NET_RAW", 13), ("SYS_ADMIN", 21), ("BPF", 39)];

pub fn check() -> Result<()> {
    let uid = fs::metadata("/proc/self").context("looking at /proc/self")?.uid();
    if uid != 0 {
        bail!(
            "root is needed (network namespaces, XDP, bpffs), this is uid {uid}\n  \
             way out: sudo -E env \"PATH=$PATH\" cargo xtask …   (`cargo xtask build` needs no root)"
        );
    }
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let missing = missing(&status);
    if missing.is_empty() {
        super::ok("root", "uid 0");
    } else {
        println!(
            "root: warning: no {} capability (a container?); way out: a VM, or run it --privileged",
            missing.join(", ")
        );
    }
    Ok(())
}

fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    NEEDED.iter().filter(|(_, bit)| effective & (1 << bit) == 0).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn default_docker_root_lacks_admin_rights() {
        assert_eq!(missing("Uid:\t0\nCapEff:\t00000000a80425fb\n"), ["NET_ADMIN", "SYS_ADMIN", "BPF"]);
    }

    #[test]
    fn full_root_lacks_nothing() {
        assert!(missing("CapEff:\t000001ffffffffff\n").is_empty());
    }
}
