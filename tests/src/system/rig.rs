//! A lab whose balancer the test drives: daemon, commands, config file, status, and complete removal.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use lb_userspace::lab::{BALANCER, Builder, Interrupt, Process, Role, Topology, sweep_stale, unique_prefix};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{Config, Run, until};

/// Longest that any single command may take.
const COMMAND_LIMIT_S: &str = "30";
const PATIENCE: Duration = Duration::from_secs(15);
/// The kernel looks through all programs first, which takes its time beside other work.
const START: Duration = Duration::from_secs(40);

/// A lab and its balancer. Dropping it ends the daemon, detaches, and removes the lab; it prints the daemon's log,
/// which the test harness shows if the test failed.
#[derive(Debug)]
pub struct Rig {
    daemon: RefCell<Option<Process>>,
    starts: Cell<u32>,
    binary: PathBuf,
    interface: Cell<&'static str>,
    inode: u64,
    /// The lab.
    pub lab: Topology,
}

impl Rig {
    /// A lab with this many backends and a `/big` of this many MiB.
    pub fn new(backends: u8, big_mib: u64) -> anyhow::Result<Self> {
        Self::of(|lab| lab.backends(backends).big_bytes(big_mib << 20))
    }

    /// A lab as it is wished.
    pub fn of(wish: impl FnOnce(Builder) -> Builder) -> anyhow::Result<Self> {
        static SWEPT: Once = Once::new();
        // A test that was killed could not remove its lab. Another process may be sweeping as well.
        SWEPT.call_once(|| drop(sweep_stale().inspect_err(|error| println!("stale labs: {error}"))));
        let lab = wish(Topology::builder(unique_prefix())).build()?;
        let path = lab.netns(Role::Balancer).path();
        let inode = fs::metadata(&path).with_context(|| format!("looking at {}", path.display()))?.ino();
        let (daemon, starts, interface) = (RefCell::default(), Cell::new(0), Cell::new("eth0"));
        Ok(Self { daemon, starts, binary: binary()?, interface, inode, lab })
    }

    /// Says which interface is attached to, if it is not `eth0`.
    pub fn attaches_to(&self, interface: &'static str) {
        self.interface.set(interface);
    }

    /// A file in the lab's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }

    /// The config file.
    pub fn config_path(&self) -> PathBuf {
        self.file("lb.yaml")
    }

    /// Writes the config file in one step.
    pub fn write(&self, config: &Config) -> anyhow::Result<PathBuf> {
        self.write_text(&config.yaml())
    }

