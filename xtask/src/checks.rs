//! The checks that need no test to run: formatting, clippy for both sides, tidy.

use anyhow::{Result, bail};

use crate::run;
use crate::tidy;
use crate::workspace::Workspace;

pub fn fmt(workspace: &Workspace) -> Result<()> {
    run::stream(&mut workspace.cargo(&["fmt", "--all"]))
}

pub fn fmt_check(workspace: &Workspace) -> Result<()> {
    run::stream(&mut workspace.cargo(&["fmt", "--all", "--check"]))
}

/// In release, because so it shares the eBPF object and all build scripts with the release build and tests.
pub fn clippy_host(workspace: &Workspace) -> Result<()> {
    let mut clippy = workspace.cargo(&["clippy", "--release", "--workspace", "--exclude", "lb-ebpf"]);
    run::stream(clippy.args(["--all-targets", "--", "-D", "warnings"]))
}

/// In the directory where lb-userspace's build script builds the eBPF crate, not with the host crates: their
/// build scripts watch `RUSTC_BOOTSTRAP`, and all would be compiled anew each time it comes or goes.
pub fn clippy_ebpf(workspace: &Workspace) -> Result<()> {
    let mut clippy = workspace.cargo(&["clippy", "--release", "--package", "lb-ebpf"]);
    clippy
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"])
        .arg(workspace.target_dir()?.join("ebpf"))
        .args(["--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1");
    run::stream(&mut clippy)
}

pub fn tidy(workspace: &Workspace) -> Result<()> {
    let findings = tidy::check(&workspace.root)?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} to put right", findings.len());
    }
    println!("tidy: ok");
    Ok(())
}
