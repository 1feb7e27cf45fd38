//! What the daemon does about each thing that happens.

mod clients;
mod following;
mod leaving;
mod settings;
mod settling;
mod weights;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use lb_common::abi::BackendState;
use tokio::sync::{mpsc, watch};

use super::announce::Announced;
use super::engine::places;
use super::health::{Health, Signal};
use super::jobs::{Job, Jobs, Purpose, Settled, settled};
use super::overrides;
use super::report::{reply, report};
use super::run::Options;
use super::targets::{Ways, ways};
use super::tuning::Tuner;
use super::{Applied, Candidate, Engine, Error, Instance, Machine, Saved, announce, gate, next_hops, once};
use crate::dataplane::{Events, KernelPlane};
use crate::health::fleet::Place;
use crate::health::member::State;
use crate::health::passive::{Complaint, What};
use crate::health::words::Way;
use crate::model::{Interface, Model};
use crate::netlink::{Resolutions, Snapshot, Watcher};
use following::Trouble;
use settling::{Client, Sweeper, Turn};

/// The running daemon.
pub(super) struct Daemon {
    engine: Engine,
    watcher: Watcher,
    resolutions: watch::Receiver<Arc<Resolutions>>,
    links: watch::Receiver<Arc<Snapshot>>,
    /// Backends whose neighbour entry is gone.
    doubts: mpsc::UnboundedReceiver<Vec<IpAddr>>,
    /// The ways to backends when they were last looked at: what is lost since makes them suspect.
    seen: Arc<Resolutions>,
    health: Health,
    ways: BTreeMap<Place, Way>,
    /// The data plane could not follow the last decision.
    unfollowed: bool,
    trouble: Trouble,
    jobs: Jobs,
    /// Logs of the attached programs.
    events: Vec<Events>,
    /// Service addresses that have been announced, and where.
    announced: Announced,
    tuner: Tuner,
    sweeper: Sweeper,
    /// Clients that hear when second steps are taken.
    waiting: Vec<Client>,
}

/// Something that has happened.
pub(super) enum Wake {
    Network,
    Doubt(Vec<IpAddr>),
    Health(Signal),
    /// An operator's word, or the time of a drain, has come to its end.
    WordsEnd,
    Settled(Settled),
    /// Something waits for its second step, and has waited long enough.
    StepDue,
    Sweep(Turn),
}

impl Daemon {
    pub(super) async fn start(instance: &Instance, candidate: Candidate) -> Result<Self, Error> {
        let interfaces = candidate.loaded.model.interfaces.clone();
        if interfaces.is_empty() {
            return Err(Error::NoInterfaces);
        }
        // Before the network is looked at: a new MTU is to be seen.
        let refused = once::tune(instance, &interfaces);
        let started = Self::start_tuned(instance, candidate, &interfaces).await;
        refused.iter().for_each(|finding| tracing::warn!("{finding}"));
        once::untune(instance, &interfaces, started)
    }

    async fn start_tuned(
        instance: &Instance,
        candidate: Candidate,
        interfaces: &[Interface],
    ) -> Result<Self, Error> {
        // Also those that it removes: their flows go on.
        let targets = once::targets(instance, &candidate)?;
        let mut watcher = Watcher::start(targets.clone()).await?;
        let doubts = watcher.doubts().unwrap_or_else(|| mpsc::unbounded_channel().1);
        settled(&watcher, targets).await;
        let (links, resolutions) = (watcher.links(), watcher.resolutions());
        let (snapshot, seen) = (links.borrow().clone(), resolutions.borrow().clone());
        let known = known_states(instance);
        let machine = Machine { links: &snapshot, resolutions: &seen };
        let (engine, applied) = Engine::start(instance, candidate, interfaces, machine)?;
        report(&applied);
        let mut health = Health::start(engine.model());
        health.set_overrides(overrides::by_place(engine.overrides()));
        health.set_model(engine.model(), |place| known.get(&place).copied().unwrap_or(State::Unknown));
        let (events, ways) = (engine.events(), ways(engine.model()));
        let tuner = Tuner::new(&instance.nic, engine.attached());
        let (jobs, announced) = (Jobs::default(), Announced::new());
        let mut daemon = Self {
            engine,
            watcher,
            resolutions,
            links,
            doubts,
            seen,
            health,
            ways,
            unfollowed: false,
            trouble: Trouble::default(),
            jobs,
            events,
            announced,
            tuner,
            sweeper: Sweeper::default(),
            waiting: Vec::new(),
        };
        daemon.announce(&snapshot);
        daemon.attend().await;
        Ok(daemon)
    }

