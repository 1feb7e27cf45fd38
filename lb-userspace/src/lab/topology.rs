//! Raises a lab, holds it, and removes all of it when dropped, also on panic.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::address::{self, VIP_IPIP, VIP_L2};
use super::builder::Builder;
use super::error::LabError;
use super::interrupt::Interrupt;
use super::netns::{self, Netns};
use super::process::{Lifetime, Nursery, Process};
use super::state::{self, State};
use super::wait::wait_for;
use super::{nginx, plumbing, plumbing_v6, stub};

/// Which machine of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Where requests come from.
    Client,
    /// Between the client and the server segment.
    Router,
    /// Where `lb` runs; its interface is `eth0`.
    Balancer,
    /// A server, counted from 1.
    Backend(u8),
    /// The server segment's switch, with a port per machine: `router`, `lb`, `b1`, …
    Fabric,
}

/// A running lab. Dropping it removes namespaces, processes and files.
#[derive(Debug)]
pub struct Topology {
    state: State,
    backends: u8,
    nursery: Nursery,
    lifetime: Lifetime,
    children: Mutex<Vec<Process>>,
    released: bool,
}

impl Topology {
    /// Begins a lab; its namespaces are called `PREFIX-client`, `PREFIX-b1`, …
    pub fn builder(prefix: impl Into<String>) -> Builder {
        Builder::new(prefix.into())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// Its directory: configurations, logs, and room for more. Removed with the lab.
    pub fn dir(&self) -> &Path {
        &self.state.dir
    }

    /// How many backends it has.
    pub fn backends(&self) -> u8 {
        self.backends
    }

    /// The service address that is forwarded with `l2`.
    pub fn vip_l2(&self) -> Ipv4Addr {
        VIP_L2
    }

    /// The service address that is forwarded with `ipip`.
    pub fn vip_ipip(&self) -> Ipv4Addr {
        VIP_IPIP
    }

    /// The address of backend `number`, counted from 1.
    pub fn backend_addr(&self, number: u8) -> Ipv4Addr {
        address::backend(number)
    }

    /// The IPv6 address of backend `number`, in a lab with IPv6.
    pub fn backend_addr_v6(&self, number: u8) -> Ipv6Addr {
        address::backend_v6(number)
    }

    /// The file that `/big` serves.
    pub fn big_file(&self) -> PathBuf {
        self.dir().join("big")
    }

    /// The namespace of a machine.
    pub fn netns(&self, role: Role) -> Netns {
        Netns::named(netns_name(self.name(), role))
    }

    /// A command that will run `program` on that machine.
    pub fn command(&self, role: Role, program: impl AsRef<OsStr>) -> Command {
        self.netns(role).command(program)
    }

    /// Runs a program on that machine to its end; returns its standard output, fails if it fails.
    pub fn exec<A: AsRef<OsStr>>(
        &self,
        role: Role,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
    ) -> Result<String, LabError> {
        let mut command = self.command(role, program);
        command.args(args);
        netns::finish(command)
    }

    /// Starts a command (from [`Self::command`]) that ends with the lab at the latest. What it prints goes
    /// to the file `NAME.log` in the lab's directory.
    pub fn spawn(&self, name: &str, command: &Command) -> Result<Process, LabError> {
        let log = self.dir().join(format!("{name}.log"));
        let process = self.nursery.start(name, command, self.lifetime, &log)?;
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.retain(|child| matches!(child.try_wait(), Ok(None)));
        children.push(process.clone());
        Ok(process)
    }

    /// Gives an interface the XDP program "pass everything": what the peer of a veth needs so that frames
    /// sent to it with XDP_TX arrive. The switch's port `lb` has it from the start.
    pub fn attach_stub(&self, role: Role, interface: &str) -> Result<(), LabError> {
        let object = self.dir().join("pass.o");
        fs::write(&object, stub::object()).map_err(LabError::io(format!("write {}", object.display())))?;
        // `ip` leaves directories of its own in bpffs: give it one that goes away with it.
        let script = format!(
            "mount -t bpf bpf /sys/fs/bpf && exec ip link set dev {interface} xdpdrv obj {} sec {}",
            object.display(),
            stub::SECTION
        );
        self.exec(role, "unshare", ["--mount", "sh", "-c", &script]).map(drop)
    }

    /// Lets the lab outlive this process; only for one that was built with [`Builder::kept`].
    pub fn release(mut self) -> Result<State, LabError> {
        self.state.owner = None;
        self.state.update()?;
        self.released = true;
        Ok(self.state.clone())
    }

    /// Removes the lab, as dropping does, and says if something could not be removed.
    pub fn teardown(mut self) -> Result<(), LabError> {
        self.released = true;
        self.remove()
    }

    /// Builds what `state` has announced. From the first line on, dropping the topology cleans up.
    pub(super) fn raise(state: State, roles: &[Role], wanted: &Builder) -> Result<Self, LabError> {
        let mut lab = Self {
            state,
            backends: wanted.backends,
            nursery: Nursery::new(),
            lifetime: wanted.lifetime,
            children: Mutex::default(),
            released: false,
        };
        lab.plumb(roles, wanted)?;
        lab.serve(wanted)?;
        Ok(lab)
    }

    fn plumb(&self, roles: &[Role], wanted: &Builder) -> Result<(), LabError> {
        let Builder { mtu, ipv6, .. } = *wanted;
        let spaces: Vec<_> = self.state.netns.iter().map(|name| format!("netns add {name}")).collect();
        netns::ip_batch(&spaces)?;
        for &role in roles {
            self.netns(role).script(&plumbing::sysctls(role, ipv6))?;
        }
        netns::ip_batch(&plumbing::cables(|role| netns_name(self.name(), role), wanted))?;
        for &role in roles {
            self.netns(role).script(&plumbing::bring_up(role, self.backends, mtu))?;
            if ipv6 {
                self.netns(role).script(&plumbing_v6::bring_up(role))?;
            }
        }
        self.attach_stub(Role::Fabric, "lb")
    }

    fn serve(&mut self, wanted: &Builder) -> Result<(), LabError> {
        nginx::write_big_file(&self.big_file(), wanted.big_bytes)?;
        let mut servers = Vec::new();
        for number in 1..=self.backends {
            let name = format!("b{number}");
            let file = self.dir().join(format!("{name}.conf"));
            let write = |()| fs::write(&file, nginx::config(&name, self.dir(), wanted.ipv6));
            fs::create_dir(self.dir().join(format!("{name}.tmp")))
                .and_then(write)
                .map_err(LabError::io(format!("write {}", file.display())))?;
            let mut command = self.command(Role::Backend(number), "nginx");
            // `-e`: not even the first moments' messages may go to the system's own log.
            command.args(["-e", "stderr", "-p"]).arg(self.dir()).arg("-c").arg(&file);
            servers.push((name.clone(), self.spawn(&format!("nginx-{name}"), &command)?));
        }
        for (name, server) in servers {
            wait_for(&format!("nginx on {name}"), Duration::from_secs(10), &Interrupt::never(), || {
                server.check_running()?;
                Ok(nginx::listens(server.id()).then_some(()))
            })?;
            self.state.pids.insert(format!("nginx-{name}"), server.id());
        }
        self.state.update()
    }

    fn remove(&mut self) -> Result<(), LabError> {
        let removed = state::down(&self.state);
        for child in self.children.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            child.end(); // also collects those that have ended
        }
        removed
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        if !self.released
            && let Err(error) = self.remove()
        {
            tracing::warn!(lab = self.name(), %error, "lab not removed");
        }
    }
}

/// All machines of a lab.
pub(super) fn roles(backends: u8) -> Vec<Role> {
    [Role::Fabric, Role::Client, Role::Router, Role::Balancer]
        .into_iter()
        .chain((1..=backends).map(Role::Backend))
        .collect()
}

pub(super) fn netns_name(lab: &str, role: Role) -> String {
    match role {
        Role::Client => format!("{lab}-client"),
        Role::Router => format!("{lab}-router"),
        Role::Balancer => format!("{lab}-lb"),
        Role::Fabric => format!("{lab}-fabric"),
        Role::Backend(number) => format!("{lab}-b{number}"),
    }
}
