//! Writes the balancer's configuration for a lab, as a user would with an editor.

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use super::address::{self, VIP_IPIP, VIP_IPIP_V6, VIP_L2, VIP_L2_V6};
use super::error::LabError;

/// How backends are checked: quickly, because people watch.
const CHECK: &str = "health_check: {type: http, interval: 500ms, timeout: 300ms}";

/// A backend in a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabBackend {
    /// `b1`, `b2`, …
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its weight.
    pub weight: u16,
}

/// Two services on port 80: `web` by `l2` and `tunnel` by `ipip`, each with a pool of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabConfig {
    /// The pool behind [`VIP_L2`].
    pub web: Vec<LabBackend>,
    /// The pool behind [`VIP_IPIP`].
    pub tunnel: Vec<LabBackend>,
    /// How many backends `web6` has, behind [`VIP_L2_V6`], in a lab with IPv6; the tunnel then serves [`VIP_IPIP_V6`] too.
    pub web_v6: u8,
}

impl LabConfig {
    /// All backends in both pools, with equal weights.
    pub fn even(backends: u8) -> Self {
        let backend =
            |number| LabBackend { name: format!("b{number}"), address: address::backend(number), weight: 1 };
        let pool: Vec<_> = (1..=backends).map(backend).collect();
        Self { web: pool.clone(), tunnel: pool, web_v6: 0 }
    }

    /// The services with IPv6 addresses too.
    #[must_use]
    pub fn with_ipv6(self) -> Self {
        let web_v6 = u8::try_from(self.web.len()).unwrap_or(u8::MAX);
        Self { web_v6, ..self }
    }

    /// The file's text.
    pub fn yaml(&self) -> String {
        let tunnel = match self.web_v6 {
            0 => format!("address: {VIP_IPIP}"),
            _ => format!("addresses: [{VIP_IPIP}, \"{VIP_IPIP_V6}\"]"),
        };
        let mut text = format!(
            "# Written by `lb lab`. Edit it: `lb run --watch` follows.\n\
             version: 1\n\
             interfaces:\n  - {{name: eth0}}\n\
             services:\n  \
             - {{name: web, address: {VIP_L2}, protocol: tcp, port: 80, pool: web}}\n  \
             - {{name: tunnel, {tunnel}, protocol: tcp, port: 80, pool: tunnel}}\n"
        );
        if self.web_v6 > 0 {
            let _ = writeln!(
                text,
                "  - {{name: web6, address: \"{VIP_L2_V6}\", protocol: tcp, port: 80, pool: web6}}"
            );
        }
        text += "pools:\n";
        for (name, forwarding, backends) in [("web", "l2", &self.web), ("tunnel", "ipip", &self.tunnel)] {
            let _ =
                writeln!(text, "  - name: {name}\n    forwarding: {forwarding}\n    {CHECK}\n    backends:");
            for LabBackend { name, address, weight } in backends {
                let _ = writeln!(text, "      - {{name: {name}, address: {address}, weight: {weight}}}");
            }
        }
        if self.web_v6 > 0 {
            let _ = writeln!(text, "  - name: web6\n    forwarding: l2\n    {CHECK}\n    backends:");
        }
        for number in 1..=self.web_v6 {
            let address = address::backend_v6(number);
            let _ = writeln!(text, "      - {{name: b{number}, address: \"{address}\"}}");
        }
        text
    }

    /// Replaces the file in one step, so that a watcher never reads half of it.
    pub fn write(&self, path: &Path) -> Result<(), LabError> {
        let draft = path.with_extension("yaml.new");
        fs::write(&draft, self.yaml())
            .and_then(|()| fs::rename(&draft, path))
            .map_err(LabError::io(format!("write {}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_services_pools_and_weights() {
        let mut config = LabConfig::even(2);
        config.web[0].weight = 4;
        let text = config.yaml();
        assert!(
            text.contains("\n  - {name: web, address: 203.0.113.10, protocol: tcp, port: 80, pool: web}\n")
        );
        assert!(text.contains("\n  - name: tunnel\n    forwarding: ipip\n    health_check: {type: http, "));
        assert!(text.contains("\n      - {name: b1, address: 203.0.113.21, weight: 4}\n"));
        assert_eq!(text.matches("{name: b2, address: 203.0.113.22, weight: 1}").count(), 2);
        assert!(!text.contains("2001:db8"));
        let text = config.with_ipv6().yaml();
        assert!(text.contains("addresses: [203.0.113.20, \"2001:db8::20\"]"));
        assert!(text.contains("\n      - {name: b2, address: \"2001:db8::22\"}\n"));
    }
}
