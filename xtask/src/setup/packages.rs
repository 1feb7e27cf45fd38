//! Installs the programs that tests and the demo run, and keeps the packages' services from starting.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// A program that shows the package is there, and the package.
const NEEDED: [(&str, &str); 9] = [
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("nginx", "nginx-light"),
    ("iperf3", "iperf3"),
    ("ethtool", "ethtool"),
    ("tcpdump", "tcpdump"),
    ("ping", "iputils-ping"),
    ("ps", "procps"),
    ("nsenter", "util-linux"),
];

/// What virtual machines are made with and run in.
const FOR_GUESTS: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("depmod", "kmod"),
    ("dpkg-deb", "dpkg"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// The packages to install are the arguments. A policy-rc.d of ours stands in while apt works; `trap` puts back
/// what was there on success, failure and Ctrl-C. Should even the shell be killed, the left-over policy forbids
/// nothing (its shell is gone) and asks the one it replaced; the next run puts that back.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d; saved=$policy.lb-saved; mark='# lb xtask setup'
restore() {
    if grep -qs "^$mark" $policy; then rm -f $policy; fi
    if [ -e $saved ]; then mv -f $saved $policy; fi
}
restore
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ -e $policy ]; then mv $policy $saved || exit; fi
cat >$policy <<END || exit
#!/bin/sh
$mark: packages may not start services while process $$ works.
if [ -d /proc/$$ ]; then exit 101; fi
if [ -x $saved ]; then exec $saved "\$@"; fi
exit 0
END
chmod 755 $policy || exit
apt-get -o DPkg::Lock::Timeout=300 update || echo 'package lists not all updated; going on'
apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
"#;

/// For tests and the demo.
pub fn ensure() -> Result<()> {
    install(&NEEDED)
}

/// For virtual machines.
pub fn ensure_for_guests() -> Result<()> {
    install(&FOR_GUESTS)
}

fn install(needed: &[(&'static str, &'static str)]) -> Result<()> {
    let missing = missing(needed, |program| run::find_program(program).is_some());
    if missing.is_empty() {
        super::ok("packages", "all there");
        return Ok(());
    }
    let names = missing.join(" ");
    if run::find_program("apt-get").is_none() {
        bail!(
            "missing: {names}\n  way out: no apt-get here, install them with this system's package manager"
        );
    }
    let mut install = Command::new("sh");
    install.args(["-c", INSTALL, "sh"]).args(&missing);
    // needrestart (Ubuntu) would restart the machine's other services.
    install.envs([("DEBIAN_FRONTEND", "noninteractive"), ("NEEDRESTART_SUSPEND", "1")]);
    run::quiet(&format!("packages: installing {names}"), &mut install).with_context(|| {
        format!(
            "cannot install {names}\n  \
             way out: apt-get update && apt-get install --no-install-recommends {names}"
        )
    })?;
    if missing.contains(&"nginx-light") && Path::new("/run/systemd/system").is_dir() {
        // It was not here before, so nobody relies on it; left enabled it would start at the next boot.
        let _ = Command::new("systemctl").args(["--quiet", "disable", "nginx.service"]).status();
    }
    Ok(())
}

fn missing(needed: &[(&'static str, &'static str)], present: impl Fn(&str) -> bool) -> Vec<&'static str> {
    needed.iter().filter(|(program, _)| !present(program)).map(|(_, package)| *package).collect()
}

#[cfg(test)]
mod tests {
    use super::{NEEDED, missing};

    #[test]
    fn names_packages_of_missing_programs() {
        assert_eq!(
            missing(&NEEDED, |program| program != "nginx" && program != "ping"),
            ["nginx-light", "iputils-ping"]
        );
        assert!(missing(&NEEDED, |_| true).is_empty());
    }
}
