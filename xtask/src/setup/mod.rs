//! Brings a machine to where everything builds and tests. Every step looks first and acts only if it must, so
//! running it again is cheap. Steps do not know each other; their order is decided here.

mod bpffs;
mod kernel;
mod linker;
mod packages;
mod root;
mod rust;

use std::time::Instant;

use anyhow::Result;

use crate::workspace::Workspace;

/// What formatting needs.
pub fn for_formatting(workspace: &Workspace) -> Result<()> {
    rust::ensure(workspace).map(drop)
}

/// What compiling needs: no root, no packages.
pub fn for_building(workspace: &Workspace) -> Result<()> {
    let sysroot = rust::ensure(workspace)?;
    linker::ensure(workspace, &sysroot)
}

/// What tests and the demo need on top: root, a kernel, programs, bpffs.
pub fn for_running(workspace: &Workspace) -> Result<()> {
    let started = Instant::now();
    root::check()?;
    kernel::check()?;
    for_building(workspace)?;
    packages::ensure()?;
    bpffs::ensure()?;
    println!("setup: ready ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}

/// What every command that touches the network or starts machines needs.
pub fn root() -> Result<()> {
    root::check()
}

/// The programs that virtual machines need on top.
pub fn for_guests() -> Result<()> {
    packages::ensure_for_guests()
}

fn ok(step: &str, detail: &str) {
    println!("{step}: ok ({detail})");
}
