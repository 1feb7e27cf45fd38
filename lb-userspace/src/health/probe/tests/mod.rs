//! Probes of small servers on loopback.

mod agent;
mod http;
mod icmp;
mod server;
mod tcp;
mod tls;
mod udp;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::{Dial, Failure, Outcome, prober, run};
use crate::model::CheckKind;

/// Longer than anything takes that does not wait for ever.
const LONG: Duration = Duration::from_secs(20);

/// For what waits for ever.
const SHORT: Duration = Duration::from_millis(400);

async fn probe(check: &CheckKind, dial: &Dial, timeout: Duration) -> Outcome {
    run(&*prober(check).unwrap(), dial, timeout).await
}

/// What comes of a probe of `target`.
async fn result(check: &CheckKind, target: SocketAddr) -> Result<(), Failure> {
    probe(check, &Dial::to(target), LONG).await.result
}

/// The words and label of a failure; empty: none.
fn words(result: Result<(), Failure>) -> (String, &'static str) {
    result.err().map_or((String::new(), ""), |failure| (failure.to_string(), failure.label()))
}

/// The words of a failure that is waited for.
async fn words_after_waiting(check: &CheckKind, target: SocketAddr) -> String {
    words(probe(check, &Dial::to(target), SHORT).await.result).0
}

/// A port that nobody uses, and that the kernel does not give to other tests: it chooses from 32768 on.
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let start = 12_000 + (std::process::id() % 15_000) as u16;
    let mut ports = std::iter::repeat_with(|| start + TAKEN.fetch_add(1, Ordering::Relaxed));
    ports.find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).unwrap()
}
