//! `lb events` as a program that follows it would: each line when it comes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::{Rig, until};

/// Lines, with the time of their arrival.
type Seen = Arc<Mutex<Vec<(Instant, Value)>>>;

/// A running `lb events`; it ends when this is dropped.
#[derive(Debug)]
pub struct Listener {
    child: Child,
    seen: Seen,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Starts it and waits until the daemon has accepted it.
    pub fn start(rig: &Rig) -> anyhow::Result<Self> {
        let mut child =
            rig.lb_command(["events"]).stdout(Stdio::piped()).spawn().context("starting lb events")?;
        let out = child.stdout.take().context("lb events without output")?;
        let seen = Seen::default();
        let into = Arc::clone(&seen);
        let thread = thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                into.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), value));
            }
        });
        let listener = Self { child, seen, thread: Some(thread) };
        let directory = format!("/proc/{}/fd", listener.child.id());
        until("lb events connected", Duration::from_secs(5), || {
            let mut open = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            let is_socket = |path: std::path::PathBuf| path.to_string_lossy().starts_with("socket:");
            Ok(open.any(|entry| std::fs::read_link(entry.path()).is_ok_and(is_socket)).then_some(()))
        })?;
        // Asked after it, the daemon answers after it.
        rig.status()?;
        Ok(listener)
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<(Instant, Value)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line; the time when it came, and what it says.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<(Instant, Value)> {
        until(&format!("the event {what}"), Duration::from_secs(20), || {
            let all = self.all();
            let found = all.iter().find(|(_, event)| wanted(event)).cloned();
            anyhow::ensure!(found.is_some(), "events: {all:?}");
            Ok(found)
        })
    }

    /// Waits for a backend's change to a state.
    pub fn wait_change(&self, backend: &str, to: &str) -> anyhow::Result<(Instant, Value)> {
        self.wait(&format!("{backend} → {to}"), |event| event["name"] == backend && event["to"] == to)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _collected = self.child.wait();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
