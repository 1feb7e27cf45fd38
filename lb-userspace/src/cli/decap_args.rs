//! The arguments of `lb decap`, and prefixes as arguments.

use std::net::IpAddr;

use clap::Args;

use crate::model::Prefix;

#[derive(Args, Debug)]
pub(super) struct DecapArgs {
    /// The interface that tunnels arrive on
    #[arg(value_name = "IFACE")]
    pub(super) interface: String,
    /// Service addresses or prefixes: the only inner destinations that are accepted
    #[arg(long, required = true, num_args = 1.., value_name = "PREFIX", value_parser = prefix)]
    pub(super) vip: Vec<Prefix>,
    /// Balancers' addresses or prefixes: the only outer sources that are accepted
    #[arg(long, required = true, num_args = 1.., value_name = "PREFIX", value_parser = prefix)]
    pub(super) from: Vec<Prefix>,
    /// UDP port that GUE comes to; 0: none does
    #[arg(long, default_value_t = 6080, value_name = "PORT")]
    pub(super) gue_port: u16,
    /// Lower the MSS in TCP SYN segments that leave from the service addresses, so that what clients send fits the
    /// tunnel; without VALUE: what IFACE's MTU leaves of it
    #[arg(long, value_name = "VALUE", num_args = 0..=1, default_missing_value = "auto", value_parser = clamp)]
    pub(super) clamp_mss: Option<Clamp>,
    /// Interfaces that answers leave through, for --clamp-mss [default: IFACE]
    #[arg(long, requires = "clamp_mss", num_args = 1.., value_name = "IFACE")]
    pub(super) clamp_on: Vec<String>,
    /// Run in the network stack (slow) instead of the driver
    #[arg(long)]
    pub(super) generic: bool,
}

/// The largest MSS that may leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Clamp {
    /// What the tunnel's interface leaves.
    Auto,
    /// This, for both families.
    To(u16),
}

/// `auto`, or a number of bytes that TCP can do with (the kernel's least, `TCP_MIN_MSS`, and what fits an IPv4 packet).
pub(super) fn clamp(text: &str) -> Result<Clamp, String> {
    if text == "auto" {
        return Ok(Clamp::Auto);
    }
    let value = text.parse().ok().filter(|value| (88..=65495).contains(value));
    value.map(Clamp::To).ok_or_else(|| "a number from 88 to 65495 is wanted".to_owned())
}

/// `192.0.2.0/24`, `2001:db8::/32`, or an address alone.
pub(super) fn prefix(text: &str) -> Result<Prefix, String> {
    let (address, length) = text.split_once('/').map_or((text, None), |(a, l)| (a, Some(l)));
    let network: IpAddr = address.parse().map_err(|_| format!("{address} is no IP address"))?;
    if matches!(network, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return Err("an IPv4 address is to be written as one".to_owned());
    }
    let most = if network.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(length) => {
            let length = length.parse().ok().filter(|length| *length <= most);
            length.ok_or_else(|| format!("a prefix length is 0 to {most}"))?
        }
    };
    let prefix = Prefix::containing(network, length);
    if prefix.network != network {
        return Err(format!("host bits are set: {} is the network", prefix.network));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Command, Options};
    use super::*;

    #[test]
    fn prefixes_have_no_host_bits() {
        for (text, shown) in [
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
        ] {
            assert_eq!(prefix(text).map(|prefix| prefix.to_string()), Ok(shown.to_owned()));
        }
        let bad = ["192.0.2.1/24", "192.0.2.0/33", "x/8", "192.0.2.0/", "2001:db8::1/64", "::/129"];
        for bad in bad.into_iter().chain(["::ffff:192.0.2.1", ""]) {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_mss_is_a_number_or_found_out() {
        let parsed = |words: &[&str]| -> Result<Option<Clamp>, clap::error::ErrorKind> {
            let fixed = ["lb", "decap", "eth0", "--vip", "203.0.113.10", "--from", "203.0.113.5"];
            let options = Options::try_parse_from(fixed.iter().chain(words))
                .map_err(|error: clap::Error| error.kind())?;
            match options.command {
                Command::Decap(args) => Ok(args.clamp_mss),
                _ => Ok(None),
            }
        };
        assert_eq!(parsed(&[]), Ok(None));
        assert_eq!(parsed(&["--clamp-mss"]), Ok(Some(Clamp::Auto)));
        assert_eq!(parsed(&["--clamp-mss", "1400", "--clamp-on", "eth1"]), Ok(Some(Clamp::To(1400))));
        for bad in [&["--clamp-mss", "87"][..], &["--clamp-mss", "65496"], &["--clamp-on", "eth1"]] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
    }
}
