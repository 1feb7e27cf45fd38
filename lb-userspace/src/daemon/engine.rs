//! Brings the data plane to a config, whole or not at all.

mod candidate;
mod draining;
mod fit;
mod following;
mod known;
mod radius;
mod settling;
mod stage;
mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;

use nix::net::if_::if_nametoindex;

use super::guard::guard;
use super::overrides::{self, InForce};
use super::pace::Pace;
use super::paths::PathMtus;
use super::{Assembled, Drains, Error, Finding, Instance, Machine, Saved, assemble, interfaces, own, size};
use crate::config;
use crate::dataplane::{Attachment, DataPlane, Events, Gate, KernelPlane, Lock, ProbeTable, attached};
use crate::health::fleet::{Place, Uses};
use crate::model::{Interface, Model};
use crate::netlink::{Link, groups, keep_groups};
use crate::reconcile::{Memo, Observed, Plan, PlanError, plan};
pub use candidate::{Applied, Candidate};
pub use fit::waiting;
pub(super) use fit::{accepted, fit};
use known::known_uses;
pub(super) use known::{down, places};
use settling::Settling;
pub use settling::{Look, Swept};

/// A config on its way into force.
struct Prepared {
    observed: Observed,
    model: Model,
    drains: Drains,
    assembled: Assembled,
    plan: Plan,
    applied: Applied,
}

/// The one writer of a data plane.
pub struct Engine {
    instance: Instance,
    /// By number of backends that QUIC packets name: packets, and since when there have been no more, in monotonic
    /// nanoseconds.
    named: BTreeMap<u32, (u64, u64)>,
    plane: KernelPlane,
    /// What the config lists.
    listed: Model,
    /// The same with backends that are leaving.
    model: Model,
    interfaces: Vec<Interface>,
    saved: Saved,
    assembled: Assembled,
    uses: Uses,
    paths: PathMtus,
    settling: Settling,
    memo: Memo,
    pace: Pace,
    /// What services go without since the last plan.
    lacking: Vec<PlanError>,
    /// The config in force is there only in part.
    between: bool,
    /// Drains that ended until then have been seen to, in seconds since 1970.
    expired_to: u64,
    _lock: Lock,
}

impl Engine {
    /// Loads or adopts the data plane, brings it to the config and puts the program on the interfaces. If the data
    /// plane is new and anything fails, nothing is left of it.
    pub fn start(
        instance: &Instance,
        candidate: Candidate,
        wanted: &[Interface],
        machine: Machine<'_>,
    ) -> Result<(Self, Applied), Error> {
        interfaces::find(wanted, machine.links)?;
        instance.clear_aside();
        instance.prepare()?;
        let lock = instance.lock()?;
        // Whatever forwards is left alone, also if it does not fit this lb; what does not, a crash may have left.
        let existed = instance.pins.is_live();
        let remembered = instance.state.exists();
        let started = Self::start_locked(instance, candidate, wanted, machine, lock);
        if started.is_err() && !existed {
            instance.pins.discard();
            if !remembered {
                instance.forget();
            }
        }
        started.map_err(|error| if existed { error } else { Error::Undone(Box::new(error)) })
    }

    fn start_locked(
        instance: &Instance,
        candidate: Candidate,
        wanted: &[Interface],
        machine: Machine<'_>,
        lock: Lock,
    ) -> Result<(Self, Applied), Error> {
        let accepted = |observed: &Observed| accepted(instance, &candidate, observed);
        let moved = fit(&instance.pins, &candidate.loaded.model, &accepted)?;
        KernelPlane::open_or_create(&instance.pins, &size(&candidate.loaded.model))?;
        let mut engine = Self::adopt(instance, &candidate, lock)?;
        instance.pins.prune(|ifindex| machine.links.by_index(ifindex).is_some())?;
        engine.interfaces.retain(|old| wanted.iter().all(|new| new.name != old.name));
        engine.interfaces.extend(wanted.iter().cloned());
        let mut applied = engine.apply(candidate, machine)?;
        applied.warnings.extend(moved);
        let mut done = Vec::new();
        let observed = engine.plane.glance()?;
        for (interface, link) in wanted.iter().zip(interfaces::find(wanted, machine.links)?) {
            done.push(interfaces::attach(&engine.plane, &observed, interface, link)?);
        }
        let steps = applied.steps.into_iter().chain(done).collect();
        Ok((engine, Applied { steps, ..applied }))
    }

