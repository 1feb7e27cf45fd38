//! What a service takes: addresses, protocol and ports.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::{Prefix, Protocol};

/// Addresses, protocol and ports that name a service. Ports are in host order.
///
/// Of several that take a packet the one with the longest prefix wins, then the one with the fewest ports.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceId {
    /// The virtual IP address; the first of a prefix.
    pub address: IpAddr,
    /// Length of the prefix; 32 or 128: one address.
    pub prefix_len: u8,
    /// The transport protocol.
    pub protocol: Protocol,
    /// First destination port, 1–65535; 0: any.
    pub port: u16,
    /// Last destination port: the same for a single one, 65535 for any.
    pub last_port: u16,
}

impl ServiceId {
    /// One port of one address.
    pub fn single(address: impl Into<IpAddr>, protocol: Protocol, port: u16) -> Self {
        let Prefix { network, length } = Prefix::host(address.into());
        Self { address: network, prefix_len: length, protocol, port, last_port: port }
    }

    /// The addresses it takes.
    pub fn prefix(&self) -> Prefix {
        Prefix { network: self.address, length: self.prefix_len }
    }

    /// Whether it takes more than one address.
    pub fn is_prefix(&self) -> bool {
        !self.prefix().is_host()
    }

    /// Whether it takes every port.
    pub fn any_port(&self) -> bool {
        self.port == 0
    }

    /// The ports it takes; those of [`any_port`](Self::any_port) start at 0.
    pub fn ports(&self) -> RangeInclusive<u16> {
        self.port..=self.last_port
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.is_prefix()) {
            (IpAddr::V4(address), false) => write!(f, "{address}")?,
            (IpAddr::V6(address), false) => write!(f, "[{address}]")?,
            (IpAddr::V4(_), true) => write!(f, "{}", self.prefix())?,
            (IpAddr::V6(_), true) => write!(f, "[{}]", self.prefix())?,
        }
        match (self.port, self.last_port) {
            (0, _) => write!(f, ":any")?,
            (first, last) if first == last => write!(f, ":{first}")?,
            (first, last) => write!(f, ":{first}-{last}")?,
        }
        write!(f, "/{}", self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shown_as_people_write_them() {
        let id = |address: &str, prefix_len, protocol, port, last_port| ServiceId {
            address: address.parse().unwrap(),
            prefix_len,
            protocol,
            port,
            last_port,
        };
        for (id, text) in [
            (id("203.0.113.10", 32, Protocol::Tcp, 80, 80), "203.0.113.10:80/tcp"),
            (id("2001:db8::10", 128, Protocol::Udp, 80, 80), "[2001:db8::10]:80/udp"),
            (id("203.0.113.0", 28, Protocol::Tcp, 80, 80), "203.0.113.0/28:80/tcp"),
            (id("2001:db8::", 64, Protocol::Tcp, 80, 80), "[2001:db8::/64]:80/tcp"),
            (id("203.0.113.10", 32, Protocol::Tcp, 8000, 8099), "203.0.113.10:8000-8099/tcp"),
            (id("203.0.113.10", 32, Protocol::Sctp, 0, 65_535), "203.0.113.10:any/sctp"),
        ] {
            assert_eq!(id.to_string(), text);
        }
        let single = ServiceId::single([203, 0, 113, 10], Protocol::Tcp, 80);
        assert_eq!(single, id("203.0.113.10", 32, Protocol::Tcp, 80, 80));
        assert_eq!(single.ports(), 80..=80);
    }

    #[test]
    fn prefixes_contain_their_own_family_only() {
        let prefix = |text: &str, length| Prefix::containing(text.parse().unwrap(), length);
        let everything = prefix("198.51.100.7", 0);
        assert_eq!(everything.to_string(), "0.0.0.0/0");
        assert!(everything.contains([255; 4].into()) && !everything.contains([0u16; 8].into()));
        assert_eq!(everything.last(), IpAddr::from([255; 4]));
        let net = prefix("203.0.113.77", 28);
        assert_eq!((net.to_string().as_str(), net.last()), ("203.0.113.64/28", [203, 0, 113, 79].into()));
        assert!(!net.contains([203, 0, 113, 80].into()) && net.covers(&prefix("203.0.113.79", 32)));
        assert!(!net.covers(&prefix("203.0.113.64", 27)));
        let six = prefix("2001:db8:1:2:3::", 64);
        assert_eq!(six.to_string(), "2001:db8:1:2::/64");
        assert_eq!(six.last(), "2001:db8:1:2:ffff:ffff:ffff:ffff".parse::<IpAddr>().unwrap());
        assert!(Prefix::host(six.last()).is_host() && !six.is_host());
    }
}
