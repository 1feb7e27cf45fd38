//! All checks of a balancer's node, once: reads what there is, watches it for a while, and says what was found. Changes
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::interface::{Interface, Occupant};
use super::kernel::Kernel;
use super::load::{self, Reading};
use super::queues::Nic;
use super::stack::NetStack;
use super::way::Ways;
use super::{Diagnosis, Finding, Root, Severity};
use crate::dataplane::{Attachment, KernelPlane, Pins, attached, foreign};
use crate::model::{AttachMode, Model};
use crate::netlink::{self, Link, Netlink, Resolutions, Snapshot, Statistics, Target, resolve};
use crate::nic::{self, Context, QueuePackets, Topology};

/// How long next hops are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be looked at.
#[derive(Debug)]
pub struct Question<'a> {
    /// Where /proc and /sys are.
    pub root: &'a Root,
    /// Where pins belong.
    pub bpffs: &'a Path,
    /// Pins of the data plane here; nothing where no BPF file system is.
    pub pins: Option<&'a Pins>,
    /// Interfaces asked for; none: those of the model, else those attached to, else all of Ethernet.
    pub interfaces: Vec<String>,
    /// The config, or the running one.
    pub model: Option<&'a Model>,
    /// Next hops that it needs.
    pub targets: Vec<Target>,
    /// How long counters are watched.
    pub span: Duration,
}

/// Counters at one moment.
struct Moment {
    at: Instant,
    interfaces: BTreeMap<u32, Statistics>,
    cpus: Reading,
    /// Packets by queue, of each interface that is looked at.
    queues: BTreeMap<String, BTreeMap<u32, QueuePackets>>,
}

impl Question<'_> {
    /// Makes all checks.
    pub async fn examine(&self) -> Result<Vec<Diagnosis>, netlink::Error> {
        let mut found = Kernel::read(self.root, self.bpffs).findings();
        let netlink = Netlink::open()?;
        let links = netlink.links().await?;
        let attachments = self.pins.map(attached).unwrap_or_default();
        let names = self.names(&links, &attachments);
        let before = self.moment(&netlink, &names).await?;
        let resolve = async {
            if self.targets.is_empty() {
                Ok(Resolutions::new())
            } else {
                resolve(self.targets.clone(), PATIENCE).await
            }
        };
        let (resolutions, ()) = tokio::join!(resolve, sleep(self.span));
        let resolutions = resolutions?;
        let after = self.moment(&netlink, &names).await?;

        for name in &names {
            let Some(link) = links.by_name(name) else {
                found.push(absent(name, &links));
                continue;
            };
            found.extend(self.interface(link, &links, &attachments, &before, &after).findings());
            found.extend(self.nic(name, &before, &after).findings());
        }
        found.extend(load::findings(&before.cpus, &after.cpus, after.at - before.at));
        let index = |name: &String| links.by_name(name).map(|link| link.ifindex);
        let attached: BTreeSet<u32> =
            names.iter().filter_map(index).chain(attachments.iter().map(|a| a.ifindex)).collect();
        if let Some(model) = self.model {
            let ways = Ways { model, links: &links, resolutions: &resolutions, attached: &attached };
            found.extend(ways.findings());
        }
        let egress = resolutions.values().filter_map(|found| Some(found.next_hop()?.ifindex));
        let used: BTreeSet<u32> = attached.iter().copied().chain(egress).collect();
        let used: Vec<String> =
            used.iter().filter_map(|index| Some(links.by_index(*index)?.name.clone())).collect();
        found.extend(NetStack::read(self.root, &used).findings());
        Ok(found)
    }

    async fn moment(&self, netlink: &Netlink, names: &[String]) -> Result<Moment, netlink::Error> {
        let plane = self.pins.filter(|pins| pins.is_live()).and_then(|pins| KernelPlane::open(pins).ok());
        let ours = plane.and_then(|plane| plane.packets_per_cpu().ok()).unwrap_or_default();
        let interfaces = netlink.statistics().await?;
        let queues = names.iter().map(|name| (name.clone(), nic::queue_packets(name))).collect();
        Ok(Moment { at: Instant::now(), interfaces, cpus: Reading::read(self.root, ours), queues })
    }

    /// Interfaces to look at.
    fn names(&self, links: &Snapshot, attachments: &[Attachment]) -> Vec<String> {
        if !self.interfaces.is_empty() {
            return self.interfaces.clone();
        }
        let name = |a: &Attachment| links.by_index(a.ifindex).map(|link| link.name.clone());
        let mut names: Vec<String> = attachments.iter().filter_map(name).collect();
        for interface in self.model.iter().flat_map(|model| &model.interfaces) {
            if !names.contains(&interface.name) {
                names.push(interface.name.clone());
            }
        }
        if names.is_empty() {
            let plain =
                |link: &&Link| link.mac.is_some() && matches!(link.kind.as_deref(), None | Some("veth"));
            names.extend(links.iter().filter(plain).map(|link| link.name.clone()));
        }
        names
    }

    fn interface(
        &self,
        link: &Link,
        links: &Snapshot,
        attachments: &[Attachment],
        before: &Moment,
        after: &Moment,
    ) -> Interface {
        let name =
            |index: Option<u32>| index.and_then(|index| links.by_index(index)).map(|link| link.name.clone());
        let total = after.interfaces.get(&link.ifindex).copied().unwrap_or_default();
        let earlier = before.interfaces.get(&link.ifindex).copied().unwrap_or_default();
        Interface {
            master: name(link.master),
            parent: name(link.vlan.map(|(parent, _)| parent)),
            occupant: self.occupant(link, attachments),
            counted: total.since(earlier),
            total,
            span: after.at - before.at,
            link: link.clone(),
        }
    }

    fn nic(&self, name: &str, before: &Moment, after: &Moment) -> Nic {
        let facts = nic::facts(name);
        let listed = self.model.iter().flat_map(|model| &model.interfaces).find(|listed| listed.name == name);
        let mode = listed.map(|listed| listed.mode);
        let seconds = (after.at - before.at).as_secs_f64().max(0.001);
        let earlier = |queue: &u32| before.queues.get(name)?.get(queue)?.rx;
        let rate = |(queue, now): (&u32, &QueuePackets)| {
            Some(now.rx?.saturating_sub(earlier(queue)?) as f64 / seconds)
        };
        Nic {
            context: Context {
                cpus: Topology::read(),
                native: !matches!(mode, Some(AttachMode::Generic)),
                attached: false,
            },
            release: self.root.text("/proc/sys/kernel/osrelease").unwrap_or_default(),
            irqbalance: nic::has_irqbalance(),
            settings: listed.map(|listed| listed.settings.clone()).unwrap_or_default(),
            received: after.queues.get(name).into_iter().flatten().filter_map(rate).collect(),
            facts,
        }
    }

    fn occupant(&self, link: &Link, attachments: &[Attachment]) -> Occupant {
        let Some(xdp) = link.xdp else { return Occupant::None };
        let ours = attachments.iter().any(|a| a.ifindex == link.ifindex && a.program_id == xdp.program_id);
        if ours {
            return Occupant::Ours(xdp.mode);
        }
        let foreign = foreign(xdp.program_id, self.bpffs);
        let holders = holders(self.root, xdp.program_id);
        Occupant::Other(foreign, holders)
    }
}

