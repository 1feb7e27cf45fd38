//! Many long-lived connections that move data all the time, over TCP, UDP and QUIC, and what becomes of them: who answers,
//! what breaks, what stalls. Beside them goes a control set to the backends' own addresses, past the balancer: what is
//! slow there as well is the machine's fault.
//!
//! It knows nothing of the balancer; the test tells it which backends it lets die.

mod farm;
mod lines;
mod seats;
mod tally;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use lb_userspace::lab::Role;

pub use farm::{Farm, LOAD_PORT};
pub use tally::{Fault, Kind, Report, Stall};

use super::{Rig, inside, until};
use tally::Tally;

/// How many connections there shall be, and how busy.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// TCP connections through the balancer.
    pub tcp: usize,
    /// UDP flows through it.
    pub udp: usize,
    /// QUIC connections through it.
    pub quic: usize,
    /// TCP connections to each backend's own address; a tenth of them in QUIC and UDP.
    pub control: usize,
    /// Time between two questions of a connection; those of the control set ask five times as often.
    pub every: Duration,
    /// One connection in so many ends every few seconds, and another takes its seat.
    pub short_lived: usize,
    /// Only what becomes of connections that have had an answer counts: a server that is flooded refuses others.
    pub established_only: bool,
}

impl Default for Wish {
    /// As the issue wants it.
    fn default() -> Self {
        Self {
            tcp: 2000,
            udp: 200,
            quic: 24,
            control: 10,
            every: Duration::from_millis(500),
            short_lived: 10,
            established_only: false,
        }
    }
}

/// Running clients. They end when this is dropped.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Load {
    /// Connects all of them from the client, and waits until each has had an answer.
    pub fn start(rig: &Rig, farm: &Farm, wish: Wish) -> anyhow::Result<Self> {
        let tally = Arc::new(Mutex::new(Tally::new(Instant::now(), wish.established_only)));
        let stop = Arc::new(AtomicBool::new(false));
        let (client, plan) = (rig.lab.netns(Role::Client), seats::plan(farm, wish));
        let (wanted, shared) = (plan.len(), (Arc::clone(&tally), Arc::clone(&stop)));
        let thread =
            thread::spawn(move || inside(&client, move || seats::run(plan, wish, shared.0, shared.1))?);
        let load = Self { tally, stop, thread: Some(thread) };
        until("answers on all connections", Duration::from_secs(60), || {
            let seated = load.read(|tally| tally.seated());
            ensure!(seated >= wanted, "{seated} of {wanted} have one; {} faults", load.faults().len());
            Ok(Some(()))
        })?;
        load.read(Tally::begin);
        Ok(load)
    }

    /// Writes down what happens now.
    pub fn note(&self, what: &str) {
        self.read(|tally| tally.note(what));
    }

    /// From now on this backend's connections may break.
    pub fn dies(&self, backend: u8) {
        self.read(|tally| tally.dies(backend));
    }

    /// It has no slot any more; who is connected from now on is not with it.
    pub fn moved(&self, backend: u8) {
        self.read(|tally| tally.moved(backend));
    }

    /// It serves again; what it breaks from a few seconds on counts.
    pub fn lives(&self, backend: u8) {
        self.read(|tally| tally.lives(backend));
    }

    /// Its clients close the connections that they have now, as clients do, and come again.
    pub fn leave(&self, backend: u8) {
        self.read(|tally| tally.leave(backend));
    }

    /// Connections that have a backend now, by backend: through the balancer only.
    pub fn on(&self, backend: u8) -> usize {
        self.read(|tally| tally.on(backend))
    }

    /// What has broken or moved so far that should not have.
    pub fn faults(&self) -> Vec<Fault> {
        self.read(|tally| tally.unexcused())
    }

    /// An error as soon as something has broken or moved that should not have: a test need not go on to its end.
    pub fn check(&self) -> anyhow::Result<()> {
        let faults = self.faults();
        ensure!(faults.is_empty(), "{} faults, the first: {:?}", faults.len(), faults.first());
        Ok(())
    }

    /// Goes on for so long; an error as soon as something breaks.
    pub fn watch(&self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check()?;
            thread::sleep(Duration::from_millis(100).min(end.saturating_duration_since(Instant::now())));
        }
        self.check()
    }

    /// Ends all; what came of it.
    pub fn finish(mut self) -> anyhow::Result<Report> {
        self.note("ends");
        let report = self.read(|tally| tally.report());
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.thread.take().map(JoinHandle::join);
        joined.and_then(Result::ok).ok_or_else(|| anyhow!("the clients panicked"))??;
        Ok(report)
    }

    fn read<T>(&self, ask: impl FnOnce(&mut Tally) -> T) -> T {
        ask(&mut locked(&self.tally))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test has failed: what was seen so far says why.
            println!("{}", locked(&self.tally).report());
            let _ended = thread.join();
        }
    }
}

fn locked(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
