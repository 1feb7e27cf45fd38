//! Tells of changes: a log line, a line of JSON to whoever listens at the control socket, and the operator's command.

use std::time::Instant;

use serde_json::json;
use tokio::sync::broadcast;

use super::{Saved, Word};
use crate::health::decide::Alarm;
use crate::health::fleet::Decided;
use crate::health::hook::Hook;
use crate::health::member::State;
use crate::health::tell::{Digest, Summary, Tell, Transition};
use crate::health::view::{alarm_words, state_word};

/// Changes that a slow listener may lag behind before it loses some.
const BACKLOG: usize = 4096;

/// Everybody who wants to know.
#[derive(Debug)]
pub(super) struct Teller {
    summary: Summary,
    hook: Hook,
    on_change: Vec<String>,
    listeners: broadcast::Sender<String>,
}

impl Teller {
    pub(super) fn new(hook: Hook) -> Self {
        let (listeners, _) = broadcast::channel(BACKLOG);
        Self { summary: Summary::default(), hook, on_change: Vec::new(), listeners }
    }

    /// Sets the operator's command.
    pub(super) fn on_change(&mut self, command: &[String]) {
        self.on_change = command.to_vec();
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<String> {
        self.listeners.subscribe()
    }

    /// When a summary is due.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.summary.next_timer()
    }

    /// Tells of what a decision has changed, and of what has been summed up.
    pub(super) fn tell(&mut self, decided: &Decided, now: Instant) {
        for transition in &decided.transitions {
            if self.summary.push(now, transition) == Tell::Singly {
                log(transition);
            }
            self.event(&json!({
                "event": "state",
                "at": Saved::now(),
                "service": transition.service,
                "id": transition.id.to_string(),
                "backend": transition.backend,
                "name": transition.name,
                "from": state_word(transition.from),
                "to": state_word(transition.to),
                "reason": transition.why,
            }));
        }
        if let Some(digest) = self.summary.flush(now) {
            let Digest { ups, downs, others, services, .. } = digest;
            tracing::warn!(up = ups, down = downs, other = others, services, "many backends change state");
        }
        for (service, alarm) in &decided.alarms {
            let words = alarm.map(alarm_words);
            match alarm {
                Some(Alarm::Rejecting | Alarm::AllDown { .. } | Alarm::MassFailure { .. }) => {
                    tracing::error!(service, alarm = words.as_deref(), "service alarm");
                }
                None => tracing::info!(service, "service alarm over"),
            }
            self.event(&json!({"event": "alarm", "at": Saved::now(), "service": service, "alarm": words}));
        }
    }

    /// Tells of the operator's word about a backend.
    pub(super) fn operator(&self, backend: &str, word: Word, reason: Option<&str>) {
        tracing::info!(backend, ?word, reason, "operator's word");
        self.event(&json!({
            "event": "operator",
            "at": Saved::now(),
            "backend": backend,
            "word": word,
            "reason": reason,
        }));
    }

    fn event(&self, event: &serde_json::Value) {
        let line = event.to_string();
        self.hook.tell(&self.on_change, &line);
        let _nobody_listens = self.listeners.send(line);
    }
}

fn log(transition: &Transition) {
    let Transition { service, id, backend, name, from, to, why } = transition;
    let (from, to) = (state_word(*from), state_word(*to));
    let (name, reason) = (name.as_deref(), why.as_deref());
    if transition.to == State::Down {
        tracing::warn!(service, %id, %backend, name, from, to, reason, "backend changes state");
    } else {
        tracing::info!(service, %id, %backend, name, from, to, "backend changes state");
    }
}
