//! Settings of interfaces: applied before the program is attached, remembered until it is detached, then put back.
//!
//! Each setting is read, changed only where it differs, and read again. What was there before is on disk before anything
//! changes, and the first value ever found there is kept: a daemon that is killed, and any number of starts after it,
//! still puts back what the operator had. A refusal is a warning; it never keeps the program from being attached.

mod meaning;
mod record;
mod watch;

use std::path::Path;

use nix::net::if_::if_nametoindex;

use super::Finding;
use crate::model::{AttachMode, Interface};
use crate::nic::{self, Context, Facts, Setting, Topology, Value};
use meaning::meaning;
use record::{Part, Record, Tuned};
pub(super) use watch::Tuner;
pub use watch::{PartState, SettingState, states};

/// Codes of what is worth a warning.
pub(super) mod code {
    /// A setting was refused, or did not last.
    pub(in super::super) const REFUSED: &str = "LB145";
    /// Another program moves interrupts.
    pub(in super::super) const IRQBALANCE: &str = "LB146";
    /// Somebody has changed a setting.
    pub(in super::super) const DRIFTED: &str = "LB147";
    /// What is remembered of settings cannot be written.
    pub(in super::super) const FORGOTTEN: &str = "LB148";
}

/// Brings interfaces to the settings that the config names, and puts back what it names no longer.
pub fn apply(path: &Path, interfaces: &[Interface], attached: &[u32]) -> Vec<Finding> {
    let mut record = Record::load(path);
    let nothing = interfaces.iter().all(|interface| interface.settings.is_empty());
    if nothing && record.interfaces.is_empty() {
        return Vec::new();
    }
    let cpus = Topology::read();
    let mut findings = Vec::new();
    for interface in interfaces {
        // One that is not there is the attach's to tell of.
        let Ok(ifindex) = if_nametoindex(interface.name.as_str()) else { continue };
        let mut tuned = record.interfaces.remove(&interface.name).filter(|tuned| tuned.ifindex == ifindex);
        if interface.settings.is_empty() && tuned.is_none() {
            continue;
        }
        let tuned = tuned.get_or_insert_with(|| Tuned { ifindex, ..Tuned::default() });
        tuned.keep = interface.settings.keep;
        tuned.refused.clear();
        record.interfaces.insert(interface.name.clone(), tuned.clone());
        let context = Context {
            cpus: cpus.clone(),
            native: interface.mode != AttachMode::Generic,
            attached: attached.contains(&ifindex),
        };
        let mut job = Job { path, record: &mut record, interface, context, findings: &mut findings };
        job.run();
    }
    if interfaces.iter().any(|interface| interface.settings.irq_affinity.is_some()) && nic::has_irqbalance() {
        findings.push(Finding::warning(
            code::IRQBALANCE,
            "irqbalance runs here: it will move the interrupts that `irq_affinity` places".to_owned(),
            "stop it (`systemctl disable --now irqbalance`), or remove `irq_affinity`",
        ));
    }
    findings
}

/// Puts back what was there before, last change first, and forgets the interface.
pub fn restore(path: &Path, interface: &str) {
    let mut record = Record::load(path);
    let Some(tuned) = record.interfaces.remove(interface) else { return };
    // One that went away has taken its settings along.
    if is_here(interface, &tuned) {
        match tuned.keep {
            true => tracing::info!("{interface}: settings stay as they are (`keep: true`)"),
            false => put_back(interface, tuned.parts.iter().rev()),
        }
    }
    if let Err(error) = record.store(path) {
        tracing::warn!(%error, "settings put back, but not forgotten");
    }
}

/// The same for all interfaces that are remembered, when nothing of `lb` is left.
pub fn restore_all(path: &Path) {
    Record::load(path).interfaces.keys().for_each(|interface| restore(path, interface));
}

/// Puts back an MTU that is larger now than it was, to be done while the program is still there: virtio_net of Linux 6.1
/// does not let go of a program at an MTU with which it would not take one.
pub fn lower_mtu(path: &Path, interface: &str) {
    let record = Record::load(path);
    let Some(tuned) = record.interfaces.get(interface).filter(|tuned| !tuned.keep) else { return };
    if is_here(interface, tuned) {
        let now = nic::facts(interface).mtu;
        let raised = |part: &&Part| matches!(part.before, Value::Mtu(before) if now > Some(before));
        put_back(interface, tuned.parts.iter().filter(raised));
    }
}

fn is_here(interface: &str, tuned: &Tuned) -> bool {
    if_nametoindex(interface).is_ok_and(|ifindex| ifindex == tuned.ifindex)
}

/// Puts back all that was set on these interfaces, where an attach has come to nothing.
pub(super) fn undo(path: &Path, interfaces: &[Interface]) {
    interfaces.iter().for_each(|interface| restore(path, &interface.name));
}

/// Sets values to what they were.
fn put_back<'a>(interface: &str, parts: impl Iterator<Item = &'a Part>) {
    for part in parts {
        let now = part.before.now(&nic::facts(interface));
        if now.as_ref().is_none_or(|now| now.is(&part.before)) {
            continue;
        }
        match part.before.set(interface) {
            Ok(()) => tracing::info!("{interface}: {} is {} again", part.before.part(), part.before),
            Err(error) => tracing::warn!(
                interface,
                setting = part.before.part(),
                wanted = %part.before,
                kernel = %error,
                "could not be put back"
            ),
        }
    }
}

/// The settings of one interface under way.
struct Job<'a> {
    path: &'a Path,
    record: &'a mut Record,
    interface: &'a Interface,
    context: Context,
    findings: &'a mut Vec<Finding>,
}

