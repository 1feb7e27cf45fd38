//! Completes the pinned Rust toolchain: rust-src (BPF has no prebuilt `core`), rustfmt, clippy.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::run;
use crate::toolchain;
use crate::workspace::Workspace;

/// Returns the toolchain's sysroot.
pub fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let channel = &workspace.channel;
    let sysroot = toolchain::sysroot(channel).map_err(|e| {
        anyhow!("Rust {channel} is not installed: {e}\n  way out: rustup toolchain install {channel} --profile minimal")
    })?;
    let missing = missing(&sysroot);
    if missing.is_empty() {
        super::ok("rust", &format!("{channel} with rust-src, rustfmt, clippy"));
        return Ok(sysroot);
    }
    if run::find_program("rustup").is_none() {
        bail!(
            "{} of Rust {channel} missing, and no rustup to add it\n  way out: install rustup (https://rustup.rs)",
            missing.join(", ")
        );
    }
    let mut add = Command::new("rustup");
    add.args(["component", "add", "--toolchain", channel]).args(&missing);
    run::quiet(&format!("rust: adding {} to {channel}", missing.join(", ")), &mut add).with_context(|| {
        format!(
            "cannot download {} for Rust {channel}\n  \
             way out: check that the download server of rustup is reachable (HTTPS_PROXY, RUSTUP_DIST_SERVER), then\n    \
             rustup component add --toolchain {channel} {}\n  \
             or: Debian's security archive has a stable Rust with `core` for BPF prebuilt (packages rustc-web,\n    \
             cargo-web, libstd-rust-web-dev-bpf): RUSTC_BOOTSTRAP=1, without -Z build-std",
            missing.join(", "),
            missing.join(" ")
        )
    })?;
    if !self::missing(&sysroot).is_empty() {
        // rustup believes its own records, also where files were removed by hand.
        bail!(
            "rustup says {} is there, but its files are not\n  \
             way out: rustup toolchain uninstall {channel} && rustup toolchain install {channel} --profile minimal",
            missing.join(", ")
        );
    }
    Ok(sysroot)
}

fn missing(sysroot: &Path) -> Vec<&'static str> {
    let has_program = |name: &str| sysroot.join("bin").join(name).is_file();
    let present = [
        ("rust-src", toolchain::has_rust_src(sysroot)),
        ("rustfmt", has_program("cargo-fmt") && has_program("rustfmt")),
        ("clippy", has_program("cargo-clippy") && has_program("clippy-driver")),
    ];
    present.iter().filter(|(_, present)| !present).map(|(name, _)| *name).collect()
}
