//! Second steps when they are due, and sweeps beside the loop.

use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Daemon;
use crate::daemon::Reply;
use crate::daemon::engine::{Look, Swept};
use crate::dataplane::Error as PlaneError;
use crate::netlink::links;

/// Second steps that are due within this time are waited for by clients; bigger changes are not.
const SOON: Duration = Duration::from_secs(2);

/// What a sweep's thread has to say.
pub(in crate::daemon) type Reading = Result<Option<Swept>, PlaneError>;

/// A client, and what it will hear.
pub(super) type Client = (oneshot::Sender<Reply>, Reply);

/// Sweeps, one after the other, each read by a thread of its own.
pub(super) struct Sweeper {
    next: Instant,
    reading: Option<oneshot::Receiver<Reading>>,
}

/// Whose turn it is.
pub(in crate::daemon) enum Turn {
    /// A sweep is to begin.
    Begin,
    /// One has been read.
    Read(Reading),
    /// Its thread has died.
    Lost,
}

impl Default for Sweeper {
    fn default() -> Self {
        Self { next: Instant::now(), reading: None }
    }
}

impl Sweeper {
    /// Waits for the next turn. To be dropped and called again at any time.
    pub(super) async fn turn(&mut self) -> Turn {
        let Some(reading) = &mut self.reading else {
            tokio::time::sleep_until(self.next).await;
            return Turn::Begin;
        };
        let read = reading.await;
        self.reading = None;
        read.map_or(Turn::Lost, Turn::Read)
    }

    fn read(&mut self, look: Look) {
        let (done, reading) = oneshot::channel();
        let thread = thread::Builder::new().name("sweep".to_owned());
        // Its end is not waited for: what it deletes is dead whoever runs.
        match thread.spawn(move || drop(done.send(look.read()))) {
            Ok(_) => self.reading = Some(reading),
            Err(error) => tracing::error!(%error, "no thread for the sweep"),
        }
    }
}

/// Waits for so long; for ever, if there is nothing to wait for.
pub(super) async fn after(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

impl Daemon {
    /// Begins a sweep, or ends one.
    pub(super) async fn sweep(&mut self, turn: Turn) {
        self.sweeper.next = Instant::now() + self.engine.sweep_interval();
        match turn {
            Turn::Begin => match self.engine.begin_sweep() {
                Ok(Some(look)) => self.sweeper.read(look),
                Ok(None) => self.look_at_leavers().await,
                Err(error) => tracing::error!(%error, "sweep not begun"),
            },
            Turn::Read(Ok(Some(swept))) => {
                if let Err(error) = self.engine.finish_sweep(swept) {
                    tracing::error!(%error, "sweep not ended");
                }
                self.look_at_leavers().await;
            }
            Turn::Read(Ok(None)) => tracing::debug!("flows change too fast to be swept"),
            Turn::Read(Err(error)) => tracing::error!(%error, "recorded flows could not be read"),
            Turn::Lost => tracing::error!("the sweep's thread has died"),
        }
    }

    /// Those whose flows are gone leave.
    async fn look_at_leavers(&mut self) {
        let gone = self.engine.let_go();
        self.let_go(gone).await;
    }

    /// Replies to a client when what it has asked for is in force, second steps of planned changes included.
    pub(super) fn reply_when_done(&mut self, client: oneshot::Sender<Reply>, reply: Reply) {
        self.waiting.push((client, reply));
    }

    /// Replies where nothing is due soon any more.
    pub(super) fn reply_to_waiting(&mut self) {
        if self.engine.due_in().is_none_or(|wait| wait > SOON) {
            self.give_up_waiting();
        }
    }

    fn give_up_waiting(&mut self) {
        for (client, reply) in self.waiting.drain(..) {
            let _client_gone = client.send(reply);
        }
    }

    /// Takes the second steps that are due.
    pub(super) async fn step(&mut self) {
        let resolutions = self.resolutions.borrow().clone();
        let stepped = match links().await {
            Ok(links) => self.engine.follow(super::Machine { links: &links, resolutions: &resolutions }),
            Err(error) => Err(error.into()),
        };
        match stepped {
            Ok(changes) => {
                self.trouble.is_over();
                tracing::debug!(?changes, "planned changes went on");
            }
            Err(error) => {
                self.trouble.tell(&error, "planned changes could not go on");
                self.engine.postpone();
                self.give_up_waiting();
            }
        }
    }
}
