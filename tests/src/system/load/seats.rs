//! Seats of the clients: on each is one connection after the other, which asks at a steady pace.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};

use super::farm::Farm;
use super::lines::Line;
use super::tally::{Kind, NOTABLE, Tally};
use super::{Wish, locked};
use crate::system::Identity;

/// A connection that is silent for so long counts as broken.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How long the shortest-lived connections live; others in between live up to twice as long.
const SHORT_LIFE: Duration = Duration::from_secs(3);
/// How often it is looked whether the clients get their turn.
const LOOK: Duration = Duration::from_millis(20);

/// Where a client's connections go.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) number: usize,
    pub(super) kind: Kind,
    /// Past the balancer, to a backend itself.
    pub(super) control: bool,
    to: SocketAddr,
    life: Option<Duration>,
    identity: Arc<Identity>,
}

/// The seats of a wish.
pub(super) fn plan(farm: &Farm, wish: Wish) -> Vec<Seat> {
    let mut seats = Vec::new();
    let mut add = |kind, backend: Option<u8>, count: usize| {
        for _ in 0..count {
            let number = seats.len();
            let short = backend.is_none() && wish.short_lived > 0 && number.is_multiple_of(wish.short_lived);
            let more = Duration::from_millis(number as u64 * 7 % 3000);
            seats.push(Seat {
                number,
                kind,
                control: backend.is_some(),
                to: Farm::at(backend, kind == Kind::Quic),
                life: short.then_some(SHORT_LIFE + more),
                identity: Arc::clone(&farm.identity),
            });
        }
    };
    add(Kind::Tcp, None, wish.tcp);
    add(Kind::Udp, None, wish.udp);
    add(Kind::Quic, None, wish.quic);
    for backend in 1..=farm.backends {
        add(Kind::Tcp, Some(backend), wish.control);
        add(Kind::Udp, Some(backend), wish.control / 10);
        add(Kind::Quic, Some(backend), wish.control / 10);
    }
    seats
}

/// Runs all seats on this thread until told to stop.
pub(super) fn run(
    seats: Vec<Seat>,
    wish: Wish,
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    runtime.block_on(async {
        let (mut all, begin, count) = (JoinSet::new(), Instant::now(), seats.len().max(1) as u32);
        all.spawn(notice_delays(Arc::clone(&tally), Arc::clone(&stop)));
        for seat in seats {
            let every = if seat.control { wish.every / 5 } else { wish.every };
            let client = Client { every, tally: Arc::clone(&tally), stop: Arc::clone(&stop), seat };
            // Spread evenly, and connected over a few rounds: a burst would overflow a queue.
            let offset = wish.every * 4 * client.seat.number as u32 / count;
            all.spawn(client.sit(begin + offset));
        }
        while let Some(ended) = all.join_next().await {
            ended.context("a client panicked")?;
        }
        Ok(())
    })
}

/// Where this thread does not get its turn, no answer is read in time, whoever sends it.
async fn notice_delays(tally: Arc<Mutex<Tally>>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        sleep(LOOK).await;
        if began.elapsed() > LOOK + NOTABLE {
            locked(&tally).held_up(began);
        }
    }
}

struct Client {
    seat: Seat,
    every: Duration,
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
}

impl Client {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One connection after the other.
    async fn sit(self, begin: Instant) {
        tokio::time::sleep_until(begin.into()).await;
        while !self.stopped() {
            let asked = Instant::now();
            match timeout(GIVE_UP, Line::open(self.seat.kind, self.seat.to, &self.seat.identity)).await {
                Ok(Ok(line)) => self.talk(line, asked).await,
                Ok(Err(error)) => {
                    locked(&self.tally).refused(&self.seat, asked, &error.to_string());
                    sleep(self.every).await;
                }
                Err(_) => locked(&self.tally).refused(&self.seat, asked, "no connection"),
            }
        }
    }

    /// Asks until the connection breaks, or has lived long enough.
    async fn talk(&self, mut line: Line, opened: Instant) {
        let connected = Instant::now();
        let mut ticks = interval_at(connected.into(), self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut home = None;
        for number in 0.. {
            ticks.tick().await;
            let over = self.seat.life.is_some_and(|life| connected.elapsed() > life);
            if self.stopped() || over || locked(&self.tally).shall_leave(home, connected) {
                locked(&self.tally).left(&self.seat);
                return line.close().await;
            }
            let asked = Instant::now();
            let broken = match timeout(GIVE_UP, line.ask(number)).await {
                Ok(Ok(backend)) => {
                    locked(&self.tally).answered(&self.seat, asked, home, backend);
                    home = Some(backend);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer for {GIVE_UP:?}"),
            };
            // Whose it was is not known before its first answer; it was decided when it was opened.
            let since = if home.is_some() { asked } else { opened };
            return locked(&self.tally).broke(&self.seat, since, home, &broken);
        }
    }
}
