//! `lb backend`: makes a machine a backend, takes that back, and checks it. (`lb backends` is about the balancer's.)

use std::process::ExitCode;

use nix::unistd::geteuid;
use tokio::runtime::Builder;

use super::backend_args::{BackendCheckArgs, BackendCommand, UpArgs};
use super::error::Failure;
use super::output;
use crate::backend::{self, Invocation, collect, incoming, script, unit};
use crate::doctor::{Report, backend as findings};
use crate::netlink::Netlink;

/// `lb backend …`.
pub(super) fn run(command: &BackendCommand) -> Result<ExitCode, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(async {
        let netlink = Netlink::open().map_err(Failure::failed)?;
        match command {
            BackendCommand::Up(args) => up(&netlink, args).await,
            BackendCommand::Down { interface } => down(&netlink, interface.as_deref()).await,
            BackendCommand::Check(args) => check(&netlink, args).await,
        }
    })
}

/// `lb doctor --backend OPTIONS…`.
pub(super) fn doctor(options: &[String]) -> Result<ExitCode, Failure> {
    let args = BackendCheckArgs::parse(options)?;
    run(&BackendCommand::Check(args))
}

async fn up(netlink: &Netlink, args: &UpArgs) -> Result<ExitCode, Failure> {
    let named = args.wanted.interface.as_deref();
    let interface = incoming(netlink, named, &args.wanted.from, &args.wanted.vip).await?;
    let wanted = args.on(interface.clone());
    if args.apply {
        root()?;
        let mut done = 0;
        let mut note = |line: &str| {
            done += 1;
            say(line);
        };
        let result = backend::up(netlink, &wanted, &mut note).await;
        let undo = format!("lb backend down --interface {interface}");
        result.map_err(|error| {
            let before = if done == 0 { "nothing was changed" } else { "what is listed above was done" };
            Failure::from(error).and(&format!("{before}; `{undo}` undoes it"))
        })?;
        say(&format!(
            "backend ready on {interface}{}",
            if done == 0 { ": nothing had to be changed" } else { "" }
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let facts = collect(netlink, &wanted).await?;
    let binary = std::env::current_exe().map_err(Failure::failed)?.display().to_string();
    let invocation = Invocation { binary, interface };
    let text = if args.unit { unit } else { script }(&wanted, &facts, &invocation);
    output::text(&text)?;
    Ok(ExitCode::SUCCESS)
}

async fn down(netlink: &Netlink, interface: Option<&str>) -> Result<ExitCode, Failure> {
    root()?;
    if !backend::down(netlink, interface, &mut say).await? {
        say("nothing to undo");
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(netlink: &Netlink, args: &BackendCheckArgs) -> Result<ExitCode, Failure> {
    let report = report(netlink, args).await?;
    output::print(args.output, &report, || report.to_string())?;
    Ok(ExitCode::from(report.exit_code()))
}

/// The findings about this machine as a backend, after putting right what can be where that is asked for.
async fn report(netlink: &Netlink, args: &BackendCheckArgs) -> Result<Report, Failure> {
    let named = args.wanted.interface.as_deref();
    let interface = incoming(netlink, named, &args.wanted.from, &args.wanted.vip).await?;
    let wanted = args.on(interface);
    let found = findings(&wanted, &collect(netlink, &wanted).await?);
    if !args.fix || !found.iter().any(|finding| finding.fixable) {
        return Ok(Report { findings: found });
    }
    root()?;
    backend::up(netlink, &wanted, &mut |line| eprintln!("fixed: {line}")).await?;
    Ok(Report { findings: findings(&wanted, &collect(netlink, &wanted).await?) })
}

fn root() -> Result<(), Failure> {
    if geteuid().is_root() { Ok(()) } else { Err(Failure::failed("root is needed")) }
}

fn say(line: &str) {
    let _closed_pipe = output::text(&format!("{line}\n"));
}
