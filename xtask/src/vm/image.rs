//! Makes of a kernel package what a virtual machine starts: the kernel without its compression (software emulation
//! would take seconds to undo it), its modules, and the first file system. Done once per kernel; a stamp is
//! written last.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Kernel;
use super::archive::Packages;
use super::cpio::Archive;
use crate::run;

/// Written last, with the version: what it stands beside is whole.
const STAMP: &str = "complete";
/// What it takes to see the host's files and the network cards.
const FIRST_MODULES: [&str; 6] =
    ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "virtio_net"];
/// What stays of a package's modules, by directory: indexing all of them takes a minute, and a guest has no hardware.
const KEPT: [(&str, &[&str]); 4] = [
    ("", &["arch", "crypto", "drivers", "fs", "lib", "net"]),
    ("drivers", &["char", "net", "virtio"]),
    ("drivers/net", &["bonding", "ipvlan", "team", "vxlan"]),
    ("fs", &["9p", "fscache", "netfs", "overlayfs"]),
];
const FIRST_PROGRAM: &str = include_str!("init.sh");

/// A kernel that is ready to start.
pub struct Image {
    pub vmlinux: PathBuf,
    pub initramfs: PathBuf,
    /// Release as `uname -r` says it.
    pub release: String,
    /// The directory of modules that belongs in `/lib/modules`.
    pub modules: PathBuf,
}

/// What an earlier run has made, if it finished and was made by this version of it.
pub fn ready(cache: &Path, kernel: Kernel) -> Option<Image> {
    let home = home(cache, kernel);
    let stamp = fs::read_to_string(home.join(STAMP)).ok()?;
    let (release, program) = stamp.split_once('\n')?;
    (program == FIRST_PROGRAM).then(|| image(&home, release))
}

pub fn make(cache: &Path, kernel: Kernel, packages: &Packages) -> Result<Image> {
    let home = home(cache, kernel);
    let _absent = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    for package in [&packages.kernel, &packages.busybox] {
        let mut unpack = Command::new("dpkg-deb");
        run::quiet("vm: unpacking", unpack.arg("--extract").arg(package).arg(&home))?;
    }
    let release = release(&home)?;
    let made = image(&home, &release);
    KEPT.iter()
        .try_for_each(|(directory, names)| prune(&made.modules.join("kernel").join(directory), names))?;
    // The package leaves this to its installation.
    run::quiet("vm: module index", Command::new("depmod").arg("-b").arg(&home).arg(&release))?;
    let boot =
        fs::read(home.join("boot").join(format!("vmlinuz-{release}"))).context("reading the kernel")?;
    fs::write(&made.vmlinux, uncompressed(&boot)?).context("writing the kernel")?;
    let busybox = fs::read(home.join("bin/busybox")).context("reading busybox")?;
    fs::write(&made.initramfs, first_files(&made.modules, &busybox)?).context("writing the initramfs")?;
    fs::write(home.join(STAMP), format!("{release}\n{FIRST_PROGRAM}")).context("writing the stamp")?;
    println!("vm: Linux {release} is ready in {}", home.display());
    Ok(made)
}

fn home(cache: &Path, kernel: Kernel) -> PathBuf {
    cache.join(format!("linux-{kernel}"))
}

fn image(home: &Path, release: &str) -> Image {
    Image {
        vmlinux: home.join("vmlinux"),
        initramfs: home.join("initramfs"),
        release: release.to_owned(),
        modules: home.join("lib/modules").join(release),
    }
}

/// The one directory of modules that the package has.
fn release(home: &Path) -> Result<String> {
    let mut entries = fs::read_dir(home.join("lib/modules")).context("the package has no modules")?;
    let entry = entries.next().context("the package has no modules")??;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

/// Removes directories with other names; files stay.
fn prune(directory: &Path, names: &[&str]) -> Result<()> {
    let reading = || format!("looking through {}", directory.display());
    for entry in fs::read_dir(directory).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let other = !names.iter().any(|name| entry.file_name() == *name);
        if other && entry.file_type().with_context(reading)?.is_dir() {
            fs::remove_dir_all(entry.path()).with_context(reading)?;
        }
    }
    Ok(())
}

