//! A client that asks for a page again and again while something happens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use lb_userspace::lab::{Role, VIP_L2};

use super::{Request, Rig, fetch, inside};

/// Source ports, each used once.
const PORTS: std::ops::Range<u16> = 45_000..60_000;

/// What came of the requests.
#[derive(Debug, Default)]
pub struct Answers {
    /// Answers by backend.
    pub by_backend: BTreeMap<String, u64>,
    /// What went wrong.
    pub failures: Vec<String>,
}

impl Answers {
    /// What a backend answered.
    pub fn of(&self, backend: &str) -> u64 {
        self.by_backend.get(backend).copied().unwrap_or(0)
    }

    /// An error unless there are answers, and nothing else.
    pub fn expect_no_failure(&self) -> anyhow::Result<()> {
        ensure!(self.failures.is_empty() && !self.by_backend.is_empty(), "{self:?}");
        Ok(())
    }
}

/// Requests for the l2 service's page, one connection after the other.
#[derive(Debug)]
pub struct Requests {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<Answers>>>,
}

impl Requests {
    /// Begins.
    pub fn start(rig: &Rig) -> Self {
        let (client, stop) = (rig.lab.netns(Role::Client), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let ask = move || {
            let mut answers = Answers::default();
            for port in PORTS {
                // Time for a SYN to be repeated once: a loaded machine is no failure.
                let to = SocketAddr::from((VIP_L2, 80));
                match fetch(&Request { to, port, limit: Duration::from_secs(4) }) {
                    Ok(name) => *answers.by_backend.entry(name).or_default() += 1,
                    Err(error) => answers.failures.push(format!("port {port}: {error}")),
                }
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            answers
        };
        Self { stop, thread: Some(thread::spawn(move || inside(&client, ask))) }
    }

    /// Ends; what came of it.
    pub fn finish(mut self) -> anyhow::Result<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.thread.take().map(JoinHandle::join);
        joined.and_then(Result::ok).ok_or_else(|| anyhow!("the client panicked"))?
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _answers = thread.join();
        }
    }
}
