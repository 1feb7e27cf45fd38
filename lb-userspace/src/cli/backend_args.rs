//! The arguments of `lb backend`.

use clap::{Args, Command, FromArgMatches, Subcommand, ValueEnum};

use super::args::Output;
use super::decap_args::{Clamp, clamp, prefix};
use super::error::Failure;
use crate::backend::{MssWish, Port, Transport, Wanted, Way};
use crate::model::Prefix;

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
    /// All that a backend needs, as commands to read and run; with --apply it is done
    #[command(after_help = "Examples:
  lb backend up --vip 203.0.113.10 --method l2
  lb backend up --vip 203.0.113.10 2001:db8::10 --method gue --from 203.0.113.5 --apply
  lb backend up --vip 203.0.113.10 --method l2 --unit > /etc/systemd/system/lb-backend-eth0.service")]
    Up(UpArgs),
    /// Undo what `lb backend up --apply` has done
    #[command(after_help = "Examples:\n  lb backend down\n  lb backend down --interface eth0")]
    Down {
        /// Only what was done for this interface
        #[arg(long, value_name = "IFACE")]
        interface: Option<String>,
    },
    /// Whether this machine can serve as a backend; exit code 0 it can, 1 warnings, 2 problems
    #[command(after_help = "Examples:
  lb backend check --vip 203.0.113.10 --method l2 --port 80 443
  lb backend check --vip 203.0.113.10 --method ipip --from 203.0.113.5 --fix")]
    Check(BackendCheckArgs),
}

#[derive(Args, Debug)]
pub(super) struct UpArgs {
    #[command(flatten)]
    pub(super) wanted: WantedArgs,
    /// Do it, and verify it; what is so already stays
    #[arg(long)]
    pub(super) apply: bool,
    /// Print a unit for systemd that does it at boot
    #[arg(long, conflicts_with = "apply")]
    pub(super) unit: bool,
    /// Leave the decapsulator to somebody else, such as a unit
    #[arg(long)]
    no_decap: bool,
}

#[derive(Args, Debug)]
pub(super) struct BackendCheckArgs {
    #[command(flatten)]
    pub(super) wanted: WantedArgs,
    /// Ports that servers should listen on: 80, or 53/udp
    #[arg(long, num_args = 1.., value_name = "PORT", value_parser = port)]
    port: Vec<Port>,
    /// Put right what can be, then check again
    #[arg(long)]
    pub(super) fix: bool,
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

/// What a backend is for.
#[derive(Args, Clone, Debug)]
pub(super) struct WantedArgs {
    /// Service addresses or prefixes
    #[arg(long, required = true, num_args = 1.., value_name = "ADDRESS", value_parser = prefix)]
    pub(super) vip: Vec<Prefix>,
    /// How packets come from the balancer: the config's `forwarding`
    #[arg(long, value_enum)]
    method: Method,
    /// With a tunnel: the balancers' addresses or prefixes, the only outer sources that are accepted
    #[arg(long, num_args = 1.., value_name = "PREFIX", value_parser = prefix,
          required_if_eq_any = [("method", "ipip"), ("method", "gre"), ("method", "gue")])]
    pub(super) from: Vec<Prefix>,
    /// The interface that packets come in by [default: the one towards --from, or the only one]
    #[arg(long, value_name = "IFACE")]
    pub(super) interface: Option<String>,
    /// UDP port that GUE comes to
    #[arg(long, default_value_t = 6080, value_name = "PORT")]
    gue_port: u16,
    /// With a tunnel: the largest MSS that clients are told [default: what fits]
    #[arg(long, value_name = "BYTES", value_parser = clamp)]
    mss: Option<Clamp>,
    /// With a tunnel: leave the MSS alone
    #[arg(long, conflicts_with = "mss")]
    no_clamp: bool,
    /// Run the decapsulator in the network stack (slow) instead of the driver
    #[arg(long)]
    generic: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Method {
    L2,
    Ipip,
    Gre,
    Gue,
}

impl WantedArgs {
    /// What is wanted on this interface.
    pub(super) fn on(&self, interface: String) -> Wanted {
        let way = match self.method {
            Method::L2 => Way::L2,
            Method::Ipip => Way::Ipip,
            Method::Gre => Way::Gre,
            Method::Gue => Way::Gue,
        };
        let mss = match (self.no_clamp, self.mss) {
            (true, _) => MssWish::Leave,
            (false, Some(Clamp::To(value))) => MssWish::To(value),
            (false, None | Some(Clamp::Auto)) => MssWish::Fit,
        };
        Wanted {
            vips: self.vip.clone(),
            way,
            from: if way.is_tunnel() { self.from.clone() } else { Vec::new() },
            interface,
            gue_port: self.gue_port,
            mss,
            generic: self.generic,
            starts_decap: true,
            ports: Vec::new(),
        }
    }
}

impl UpArgs {
    /// What is wanted on this interface.
    pub(super) fn on(&self, interface: String) -> Wanted {
        Wanted { starts_decap: !self.no_decap, ..self.wanted.on(interface) }
    }
}

impl BackendCheckArgs {
    /// Options that stand behind another command's.
    pub(super) fn parse(options: &[String]) -> Result<Self, Failure> {
        let grammar = Self::augment_args(Command::new("lb doctor --backend").no_binary_name(true));
        let matches = grammar.try_get_matches_from(options).map_err(Failure::bad_input)?;
        Self::from_arg_matches(&matches).map_err(Failure::bad_input)
    }

    /// What is wanted on this interface.
    pub(super) fn on(&self, interface: String) -> Wanted {
        Wanted { ports: self.port.clone(), ..self.wanted.on(interface) }
    }
}

/// `80`, `80/tcp` or `53/udp`.
fn port(text: &str) -> Result<Port, String> {
    let (number, transport) = text.split_once('/').unwrap_or((text, "tcp"));
    let transport = match transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        other => return Err(format!("{other} is neither tcp nor udp")),
    };
    let number = number.parse().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| "a port from 1 to 65535 is wanted".to_owned())?;
    Ok(Port { transport, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_doctor_takes_the_same_options() {
        let options = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let parsed =
            BackendCheckArgs::parse(&options("--vip 203.0.113.10 --method l2 --port 80 --fix")).unwrap();
        assert!(parsed.fix && parsed.on("eth0".into()).ports.len() == 1);
        for bad in ["--method l2", "--vip 203.0.113.10", "--vip 203.0.113.10 --method ipip"] {
            assert!(BackendCheckArgs::parse(&options(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_have_a_transport() {
        assert_eq!(port("80").map(|port| port.to_string()), Ok("80/tcp".to_owned()));
        assert_eq!(port("53/udp").map(|port| port.to_string()), Ok("53/udp".to_owned()));
        for bad in ["", "0", "65536", "80/sctp", "http"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }
}
