//! Configs with health checks, and what `lb status` shows of the backends that they watch.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_userspace::lab::{Role, VIP_L2};
use serde_json::Value;

use super::{Echo, Rig, address, until};

/// Port of a server beside a backend's real one: while it listens, the backend is healthy for [`Watched::flags`], and
/// whether it is or not, the real one goes on answering.
pub const FLAG: u16 = 8081;
const PATIENCE: Duration = Duration::from_secs(20);

/// A config with one service, `web`, whose backends `b1`, `b2`, … are checked.
#[derive(Debug, Clone)]
pub struct Watched {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Where clients send.
    pub port: u16,
    /// What is written after `health_check:`.
    pub check: String,
    /// What is written inside `health: {…}`.
    pub health: &'static str,
    /// Further keys of the service, each a line.
    pub service: Vec<String>,
    /// Further keys at the top, each a line.
    pub top: Vec<String>,
    /// Further keys of each backend, such as `, backup: true`.
    pub backends: Vec<&'static str>,
}

impl Watched {
    /// Web servers, up at once when their checks pass.
    pub fn new(check: &str, backends: u8) -> Self {
        Self {
            protocol: "tcp",
            port: 80,
            check: check.to_owned(),
            health: "hold_down: 0s, trial_time: 0s",
            service: Vec::new(),
            top: Vec::new(),
            backends: vec![""; backends.into()],
        }
    }

    /// Web servers that are healthy while a [`FLAG`] is up, probed twice a second through the service.
    pub fn flags(backends: u8) -> Self {
        let times = "interval: 500ms, timeout: 400ms, fast_interval: 100ms, max_interval: 500ms";
        Self::new(&format!("{{type: tcp, via: service, port: {FLAG}, {times}}}"), backends)
    }

    /// With another key of the service.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.service.push(line.to_owned());
        self
    }

    /// The file's text.
    pub fn yaml(&self) -> String {
        let Self { protocol, port, check, health, service, top, backends } = self;
        let top: String = top.iter().map(|line| format!("{line}\n")).collect();
        let service: String = service.iter().map(|line| format!("    {line}\n")).collect();
        let backend = |(more, number): (&&str, u8)| {
            format!("      - {{name: b{number}, address: {}{more}}}\n", address(number))
        };
        let backends: String = backends.iter().zip(1..).map(backend).collect();
        format!(
            "version: 1\ninterfaces: [{{name: eth0}}]\n{top}services:\n  - name: web\n    address: {VIP_L2}\n    \
             protocol: {protocol}\n    port: {port}\n    forwarding: l2\n    health_check: {check}\n    \
             health: {{{health}}}\n{service}    backends:\n{backends}"
        )
    }
}

impl Rig {
    /// Puts up a backend's [`FLAG`]; it is down when the value goes.
    pub fn flag(&self, number: u8) -> anyhow::Result<Echo> {
        let on = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, FLAG);
        Echo::listen(&self.lab.netns(Role::Backend(number)), on)
    }

    /// Starts the daemon with backends that are all healthy, and waits until it knows.
    pub fn watch(&self, config: &Watched) -> anyhow::Result<()> {
        self.write_text(&config.yaml())?;
        self.run(&[])?;
        (1..).zip(&config.backends).try_for_each(|(number, _)| {
            self.wait_backend(number, "known to be up", |b| b["health"]["state"] == "up").map(drop)
        })
    }

    /// What `lb status` shows of a backend of the one service.
    pub fn backend(&self, number: u8) -> anyhow::Result<Value> {
        let status = self.status()?;
        let wanted = address(number).to_string();
        let all = status["services"][0]["backends"].as_array();
        let found = all.and_then(|all| all.iter().find(|backend| backend["address"] == *wanted));
        found.cloned().with_context(|| format!("b{number} is not in {status}"))
    }

    /// Waits until a backend is shown as it should be.
    pub fn wait_backend(
        &self,
        number: u8,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        until(&format!("b{number} {what}"), PATIENCE, || {
            let shown = self.backend(number)?;
            ensure!(wanted(&shown), "{shown:#}");
            Ok(Some(shown))
        })
    }

    /// Waits until a backend's state is this.
    pub fn wait_state(&self, number: u8, state: &str) -> anyhow::Result<Value> {
        self.wait_backend(number, state, |backend| backend["state"] == state)
    }

    /// Slots of the first backends, in their order.
    pub fn slots(&self, backends: u8) -> anyhow::Result<Vec<u64>> {
        let slots = |number| self.backend(number)?["slots"].as_u64().context("no number of slots");
        (1..=backends).map(slots).collect()
    }

    /// Waits for an alarm of the one service, or, with no words, for its end.
    pub fn wait_alarm(&self, words: Option<&str>) -> anyhow::Result<Value> {
        until(&format!("the alarm {words:?}"), PATIENCE, || {
            let status = self.status()?;
            let alarm = status["services"][0]["alarm"].as_str();
            let there = match (alarm, words) {
                (Some(alarm), Some(words)) => alarm.contains(words),
                (None, None) => true,
                _ => false,
            };
            ensure!(there, "alarm: {alarm:?}");
            Ok(Some(status))
        })
    }
}
