//! Builds bpf-linker against the LLVM that the pinned compiler ships, so that no distribution's LLVM is needed.
//! The binary names its own directory as run path: it is built where it stays, and a stamp is written last.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::run;
use crate::toolchain::{self, BPF_LINKER_VERSION};
use crate::workspace::Workspace;

/// Written last: what it stands beside is whole.
const STAMP: &str = "complete";

pub fn ensure(workspace: &Workspace, sysroot: &Path) -> Result<()> {
    let home = toolchain::linker_home(&workspace.channel).map_err(|e| anyhow!(e))?;
    let libraries = llvm_libraries(sysroot)?;
    if is_ready(&home, &libraries) {
        super::ok("bpf-linker", &format!("{BPF_LINKER_VERSION}, {}", home.display()));
        return Ok(());
    }
    fs::create_dir_all(home.join("lib")).with_context(|| format!("creating {}", home.display()))?;
    let _lock = lock(&home)?;
    if is_ready(&home, &libraries) {
        super::ok("bpf-linker", "built meanwhile by another setup");
        return Ok(());
    }
    link_llvm(&home, &libraries)?;
    if !toolchain::linker_works(&home) {
        build(&home)?;
    }
    if !toolchain::linker_works(&home) {
        bail!("the bpf-linker just built does not start\n  way out: rm -r {} and try again", home.display());
    }
    fs::write(home.join(STAMP), format!("{}\n", libraries[0].display()))?;
    super::ok("bpf-linker", &format!("{BPF_LINKER_VERSION}, {}", home.display()));
    Ok(())
}

fn is_ready(home: &Path, libraries: &[PathBuf]) -> bool {
    home.join(STAMP).is_file()
        && links(home, libraries)
            .iter()
            .all(|(link, library)| fs::read_link(link).is_ok_and(|to| &to == library))
        && toolchain::linker_works(home)
}

/// The compiler's `libLLVM*`, the versioned shared object first.
fn llvm_libraries(sysroot: &Path) -> Result<Vec<PathBuf>> {
    let dir = sysroot.join("lib");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if file_name(&path).starts_with("libLLVM") {
            found.push(path);
        }
    }
    found.sort_by_key(|path| (!file_name(path).starts_with("libLLVM.so."), path.clone()));
    if !found.first().is_some_and(|path| file_name(path).starts_with("libLLVM.so.")) {
        bail!(
            "no libLLVM.so.* in {}: not a toolchain from rustup?\n  \
             way out: with Debian's llvm-22-dev: LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker \
             --version {BPF_LINKER_VERSION} --locked --no-default-features --features llvm-22",
            dir.display()
        );
    }
    Ok(found)
}

fn links(home: &Path, libraries: &[PathBuf]) -> Vec<(PathBuf, PathBuf)> {
    let lib = home.join("lib");
    let named = libraries.iter().map(|library| (lib.join(file_name(library)), library.clone()));
    named.chain([(lib.join("libLLVM.so"), libraries[0].clone())]).collect()
}

/// By rename, because a compiler may be linking through the old link right now.
fn link_llvm(home: &Path, libraries: &[PathBuf]) -> Result<()> {
    for (link, library) in links(home, libraries) {
        let new = link.with_added_extension("new");
        let _ = fs::remove_file(&new);
        symlink(&library, &new).with_context(|| format!("linking {}", link.display()))?;
        fs::rename(&new, &link).with_context(|| format!("linking {}", link.display()))?;
    }
    Ok(())
}

fn build(home: &Path) -> Result<()> {
    let scratch = home.join("build");
    let mut install = run::cargo();
    install
        .args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(home)
        .arg("--target-dir")
        .arg(&scratch)
        .env("LLVM_PREFIX", home)
        .current_dir(home);
    for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"] {
        install.env_remove(flags);
    }
    run::quiet("bpf-linker: building it, once (about 90 s)", &mut install).with_context(|| {
        format!(
            "cannot build bpf-linker\n  \
             way out: it needs the crate registry (HTTPS_PROXY) and a C compiler (apt-get install gcc);\n    \
             a new attempt goes on where this one stopped; to start over: rm -r {}",
            home.display()
        )
    })?;
    let _ = fs::remove_dir_all(scratch);
    Ok(())
}

/// Held until the file is dropped; the kernel lets go of it when the process dies.
fn lock(home: &Path) -> Result<File> {
    let file = File::create(home.join("lock")).context("creating the lock file")?;
    if file.try_lock().is_err() {
        println!("bpf-linker: waiting for another setup …");
        file.lock().context("locking")?;
    }
    Ok(file)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
