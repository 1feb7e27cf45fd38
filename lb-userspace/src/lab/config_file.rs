//! Writes the balancer's configuration for a lab, as a user would with an editor.

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use super::address::{self, VIP_IPIP, VIP_L2};
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
}

impl LabConfig {
    /// All backends in both pools, with equal weights.
    pub fn even(backends: u8) -> Self {
        let backend =
            |number| LabBackend { name: format!("b{number}"), address: address::backend(number), weight: 1 };
        let pool: Vec<_> = (1..=backends).map(backend).collect();
        Self { web: pool.clone(), tunnel: pool }
    }

    /// The file's text.
    pub fn yaml(&self) -> String {
        let mut text = format!(
            "# Written by `lb lab`. Edit it: `lb run --watch` follows.\n\
             version: 1\n\
             interfaces:\n  - {{name: eth0}}\n\
             services:\n  \
             - {{name: web, address: {VIP_L2}, protocol: tcp, port: 80, pool: web}}\n  \
             - {{name: tunnel, address: {VIP_IPIP}, protocol: tcp, port: 80, pool: tunnel}}\n\
             pools:\n"
        );
        for (name, forwarding, backends) in [("web", "l2", &self.web), ("tunnel", "ipip", &self.tunnel)] {
            let _ =
                writeln!(text, "  - name: {name}\n    forwarding: {forwarding}\n    {CHECK}\n    backends:");
            for LabBackend { name, address, weight } in backends {
                let _ = writeln!(text, "      - {{name: {name}, address: {address}, weight: {weight}}}");
            }
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
    }
}
