//! The daemon's loop: config, neighbours, interfaces, commands and signals in; the data plane out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use super::announce::Announced;
use super::engine::Machine;
use super::follow::FileWatch;
use super::{Applied, Candidate, Engine, Error, Instance, Reply, Request, Saved, announce, socket, targets};
use crate::dataplane::Events;
use crate::netlink::{Resolution, Resolutions, Snapshot, Watcher, links};

/// How often the config file and the programs' logs are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often ids of removed backends are freed.
const SWEEP: Duration = Duration::from_secs(60);
/// How long unresolved next hops are waited for before a config is applied without them.
const PATIENCE: Duration = Duration::from_secs(2);

/// How the daemon runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The config file.
    pub config: PathBuf,
    /// Whether a change of the file is a reload.
    pub watch: bool,
}

/// Runs until SIGTERM or SIGINT. What was attached stays attached.
pub async fn run(instance: &Instance, options: &Options) -> Result<(), Error> {
    let signals = |kind, name: &str| {
        signal(kind).map_err(|source| Error::File { action: "waiting for signal", path: name.into(), source })
    };
    let mut hangup = signals(SignalKind::hangup(), "SIGHUP")?;
    let mut terminate = signals(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = signals(SignalKind::interrupt(), "SIGINT")?;

    // Before the file is read: whatever changes from here on is noticed.
    let mut file = FileWatch::new(&options.config);
    let (mut daemon, fallback) = start(instance, options).await?;
    daemon.engine.note(Some(std::process::id()), fallback)?;
    let listener = socket::listen(&instance.socket)?;
    let (mut look, mut sweep) = (interval(LOOK), interval(SWEEP));
    let mut resolutions = daemon.watcher.resolutions();
    let mut links = daemon.watcher.links();
    tracing::info!(pid = std::process::id(), "running");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => daemon.reload(options).await,
            _ = look.tick() => {
                daemon.events.iter_mut().for_each(Events::flush);
                if options.watch && file.changed() {
                    daemon.reload(options).await;
                }
            }
            _ = sweep.tick() => daemon.sweep(),
            Ok(()) = resolutions.changed() => daemon.follow().await,
            Ok(()) = links.changed() => daemon.follow().await,
            client = accept(&listener) => daemon.serve(client).await,
        }
    }
    daemon.engine.note(None, None)?;
    let _gone = std::fs::remove_file(&instance.socket);
    tracing::info!("daemon ends; forwarding goes on unattended (`lb detach IFACE` removes it)");
    Ok(())
}

async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Starts with the config file, or, where that is refused, with the last good config; then with the reason.
async fn start(instance: &Instance, options: &Options) -> Result<(Daemon, Option<String>), Error> {
    // Where nothing forwards yet there is nothing for the guard rails to protect.
    let force = !instance.pins.is_live();
    let refused = match Candidate::read(&options.config, force) {
        Ok(candidate) => match Daemon::start(instance, candidate).await {
            Ok(daemon) => return Ok((daemon, None)),
            Err(error @ (Error::Findings(_) | Error::Plan(_) | Error::Undone(_))) => error,
            Err(error) => return Err(error),
        },
        Err(error) => error,
    };
    let saved = Saved::load(&instance.state)?.filter(|saved| !saved.config.is_empty());
    let Some(saved) = saved else { return Err(refused) };
    tracing::error!("{refused}");
    tracing::warn!(config = saved.origin, "the config file is refused: running with the last good one");
    let last_good = Candidate::parse(&saved.origin, &saved.config, true)?;
    Ok((Daemon::start(instance, last_good).await?, Some(refused.to_string())))
}

struct Daemon {
    engine: Engine,
    watcher: Watcher,
    /// Logs of the attached programs.
    events: Vec<Events>,
    /// Service addresses that have been announced, and where.
    announced: Announced,
}

