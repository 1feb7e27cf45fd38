//! Mounts bpffs, where programs, maps and links are pinned.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

const MOUNT_POINT: &str = "/sys/fs/bpf";

pub fn ensure() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    if is_mounted(&mounts) {
        super::ok("bpffs", MOUNT_POINT);
        return Ok(());
    }
    if !Path::new(MOUNT_POINT).is_dir() {
        bail!("no {MOUNT_POINT}: the kernel lacks CONFIG_BPF_SYSCALL, or this container hides /sys");
    }
    run::stream(Command::new("mount").args(["-t", "bpf", "bpf", MOUNT_POINT]))
        .context("cannot mount bpffs\n  way out: a VM, or a container started with --privileged")?;
    println!("bpffs: mounted at {MOUNT_POINT}");
    Ok(())
}

/// The last mount on a directory is the visible one.
fn is_mounted(mounts: &str) -> bool {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .rfind(|(directory, _)| *directory == MOUNT_POINT)
        .is_some_and(|(_, kind)| kind == "bpf")
}

#[cfg(test)]
mod tests {
    use super::is_mounted;

    #[test]
    fn the_last_mount_counts() {
        assert!(!is_mounted("sysfs /sys sysfs rw 0 0\n"));
        assert!(is_mounted("sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n"));
        assert!(!is_mounted("bpf /sys/fs/bpf bpf rw 0 0\ntmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    }
}
