//! Fetches packages of a distribution's release other than this machine's: apt with lists and directories of our
//! own, from the mirror that this machine uses, so that its own package system does not change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::Kernel;
use crate::run;

/// Where distributions keep it; apt checks signatures with it.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where everything is that a kernel's own part of the archive does not have.
const RELEASE: &str = "bookworm";
/// Always the newest kernel package of a release.
const NEWEST: &str = "linux-image-amd64";
/// How the names of package files begin.
const KERNEL: &str = "linux-image-";
const BUSYBOX: &str = "busybox-static";

/// Package files.
pub struct Packages {
    pub kernel: PathBuf,
    pub busybox: PathBuf,
}

/// Downloads the newest kernel of the release, and a busybox for the first steps in the guest.
pub fn fetch(cache: &Path, kernel: Kernel) -> Result<Packages> {
    let directory = cache.join("apt").join(kernel.suite());
    // Of an earlier attempt: apt names files so only when they are whole.
    if let (Ok(kernel), Ok(busybox)) = (file(&directory, KERNEL), file(&directory, BUSYBOX)) {
        return Ok(Packages { kernel, busybox });
    }
    ensure!(cfg!(target_arch = "x86_64"), "kernels are fetched for x86_64 only");
    ensure!(run::find_program("apt-get").is_some(), "no apt-get here to fetch a kernel package with");
    let apt = Apt::new(directory, kernel.suite())?;
    let label = format!("vm: package lists of {}", kernel.suite());
    run::quiet(&label, apt.get().arg("update")).context("apt-get cannot read the mirror's package lists")?;
    let image = apt.dependency(NEWEST)?;
    run::quiet(&format!("vm: fetching {image}"), apt.get().args(["download", &image, BUSYBOX]))
        .with_context(|| format!("apt-get cannot fetch {image}"))?;
    Ok(Packages { kernel: file(&apt.directory, KERNEL)?, busybox: file(&apt.directory, BUSYBOX)? })
}

/// apt for one release, in a directory of its own.
struct Apt {
    directory: PathBuf,
    suite: &'static str,
}

impl Apt {
    fn new(directory: PathBuf, suite: &'static str) -> Result<Self> {
        // An earlier attempt has not come to its end.
        let _absent = fs::remove_dir_all(&directory);
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))
                .with_context(|| format!("making {}", directory.display()))?;
        }
        let options = if Path::new(KEYS).is_file() { format!("[signed-by={KEYS}] ") } else { String::new() };
        let mirror = mirror()?;
        // Backports have nothing but what differs from the release.
        let mut suites = vec![RELEASE, suite];
        suites.dedup();
        let line = |suite: &&str| format!("deb {options}{mirror} {suite} main\n");
        let lines: String = suites.iter().map(line).collect();
        fs::write(directory.join("sources.list"), lines).context("writing sources.list")?;
        Ok(Self { directory, suite })
    }

    fn get(&self) -> Command {
        self.command("apt-get")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let directory = self.directory.display();
        command.current_dir(&self.directory).env("LC_ALL", "C");
        for option in [
            // Its own user could not write into root's cache.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=2".to_owned(),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("APT::Default-Release={}", self.suite),
            format!("Dir::Etc::sourcelist={directory}/sources.list"),
            format!("Dir::State::lists={directory}/lists"),
            format!("Dir::Cache={directory}/cache"),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    /// The one package that a package without content stands for.
    fn dependency(&self, package: &str) -> Result<String> {
        let output = self.command("apt-cache").args(["depends", package]).output().context("apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = text.lines().find_map(|line| line.trim().strip_prefix("Depends:"));
        Ok(found.with_context(|| format!("nothing behind {package}: {text}"))?.trim().to_owned())
    }
}

/// The package file in a directory whose name begins so.
fn file(directory: &Path, prefix: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(directory).context("reading the package directory")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.ends_with(".deb") {
            return Ok(path);
        }
    }
    bail!("apt-get has downloaded no {prefix}")
}

/// The mirror of the distribution that this machine's own sources name.
fn mirror() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"]);
    let output = targets.output().context("apt-get indextargets")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    named_mirror(&text)
        .context("the package sources of this machine name no Debian mirror")
        .map(str::to_owned)
}

fn named_mirror(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|"))
}

#[cfg(test)]
mod tests {
    use super::named_mirror;

    #[test]
    fn the_main_archive_is_told_from_others() {
        let security = "Debian|Debian-Security|file:/security/\n";
        assert_eq!(named_mirror(&format!("{security}Debian|Debian|file:/debian/\n")), Some("file:/debian/"));
        assert_eq!(named_mirror(security), None);
    }
}
