//! Why the kernel refused an XDP program, in plain words. Pure.

use std::fmt;

use table::{ROWS, Row};

use super::Mode;

mod table;

/// What is known about the interface.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its name.
    pub interface: String,
    /// Driver or link kind (`veth`, `ena`, …), if known.
    pub driver: Option<String>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Another XDP program's id, if one is attached.
    pub foreign_program: Option<u32>,
}

/// A refusal, explained.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// Stable code.
    pub code: &'static str,
    /// Interface and driver.
    pub place: String,
    /// How it was to be attached.
    pub mode: Mode,
    /// The kernel's own words.
    pub kernel: String,
    /// What they mean here.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

impl Refusal {
    /// Explains `kernel`'s words (an error and any text that came with it) and error number.
    pub(super) fn explain(facts: &Facts, mode: Mode, kernel: String, errno: Option<i32>) -> Self {
        let (code, cause, fix) = diagnose(facts, mode, &kernel, errno);
        let driver = facts.driver.as_deref().unwrap_or("unknown driver");
        Self { code, place: format!("{} ({driver})", facts.interface), mode, kernel, cause, fix }
    }

    /// A refusal of ours where the kernel would not refuse but crash: virtio_net with `now` pairs of queues, more than
    /// the machine has `cpus`, and too few left up to `most` for one more on each CPU. It then sends behind its last
    /// queue (`virtnet_xdp_get_sq`, drivers/net/virtio_net.c; seen to panic Linux 6.12).
    pub fn of_virtio_queues(facts: &Facts, now: u32, most: u32, cpus: u32) -> Option<Self> {
        let overrun = now > cpus && now + cpus > most;
        (facts.driver.as_deref() == Some("virtio_net") && overrun).then(|| Self {
            code: "LB013",
            place: format!("{} (virtio_net)", facts.interface),
            mode: Mode::Native,
            kernel: "not asked: it would accept, and crash with the first packet that is sent".to_owned(),
            cause: format!(
                "{now} pairs of queues for {cpus} CPUs, and no {cpus} more of at most {most} for XDP (certain)"
            ),
            fix: format!("ethtool -L {} combined {cpus}; or mode: generic (slower)", facts.interface),
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} attach refused: {}, {}", self.code, self.place, self.mode)?;
        writeln!(f, "  kernel: {}", self.kernel)?;
        writeln!(f, "  cause:  {}", self.cause)?;
        write!(f, "  fix:    {}", self.fix)
    }
}

/// Largest MTU that single-buffer native XDP takes on most drivers: a page less headroom and tail.
const SINGLE_BUFFER_MTU: u32 = 3498;

/// Code, cause and fix: by the table, else by the error number.
fn diagnose(facts: &Facts, mode: Mode, kernel: &str, errno: Option<i32>) -> (&'static str, String, String) {
    let name = &facts.interface;
    if let Some(program) = facts.foreign_program {
        let fix = format!("`lb doctor {name}` says whose it is; detach it with the tool that attached it");
        return ("LB010", format!("another XDP program (id {program}) is attached to {name} (certain)"), fix);
    }
    let text = kernel.to_lowercase();
    if let Some(row) = ROWS.iter().find(|row| row.fits(facts.driver.as_deref(), &text, errno)) {
        let filled = |text: &str| text.replace("{name}", name).replace("{mtu}", &facts.mtu.to_string());
        return (row.code, filled(row.cause), filled(row.fix));
    }
    by_number(facts, mode, errno)
}

/// What an error number alone means.
fn by_number(facts: &Facts, mode: Mode, errno: Option<i32>) -> (&'static str, String, String) {
    let name = &facts.interface;
    match errno {
        Some(libc_errno::EPERM | libc_errno::EACCES) => (
            "LB015",
            "lb lacks the rights".into(),
            "run it as root, or with CAP_BPF and CAP_NET_ADMIN".into(),
        ),
        Some(libc_errno::EBUSY | libc_errno::EEXIST) => {
            let fix =
                format!("`lb doctor {name}` says whose it is; detach it with the tool that attached it");
            ("LB010", "another XDP program or mode is active on the interface (certain)".into(), fix)
        }
        Some(libc_errno::ENODEV) => ("LB016", format!("{name} is gone"), "name another interface".into()),
        Some(libc_errno::EOPNOTSUPP) if mode == Mode::Native && facts.mtu > SINGLE_BUFFER_MTU => {
            let cause =
                format!("the MTU of {} is too large for native XDP on this driver (likely)", facts.mtu);
            ("LB011", cause, format!("ip link set dev {name} mtu 1500; or mode: generic (slower)"))
        }
        Some(libc_errno::EOPNOTSUPP) if mode == Mode::Native => {
            let cause = "the driver has no native XDP, or a setting of the interface forbids it (likely)";
            (
                "LB017",
                cause.into(),
                format!("mode: generic (slower); `dmesg | tail` may name the setting of {name}"),
            )
        }
        _ => ("LB018", "unknown".into(), format!("see `dmesg | tail`; report it with `ethtool -i {name}`")),
    }
}

impl Row {
    /// Whether this is what a driver means by these words (in lower case) and this error number.
    fn fits(&self, driver: Option<&str>, text: &str, errno: Option<i32>) -> bool {
        let drivers = self.drivers.is_empty() || driver.is_some_and(|driver| self.drivers.contains(&driver));
        drivers
            && self.words.iter().all(|word| text.contains(word))
            && (self.errno.is_none() || self.errno == errno)
    }
}

/// Error numbers by name.
mod libc_errno {
    use nix::errno::Errno;

    pub(super) const EINVAL: i32 = Errno::EINVAL as i32;
    pub(super) const ENOMEM: i32 = Errno::ENOMEM as i32;
    pub(super) const EPERM: i32 = Errno::EPERM as i32;
    pub(super) const EACCES: i32 = Errno::EACCES as i32;
    pub(super) const EBUSY: i32 = Errno::EBUSY as i32;
    pub(super) const EEXIST: i32 = Errno::EEXIST as i32;
    pub(super) const ENODEV: i32 = Errno::ENODEV as i32;
    pub(super) const ENOSPC: i32 = Errno::ENOSPC as i32;
    pub(super) const ERANGE: i32 = Errno::ERANGE as i32;
    pub(super) const EOPNOTSUPP: i32 = Errno::EOPNOTSUPP as i32;
}

#[cfg(test)]
mod tests;
