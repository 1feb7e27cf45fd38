//! What a backend shall be able to do, as plain values.

use std::fmt;

use crate::model::Prefix;

/// How packets come from the balancer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// On the segment, with the backend's MAC address.
    L2,
    /// IP in IP.
    Ipip,
    /// GRE without options.
    Gre,
    /// UDP, with or without a GUE header.
    Gue,
}

impl Way {
    /// Whether there is an outer header to be stripped.
    pub fn is_tunnel(self) -> bool {
        self != Self::L2
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2 => "l2",
            Self::Ipip => "ipip",
            Self::Gre => "gre",
            Self::Gue => "gue",
        }
    }
}

/// What is to be done about the MSS that clients are told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MssWish {
    /// Lower it to what fits the tunnel.
    Fit,
    /// Lower it to this many bytes.
    To(u16),
    /// Leave it.
    Leave,
}

/// A transport whose servers listen on ports.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port that a server should listen on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Port {
    /// The transport.
    pub transport: Transport,
    /// The number.
    pub number: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{}/{transport}", self.number)
    }
}

/// What a backend shall be able to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// The service addresses, or prefixes of them.
    pub vips: Vec<Prefix>,
    /// How packets come.
    pub way: Way,
    /// The balancers: outer sources that are accepted. Empty for `l2`.
    pub from: Vec<Prefix>,
    /// The interface that they come in by.
    pub interface: String,
    /// UDP port that GUE comes to, 0 where none does.
    pub gue_port: u16,
    /// What is to be done about the MSS.
    pub mss: MssWish,
    /// Whether the decapsulator runs in the network stack.
    pub generic: bool,
    /// Whether the decapsulator is started here; otherwise a service manager does it.
    pub starts_decap: bool,
    /// Ports that a server should listen on.
    pub ports: Vec<Port>,
}

impl Wanted {
    /// Whether a service address is IPv4.
    pub fn has_v4(&self) -> bool {
        self.vips.iter().any(|vip| vip.network.is_ipv4())
    }

    /// Whether a service address is IPv6.
    pub fn has_v6(&self) -> bool {
        self.vips.iter().any(|vip| vip.network.is_ipv6())
    }
}