    /// Adopts a data plane that is there, as it is, with the interfaces that an earlier attach has put the program on.
    pub(super) fn adopt(instance: &Instance, candidate: &Candidate, lock: Lock) -> Result<Self, Error> {
        let plane = KernelPlane::open(&instance.pins)?;
        let saved = Saved::load(&instance.state)?.unwrap_or_default();
        let before = config::parse(&saved.origin, &saved.config).ok().map(|loaded| loaded.model);
        let carry: Vec<u32> = attached(&instance.pins).iter().map(|found| found.ifindex).collect();
        let attached =
            |name: &&String| if_nametoindex(name.as_str()).is_ok_and(|index| carry.contains(&index));
        let saved = Saved { overrides: overrides::current(&saved.overrides, Saved::now()), ..saved };
        let observed = plane.glance()?;
        let settling = Settling::adopt(&observed, Saved::age(&instance.state));
        let uses = known_uses(&candidate.loaded.model, &observed, &saved.overrides);
        let named = |name: &String| Interface::named(name);
        let listed = before.unwrap_or_else(|| candidate.loaded.model.clone());
        // Of a data plane that is new nobody leaves.
        let saved = draining::found(saved, &listed, &observed);
        Ok(Self {
            instance: instance.clone(),
            named: BTreeMap::new(),
            plane,
            model: saved.drains.join(&listed),
            listed,
            interfaces: saved.interfaces.iter().filter(attached).map(named).collect(),
            saved,
            assembled: Assembled::default(),
            uses,
            paths: PathMtus::default(),
            settling,
            memo: Memo::default(),
            pace: Pace::default(),
            lacking: Vec::new(),
            between: false,
            expired_to: 0,
            _lock: lock,
        })
    }

    /// Checks a config against machine, guard rails and data plane, and says what it would change.
    pub fn preview(&mut self, candidate: &Candidate, machine: Machine<'_>) -> Result<Applied, Error> {
        let prepared = self.prepare(candidate, machine)?;
        Ok(Applied { blast: self.blast(&prepared)?, ..prepared.applied })
    }

    /// Brings the data plane to a config. What is refused changes nothing. What stops half-way is the config in force all
    /// the same: connections may have begun on what it has added, so [`Engine::follow`] goes on with it, not back.
    pub fn apply(&mut self, candidate: Candidate, machine: Machine<'_>) -> Result<Applied, Error> {
        let Prepared { observed, model, drains, assembled, plan, applied } =
            self.prepare(&candidate, machine)?;
        if !applied.objections.is_empty() {
            return Err(Error::Findings(applied.objections));
        }
        let done = self.execute(&observed, &plan);
        self.between = done.is_err();
        (self.listed, self.model) = (candidate.loaded.model, model);
        self.assembled = assembled;
        self.saved.drains = drains;
        self.saved.origin = candidate.origin;
        self.saved.config = candidate.loaded.text;
        self.saved.interfaces = self.interfaces.iter().map(|interface| interface.name.clone()).collect();
        self.saved.applied_at = Saved::now();
        self.saved.last_error = done.as_ref().err().map(ToString::to_string);
        self.listen();
        // Of a data plane that is new nothing is left where it fails.
        if done.is_ok() || self.instance.pins.is_live() {
            self.remember();
        }
        done.map(|()| applied)
    }

    fn prepare(&mut self, candidate: &Candidate, machine: Machine<'_>) -> Result<Prepared, Error> {
        let listed = &candidate.loaded.model;
        let observed = self.plane.observe()?;
        let there = places(&observed);
        let drains = self.saved.drains.after(&self.model, listed, &there, Saved::now());
        let model = drains.join(listed);
        let (mut assembled, mut findings) = self.join(&model, &drains, machine)?;
        findings.extend(waiting(listed, &observed));
        findings.extend(overrides::returning(&self.listed, listed, &self.saved.overrides));
        let objections =
            if candidate.force { Vec::new() } else { guard(&there, &self.saved.overrides, listed) };
        let (errors, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|f| f.fatal);
        if !errors.is_empty() {
            return Err(Error::Findings(errors));
        }
        assembled.desired.generation = observed.control.generation;
        let mut plan = plan(&observed, &assembled.desired, &mut self.memo, self.settling.history())
            .map_err(Error::Plan)?;
        let generation = plan.number(&observed.control);
        let steps = plan.steps.iter().map(ToString::to_string).collect();
        Ok(Prepared {
            observed,
            model,
            drains,
            assembled,
            plan,
            applied: Applied { steps, warnings, objections, generation, blast: Vec::new() },
        })
    }

