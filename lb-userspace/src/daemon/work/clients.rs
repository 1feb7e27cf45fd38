//! What clients ask of the daemon, and the operator's words.

use tokio::sync::{broadcast, oneshot};

use super::{Daemon, Error, Saved, overrides};
use crate::daemon::jobs::{Job, Purpose};
use crate::daemon::overrides::Order;
use crate::daemon::socket::Asked;
use crate::daemon::{Candidate, Reply, Request, check};

impl Daemon {
    /// Does what a client asks.
    pub(in crate::daemon) async fn answer(&mut self, (request, client): Asked) {
        match request {
            Request::Apply { origin, text, dry_run, force } => {
                match Candidate::parse(&origin, &text, force) {
                    Ok(candidate) => {
                        let purpose = if dry_run { Purpose::Preview(client) } else { Purpose::Apply(client) };
                        self.jobs.push(Job { candidate, purpose });
                    }
                    Err(error) => drop(client.send(Reply::failed(&error))),
                }
            }
            Request::Health => {
                let health = self.health.view().await;
                let (forced_settles, forced) = (self.engine.forced(), self.engine.forced_of().clone());
                let settling_s = self.engine.settling_s();
                let reply = Reply { health, forced_settles, forced, settling_s, ..Reply::default() };
                let _client_gone = client.send(reply);
            }
            Request::Order(order) => {
                let followed = self.order(&order).await;
                let reply = followed
                    .map_or_else(|error| Reply::failed(&error), |steps| Reply { steps, ..Reply::default() });
                self.reply_when_done(client, reply);
            }
            Request::Check { origin, text } => match Candidate::parse(&origin, &text, true) {
                Ok(candidate) => {
                    self.ensure_gate(&candidate.loaded.model).await;
                    self.check(candidate, client);
                }
                Err(error) => drop(client.send(Reply::failed(&error))),
            },
            // Served where the client is.
            Request::Events => {}
        }
    }

    /// Makes the probes of a config once, beside everything else.
    fn check(&self, candidate: Candidate, client: oneshot::Sender<Reply>) {
        let (numbers, attached) = (self.engine.numbers(), self.engine.attached());
        let lanes = self.health.lanes();
        tokio::spawn(async move {
            let reply = match numbers {
                Ok(numbers) => {
                    let checked = check::beside(&lanes, &candidate.loaded.model, &numbers, &attached).await;
                    checked.map_or_else(
                        |error| Reply::failed(&error),
                        |checked| Reply { checked, ..Reply::default() },
                    )
                }
                Err(error) => Reply::failed(&error),
            };
            let _client_gone = client.send(reply);
        });
    }

    async fn order(&mut self, order: &Order) -> Result<Vec<String>, Error> {
        let present = overrides::current(self.engine.overrides(), Saved::now());
        let down = self.health.down();
        let followed = overrides::follow(self.engine.model(), &present, order, &down, Saved::now());
        let (words, meant) = followed.map_err(|finding| Error::Findings(vec![finding]))?;
        self.engine.set_overrides(words);
        self.health.set_overrides(overrides::by_place(self.engine.overrides()));
        for backend in &meant {
            self.health.tell_operator(backend, order.word, order.reason.as_deref());
        }
        self.decide().await;
        Ok(meant)
    }

    /// Makes each client a listener of its own.
    pub(in crate::daemon) fn events_for_clients(
        &self,
    ) -> impl Fn() -> broadcast::Receiver<String> + Send + 'static {
        let first = self.health.subscribe();
        move || first.resubscribe()
    }
}
