//! Why the kernel refused an XDP program, in plain words. Pure.

use std::fmt;

use super::Mode;

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

fn diagnose(facts: &Facts, mode: Mode, kernel: &str, errno: Option<i32>) -> (&'static str, String, String) {
    let name = &facts.interface;
    let text = kernel.to_lowercase();
    if let Some(program) = facts.foreign_program {
        let fix = format!("`bpftool net show dev {name}` names it; detach it with the tool that attached it");
        return ("LB010", format!("another XDP program (id {program}) is attached to {name} (certain)"), fix);
    }
    if text.contains("mtu") || (errno == Some(libc_errno::ERANGE)) {
        let cause = format!(
            "the MTU of {} (or its peer's) is too large for native XDP on this driver (certain)",
            facts.mtu
        );
        return ("LB011", cause, format!("ip link set dev {name} mtu 1500; or mode: generic (slower)"));
    }
    let veth = facts.driver.as_deref() == Some("veth");
    if (veth && errno == Some(libc_errno::ENOSPC))
        || text.contains("rx queues")
        || text.contains("queues not less than peer")
    {
        let cause =
            "a veth with XDP needs at least as many receive queues as its peer has transmit queues (certain)";
        return ("LB012", cause.into(), format!("ethtool -L {name} rx N   (N = the peer's transmit queues)"));
    }
    if text.contains("channel") || text.contains("queue") {
        let cause = "the driver has no transmit queues left for XDP (certain)";
        return (
            "LB013",
            cause.into(),
            format!("ethtool -L {name} combined N   with fewer channels; or mode: generic"),
        );
    }
    if text.contains("lro") || text.contains("gro") {
        let cause = "receive offloads merge packets before XDP sees them (certain)";
        return ("LB014", cause.into(), format!("ethtool -K {name} lro off rx-gro-hw off"));
    }
    match errno {
        Some(libc_errno::EPERM | libc_errno::EACCES) => (
            "LB015",
            "lb lacks the rights".into(),
            "run it as root, or with CAP_BPF and CAP_NET_ADMIN".into(),
        ),
        Some(libc_errno::EBUSY | libc_errno::EEXIST) => {
            let fix =
                format!("`bpftool net show dev {name}` names it; detach it with the tool that attached it");
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

/// Error numbers by name.
mod libc_errno {
    use nix::errno::Errno;

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
mod tests {
    use super::*;

    fn code(kernel: &str, errno: i32, facts: &Facts) -> &'static str {
        Refusal::explain(facts, Mode::Native, kernel.into(), Some(errno)).code
    }

    /// Messages as kernels 6.1 to 6.18 print them.
    #[test]
    fn kernels_words_are_understood() {
        let plain = Facts { interface: "eth0".into(), mtu: 1500, ..Facts::default() };
        let jumbo = Facts { mtu: 9000, ..plain.clone() };
        let occupied = Facts { foreign_program: Some(7), ..plain.clone() };
        let veth = Facts { driver: Some("veth".into()), ..plain.clone() };
        let unsupported = "Operation not supported (os error 95)";
        let cases = [
            ("LB011", "virtio_net: MTU too large to enable XDP without frags.", 22, &plain),
            ("LB011", "veth: Peer MTU is too large to set XDP.", 34, &plain),
            ("LB011", "Numerical result out of range (os error 34)", 34, &plain),
            ("LB012", "veth: XDP expects number of rx queues not less than peer tx queues.", 22, &plain),
            ("LB012", "No space left on device (os error 28)", 28, &veth),
            ("LB014", "virtio_net: Can't set XDP while host is implementing GRO_HW/CSUM", 95, &plain),
            ("LB010", "Device or resource busy (os error 16)", 16, &plain),
            ("LB010", "Device or resource busy (os error 16)", 16, &occupied),
            ("LB011", unsupported, 95, &jumbo),
            ("LB017", unsupported, 95, &plain),
            ("LB015", "Operation not permitted (os error 1)", 1, &plain),
            ("LB018", "Input/output error (os error 5)", 5, &plain),
        ];
        for (wanted, kernel, errno, facts) in cases {
            assert_eq!(code(kernel, errno, facts), wanted, "{kernel}");
        }
    }

    #[test]
    fn a_refusal_says_what_where_why_and_what_to_do() {
        let facts =
            Facts { interface: "eth0".into(), driver: Some("ena".into()), mtu: 1500, ..Facts::default() };
        let refusal = Refusal::explain(&facts, Mode::Native, "no room for XDP queues".into(), Some(12));
        let expected = "LB013 attach refused: eth0 (ena), native
  kernel: no room for XDP queues
  cause:  the driver has no transmit queues left for XDP (certain)
  fix:    ethtool -L eth0 combined N   with fewer channels; or mode: generic";
        assert_eq!(refusal.to_string(), expected);
    }
}
