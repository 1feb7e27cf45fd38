//! Checks that the running kernel can do what the data plane needs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Programs with multi-buffer support (`BPF_F_XDP_HAS_FRAGS`) came with it.
const OLDEST: (u32, u32) = (5, 18);

pub fn check() -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's version")?;
    let release = release.trim();
    match version(release) {
        Some(found) if found < OLDEST => bail!(
            "kernel {release} is too old: Linux {}.{} or newer is needed\n  \
             way out: Debian 12 and Ubuntu 24.04 have one, Ubuntu 22.04 with its HWE kernel",
            OLDEST.0,
            OLDEST.1
        ),
        Some(_) => super::ok("kernel", release),
        None => println!("kernel: warning: cannot read a version out of \"{release}\""),
    }
    // The file exists exactly if the kernel was built with CONFIG_BPF_SYSCALL.
    if !Path::new("/proc/sys/kernel/unprivileged_bpf_disabled").exists() {
        println!("kernel: warning: no bpf system call (CONFIG_BPF_SYSCALL); programs will not load");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        println!(
            "kernel: warning: no /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF); some programs may not load"
        );
    }
    Ok(())
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn releases() {
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("5.4.0-1-amd64"), Some((5, 4)));
        assert_eq!(version("unknown"), None);
    }
}