impl Daemon {
    async fn start(instance: &Instance, candidate: Candidate) -> Result<Self, Error> {
        let interfaces = candidate.loaded.model.interfaces.clone();
        if interfaces.is_empty() {
            return Err(Error::NoInterfaces);
        }
        let watcher = Watcher::start(targets(&candidate.loaded.model)).await?;
        settle(&watcher, &candidate).await;
        let (links, resolutions) = (latest(watcher.links()), latest(watcher.resolutions()));
        let machine = Machine { links: &links, resolutions: &resolutions };
        let (engine, applied) = Engine::start(instance, candidate, &interfaces, machine)?;
        report(&applied);
        let events = engine.events();
        let mut daemon = Self { engine, watcher, events, announced: Announced::new() };
        daemon.announce(&links);
        Ok(daemon)
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

    async fn reload(&mut self, options: &Options) {
        let result = match Candidate::read(&options.config, false) {
            // Touched, or written again with the same content.
            Ok(candidate) if candidate.loaded.text == self.engine.config_text() => {
                tracing::info!("config file unchanged");
                self.engine.note(Some(std::process::id()), None)
            }
            Ok(candidate) => self.apply(candidate).await.map(|applied| report(&applied)),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            self.refuse(&error);
        }
    }

    fn refuse(&mut self, error: &Error) {
        match error {
            Error::Partly(_) => tracing::error!("new config only partly applied:\n{error}"),
            _ => tracing::error!("new config refused, nothing changed:\n{error}"),
        }
        if let Err(error) = self.engine.note(Some(std::process::id()), Some(error.to_string())) {
            tracing::error!(%error, "state not saved");
        }
    }

    async fn apply(&mut self, candidate: Candidate) -> Result<Applied, Error> {
        self.warn_of_interfaces(&candidate);
        let mut wanted = targets(&candidate.loaded.model);
        // Backends that leave are still forwarded to until the new config is in force.
        wanted.extend(targets(self.engine.model()).into_iter().filter(|old| {
            candidate.loaded.model.services.iter().flat_map(|s| &s.backends).all(|b| b.address != old.address)
        }));
        self.watcher.set_targets(wanted);
        settle(&self.watcher, &candidate).await;
        let (links, resolutions) = (latest(self.watcher.links()), latest(self.watcher.resolutions()));
        let machine = Machine { links: &links, resolutions: &resolutions };
        let applied = self.engine.apply(candidate, machine);
        self.watcher.set_targets(targets(self.engine.model()));
        let applied = applied?;
        self.engine.note(Some(std::process::id()), None)?;
        self.announce(&links);
        Ok(applied)
    }

    fn warn_of_interfaces(&self, candidate: &Candidate) {
        if candidate.loaded.model.interfaces != self.engine.model().interfaces {
            tracing::warn!("interfaces changed in the config: they take effect when the daemon starts again");
        }
    }

    /// Looks anew at the interfaces: the watcher's last view may be from before our own attach.
    async fn follow(&mut self) {
        let resolutions = latest(self.watcher.resolutions());
        let followed = match links().await {
            Ok(links) => {
                let changes = self.engine.follow(Machine { links: &links, resolutions: &resolutions });
                changes.map(|changes| (links, changes))
            }
            Err(error) => Err(error.into()),
        };
        match followed {
            Ok((_, changes)) if changes.is_empty() => {}
            Ok((links, changes)) => {
                tracing::info!(?changes, "followed neighbours and interfaces");
                self.events = self.engine.events();
                self.announce(&links);
                unreachable_backends(&resolutions);
            }
            Err(error) => tracing::error!(%error, "could not follow neighbours and interfaces"),
        }
    }

    fn sweep(&mut self) {
        if let Err(error) = self.engine.sweep() {
            tracing::error!(%error, "sweep");
        }
    }

    async fn serve(&mut self, mut client: UnixStream) {
        let reply = match socket::read(&mut client).await {
            Ok(request) => self.reply(request).await,
            Err(error) => {
                Reply { error: Some((format!("request not understood: {error}"), true)), ..Reply::default() }
            }
        };
        if let Err(error) = socket::answer(client, &reply).await {
            tracing::debug!(%error, "client gone");
        }
    }

    async fn reply(&mut self, request: Request) -> Reply {
        let Request::Apply { origin, text, dry_run, force } = request;
        let result = match Candidate::parse(&origin, &text, force) {
            Ok(candidate) if dry_run => self.preview(&candidate).await,
            Ok(candidate) => self.apply(candidate).await.inspect(report),
            Err(error) => Err(error),
        };
        match result {
            Ok(applied) => Reply {
                steps: applied.steps,
                warnings: applied.warnings.iter().map(ToString::to_string).collect(),
                generation: applied.generation,
                error: None,
            },
            Err(error) => {
                Reply { error: Some((error.to_string(), error.is_bad_input())), ..Reply::default() }
            }
        }
    }

    async fn preview(&mut self, candidate: &Candidate) -> Result<Applied, Error> {
        let resolutions = crate::netlink::resolve(targets(&candidate.loaded.model), PATIENCE).await?;
        let links = latest(self.watcher.links());
        self.engine.preview(candidate, Machine { links: &links, resolutions: &resolutions })
    }
}

fn latest<T>(receiver: tokio::sync::watch::Receiver<Arc<T>>) -> Arc<T> {
    receiver.borrow().clone()
}

/// Waits until every backend of a config is resolved, or patience ends.
async fn settle(watcher: &Watcher, candidate: &Candidate) {
    let wanted = targets(&candidate.loaded.model);
    let mut resolutions = watcher.resolutions();
    let complete = |found: &Arc<Resolutions>| {
        wanted
            .iter()
            .all(|target| found.get(&target.address).is_some_and(|resolution| !resolution.is_pending()))
    };
    let _patience_ended = tokio::time::timeout(PATIENCE, resolutions.wait_for(complete)).await;
}

fn report(applied: &Applied) {
    for warning in &applied.warnings {
        tracing::warn!("{warning}");
    }
    for step in &applied.steps {
        tracing::info!("{step}");
    }
    tracing::info!(generation = applied.generation, "config in force");
}

fn unreachable_backends(resolutions: &Resolutions) {
    for (address, resolution) in resolutions {
        match resolution {
            Resolution::Unresolved { via, why, .. } => {
                tracing::warn!(%address, %via, why, "backend has no next hop")
            }
            Resolution::Unroutable(why) => tracing::warn!(%address, why, "backend has no route"),
            Resolution::Resolved(_) | Resolution::Local => {}
        }
    }
}