/// The ELF file within a bzImage (Documentation/arch/x86/boot.rst: `setup_sects`, `payload_offset`,
/// `payload_length`; the payload's last four bytes are its length when unpacked).
fn uncompressed(image: &[u8]) -> Result<Vec<u8>> {
    let word = |at: usize| -> Result<usize> {
        let bytes = image.get(at..at + 4).context("no bzImage: too short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    let sectors = usize::from(*image.get(0x1f1).context("no bzImage: too short")?);
    let start = (sectors + 1) * 512 + word(0x248)?;
    let end = start + word(0x24c)?.saturating_sub(4);
    let payload = image.get(start..end).context("no bzImage: its payload lies outside")?;
    let unpacked = unpack(payload)?;
    if !unpacked.starts_with(b"\x7fELF") {
        bail!("the kernel's payload is no ELF file");
    }
    Ok(unpacked)
}

/// By the first bytes of the formats that kernels and modules come in.
fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    match packed {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => filtered("xz", packed),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => filtered("zstd", packed),
        [0x7f, b'E', b'L', b'F', ..] => Ok(packed.to_vec()),
        other => bail!("compressed in an unknown way: {:02x?}", &other[..other.len().min(6)]),
    }
}

fn filtered(program: &str, input: &[u8]) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let mut stdin = child.stdin.take().context("no input pipe")?;
    let output = std::thread::scope(|scope| {
        // A program that fails closes its end; its exit code says more than the broken pipe.
        scope.spawn(move || std::io::Write::write_all(&mut stdin, input));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("{program}: {}", output.status);
    }
    Ok(output.stdout)
}

/// busybox, the first modules in the order to load them, and the program that uses both.
fn first_files(modules: &Path, busybox: &[u8]) -> Result<Vec<u8>> {
    let index = fs::read_to_string(modules.join("modules.dep")).context("reading modules.dep")?;
    let built_in = fs::read_to_string(modules.join("modules.builtin")).context("reading modules.builtin")?;
    let mut archive = Archive::default();
    for directory in ["bin", "proc", "sys", "dev", "modules", "lower", "upper", "joined"] {
        archive.directory(directory);
    }
    archive.program("bin/busybox", busybox);
    archive.program("init", FIRST_PROGRAM.as_bytes());
    for (number, file) in load_order(&index, &built_in)?.into_iter().enumerate() {
        let packed = fs::read(modules.join(file)).with_context(|| format!("reading {file}"))?;
        archive.program(&format!("modules/{number:02}-{}.ko", stem(file)), &unpack(&packed)?);
    }
    Ok(archive.finish())
}

/// Files to load, what a module needs before it. modules.dep has a line `FILE: NEEDED…` per module, of which the
/// last is to be loaded first.
fn load_order<'a>(index: &'a str, built_in: &str) -> Result<Vec<&'a str>> {
    let mut order = Vec::new();
    for name in FIRST_MODULES {
        let mut lines = index.lines().filter_map(|line| line.split_once(':'));
        let Some((file, needed)) = lines.find(|(file, _)| stem(file) == name) else {
            if built_in.lines().any(|file| stem(file) == name) {
                continue;
            }
            bail!("the kernel has no module {name}");
        };
        for wanted in needed.split_whitespace().rev().chain([file]) {
            if !order.contains(&wanted) {
                order.push(wanted);
            }
        }
    }
    Ok(order)
}

/// A module's name, with `_` for `-` as the kernel has it.
fn stem(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::{load_order, uncompressed, unpack};

    #[test]
    fn what_a_module_needs_is_loaded_before_it() {
        let index = "k/virtio_pci.ko.xz: k/virtio_ring.ko.xz k/virtio.ko.xz\n\
                     k/virtio_console.ko.xz: k/virtio.ko.xz\nk/9pnet_virtio.ko: k/9pnet.ko\n\
                     k/9p.ko: k/9pnet.ko k/fscache.ko k/netfs.ko\nk/virtio_net.ko: k/net_failover.ko\n";
        let order = load_order(index, "k/overlay.ko\n").unwrap();
        let at = |name: &str| order.iter().position(|file| file.contains(name)).unwrap();
        assert!(at("virtio.ko") < at("virtio_ring") && at("virtio_ring") < at("virtio_pci"));
        assert!(at("netfs") < at("fscache") && at("fscache") < at("9p.ko"));
        assert_eq!(order.iter().filter(|file| file.ends_with("/virtio.ko.xz")).count(), 1);
        assert!(load_order(index, "").is_err_and(|error| error.to_string().contains("overlay")));
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(uncompressed(&[0; 16]).is_err());
        assert!(uncompressed(&[0; 4096]).is_err());
        assert!(unpack(b"BZh9").is_err());
    }
}
