//! Configs as a user would write them, for the lab's addresses.

use std::fmt::Write;
use std::net::Ipv4Addr;

/// The address of backend `number` of a lab, counted from 1.
pub fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 20_u8.saturating_add(number))
}

/// A config file's content.
#[derive(Debug, Clone)]
pub struct Config {
    /// The one interface.
    pub interface: &'static str,
    /// `auto`, `native`, `generic`.
    pub mode: &'static str,
    /// What is inside `limits: {…}`.
    pub limits: &'static str,
    /// The services.
    pub services: Vec<Service>,
}

/// A service with backends of its own.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// Where clients send.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
    /// `l2` or `ipip`.
    pub forwarding: &'static str,
    /// Addresses and weights.
    pub backends: Vec<(Ipv4Addr, u16)>,
}

impl Service {
    /// A service on port 80 over the lab's backends with these numbers and weights.
    pub fn web(address: Ipv4Addr, forwarding: &'static str, backends: &[(u8, u16)]) -> Self {
        let backends = backends.iter().map(|&(number, weight)| (self::address(number), weight)).collect();
        let name = if forwarding == "l2" { "web" } else { "tunnel" };
        Self { name, address, port: 80, forwarding, backends }
    }
}

impl Config {
    /// On `eth0`, with defaults for everything else.
    pub fn new(services: impl IntoIterator<Item = Service>) -> Self {
        Self { interface: "eth0", mode: "auto", limits: "", services: services.into_iter().collect() }
    }

    /// One service, [`lb_userspace::lab::VIP_L2`] by `l2`, over backends with these weights.
    pub fn l2(backends: &[(u8, u16)]) -> Self {
        Self::new([Service::web(lb_userspace::lab::VIP_L2, "l2", backends)])
    }

    /// The file's text.
    pub fn yaml(&self) -> String {
        let Self { interface, mode, limits, services } = self;
        let mut text = format!("version: 1\ninterfaces: [{{name: {interface}, mode: {mode}}}]\n");
        if !limits.is_empty() {
            let _ = writeln!(text, "limits: {{{limits}}}");
        }
        let _ = writeln!(text, "services:");
        for Service { name, address, port, forwarding, backends } in services {
            let _ = writeln!(
                text,
                "  - name: {name}\n    address: {address}\n    protocol: tcp\n    port: {port}"
            );
            let _ = writeln!(text, "    forwarding: {forwarding}\n    backends:");
            for (address, weight) in backends {
                let _ = writeln!(text, "      - {{address: {address}, weight: {weight}}}");
            }
        }
        text
    }
}
