//! `cargo xtask`: everything there is to do with this workspace, from a fresh machine on. The tasks only put
//! steps in order; the steps are in the modules.

mod checks;
mod cli;
mod run;
mod setup;
mod summary;
mod tests_run;
mod tidy;
mod toolchain;
mod vm;
mod workspace;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::cli::{Formatting, Profile, Task};
use crate::workspace::Workspace;

fn main() -> ExitCode {
    let task = match cli::parse(env::args().skip(1)) {
        Ok(task) => task,
        Err(mistake) => {
            eprintln!("error: {mistake}\n\n{}", cli::HELP);
            return ExitCode::from(2);
        }
    };
    match perform(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The outermost message names what was attempted and the way out; causes follow.
            eprintln!("error: {error}");
            error.chain().skip(1).for_each(|cause| eprintln!("  because: {cause}"));
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Help => print!("{}", cli::HELP),
        Task::Setup => setup::for_running(&workspace)?,
        Task::Build(profile) => build(&workspace, &profile)?,
        Task::Demo => demo(&workspace)?,
        Task::Test { filters } => tests_run::test(&workspace, &filters)?,
        Task::Vm(job) => vm::command(&workspace, &job)?,
        Task::VmTest(selection) => vm::test(&workspace, &selection)?,
        Task::Fmt(formatting) => {
            setup::for_formatting(&workspace)?;
            match formatting {
                Formatting::Write => checks::fmt(&workspace)?,
                Formatting::Check => checks::fmt_check(&workspace)?,
            }
        }
        Task::Clippy => {
            setup::for_building(&workspace)?;
            checks::clippy_host(&workspace)?;
            checks::clippy_ebpf(&workspace)?;
        }
        Task::Tidy => checks::tidy(&workspace)?,
        Task::BenchPacket { arguments } => tests_run::bench_packet(&workspace, &arguments)?,
        Task::BenchConsistency { arguments } => tests_run::bench_consistency(&workspace, &arguments)?,
        Task::Bench { filters } => tests_run::bench(&workspace, &filters)?,
    }
    Ok(())
}

fn build(workspace: &Workspace, profile: &Profile) -> Result<()> {
    setup::for_building(workspace)?;
    let mut build = workspace.cargo(&["build", "--workspace", "--exclude", "lb-ebpf"]);
    match profile {
        Profile::Dev => run::stream(&mut build),
        Profile::Release => run::stream(build.arg("--release")),
    }
}

fn demo(workspace: &Workspace) -> Result<()> {
    setup::for_running(workspace)?;
    run::stream(&mut workspace.cargo(&["build", "--release", "--package", "lb-userspace", "--bin", "lb"]))?;
    let lb = workspace.target_dir()?.join("release/lb");
    // In our place: its exit code and Ctrl-C are its own.
    Err(Command::new(&lb).args(["lab", "demo"]).exec())
        .with_context(|| format!("cannot start {}", lb.display()))
}
