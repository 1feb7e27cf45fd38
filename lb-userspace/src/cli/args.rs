//! The grammar of the command line.

use std::fs::File;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sched::{CloneFlags, setns};
use tracing_subscriber::EnvFilter;

use super::backend_args::BackendCommand;
use super::decap_args::DecapArgs;
use super::doctor::DoctorArgs;
use super::error::Failure;
use super::packet_args::{CaptureArgs, ExplainArgs, SimulateArgs};
use super::time;
use crate::daemon::Instance;
use crate::lab::LabCommand;

/// XDP load balancer with direct server return
///
/// Exit codes: 0 done, 1 failed, 2 bad input. `lb status` exits 0 healthy, 1 degraded, 2 not forwarding, 3 unknown.
#[derive(Debug, Parser)]
#[command(
    name = "lb",
    version,
    after_help = "Examples:
  lb validate lb.yaml
  lb attach eth0 --config lb.yaml --confirm 60s
  lb run --config lb.yaml --watch
  lb status
  lb lab demo"
)]
pub(super) struct Options {
    /// Work in this network namespace (a name from /run/netns, or a path)
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) netns: Option<String>,
    #[command(flatten)]
    pub(super) context: Context,
    /// How log lines look on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "LB_LOG_FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Where a data plane's pins and files are.
#[derive(Args, Clone, Debug)]
pub(super) struct Context {
    /// The BPF file system that maps and links are pinned in
    #[arg(long, global = true, default_value = "/sys/fs/bpf", env = "LB_BPFFS", value_name = "DIR")]
    pub(super) bpffs: PathBuf,
    /// Directory of the control socket
    #[arg(long, global = true, default_value = "/run/lb", env = "LB_RUN_DIR", value_name = "DIR")]
    pub(super) run_dir: PathBuf,
    /// Directory of the last good config, which is used at boot where the file is bad
    #[arg(long, global = true, default_value = "/var/lib/lb", env = "LB_STATE_DIR", value_name = "DIR")]
    pub(super) state_dir: PathBuf,
}

impl Context {
    /// The data plane of the current network namespace.
    pub(super) fn instance(&self) -> Result<Instance, Failure> {
        Ok(Instance::current(&self.bpffs, &self.run_dir, &self.state_dir)?)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// How a command prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Output {
    /// Aligned columns.
    Table,
    /// One JSON value; its keys are stable.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check a config: all errors at once, memory, ring sizes
    #[command(after_help = "Examples:\n  lb validate lb.yaml\n  lb validate lb.yaml --effective")]
    Validate(ValidateArgs),
    /// Run the daemon: attach, fill the maps, follow neighbours, reload on SIGHUP
    #[command(after_help = "Examples:\n  lb run --config /etc/lb/lb.yaml --watch\n  kill -HUP $(pidof lb)")]
    Run {
        /// The config file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Also reload when the file changes, however it is replaced
        #[arg(long)]
        watch: bool,
    },
    /// Load, pin, fill and attach the data plane without staying resident
    #[command(after_help = "Examples:
  lb attach eth0 --config lb.yaml
  lb attach eth0 --config lb.yaml --confirm 60s   # undone unless `lb confirm` follows")]
    Attach(AttachArgs),
    /// Keep what `lb attach --confirm` has attached
    Confirm,
    /// Waits for `lb confirm`, else detaches
    #[command(hide = true)]
    Undo { interface: String, seconds: u64 },
    /// Remove the data plane from an interface completely
    #[command(
        after_help = "Examples:\n  lb detach eth0\n  lb detach eth0 --force   # also while traffic flows"
    )]
    Detach {
        /// The interface
        #[arg(value_name = "IFACE")]
        interface: String,
        /// Also while traffic flows through it
        #[arg(long)]
        force: bool,
    },
    /// Move a running or pinned data plane to a config
    #[command(after_help = "Examples:\n  lb apply lb.yaml --dry-run\n  lb apply lb.yaml")]
    Apply(ApplyArgs),
    /// Health of the whole, in one screen
    Status {
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Services: addresses, who answers for them, packets, drops
    Services {
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Backends: state, probes, weight, share, next hop, packets, rates
    #[command(after_help = "Examples:\n  lb backends\n  lb backends web/192.0.2.21   # with each check")]
    Backends(BackendsArgs),
    /// Take new flows away from a backend; flows it has stay
    #[command(after_help = "Examples:
  lb drain 192.0.2.21 --until 30m --reason 'kernel update'
  lb drain 192.0.2.21 --deadline 10m --wait
  lb drain web/a     # in the pool web only")]
    Drain(DrainArgs),
    /// Take all flows away from a backend
    Disable(OrderArgs),
    /// Take back `lb drain` or `lb disable`
    Enable {
        /// The backend, by name or address
        #[arg(value_name = "[POOL/]BACKEND")]
        backend: String,
    },
    /// Make every probe of a config once: the test before the flight
    #[command(
        after_help = "Nothing needs to be attached: where probes go through the service, the program is attached
while they are made, and takes no other traffic.

Examples:
  lb check lb.yaml
  lb check lb.yaml --output json"
    )]
    Check(CheckArgs),
    /// Follow every change of a backend's state, a line of JSON each
    Events,
    /// Every counter, with its meaning
    Counters {
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Packets through a config: no interface is touched, and none of them leaves
    #[command(after_help = "Examples:
  lb simulate --config lb.yaml --packet 'tcp 198.51.100.7:4000 > 203.0.113.10:80 syn'
  lb simulate --config lb.yaml --packet 'udp 198.51.100.7:4000 > 203.0.113.10:53 len 1200' 'icmp 198.51.100.7 > 203.0.113.10 echo'
  lb simulate --config lb.yaml --pcap in.pcap --out out.pcapng --output json")]
    Simulate(SimulateArgs),
    /// What becomes of a packet by the live maps, which are only read; or what a code or reason means
    #[command(after_help = "Examples:
  lb explain 'tcp 198.51.100.7:4000 > 203.0.113.10:80 syn'
  lb explain no_next_hop
  lb explain LB036")]
    Explain(ExplainArgs),
    /// Sampled packets with what became of them
    #[command(after_help = "Costs nothing while it does not run. A frame's first 256 bytes are kept.

Examples:
  lb capture --every 1000 --out sample.pcapng
  lb capture --service web --verdict drop --count 10
  lb capture --source 198.51.100.0/24 --out client.pcapng")]
    Capture(CaptureArgs),
    /// What is wrong with this machine, why it matters, what to do
    #[command(
        after_help = "Changes nothing without --fix. Exit codes: 0 all is well, 1 warnings, 2 problems.

Examples:
  lb doctor eth0
  lb doctor --config lb.yaml     # also the way to every backend
  lb doctor --fix --output json
  lb doctor --backend --vip 203.0.113.10 --method l2"
    )]
    Doctor(DoctorArgs),
    /// Shares of the backends in the rings of a config, and what another config would move
    #[command(
        after_help = "Examples:\n  lb ring --config lb.yaml\n  lb ring --config lb.yaml --against new.yaml"
    )]
    Ring(RingArgs),
    /// On a backend: strip tunnel headers (IP in IP, GRE, GUE) from packets that the balancer sent
    #[command(after_help = "Examples:
  lb decap eth0 --vip 203.0.113.10 --from 203.0.113.5
  lb decap eth0 --vip 203.0.113.0/28 2001:db8::10 --from 198.18.0.0/16 2001:db8:5::/64
  lb decap eth0 --vip 203.0.113.10 --from 203.0.113.5 --clamp-mss")]
    Decap(DecapArgs),
    /// On a backend: all that it needs besides its server, printed or done; undone; checked
    Backend {
        #[command(subcommand)]
        command: BackendCommand,
    },
    /// A lab in network namespaces: client, router, balancer, backends, real traffic
    Lab {
        #[command(subcommand)]
        command: LabCommand,
    },
}

