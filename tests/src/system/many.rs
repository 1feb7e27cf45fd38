//! Configs for a [`super::Load`]: a TCP, a UDP and a QUIC service over one pool, with idle times scaled down so that slots
//! settle while a test runs.

use std::fmt::Write;

use lb_userspace::lab::VIP_L2;

use super::{FLAG, LOAD_PORT, address};

/// How long a silent flow lives, in each of the services: seconds instead of minutes.
const IDLE: &str = "idle: {established: 3s, half_open: 2s, closing: 2s}";

/// A config with backends `b1`, `b2`, ….
#[derive(Debug, Clone)]
pub struct Many {
    /// Numbers and weights.
    pub backends: Vec<(u8, u16)>,
    /// Those that drain.
    pub draining: Vec<u8>,
    /// Whether backends are up only while their [`FLAG`] is.
    pub checked: bool,
    /// Further keys of the services.
    pub rules: &'static str,
}

impl Many {
    /// Backends with these weights, always up.
    pub fn new(backends: &[(u8, u16)]) -> Self {
        Self { backends: backends.to_vec(), draining: Vec::new(), checked: false, rules: "" }
    }

    /// Probed twice a second.
    #[must_use]
    pub fn checked(self) -> Self {
        Self { checked: true, ..self }
    }

    /// With another weight; 0 removes.
    #[must_use]
    pub fn weigh(mut self, backend: u8, weight: u16) -> Self {
        self.backends.retain(|(number, _)| *number != backend);
        if weight > 0 {
            self.backends.push((backend, weight));
            self.backends.sort_unstable();
        }
        self
    }

    /// With a backend that drains.
    #[must_use]
    pub fn drain(mut self, backend: u8) -> Self {
        self.draining.push(backend);
        self
    }

    /// The file's text.
    pub fn yaml(&self) -> String {
        let mut text =
            "version: 1\ninterfaces: [{name: eth0}]\npools:\n  - name: many\n    forwarding: l2\n".to_owned();
        if self.checked {
            let times = "interval: 500ms, timeout: 400ms, fast_interval: 100ms, max_interval: 500ms";
            let _ = writeln!(text, "    health_check: {{type: tcp, via: direct, port: {FLAG}, {times}}}");
            text += "    health: {hold_down: 0s, trial_time: 0s}\n";
        }
        text += "    backends:\n";
        for &(number, weight) in &self.backends {
            let drain = if self.draining.contains(&number) { ", drain: true" } else { "" };
            let address = address(number);
            let _ =
                writeln!(text, "      - {{name: b{number}, address: {address}, weight: {weight}{drain}}}");
        }
        text += "services:\n";
        let rules = self.rules;
        let quic = LOAD_PORT + 1;
        for (name, protocol, port, more) in [
            ("tcp", "tcp", LOAD_PORT, ""),
            ("udp", "udp", LOAD_PORT, ""),
            ("quic", "udp", quic, ", quic: {}"),
        ] {
            let _ = writeln!(
                text,
                "  - {{name: {name}, address: {VIP_L2}, protocol: {protocol}, port: {port}, pool: many, {IDLE}{rules}{more}}}"
            );
        }
        text
    }
}
