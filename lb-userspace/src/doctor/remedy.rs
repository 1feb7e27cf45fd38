//! What `--fix` does: each remedy is a value that prints as the command an operator would type, and can be carried out.
//! Never decides whether it is wanted.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::queues::command;
use super::{Finding, Root};
use crate::netlink::{self, Netlink};
use crate::nic::Value;

/// Something that mends a finding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Remedy {
    /// A value for a file under /proc or /sys.
    Write {
        /// The file.
        path: String,
        /// The value.
        value: String,
    },
    /// A BPF file system on a directory.
    MountBpffs(PathBuf),
    /// Settings of a NIC.
    Set {
        /// The interface.
        interface: String,
        /// What is set, in this order.
        values: Vec<Value>,
    },
    /// An interface set up.
    BringUp {
        /// The kernel's index.
        ifindex: u32,
        /// Its name.
        name: String,
    },
}

/// Why a remedy failed.
#[derive(Debug, thiserror::Error)]
pub enum RemedyError {
    /// A file could not be written, or a file system not be mounted.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The kernel refused over netlink.
    #[error("{0}")]
    Netlink(#[from] netlink::Error),
}

impl Remedy {
    /// A value for a setting, by the name that `sysctl` has for it (`net.ipv4.ip_forward`), in a file below /proc/sys.
    pub fn sysctl(name: &str, value: impl fmt::Display) -> Self {
        // In names of interfaces a dot stays one; `sysctl` writes it as a slash.
        let path = name.split('.').map(|part| part.replace('/', ".")).collect::<Vec<_>>().join("/");
        Self::Write { path: format!("/proc/sys/{path}"), value: value.to_string() }
    }

    /// Carries it out.
    pub async fn apply(&self, root: &Root) -> Result<(), RemedyError> {
        match self {
            Self::Write { path, value } => Ok(root.write(path, value)?),
            Self::MountBpffs(directory) => Ok(mount_bpffs(directory)?),
            Self::Set { interface, values } => {
                Ok(values.iter().try_for_each(|value| value.set(interface))?)
            }
            Self::BringUp { ifindex, .. } => Ok(Netlink::open()?.bring_up(*ifindex).await?),
        }
    }
}

fn mount_bpffs(directory: &Path) -> io::Result<()> {
    mount(Some("bpf"), directory, Some("bpf"), MsFlags::empty(), None::<&str>)?;
    Ok(())
}

impl fmt::Display for Remedy {
    /// As a command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, value } => write!(f, "echo {value} > {path}"),
            Self::MountBpffs(directory) => write!(f, "mount -t bpf bpf {}", directory.display()),
            Self::Set { interface, values } => {
                let commands: Vec<String> = values.iter().map(|value| command(interface, value)).collect();
                f.write_str(&commands.join("; "))
            }
            Self::BringUp { name, .. } => write!(f, "ip link set dev {name} up"),
        }
    }
}

/// A finding and what mends it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnosis {
    /// What was found.
    pub finding: Finding,
    /// What `--fix` does about it.
    pub remedy: Option<Remedy>,
}

impl Diagnosis {
    /// A finding with a remedy, whose command is the fix that it tells.
    pub fn mended_by(finding: Finding, remedy: Remedy) -> Self {
        Self { finding: finding.fixable(remedy.to_string()), remedy: Some(remedy) }
    }
}

impl From<Finding> for Diagnosis {
    fn from(finding: Finding) -> Self {
        Self { finding, remedy: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_files() {
        let remedy = Remedy::sysctl("net.ipv4.conf.eth0/100.rp_filter", 2);
        assert_eq!(remedy.to_string(), "echo 2 > /proc/sys/net/ipv4/conf/eth0.100/rp_filter");
    }
}
