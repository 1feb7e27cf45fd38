//! Where the BPF toolchain lives and whether it is there. The one place that knows the directory layout:
//! compiled into xtask, which fills it, and into lb-userspace's build script, which uses it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Built against the compiler's own LLVM, so it moves together with the channel in rust-toolchain.toml.
pub const BPF_LINKER_VERSION: &str = "0.13.0";

/// The `channel` of `rust-toolchain.toml` in the workspace root.
pub fn channel(root: &Path) -> Result<String, String> {
    let file = root.join("rust-toolchain.toml");
    let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("channel")?.trim_start().strip_prefix('='))
        .find_map(|value| value.split('"').nth(1))
        .map(str::to_owned)
        .ok_or_else(|| format!("{}: no line `channel = \"…\"`", file.display()))
}

/// The directory that holds bpf-linker (`bin`) and links to the compiler's LLVM (`lib`).
pub fn linker_home(channel: &str) -> Result<PathBuf, String> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("LB_TOOLCHAIN_DIR")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("lb-toolchain")))
        .or_else(|| Some(set("HOME")?.join(".cache/lb-toolchain")))
        .ok_or("none of LB_TOOLCHAIN_DIR, XDG_CACHE_HOME, HOME is set")?;
    // The linker's run path names this directory, so it has to be absolute.
    let base = std::path::absolute(&base).map_err(|e| format!("{}: {e}", base.display()))?;
    Ok(base.join(format!("rust-{channel}-bpf-linker-{BPF_LINKER_VERSION}")))
}

/// The linker starts (its LLVM is found) and is the pinned version.
pub fn linker_works(home: &Path) -> bool {
    let output = Command::new(home.join("bin/bpf-linker")).arg("--version").stdin(Stdio::null()).output();
    output.is_ok_and(|output| {
        output.status.success()
            && String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1) == Some(BPF_LINKER_VERSION)
    })
}

/// Where the pinned compiler lives. Without rustup (a distribution's Rust), whatever `rustc` is.
pub fn sysroot(channel: &str) -> Result<PathBuf, String> {
    let mut rustup = Command::new("rustup");
    rustup.args(["run", channel, "rustc", "--print", "sysroot"]);
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "sysroot"]);
    let output = rustup.stdin(Stdio::null()).output().or_else(|_| rustc.stdin(Stdio::null()).output());
    let output = output.map_err(|e| format!("neither rustup nor rustc can be started: {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The sources that `-Z build-std=core` compiles for the BPF target.
pub fn has_rust_src(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
}