fn absent(name: &str, links: &Snapshot) -> Diagnosis {
    let present: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    Finding::new("LB210", Severity::Problem, name, "no such interface")
        .why("nothing can be attached to it")
        .fix(format!("there are: {}; see --netns", present.join(", ")))
        .into()
}

/// Processes that have the program, or a link of it, open (`prog_id` in /proc/PID/fdinfo).
fn holders(root: &Root, program: u32) -> Vec<String> {
    let wanted = program.to_string();
    let holds = |process: &str, fd: &str| {
        let info = root.text(&format!("/proc/{process}/fdinfo/{fd}")).unwrap_or_default();
        info.lines().filter_map(|line| line.strip_prefix("prog_id:")).any(|id| id.trim() == wanted)
    };
    let processes = root.names("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok());
    let found = processes
        .filter(|process| root.names(&format!("/proc/{process}/fdinfo")).iter().any(|fd| holds(process, fd)));
    let called = |process: &String| root.text(&format!("/proc/{process}/comm")).unwrap_or_default();
    found.map(|process| format!("{} ({process})", called(&process))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_found_by_their_open_files() {
        let directory = tempfile::tempdir().unwrap();
        let fdinfo = directory.path().join("proc/4711/fdinfo");
        std::fs::create_dir_all(&fdinfo).unwrap();
        std::fs::write(fdinfo.join("5"), "pos:\t0\nlink_type:\txdp\nprog_tag:\tab\nprog_id:\t9\n").unwrap();
        std::fs::write(directory.path().join("proc/4711/comm"), "fenced\n").unwrap();
        let root = Root::below(directory.path());
        assert_eq!(holders(&root, 9), ["fenced (4711)"]);
        assert!(holders(&root, 99).is_empty());
    }
}