#[derive(Args, Debug)]
pub(super) struct ValidateArgs {
    /// The config file
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Print the merged view: every default filled in
    #[arg(long)]
    pub(super) effective: bool,
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Args, Debug)]
pub(super) struct AttachArgs {
    /// The interface
    #[arg(value_name = "IFACE")]
    pub(super) interface: String,
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Undo it after this time (1s–24h) unless `lb confirm` follows (for work over the very interface)
    #[arg(long, value_name = "TIME", value_parser = time::to_confirm, allow_hyphen_values = true)]
    pub(super) confirm: Option<Duration>,
}

#[derive(Args, Debug)]
pub(super) struct ApplyArgs {
    /// The config file
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Only print what would change
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Overrule the guard rails (most backends of a service leaving at once)
    #[arg(long)]
    pub(super) force: bool,
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Args, Debug)]
pub(super) struct BackendsArgs {
    /// Only this backend, or this service, with the results of each check
    #[arg(value_name = "[SERVICE/]BACKEND")]
    pub(super) backend: Option<String>,
    /// Also how large packets may be on the way to each
    #[arg(long, short)]
    pub(super) verbose: bool,
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Args, Debug)]
pub(super) struct OrderArgs {
    /// The backend, by name or address
    #[arg(value_name = "[POOL/]BACKEND")]
    pub(super) backend: String,
    /// For this time only: 1s–168h
    #[arg(long, value_name = "TIME", value_parser = time::of_drain, allow_hyphen_values = true)]
    pub(super) until: Option<Duration>,
    /// Why, for whoever reads it later
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Also where a service is left without a backend that takes new flows
    #[arg(long)]
    pub(super) force: bool,
}

#[derive(Args, Debug)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    pub(super) order: OrderArgs,
    /// After this time (1s–168h) what is left of its flows moves; the drain goes on
    #[arg(long, value_name = "TIME", value_parser = time::of_drain, allow_hyphen_values = true)]
    pub(super) deadline: Option<Duration>,
    /// Wait until no flow is left (exit code 0), or some had to move (1); wants a daemon
    #[arg(long)]
    pub(super) wait: bool,
}

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The config file
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Args, Debug)]
pub(super) struct RingArgs {
    /// The config file
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// A second config: shows the slots that would change owner
    #[arg(long, value_name = "FILE")]
    pub(super) against: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

/// Log lines go to standard error; `RUST_LOG` chooses them.
pub(super) fn start_logging(options: &Options) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_ansi(colour);
    match options.log_format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().init(),
    }
}

/// Enters a network namespace; before any thread is started, so that all of them are in it.
pub(super) fn enter(name: &str) -> Result<(), Failure> {
    let path = if name.contains('/') { PathBuf::from(name) } else { PathBuf::from("/run/netns").join(name) };
    let file = File::open(&path)
        .map_err(|error| Failure::bad_input(format!("network namespace {}: {error}", path.display())))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .map_err(|error| Failure::failed(format!("entering network namespace {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_sound() {
        Options::command().debug_assert();
    }
}