impl Job<'_> {
    fn run(&mut self) {
        self.drop_unnamed();
        for setting in Setting::ORDER {
            // Each one may change what the next ones find.
            let facts = nic::facts(&self.interface.name);
            let settings = &self.interface.settings;
            if !setting.is_named(settings) {
                continue;
            }
            match setting.wanted(settings, &facts, &self.context) {
                Ok(wanted) => {
                    self.note(setting, &wanted, &facts);
                    self.change(setting, &facts);
                }
                Err(untold) => {
                    let kernel = nic::silence(&self.interface.name, setting);
                    let kernel = kernel.map_or_else(String::new, |error| format!(" ({error})"));
                    self.refuse(setting, setting.key(), &format!("{untold}{kernel}"), "");
                }
            }
        }
        self.save();
    }

    /// Puts back what is not named any more.
    fn drop_unnamed(&mut self) {
        let settings = &self.interface.settings;
        let named =
            |part: &Part| Setting::ORDER.iter().any(|s| s.key() == part.key() && s.is_named(settings));
        let Some(tuned) = self.record.interfaces.get_mut(&self.interface.name) else { return };
        let (kept, gone): (Vec<Part>, Vec<Part>) =
            tuned.parts.drain(..).partition(|part| part.wanted.is_none() || named(part));
        tuned.parts = kept;
        put_back(&self.interface.name, gone.iter().rev());
    }

    /// Writes down what is there now, unless it is known what was there at first.
    fn note(&mut self, setting: Setting, wanted: &[Value], facts: &Facts) {
        let Some(tuned) = self.record.interfaces.get_mut(&self.interface.name) else { return };
        // New numbers of queues bring other things back to defaults.
        let beside = if setting == Setting::Queues { beside_queues(facts) } else { Vec::new() };
        for before in beside {
            tuned.note(before, None);
        }
        for value in wanted {
            if let Some(before) = value.now(facts) {
                tuned.note(before, Some(value.clone()));
            }
        }
        self.save();
    }

    fn change(&mut self, setting: Setting, facts: &Facts) {
        let name = &self.interface.name;
        let Ok(changes) = setting.plan(&self.interface.settings, facts, &self.context) else { return };
        for change in changes {
            if setting.resets_link() {
                tracing::info!("{name}: {change}: the driver may take the link down for a moment");
            } else {
                tracing::info!("{name}: {change}");
            }
            let set = change.after.set(name);
            let found = change.after.now(&nic::facts(name));
            let part = change.after.part();
            match set {
                Ok(()) if found.as_ref().is_some_and(|found| found.is(&change.after)) => {}
                Ok(()) => {
                    let found = found.map_or_else(|| "nothing".to_owned(), |found| found.to_string());
                    let kernel = format!("accepted, but it is {found}");
                    self.refuse(setting, &part, &kernel, "the driver cannot, or another setting forbids it");
                }
                Err(error) => {
                    let means = meaning(&change, &error, facts, &self.context, name);
                    self.refuse(setting, &part, &error.to_string(), &means);
                }
            }
        }
    }

    fn refuse(&mut self, setting: Setting, part: &str, kernel: &str, means: &str) {
        let name = &self.interface.name;
        let means = if means.is_empty() { "it cannot be set here; remove it from the config" } else { means };
        let message = format!("{name}: {part} stays as it is: {kernel}");
        self.findings.push(Finding::warning(code::REFUSED, message, means));
        if let Some(tuned) = self.record.interfaces.get_mut(name) {
            tuned.refuse(setting.key(), part, &format!("{kernel}: {means}"));
        }
    }

    fn save(&mut self) {
        if let Err(error) = self.record.store(self.path)
            && self.findings.iter().all(|finding| finding.code != code::FORGOTTEN)
        {
            self.findings.push(Finding::warning(
                code::FORGOTTEN,
                format!("what the interfaces were like before cannot be written down: {error}"),
                "they will not be put back by `lb detach`",
            ));
        }
    }
}

/// What drivers and kernel forget when numbers of queues change.
fn beside_queues(facts: &Facts) -> Vec<Value> {
    let mut values = Vec::new();
    let masks = |list: &Option<Vec<nic::CpuSet>>| list.clone().unwrap_or_default();
    for (queue, cpus) in (0..).zip(masks(&facts.rps)) {
        values.push(Value::Rps { queue, cpus });
    }
    for (queue, cpus) in (0..).zip(masks(&facts.xps)) {
        values.push(Value::Xps { queue, cpus });
    }
    if let Some(rss) = &facts.rss {
        values.push(Value::Rss(rss.table.clone()));
    }
    values
}

impl Part {
    /// The setting's key in the config.
    fn key(&self) -> &str {
        self.name.split(' ').next().unwrap_or(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nic::Change;

    #[test]
    fn what_depends_on_the_number_of_queues_is_put_back_after_it() {
        let cpus: nic::CpuSet = [1].into_iter().collect();
        let facts = Facts { rps: Some(vec![nic::CpuSet::default(), cpus]), ..Facts::default() };
        let mut tuned = Tuned::default();
        beside_queues(&facts).into_iter().for_each(|before| tuned.note(before, None));
        tuned.note(Value::Queues(nic::Queues { rx: 2, tx: 2, combined: 0 }), None);
        tuned.note(Value::Rps { queue: 0, cpus: nic::CpuSet::default() }, None);
        let order: Vec<&str> = tuned.parts.iter().rev().map(|part| part.name.as_str()).collect();
        assert_eq!(order, ["queues", "rps rx-1", "rps rx-0"]);
    }

    #[test]
    fn changes_undo_each_other() {
        let change = Change { before: Value::Mtu(1500), after: Value::Mtu(9000) };
        assert_eq!(change.clone().inverse().inverse(), change);
        assert_eq!(change.to_string(), "mtu from 1500 to 9000");
    }
}
