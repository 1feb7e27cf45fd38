//! Faults made on purpose at backends, and a look at who answers.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddrV4, TcpListener};
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_userspace::lab::{Role, VIP_L2};
use serde_json::Value;

use super::{Rig, address, fetch_all, inside, until};

/// Times of a check that waits for long neither for a failure nor for the recovery from it.
pub const SOON: &str = "interval: 500ms, timeout: 300ms, max_interval: 500ms, unhealthy_threshold: 3";

const PATIENCE: Duration = Duration::from_secs(10);

impl Rig {
    /// Takes the service address from a backend: what is sent there vanishes.
    pub fn hide_service(&self, number: u8) -> anyhow::Result<()> {
        self.service_address(number, "del")
    }

    /// Gives it back.
    pub fn unhide_service(&self, number: u8) -> anyhow::Result<()> {
        self.service_address(number, "add")
    }

    fn service_address(&self, number: u8, how: &str) -> anyhow::Result<()> {
        let vip = format!("{VIP_L2}/32");
        self.on(Role::Backend(number), "ip", ["addr", how, &vip, "dev", "lo"])?.expect(0).map(drop)
    }

    /// Replaces a backend's web server by one that listens as `listen` says.
    pub fn serve_on(&self, number: u8, listen: &str) -> anyhow::Result<()> {
        let (role, ip, dir) = (Role::Backend(number), address(number), self.lab.dir().display());
        let edit = format!("s/listen [^ ]*/listen {listen}/");
        let stop = format!("kill $(cat {dir}/b{number}.pid) && sed '{edit}' {dir}/b{number}.conf");
        let changed = self.on(role, "sh", ["-c", &stop])?.expect(0)?.out;
        let config = self.file(&format!("again-b{number}.conf"));
        fs::write(&config, changed).context("writing an nginx config")?;
        // The old one may take a moment to let go of its port.
        until("the port is free", PATIENCE, || {
            inside(&self.lab.netns(role), || TcpListener::bind((ip, 80)))??;
            Ok(Some(()))
        })?;
        let mut nginx = self.lab.command(role, "nginx");
        nginx.args(["-e", "stderr", "-p"]).arg(self.lab.dir()).arg("-c").arg(&config);
        self.lab.spawn(&format!("again-b{number}"), &nginx)?;
        let url = format!("http://{ip}/");
        until("nginx listens again", PATIENCE, || {
            self.curl(Role::Client, [url.as_str()])?.expect(0)?.says(&["backend b"]).map(Some)
        })
        .map(drop)
    }

    /// Waits until just these backends of the one service have slots, each at least half of an equal share: a planned
    /// change takes a second, and slots that changed at other times follow at other times.
    pub fn wait_owners(&self, names: &[&str]) -> anyhow::Result<()> {
        until(&format!("slots of {names:?} alone"), PATIENCE, || {
            let status = self.status()?;
            let service = &status["services"][0];
            let backends = service["backends"].as_array().context("no backends")?;
            // Those that the config does not name are named by their address.
            let owner = |backend: &Value| {
                let slots = backend["slots"].as_u64().filter(|slots| *slots > 0)?;
                let last = backend["address"].as_str()?.rsplit('.').next()?.parse::<u8>().ok()?;
                Some((format!("b{}", last.saturating_sub(20)), slots))
            };
            let owners: BTreeMap<String, u64> = backends.iter().filter_map(owner).collect();
            ensure!(owners.keys().eq(names), "{owners:?}");
            let enough = service["ring_size"].as_u64().context("no ring")? / (2 * names.len() as u64);
            ensure!(owners.values().all(|slots| *slots >= enough), "{owners:?}");
            Ok(Some(()))
        })
    }

    /// Requests from these ports, each over a connection of its own, are all answered, by each of these backends and
    /// by nobody else.
    pub fn expect_answers_from(&self, ports: Range<u16>, names: &[&str]) -> anyhow::Result<()> {
        self.wait_owners(names)?;
        let web = SocketAddrV4::new(VIP_L2, 80);
        let answers = fetch_all(&self.lab.netns(Role::Client), web, ports)?;
        let odd = answers.values().find(|name| !names.contains(&name.as_str()));
        ensure!(odd.is_none(), "{names:?} should answer alone, not {odd:?}");
        let missing = names.iter().find(|name| !answers.values().any(|answer| answer == *name));
        ensure!(missing.is_none(), "{missing:?} answers nobody: {answers:?}");
        Ok(())
    }
}
