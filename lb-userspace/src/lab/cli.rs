//! `lb lab up|down|demo`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use super::balancer;
use super::builder::Builder;
use super::config_file::LabConfig;
use super::demo;
use super::error::LabError;
use super::interrupt::Interrupt;
use super::netns::Netns;
use super::report::say;
use super::state::{self, State};
use super::topology::Topology;

const DEFAULT_NAME: &str = "lab";
/// What a shell reports for a program ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

/// A lab in network namespaces: client, router, balancer, backends with real web servers
#[derive(Debug, Clone, clap::Subcommand)]
pub enum LabCommand {
    /// Build a lab and leave it running
    #[command(after_help = "Examples:
  lb lab up
  lb lab up --name big --backends 12
  lb lab up --name six --ipv6
  nsenter --net=/run/netns/lab-client curl http://203.0.113.21/")]
    Up {
        /// Its name, which its namespaces begin with
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
        /// How many backends (1 to 64)
        #[arg(long, default_value_t = 3)]
        backends: u8,
        /// MTU of the server segment; 1500 leaves no room for a tunnel header
        #[arg(long, default_value_t = 1600, value_parser = clap::value_parser!(u16).range(1500..=9000))]
        mtu: u16,
        /// With IPv6 too: services 2001:db8::10 and 2001:db8::20
        #[arg(long)]
        ipv6: bool,
    },
    /// Remove a lab, or all labs: processes, namespaces, files
    #[command(after_help = "Examples:
  lb lab down
  lb lab down --name big")]
    Down {
        /// Only this one; without it all, except those a running demo or test will remove itself
        #[arg(long)]
        name: Option<String>,
    },
    /// Watch the balancer at work for half a minute: a tour with real HTTP traffic that cleans up after itself
    #[command(after_help = "Examples:
  lb lab demo
  NO_COLOR=1 lb lab demo > tour.txt")]
    Demo {
        /// The lb to show, this one by default
        #[arg(long, hide = true)]
        binary: Option<PathBuf>,
    },
}

/// Runs a lab command. An error is for the caller to print; the demo prints its own failures.
pub fn run(command: LabCommand) -> anyhow::Result<ExitCode> {
    let own = || std::env::current_exe().context("cannot find the running lb");
    let result = match command {
        LabCommand::Up { name, backends, mtu, ipv6 } => {
            let lab = Topology::builder(&name).backends(backends).mtu(mtu).kept();
            let config = LabConfig::even(backends);
            match ipv6 {
                true => up(&name, lab.ipv6(), &config.with_ipv6()),
                false => up(&name, lab, &config),
            }
        }
        LabCommand::Down { name } => remove(name.as_deref(), &own()?),
        LabCommand::Demo { binary } => demo::run(&binary.map_or_else(own, Ok)?),
    };
    match result {
        Err(LabError::Interrupted) => {
            say("interrupted; the lab is removed");
            Ok(ExitCode::from(INTERRUPTED))
        }
        other => Ok(other?),
    }
}

fn up(name: &str, lab: Builder, services: &LabConfig) -> Result<ExitCode, LabError> {
    let interrupt = Interrupt::install()?;
    if let Some(existing) = State::load(name)? {
        if existing.is_up() || existing.is_owned() {
            say(&format!("lab {name} is already up; `lb lab down --name {name}` removes it"));
            return Ok(ExitCode::SUCCESS);
        }
        say(&format!("lab {name} is there in parts only; building it anew"));
        state::down(&existing)?;
    }
    let lab = lab.build()?;
    let config = lab.dir().join("lb.yaml");
    services.write(&config)?;
    interrupt.check()?; // dropping the lab removes it
    let state = lab.release()?;
    let config = config.display();
    say(&format!("lab {name} is up: {}", state.netns.join(" ")));
    let lb = std::env::current_exe().map_or("lb".to_owned(), |path| path.display().to_string());
    say(&format!("  balance  {lb} --netns {name}-lb run --config {config} --watch"));
    let (vip, web) = match services.web_v6 {
        0 => ("203.0.113.20", "http://203.0.113.10/"),
        _ => ("203.0.113.20 2001:db8::20", "-g http://[2001:db8::10]/"),
    };
    say(&format!(
        "  tunnel   {lb} --netns {name}-b1 decap eth0 --vip {vip} --from 203.0.113.5   (each backend)"
    ));
    say(&format!("  request  nsenter --net=/run/netns/{name}-client curl {web}"));
    say(&format!("  remove   lb lab down --name {name}"));
    Ok(ExitCode::SUCCESS)
}

fn remove(name: Option<&str>, binary: &Path) -> Result<ExitCode, LabError> {
    let labs = match name {
        Some(name) => State::load(name)?.into_iter().collect(),
        None => state::list()?,
    };
    if labs.is_empty() {
        say(&name.map_or("no lab is up".to_owned(), |name| format!("lab {name} is not up")));
    }
    for lab in labs {
        if name.is_none() && lab.is_owned() {
            say(&format!("lab {}: left alone, its own program is running and will remove it", lab.name));
            continue;
        }
        detach(&lab, binary);
        state::down(&lab)?;
        say(&format!("lab {}: removed, {} namespaces", lab.name, lab.netns.len()));
    }
    Ok(ExitCode::SUCCESS)
}

/// A balancer that was started by hand left pins in bpffs, which outlive the namespace. Its daemon has to end first: it
/// would attach again.
fn detach(lab: &State, binary: &Path) {
    let netns = Netns::named(format!("{}-lb", lab.name));
    if !netns.exists() {
        return;
    }
    state::end_inhabitants(std::slice::from_ref(&netns));
    if balancer::is_attached(&netns)
        && let Err(error) = balancer::detach(binary, &netns)
    {
        tracing::warn!(lab = lab.name, %error, "balancer in the lab not detached");
    }
}
