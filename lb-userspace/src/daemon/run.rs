//! The daemon's loop: config, neighbours, interfaces, probes, commands and signals in; the data plane out.
//!
//! Nothing in the loop waits for anybody outside: what takes time (next hops of a new config, slow clients, probes) goes
//! on beside it, so that a backend's failure moves its traffic at once.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::interval;

use super::bandwidth::Bandwidth;
use super::follow::FileWatch;
use super::socket;
use super::work::Daemon;
use super::{Candidate, Error, Instance, Saved};

/// How often the config file and the programs' logs are looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How often loads and latencies are measured.
const SECOND: Duration = Duration::from_secs(1);
/// How often it is tried whether what could not be done can be done now, and what has grown old is forgotten.
const CHORES: Duration = Duration::from_secs(60);

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
    daemon.note(fallback)?;
    let (requests_to, mut requests) = mpsc::unbounded_channel();
    socket::serve(socket::listen(&instance.socket)?, requests_to, daemon.events_for_clients());
    let (mut look, mut second, mut chores) = (interval(LOOK), interval(SECOND), interval(CHORES));
    let mut bandwidth = Bandwidth::default();
    tracing::info!(pid = std::process::id(), "running");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => daemon.reload(options),
            _ = look.tick() => {
                daemon.flush_events();
                daemon.retry().await;
                daemon.watch_settings().await;
                if options.watch && file.changed() {
                    daemon.reload(options);
                }
            }
            _ = second.tick() => daemon.weigh(&mut bandwidth),
            _ = chores.tick() => daemon.chores().await,
            Some(asked) = requests.recv() => daemon.answer(asked).await,
            wake = daemon.next() => daemon.handle(wake).await,
        }
    }
    daemon.end().await?;
    let _gone = std::fs::remove_file(&instance.socket);
    tracing::info!("daemon ends; forwarding goes on unattended (`lb detach IFACE` removes it)");
    Ok(())
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
