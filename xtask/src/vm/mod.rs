//! Runs commands in virtual machines with other kernels than this machine's. What is needed for it is fetched and
//! prepared once per kernel; the parts do not know each other, their order is decided here.

mod archive;
mod cpio;
mod guest;
mod image;
mod suite;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::run;
use crate::setup;
use crate::toolchain;
use crate::workspace::Workspace;

pub use guest::Accelerator;
pub use suite::{Selection, test};

/// What a caller sees if there can be no virtual machine here, as automake's and meson's test programs say it.
pub const SKIPPED: i32 = 77;

/// Longest that a command of `cargo xtask vm` may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(600);

/// Debian 12's own kernel, and the one of its backports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    V6_1,
    V6_12,
}

impl Kernel {
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kernel| kernel.to_string() == name)
    }

    /// The part of the distribution that has it.
    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 => "bookworm-backports",
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        })
    }
}

/// A command, and what it shall run on.
#[derive(Debug, PartialEq, Eq)]
pub struct Job {
    pub kernel: Kernel,
    pub accelerator: Accelerator,
    pub command: Vec<String>,
}

/// Runs a command in the current directory of a guest that sees this machine's files; its output is ours.
/// Ends the process with its exit code.
pub fn command(workspace: &Workspace, job: &Job) -> Result<()> {
    let code = match prepared(workspace, job.kernel)? {
        Err(reason) => {
            println!("SKIPPED: no virtual machine with Linux {}: {reason}", job.kernel);
            SKIPPED
        }
        Ok(image) => {
            let mut stdout = std::io::stdout().lock();
            let directory = std::env::current_dir().context("the current directory")?;
            let task = guest::Task {
                command: &job.command,
                directory: &directory,
                environment: &[],
                limit: COMMAND_LIMIT,
            };
            guest::run(&image, job.accelerator, &task, &mut stdout)?
        }
    };
    std::process::exit(code);
}

/// The kernel's files, ready to start; the inner error is the reason why they cannot be had.
fn prepared(workspace: &Workspace, kernel: Kernel) -> Result<Result<image::Image>> {
    setup::root()?;
    let cache = cache(workspace)?;
    if let Some(image) = image::ready(&cache, kernel) {
        return Ok(tools().map(|()| image));
    }
    let fetched = tools().and_then(|()| archive::fetch(&cache, kernel));
    Ok(match fetched {
        Ok(packages) => Ok(image::make(&cache, kernel, &packages)?),
        Err(reason) => Err(reason),
    })
}

fn tools() -> Result<()> {
    setup::for_guests()?;
    run::find_program("qemu-system-x86_64").map(drop).context("no qemu-system-x86_64")
}

/// Beside the other things that are made once per machine.
fn cache(workspace: &Workspace) -> Result<PathBuf> {
    let linker = toolchain::linker_home(&workspace.channel).map_err(|e| anyhow!(e))?;
    Ok(linker.parent().context("the cache directory")?.join("vm"))
}
