//! A lab with a daemon in it, servers, and a load on them, and how their config is changed meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lb_userspace::lab::{Process, Role};
use nix::sys::signal::Signal;

use super::{Echo, Farm, Load, Many, Report, Rig, Wish, until};

/// A little longer than the idle times of [`Many`].
pub const IDLE: Duration = Duration::from_secs(4);
/// Longest that slots may take: a few idle times, on a busy machine.
const SETTLED: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_secs(20);

/// All of it. The load ends first.
#[derive(Debug)]
pub struct Crowd {
    /// The clients.
    pub load: Load,
    /// What makes backends healthy, by number.
    pub flags: Vec<Option<Echo>>,
    /// The servers.
    pub farm: Farm,
    /// The lab.
    pub rig: Rig,
    backends: u8,
}

impl Crowd {
    /// A lab with so many backends, all of which serve; those that the config names are connected to.
    pub fn gather(backends: u8, config: &Many, wish: Wish) -> anyhow::Result<Self> {
        let (rig, farm, flags) = Self::lab(backends, config)?;
        rig.run(&[])?;
        rig.wait_up()?;
        let load = Load::start(&rig, &farm, wish)?;
        Ok(Self { load, flags, farm, rig, backends })
    }

    /// The same with a data plane that no daemon follows.
    pub fn unattended(backends: u8, config: &Many, wish: Wish) -> anyhow::Result<Self> {
        let (rig, farm, flags) = Self::lab(backends, config)?;
        let path = rig.config_path();
        rig.lb(["attach".as_ref(), "eth0".as_ref(), "--config".as_ref(), path.as_os_str()])?.expect(0)?;
        let load = Load::start(&rig, &farm, wish)?;
        Ok(Self { load, flags, farm, rig, backends })
    }

    fn lab(backends: u8, config: &Many) -> anyhow::Result<(Rig, Farm, Vec<Option<Echo>>)> {
        let rig = Rig::of(|lab| lab.backends(backends).big_bytes(0))?;
        let farm = Farm::start(&rig, backends)?;
        let flag = |number| config.checked.then(|| rig.flag(number)).transpose();
        let flags = (1..=backends).map(flag).collect::<anyhow::Result<_>>()?;
        rig.write_text(&config.yaml())?;
        Ok((rig, farm, flags))
    }

    /// Loads a config by SIGHUP, and waits until the daemon follows it.
    pub fn reload(&self, what: &str, config: &Many) -> anyhow::Result<()> {
        self.load.note(what);
        let daemon = self.rig.daemon()?;
        // The generation stays where nothing is to be done at once: slots may be on their way already.
        let followed = || fs::read_to_string(daemon.log()).map(|log| log.matches("config in force").count());
        let before = followed()?;
        self.rig.write_text(&config.yaml())?;
        daemon.signal(Signal::SIGHUP)?;
        until("the config in force", PATIENCE, || {
            daemon.check_running()?;
            Ok((followed()? > before).then_some(()))
        })
    }

    /// `lb apply` of a config, which is also the daemon's file from then on.
    pub fn apply(&self, what: &str, config: &Many) -> anyhow::Result<()> {
        self.load.note(what);
        let path = self.rig.write_text(&config.yaml())?;
        self.rig.lb(["apply".as_ref(), path.as_os_str()])?.expect(0).map(drop)
    }

    /// A backend fails its checks from now on; returns when it has no slot any more. Its connections may break.
    pub fn fail(&mut self, backend: u8) -> anyhow::Result<()> {
        self.load.dies(backend);
        drop(self.flag(backend)?.take());
        self.rig.wait_backend(backend, "down, without slots", |b| b["state"] == "down" && b["slots"] == 0)?;
        self.load.moved(backend);
        Ok(())
    }

    /// It passes them again; returns when it has slots.
    pub fn recover(&mut self, backend: u8) -> anyhow::Result<()> {
        let flag = self.rig.flag(backend)?;
        *self.flag(backend)? = Some(flag);
        self.load.lives(backend);
        let slots = |slots: Option<u64>| slots.is_some_and(|slots| slots > 0);
        self.rig.wait_backend(backend, "up again", |b| b["state"] == "up" && slots(b["slots"].as_u64()))?;
        Ok(())
    }

    fn flag(&mut self, backend: u8) -> anyhow::Result<&mut Option<Echo>> {
        self.flags.get_mut(usize::from(backend) - 1).context("no such backend")
    }

    /// Ends the daemon by a signal and starts another program in its place.
    pub fn replace(&self, signal: Signal, binary: &Path) -> anyhow::Result<Process> {
        self.rig.stop(signal)?;
        let daemon = self.rig.launch(binary, &[])?;
        self.rig.wait_in_charge(&daemon)?;
        Ok(daemon)
    }

    /// Waits until no slot of any service is unsettled. Those stay so whose connections are with their owner before: so
    /// clients close all that they have, and come again, until new ones find settled slots.
    pub fn wait_settled(&self) -> anyhow::Result<()> {
        let (began, unsettled) = (Instant::now(), self.unsettled()?);
        let mut renewed = began;
        until("all slots settled", SETTLED, || {
            self.load.check()?;
            if renewed.elapsed() >= IDLE / 2 {
                renewed = Instant::now();
                (1..=self.backends).for_each(|backend| self.load.leave(backend));
            }
            let unsettled = self.unsettled()?;
            ensure!(unsettled == 0, "{unsettled} slots are unsettled");
            Ok(Some(()))
        })?;
        let took = began.elapsed().as_secs_f32();
        self.load
            .note(&format!("{unsettled} unsettled slots settled within {took:.1} s of renewed connections"));
        Ok(())
    }

    /// Slots of all services that are unsettled, as `lb status` tells.
    pub fn unsettled(&self) -> anyhow::Result<u64> {
        let status = self.rig.status()?;
        let services = status["services"].as_array().context("no services")?;
        let each = services.iter().map(|service| {
            service["unsettled_slots"].as_u64().with_context(|| format!("no unsettled_slots: {service}"))
        });
        each.sum()
    }

    /// TCP segments that the client has sent again so far (`RetransSegs`, RFC 4022).
    pub fn retransmitted(&self) -> anyhow::Result<u64> {
        let shown = self.rig.on(Role::Client, "cat", ["/proc/thread-self/net/snmp"])?.expect(0)?.out;
        let mut lines = shown.lines().filter(|line| line.starts_with("Tcp:"));
        let (names, values) = lines.next().zip(lines.next()).context("no counters of TCP")?;
        let mut pairs = names.split(' ').zip(values.split(' '));
        let found = pairs.find(|(name, _)| *name == "RetransSegs").context("no RetransSegs")?;
        Ok(found.1.parse()?)
    }

    /// Goes on until what has been changed is long over, and ends; an error if anything broke.
    pub fn finish(self) -> anyhow::Result<Report> {
        self.load.watch(IDLE)?;
        let report = self.load.finish()?;
        report.expect_unbroken()?;
        Ok(report)
    }
}

/// A copy of `lb` whose balancer is another program, though it does the same: one of its instructions, a move of a small
/// constant to a register, is written the other way that there is.
pub fn rebuilt(rig: &Rig) -> anyhow::Result<PathBuf> {
    let mut bytes = fs::read(super::binary()?).context("reading lb")?;
    let at = super::program::harmless_instruction(&bytes)?;
    bytes[at] = super::program::MOVE_32;
    let path = rig.file("lb-rebuilt");
    fs::write(&path, bytes).context("writing another lb")?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).context("lb's mode")?;
    Ok(path)
}