    /// Waits for something to happen.
    pub(super) async fn next(&mut self) -> Wake {
        self.begin();
        self.reply_to_waiting();
        let words_end = self.engine.next_end(Saved::now());
        let words_ended = settling::after(words_end);
        let step_due = settling::after(self.engine.due_in());
        tokio::select! {
            () = step_due => Wake::StepDue,
            turn = self.sweeper.turn() => Wake::Sweep(turn),
            () = words_ended => Wake::WordsEnd,
            Ok(()) = self.resolutions.changed() => Wake::Network,
            Ok(()) = self.links.changed() => Wake::Network,
            Some(backends) = self.doubts.recv() => Wake::Doubt(backends),
            signal = self.health.next() => Wake::Health(signal),
            settled = self.jobs.settled() => Wake::Settled(settled),
        }
    }

    /// Does what it asks for.
    pub(super) async fn handle(&mut self, wake: Wake) {
        match wake {
            Wake::Network => self.follow().await,
            Wake::Doubt(backends) => self.health.suspect(&backends),
            Wake::Health(Signal::Complaint(Complaint { backend, what: What::TooBig(mtu) })) => {
                // 0: from before RFC 1191.
                if mtu > 0 && self.engine.paths().learn(backend, mtu, Instant::now()) {
                    tracing::info!(%backend, mtu, "a smaller path MTU was learnt");
                    self.follow().await;
                }
            }
            Wake::Health(signal) => {
                self.health.absorb(signal, &self.ways);
                self.decide().await;
            }
            Wake::WordsEnd => self.end_drains().await,
            Wake::Settled(settled) => self.finish(settled).await,
            Wake::StepDue => self.step().await,
            Wake::Sweep(turn) => self.sweep(turn).await,
        }
    }

    /// Takes the next config of the queue, if none is being worked on.
    fn begin(&mut self) {
        let Some(job) = self.jobs.next() else { return };
        if let Purpose::Reload | Purpose::Apply(_) = job.purpose {
            self.warn_of_interfaces(&job.candidate);
        }
        self.jobs.begin(job, &self.watcher, self.engine.model());
    }

    /// Applies the config whose next hops are known now.
    async fn finish(&mut self, settled: Settled) {
        let Some(Job { candidate, purpose }) = self.jobs.take() else { return };
        let result = match settled {
            Ok(Some(resolutions)) => {
                let links = self.links.borrow().clone();
                self.engine.preview(&candidate, Machine { links: &links, resolutions: &resolutions })
            }
            Ok(None) => self.apply(candidate).await,
            Err(error) => Err(error),
        };
        match purpose {
            Purpose::Reload => match &result {
                Ok(applied) => report(applied),
                Err(error) => self.refuse(error),
            },
            Purpose::Apply(client) => {
                if let Ok(applied) = &result {
                    report(applied);
                }
                self.reply_when_done(client, reply(result));
            }
            Purpose::Preview(client) => drop(client.send(reply(result))),
        }
    }

    async fn apply(&mut self, candidate: Candidate) -> Result<Applied, Error> {
        let (links, resolutions) = (self.links.borrow().clone(), self.resolutions.borrow().clone());
        let applied = self.engine.apply(candidate, Machine { links: &links, resolutions: &resolutions });
        self.watcher.set_targets(next_hops(self.engine.model()));
        // What has stopped half-way is in force too, and its backends are to be probed.
        if applied.is_ok() || self.engine.is_between() {
            self.announce(&links);
            self.tune();
            self.health.set_model(self.engine.model(), |_| State::Unknown);
            self.ways = ways(self.engine.model());
            self.attend().await;
        }
        applied
    }

