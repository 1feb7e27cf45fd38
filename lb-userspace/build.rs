//! Builds lb-ebpf's programs with the pinned toolchain and the bpf-linker that `cargo xtask setup` made, so that
//! a plain `cargo build` works and the installed `lb` is one file.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aya_build::{Package, Toolchain};

/// All that decides what the object looks like, next to lb-ebpf itself, which aya-build watches.
const WATCHED: [&str; 6] =
    ["lb-ebpf", "lb-common/src", "lb-common/Cargo.toml", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let root = manifest.parent().ok_or("the workspace has no root")?;
    for path in WATCHED {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    for name in ["LB_TOOLCHAIN_DIR", "XDG_CACHE_HOME", "HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let channel = toolchain::channel(root)?;
    let linker = ready_toolchain(&channel)?;
    set_environment(&linker, &shared_build_dir()?)?;
    let ebpf = Package { name: "lb-ebpf", root_dir: "../lb-ebpf", ..Package::default() };
    aya_build::build_ebpf([ebpf], Toolchain::Custom(&channel))
        .map_err(|error| format!("the eBPF programs do not build: {}", error.root_cause()))
}

/// Returns the directory of bpf-linker.
fn ready_toolchain(channel: &str) -> Result<PathBuf, String> {
    const WAY_OUT: &str = "run `cargo xtask setup`";
    let sysroot = toolchain::sysroot(channel).map_err(|e| format!("Rust {channel}: {e}; {WAY_OUT}"))?;
    if !toolchain::has_rust_src(&sysroot) {
        return Err(format!("Rust {channel} lacks rust-src; {WAY_OUT}"));
    }
    let home = toolchain::linker_home(channel)?;
    println!("cargo::rerun-if-changed={}", home.join("bin/bpf-linker").display());
    if !toolchain::linker_works(&home) {
        return Err(format!("no working bpf-linker in {}; {WAY_OUT}", home.display()));
    }
    Ok(home.join("bin"))
}

/// One place for what the eBPF build leaves in between. aya-build works below `OUT_DIR`, of which there is one
/// per profile, package selection and lint run: each would compile `core` and all macros anew.
fn shared_build_dir() -> Result<PathBuf, String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    // <target>/<profile>/build/<package>/out
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not inside a target directory")?;
    Ok(target.join("ebpf"))
}

fn set_environment(linker: &Path, build_dir: &Path) -> Result<(), String> {
    let old = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(std::iter::once(linker.to_owned()).chain(env::split_paths(&old)))
        .map_err(|e| format!("PATH: {e}"))?;
    // SAFETY: build scripts start with one thread, and this one has started no other yet.
    unsafe { env::set_var("PATH", path) };
    // What `-Z build-std` asks of a stable toolchain. SAFETY: as above.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    // SAFETY: as above.
    unsafe { env::set_var("CARGO_BUILD_BUILD_DIR", build_dir) };
    // aya-build shows each line of cargo's progress as a warning; compiler messages still come.
    // SAFETY: as above.
    unsafe { env::set_var("CARGO_TERM_QUIET", "true") };
    Ok(())
}
