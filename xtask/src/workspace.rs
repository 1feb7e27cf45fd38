//! Where the workspace is and which toolchain it pins.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use crate::run;
use crate::toolchain;

pub struct Workspace {
    pub root: PathBuf,
    pub channel: String,
}

impl Workspace {
    pub fn find() -> Result<Self> {
        // Cargo sets it for `cargo run`; the compiled-in one serves when the binary is started by hand.
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).parent().context("xtask has no parent directory")?.to_path_buf();
        let channel = toolchain::channel(&root).map_err(|e| anyhow!(e))?;
        Ok(Self { root, channel })
    }

    /// A cargo command that runs in the workspace's root.
    pub fn cargo(&self, args: &[&str]) -> Command {
        let mut command = run::cargo();
        command.args(args).current_dir(&self.root);
        command
    }

    /// The directory that `CARGO_TARGET_DIR` or cargo's configuration names.
    pub fn target_dir(&self) -> Result<PathBuf> {
        let mut metadata = self.cargo(&["metadata", "--no-deps", "--format-version", "1"]);
        let output = metadata.stderr(Stdio::inherit()).output().context("cannot start cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed ({})", output.status);
        }
        let json = String::from_utf8(output.stdout).context("cargo metadata")?;
        let (_, rest) =
            json.split_once("\"target_directory\":\"").context("cargo metadata: no target_directory")?;
        let (path, _) = rest.split_once('"').context("cargo metadata: no end of target_directory")?;
        Ok(path.into())
    }
}