    fn join(
        &self,
        model: &Model,
        drains: &Drains,
        machine: Machine<'_>,
    ) -> Result<(Assembled, Vec<Finding>), Error> {
        let attached = interfaces::find(&self.present(machine.links), machine.links)?;
        let mut assembled = assemble(model, &attached, machine, &self.uses_now(model, drains));
        self.paths.limit(&mut assembled.desired);
        let mut findings = std::mem::take(&mut assembled.findings);
        findings.extend(own::check(model, machine.links, own::sockets));
        Ok((assembled, findings))
    }

    /// Records who follows the config, and why the newest one was refused.
    pub fn note(&mut self, daemon: Option<u32>, last_error: Option<String>) -> Result<(), Error> {
        self.saved.daemon = daemon;
        self.saved.last_error = last_error;
        self.saved.store(&self.instance.state)
    }

    /// Opens the logs of the attached programs; one that cannot be opened is not missed.
    pub fn events(&self) -> Vec<Events> {
        let open = |attachment: Attachment| {
            Events::of(attachment.program_id)
                .inspect_err(|error| tracing::debug!(%error, program = attachment.program_id, "no log"))
                .ok()
        };
        attached(&self.instance.pins).into_iter().filter_map(open).collect()
    }

    /// Sets what backends get; in force after the next [`Engine::follow`].
    pub fn set_uses(&mut self, uses: Uses) {
        self.uses = uses;
    }

    /// What is known of the ways to tunnelled backends; in force after the next [`Engine::follow`].
    pub(super) fn paths(&mut self) -> &mut PathMtus {
        &mut self.paths
    }

    /// What backends get.
    pub fn uses(&self) -> &Uses {
        &self.uses
    }

    /// The operator's words in force.
    pub fn overrides(&self) -> &[InForce] {
        &self.saved.overrides
    }

    /// Replaces the operator's words, and remembers them.
    pub fn set_overrides(&mut self, overrides: Vec<InForce>) {
        self.saved.overrides = overrides;
        self.remember();
    }

    /// Joins the groups in which neighbours ask for the advertised addresses, and leaves those of addresses that are not
    /// advertised any more; whether that changed anything. Failure is a warning: some interfaces let all in.
    fn listen(&mut self) -> bool {
        let advertised = self.assembled.advertised.iter().map(|(address, ifindex)| (*address, *ifindex));
        let (ours, failures) = keep_groups(&self.saved.groups, &groups(advertised));
        for error in failures {
            tracing::warn!(%error, cause = ?error.source(), "questions for IPv6 service addresses may not come in");
        }
        std::mem::replace(&mut self.saved.groups, ours) != self.saved.groups
    }

    /// Writes down what is in force. It is in force also where that fails.
    fn remember(&self) {
        if let Err(error) = self.saved.store(&self.instance.state) {
            tracing::error!(%error, "what is in force now will be forgotten with this process");
        }
    }

    /// Indices of the interfaces whose packets the program sees.
    pub fn attached(&self) -> BTreeSet<u32> {
        attached(&self.instance.pins).iter().map(|found| found.ifindex).collect()
    }

    /// Numbers of all backends in the data plane.
    pub fn numbers(&self) -> Result<BTreeMap<Place, u32>, Error> {
        let observed = self.plane.glance()?;
        Ok(places(&observed).into_iter().map(|(place, (number, _))| (place, number)).collect())
    }

    /// The table of probes under way.
    pub fn probe_table(&self) -> Result<ProbeTable, Error> {
        Ok(self.plane.probe_table()?)
    }

    /// Puts the probes' program on the gate, which has a port since the last [`Engine::follow`]; the port's number.
    pub fn guard_gate(&mut self, gate: &Link) -> Result<(Gate, u16), Error> {
        let observed = self.plane.glance()?;
        let port = observed.ports.iter().find(|(_, port)| port.ifindex == gate.ifindex);
        let number = port.map(|(number, _)| *number);
        let number = number.ok_or_else(|| Error::Gate("it has no port in the data plane".to_owned()))?;
        // The kernel has taken an earlier gate out of the redirect map, also one of the same index.
        self.renew_port(&observed, gate.ifindex)?;
        Ok((self.plane.attach_gate(&gate.name, gate.ifindex, number)?, number))
    }

    /// The interfaces that are attached to.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// What the config in force lists.
    pub fn listed(&self) -> &Model {
        &self.listed
    }

    /// The model in force: what the config lists, and backends that are leaving.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The text in force.
    pub fn config_text(&self) -> &str {
        &self.saved.config
    }

    /// What was last assembled.
    pub fn assembled(&self) -> &Assembled {
        &self.assembled
    }
}