    /// Brings probes and decisions in line with a new model.
    async fn attend(&mut self) {
        let model = self.engine.model().clone();
        self.ensure_gate(&model).await;
        self.decide().await;
        self.assign().await;
    }

    /// Opens the way through the services, if a model's checks want it and it is not there.
    async fn ensure_gate(&mut self, model: &Model) {
        if self.health.wants_gate(model) {
            let opened = gate::open(&self.health, &mut self.engine, &self.resolutions).await;
            self.health.open(opened);
        }
    }

    /// Hands out the probes as they are to be made now.
    async fn assign(&mut self) {
        match self.engine.numbers() {
            Ok(numbers) => {
                let (resolutions, attached) = (self.resolutions.borrow().clone(), self.engine.attached());
                let links = self.links.borrow().clone();
                let ways =
                    Ways { numbers: &numbers, resolutions: &resolutions, attached: &attached, links: &links };
                self.health.assign(&ways).await;
            }
            Err(error) => tracing::error!(%error, "probes not assigned"),
        }
    }

    /// Announces the addresses that are new, or elsewhere now (another interface or MAC address).
    fn announce(&mut self, links: &Snapshot) {
        let now = announce::places(&self.engine.assembled().advertised, links);
        let fresh = now.iter().filter(|(address, place)| self.announced.get(*address) != Some(*place));
        let fresh: Announced = fresh.map(|(address, place)| (*address, *place)).collect();
        self.announced = now;
        if !fresh.is_empty() {
            tokio::spawn(announce::all(fresh));
        }
    }

    /// Takes the config file as it is now.
    pub(super) fn reload(&mut self, options: &Options) {
        match Candidate::read(&options.config, false) {
            // Touched, or written again with the same content; and so are the lists that it names.
            Ok(candidate)
                if !self.engine.is_between()
                    && candidate.loaded.text == self.engine.config_text()
                    && candidate.loaded.model == *self.engine.listed() =>
            {
                tracing::info!("config file unchanged");
                if let Err(error) = self.note(None) {
                    tracing::error!(%error, "state not saved");
                }
            }
            Ok(candidate) => self.jobs.push(Job { candidate, purpose: Purpose::Reload }),
            Err(error) => self.refuse(&error),
        }
    }

    fn refuse(&mut self, error: &Error) {
        match error {
            Error::Partly(_) => tracing::error!("new config only partly applied:\n{error}"),
            _ => tracing::error!("new config refused, nothing changed:\n{error}"),
        }
        if let Err(error) = self.note(Some(error.to_string())) {
            tracing::error!(%error, "state not saved");
        }
    }

    /// Passes the programs' log lines on.
    pub(super) fn flush_events(&mut self) {
        self.events.iter_mut().for_each(Events::flush);
    }

    /// Opens the way of the probes if that was not possible before, and forgets path MTUs that are old.
    pub(super) async fn chores(&mut self) {
        if self.health.wants_gate(self.engine.model()) {
            self.attend().await;
        }
        if let Err(error) = self.engine.note_pace() {
            tracing::debug!(%error, "new flows not counted");
        }
        if self.engine.paths().expire(Instant::now()) {
            self.follow().await;
        }
    }

    /// Records that this process follows the config, and why the newest one was refused, if it was.
    pub(super) fn note(&mut self, last_error: Option<String>) -> Result<(), Error> {
        self.engine.note(Some(std::process::id()), last_error)
    }

    /// Records that nobody follows it any more, and closes the way of the probes.
    pub(super) async fn end(&mut self) -> Result<(), Error> {
        gate::close().await;
        self.engine.note(None, None)
    }
}

/// What backends were known to be before this daemon: those of a data plane that is there already.
fn known_states(instance: &Instance) -> BTreeMap<Place, State> {
    let observed = KernelPlane::open(&instance.pins).and_then(|plane| plane.glance());
    let state = |state| match state {
        BackendState::Up => State::Up,
        BackendState::Down => State::Down,
        BackendState::Absent | BackendState::Draining | BackendState::Retired => State::Unknown,
    };
    let places = observed.map(|observed| places(&observed)).unwrap_or_default();
    places.into_iter().map(|(place, (_, found))| (place, state(found))).collect()
}