    /// Writes any text as the config file in one step.
    pub fn write_text(&self, text: &str) -> anyhow::Result<PathBuf> {
        let (path, draft) = (self.config_path(), self.file("lb.yaml.draft"));
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).context("writing the config")?;
        Ok(path)
    }

    /// Writes a config beside the config file.
    pub fn write_other(&self, config: &Config) -> anyhow::Result<PathBuf> {
        let path = self.file("other.yaml");
        fs::write(&path, config.yaml()).context("writing another config")?;
        Ok(path)
    }

    /// Runs any program on a machine of the lab.
    pub fn on<A: AsRef<OsStr>>(
        &self,
        role: Role,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Run> {
        let mut command = self.lab.command(role, "timeout");
        command.arg("-k").arg("1").arg(COMMAND_LIMIT_S).arg(program).args(args).env("NO_COLOR", "1");
        Run::of(command)
    }

    /// Runs `lb` on the balancer.
    pub fn lb<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> anyhow::Result<Run> {
        self.on(Role::Balancer, &self.binary, args)
    }

    /// `lb` on the balancer, not started yet.
    pub fn lb_command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.lab.command(Role::Balancer, &self.binary);
        command.args(args).env("NO_COLOR", "1");
        command
    }

    /// Starts the daemon with the config file, and waits until it is in charge.
    pub fn run(&self, options: &[&str]) -> anyhow::Result<Process> {
        let daemon = self.launch(&self.binary, options)?;
        self.wait_in_charge(&daemon)?;
        Ok(daemon)
    }

    /// Starts this program as the daemon, and does not wait.
    pub fn launch(&self, binary: &Path, options: &[&str]) -> anyhow::Result<Process> {
        let number = self.starts.get() + 1;
        self.starts.set(number);
        let mut command = self.lab.command(Role::Balancer, binary);
        command.arg("run").arg("--config").arg(self.config_path()).args(options).env("NO_COLOR", "1");
        let daemon = self.lab.spawn(&format!("lb-{number}"), &command)?;
        *self.daemon.borrow_mut() = Some(daemon.clone());
        Ok(daemon)
    }

    /// The daemon that was started last.
    pub fn daemon(&self) -> anyhow::Result<Process> {
        self.daemon.borrow().clone().context("no daemon was started")
    }

    /// Waits until this daemon is in charge.
    pub fn wait_in_charge(&self, daemon: &Process) -> anyhow::Result<()> {
        until("the daemon in charge", START, || {
            daemon.check_running()?;
            Ok((self.status()?["daemon"].as_u64() == Some(daemon.id().into())).then_some(()))
        })
    }

    /// Starts the daemon on `eth0` with these sections of a config.
    pub fn start_text(&self, sections: &str) -> anyhow::Result<Process> {
        self.write_text(&format!("version: 1\ninterfaces: [{{name: eth0}}]\n{sections}"))?;
        self.run(&[])
    }

    /// Packets counted for this reason, those of services included.
    pub fn counted(&self, reason: &str) -> anyhow::Result<u64> {
        let counters = self.lb(["counters", "--output", "json"])?.expect(0)?.json()?;
        let services = counters["services"].as_array().into_iter().flatten();
        let of = |service: &Value, kind: &str| service[kind][reason].as_u64().unwrap_or(0);
        let of_services: u64 = services.map(|service| of(service, "drops") + of(service, "notes")).sum();
        Ok(counters["reasons"][reason].as_u64().unwrap_or(0) + of_services)
    }

    /// Writes the config and starts the daemon with it.
    pub fn start(&self, config: &Config) -> anyhow::Result<Process> {
        self.write(config)?;
        self.run(&[])
    }

    /// Starts `lb decap eth0` on a backend and waits until it works.
    pub fn decap(&self, number: u8, vips: &str, from: &str) -> anyhow::Result<Process> {
        self.decap_with(number, &["--vip", vips, "--from", from])
    }

    /// `lb decap eth0` with these options.
    pub fn decap_with(&self, number: u8, options: &[&str]) -> anyhow::Result<Process> {
        let mut command = self.lab.command(Role::Backend(number), &self.binary);
        command.args(["decap", "eth0"]).args(options);
        let process = self.lab.spawn(&format!("decap-b{number}"), &command)?;
        until("lb decap attached", PATIENCE, || {
            process.check_running()?;
            Ok(process.log_tail(50).contains("decapsulating").then_some(()))
        })?;
        Ok(process)
    }

    /// `lb decap` as it should be on the first backends.
    pub fn decap_all(&self, backends: u8) -> anyhow::Result<()> {
        let (vip, from) = (self.lab.vip_ipip().to_string(), format!("{BALANCER}/32"));
        (1..=backends).try_for_each(|number| self.decap(number, &vip, &from).map(drop))
    }

    /// `lb status` as JSON, whatever its exit code.
    pub fn status(&self) -> anyhow::Result<Value> {
        self.lb(["status", "--output", "json"])?.json()
    }

    /// The generation in force.
    pub fn generation(&self) -> anyhow::Result<u64> {
        self.status()?["generation"].as_u64().context("lb status shows no generation")
    }

    /// Link id and program id of the one attachment.
    pub fn attachment(&self) -> anyhow::Result<(u64, u64)> {
        let status = self.status()?;
        let found = &status["attachments"][0];
        let ids = found["link"].as_u64().zip(found["program"].as_u64());
        ids.with_context(|| format!("lb status shows no attachment: {status}"))
    }

    /// Waits until a later generation than this is in force.
    pub fn wait_newer(&self, generation: u64) -> anyhow::Result<u64> {
        until(&format!("a generation after {generation}"), PATIENCE, || {
            let now = self.generation()?;
            Ok((now > generation).then_some(now))
        })
    }

    /// Waits until `lb status` shows why a config was refused; returns the reason.
    pub fn wait_refused(&self) -> anyhow::Result<String> {
        until("a refusal in lb status", PATIENCE, || {
            Ok(self.status()?["last_error"].as_str().map(str::to_owned))
        })
    }

    /// Waits until all backends of all services are up.
    pub fn wait_up(&self) -> anyhow::Result<()> {
        until("all backends up", PATIENCE, || {
            let run = self.lb(["status"])?;
            if run.code == 0 { Ok(Some(())) } else { bail!("not yet: {run}") }
        })
    }

    /// Ends the daemon with a signal and waits for its end.
    pub fn stop(&self, signal: Signal) -> anyhow::Result<()> {
        let daemon = self.daemon.borrow_mut().take().context("no daemon was started")?;
        daemon.signal(signal)?;
        daemon.wait(PATIENCE, &Interrupt::never())?;
        println!("{}", daemon.log_tail(60));
        Ok(())
    }

    /// `lb detach --force`, which must say that nothing is left.
    pub fn detach(&self) -> anyhow::Result<Run> {
        self.lb(["detach", self.interface.get(), "--force"])?.expect(0)?.says(&["nothing is left behind"])
    }

    /// curl on a machine; `-s`, no proxy, at most 20 s.
    pub fn curl<'a>(&self, role: Role, args: impl IntoIterator<Item = &'a str>) -> anyhow::Result<Run> {
        let fixed = ["-q", "-g", "-sS", "--noproxy", "*", "--max-time", "20"];
        self.on(role, "curl", fixed.into_iter().chain(args))
    }

    /// One page from `http://ADDRESS/` for the client, at most 2 s: the name of the backend that answered.
    pub fn answer(&self, address: impl Into<IpAddr>) -> anyhow::Result<String> {
        let url = format!("http://{}/", SocketAddr::new(address.into(), 80));
        let run = self.curl(Role::Client, ["--max-time", "2", &url])?.expect(0)?;
        let name = run.out.lines().find_map(|line| line.strip_prefix("backend "));
        name.map(str::to_owned).with_context(|| format!("no backend named in {run}"))
    }

    /// The MAC address of an interface.
    pub fn mac(&self, role: Role, interface: &str) -> anyhow::Result<String> {
        let json = self.on(role, "ip", ["-json", "link", "show", "dev", interface])?.expect(0)?.json()?;
        json[0]["address"].as_str().map(str::to_owned).context("no MAC address")
    }

    /// What the file system has of this data plane, or of one beside it: pins in bpffs, files in /run/lb.
    pub fn left(&self) -> Vec<PathBuf> {
        let name = format!("netns-{}", self.inode);
        let ours = |path: &PathBuf| {
            let found = path.file_name().and_then(OsStr::to_str).and_then(|file| file.strip_prefix(&name));
            found.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let directories = ["/run/lb", "/sys/fs/bpf/lb"].into_iter().filter_map(|dir| fs::read_dir(dir).ok());
        directories.flatten().flatten().map(|entry| entry.path()).filter(ours).collect()
    }

    /// An error unless nothing is attached, pinned or written.
    pub fn expect_nothing(&self) -> anyhow::Result<()> {
        let left = self.left();
        ensure!(left.is_empty(), "left behind: {left:?}");
        self.lb(["status"])?.expect(3)?.says(&["UNKNOWN"])?;
        let links = self.on(Role::Balancer, "ip", ["-json", "link"])?.expect(0)?;
        ensure!(!links.out.contains("\"xdp\""), "an XDP program is attached: {links}");
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.daemon.get_mut().is_some()
            && let Err(error) = self.stop(Signal::SIGKILL)
        {
            println!("daemon not stopped: {error:#}");
        }
        if self.left().is_empty() {
            return;
        }
        let detached = self.lb(["detach", self.interface.get(), "--force"]);
        // What is left is another interface's. The kernel gives the inode number of this namespace to a later one,
        // whose test would find files of a data plane that it never had.
        for path in self.left() {
            println!("left behind: {} after {detached:?}", path.display());
            let _gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

/// The binary under test: `LB_BIN`, or the release build beside the test executable.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("LB_BIN").map(PathBuf::from) {
        ensure!(path.is_file(), "LB_BIN names {}, which is not there", path.display());
        return Ok(path);
    }
    let own = std::env::current_exe().context("finding the test executable")?;
    // TARGET/PROFILE/deps/NAME-HASH
    let target = own.ancestors().nth(3).context("the test executable is in no target directory")?;
    let path = target.join("release/lb");
    ensure!(
        path.is_file(),
        "{} is not there: `cargo build --release -p lb-userspace` builds it, or LB_BIN names another",
        path.display()
    );
    Ok(path)
}
