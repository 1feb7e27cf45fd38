//! The sysfs of the calling thread's network namespace, and what the kernel says of interrupts in procfs.
//!
//! `/sys` shows the network namespace in which it was mounted, which after `nsenter --net` is another one. So an instance
//! of our own is mounted, visible to nobody else and gone with its descriptor.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::libc;

/// `FSCONFIG_CMD_CREATE` (include/uapi/linux/mount.h).
const FSCONFIG_CMD_CREATE: libc::c_ulong = 6;

/// A view of sysfs.
pub(super) struct Sysfs {
    root: PathBuf,
    _mount: Option<OwnedFd>,
}

impl Sysfs {
    /// The namespace's own; `/sys` where it cannot be had (kernels before 5.2, missing rights).
    pub(super) fn open() -> Self {
        match mount(c"sysfs") {
            Ok(mount) => {
                let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
                Self { root, _mount: Some(mount) }
            }
            Err(error) => {
                tracing::debug!(%error, "no sysfs of this namespace's own: /sys is used");
                Self { root: PathBuf::from("/sys"), _mount: None }
            }
        }
    }

    /// The directory of an interface.
    pub(super) fn interface(&self, name: &str) -> PathBuf {
        self.root.join("class/net").join(name)
    }
}

/// A file system mounted nowhere, as a directory.
fn mount(kind: &CStr) -> io::Result<OwnedFd> {
    let cloexec: libc::c_ulong = 1; // FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC
    // SAFETY: the name is terminated and lives until the call returns.
    let context = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), cloexec) })?;
    let none = std::ptr::null::<libc::c_char>();
    let raw = context.as_raw_fd();
    // SAFETY: this command takes neither key nor value.
    let made = unsafe { libc::syscall(libc::SYS_fsconfig, raw, FSCONFIG_CMD_CREATE, none, none, 0) };
    nix::errno::Errno::result(made)?;
    // SAFETY: the call takes numbers only.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, raw, cloexec, 0) })
}

fn descriptor(returned: libc::c_long) -> io::Result<OwnedFd> {
    let raw = i32::try_from(nix::errno::Errno::result(returned)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A file's text without white space around it.
pub(super) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

/// The numbers of a directory's entries that are called `PREFIX` and a number, sorted.
pub(super) fn numbered(directory: impl AsRef<Path>, prefix: &str) -> io::Result<Vec<u32>> {
    let mut numbers: Vec<u32> = fs::read_dir(directory)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(prefix)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_has_its_loopback() {
        // Also without the rights for a sysfs of one's own.
        let sysfs = Sysfs::open();
        assert!(read(sysfs.interface("lo").join("mtu")).is_ok_and(|mtu| mtu.parse::<u32>().is_ok()));
        assert_eq!(numbered(sysfs.interface("lo").join("queues"), "rx-").ok(), Some(vec![0]));
    }
}
