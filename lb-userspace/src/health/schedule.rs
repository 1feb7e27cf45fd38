//! When each of up to 100,000 checks is probed: evenly, also after a stall, with few at a time. Knows neither what a
//! check asks nor what came of it; the moment of the next probe is handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A set of checks has its first results after this.
const OPENING: Duration = Duration::from_secs(1);
/// What the bucket holds. With its rate of twice the mean, 10 ms see at most 2.8 times their mean of paced probes.
const BURST: Duration = Duration::from_millis(4);
/// Probes per second that are nothing to any machine: fewer checks than that do not wait for each other.
const EASY_RATE: f64 = 100.0;
/// The shortest interval, and the shortest wait for a token.
const GRAIN: Duration = Duration::from_millis(1);
/// 2^64 divided by the golden ratio: multiples of it, modulo 2^64, fill the circle evenly however many there are.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// How urgent a probe is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Urgency {
    /// In its turn.
    Paced,
    /// Something is about to be decided: it overtakes all that are paced.
    Urgent,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Waiting { urgency: Urgency, at: Instant },
    InFlight { urgency: Urgency, again: Option<Instant> },
}

/// How far a check has come on the way to its own phase, which its checks keep from then on but for their jitter.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Not probed yet.
    Opening(Instant),
    /// Its first round of ordinary probes still follows the crowd it was inserted with.
    Aligning(Instant),
    /// Found.
    Own,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    interval: Duration,
    place: Place,
    phase: Phase,
}

/// All checks, waiting and in flight.
#[derive(Clone, Debug)]
pub struct Schedule<Id> {
    limit: usize,
    entries: BTreeMap<Id, Entry>,
    paced: BTreeSet<(Instant, Id)>,
    urgent: BTreeSet<(Instant, Id)>,
    paced_in_flight: usize,
    urgent_in_flight: usize,
    inserted: u64,
    /// Probes per second if each check kept its interval.
    mean: f64,
    opening: usize,
    /// Probes per second, beyond the mean, that let those opening be probed in time; stays until the last of them is.
    opening_rate: f64,
    tokens: f64,
    refilled: Option<Instant>,
}

impl<Id: Copy + Ord> Schedule<Id> {
    /// An empty schedule that has at most `limit_in_flight` probes under way, at least one.
    pub fn new(limit_in_flight: usize) -> Self {
        Self {
            limit: limit_in_flight.max(1),
            entries: BTreeMap::new(),
            paced: BTreeSet::new(),
            urgent: BTreeSet::new(),
            paced_in_flight: 0,
            urgent_in_flight: 0,
            inserted: 0,
            mean: 0.0,
            opening: 0,
            opening_rate: 0.0,
            tokens: 0.0,
            refilled: None,
        }
    }

    /// Adds a check, or starts it anew. It is first probed within a second, or `interval` if that is shorter; from the
    /// second time on in a phase of its own within `interval`.
    pub fn insert(&mut self, id: Id, now: Instant, interval: Duration) {
        self.remove(id);
        let interval = interval.max(GRAIN);
        let span = interval.min(OPENING);
        let place = self.inserted.wrapping_mul(GOLDEN) as f64 / 2f64.powi(64);
        self.inserted = self.inserted.wrapping_add(1);
        // The second round begins where the first ends, and never later than an interval after a check's first probe.
        let phase = Phase::Opening(now + span + interval.mul_f64(place));
        let waiting = Place::Waiting { urgency: Urgency::Paced, at: now };
        self.entries.insert(id, Entry { interval, place: waiting, phase });
        self.mean += per_second(interval);
        self.opening += 1;
        self.opening_rate += per_second(span) - per_second(interval);
        self.wait(id, Urgency::Paced, now + span.mul_f64(place));
    }

    /// Forgets a check. A probe of it that is in flight is taken to be cancelled and gives its place back.
    pub fn remove(&mut self, id: Id) {
        let Some(entry) = self.entries.remove(&id) else { return };
        match entry.place {
            Place::Waiting { urgency, at } => {
                self.queue(urgency).remove(&(at, id));
            }
            Place::InFlight { urgency, .. } => self.land(urgency),
        }
        if let Phase::Opening(_) = entry.phase {
            self.opened();
        }
        self.mean = if self.entries.is_empty() { 0.0 } else { self.mean - per_second(entry.interval) };
    }

    /// A probe has ended; the next one starts at `at`, or earlier this once where that keeps checks apart. Ignored
    /// unless one is in flight.
    pub fn reschedule(&mut self, id: Id, at: Instant, urgency: Urgency) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Place::InFlight { urgency: flown, again } = entry.place else { return };
        let (urgency, at) = match (again, urgency, entry.phase) {
            (Some(asked), ..) => (Urgency::Urgent, asked.min(at)),
            (None, Urgency::Paced, Phase::Aligning(anchor)) => {
                entry.phase = Phase::Own;
                (urgency, align(anchor, entry.interval, at))
            }
            _ => (urgency, at),
        };
        self.land(flown);
        self.wait(id, urgency, at);
    }

    /// Something speaks against the check's standing: it is probed at once, or right after the probe in flight.
    pub fn hurry(&mut self, id: Id, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match &mut entry.place {
            Place::InFlight { again, .. } => *again = Some(now),
            Place::Waiting { urgency, at } => {
                let (urgency, at) = (*urgency, *at);
                self.queue(urgency).remove(&(at, id));
                self.wait(id, Urgency::Urgent, at.min(now));
            }
        }
    }

    /// The checks to probe now, the urgent first; they are in flight from here on.
    pub fn due(&mut self, now: Instant) -> Vec<Id> {
        self.refill(now);
        let mut due = Vec::new();
        while self.has_room(Urgency::Urgent)
            && let Some(id) = pop(&mut self.urgent, now)
        {
            self.start(id, Urgency::Urgent);
            due.push(id);
        }
        while self.has_room(Urgency::Paced)
            && self.tokens >= 1.0
            && let Some(id) = pop(&mut self.paced, now)
        {
            self.tokens -= 1.0;
            self.start(id, Urgency::Paced);
            due.push(id);
        }
        due
    }

    /// When to call [`Self::due`] again, unless something is inserted, hurried or rescheduled before; `None`: only
    /// then.
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let urgent = self.urgent.first().filter(|_| self.has_room(Urgency::Urgent)).map(|(at, _)| *at);
        let paced = self.paced.first().filter(|_| self.has_room(Urgency::Paced)).map(|(at, _)| {
            let missing = Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / self.rate());
            match self.refilled.map(|refilled| refilled + missing) {
                // A token that is a rounding away is not there yet.
                Some(token) if self.tokens < 1.0 && token >= *at => token.max(now + GRAIN),
                _ => *at,
            }
        });
        urgent.into_iter().chain(paced).min()
    }

    /// How many probes are under way.
    pub fn in_flight(&self) -> usize {
        self.paced_in_flight + self.urgent_in_flight
    }

    /// A quarter of the places is kept from the urgent: where thousands time out, the others are still looked after.
    fn has_room(&self, urgency: Urgency) -> bool {
        let urgent = self.limit - self.limit / 4;
        self.in_flight() < self.limit && (urgency == Urgency::Paced || self.urgent_in_flight < urgent)
    }

    /// Probes per second that the bucket lets through.
    fn rate(&self) -> f64 {
        EASY_RATE.max(2.0 * self.mean).max(self.mean + self.opening_rate)
    }

    fn refill(&mut self, now: Instant) {
        let rate = self.rate();
        let capacity = (rate * BURST.as_secs_f64()).max(1.0);
        let gained = self.refilled.map_or(capacity, |refilled| {
            let elapsed = now.saturating_duration_since(refilled);
            elapsed.as_secs_f64() * rate
        });
        self.tokens = (self.tokens + gained).min(capacity);
        self.refilled = self.refilled.max(Some(now));
    }

    fn queue(&mut self, urgency: Urgency) -> &mut BTreeSet<(Instant, Id)> {
        match urgency {
            Urgency::Paced => &mut self.paced,
            Urgency::Urgent => &mut self.urgent,
        }
    }

    fn flying(&mut self, urgency: Urgency) -> &mut usize {
        match urgency {
            Urgency::Paced => &mut self.paced_in_flight,
            Urgency::Urgent => &mut self.urgent_in_flight,
        }
    }

    fn wait(&mut self, id: Id, urgency: Urgency, at: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.place = Place::Waiting { urgency, at };
            self.queue(urgency).insert((at, id));
        }
    }

    fn start(&mut self, id: Id, urgency: Urgency) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.place = Place::InFlight { urgency, again: None };
        if let Phase::Opening(anchor) = entry.phase {
            entry.phase = Phase::Aligning(anchor);
            self.opened();
        }
        *self.flying(urgency) += 1;
    }

    fn land(&mut self, urgency: Urgency) {
        let flying = self.flying(urgency);
        *flying = flying.saturating_sub(1);
    }

    fn opened(&mut self) {
        self.opening = self.opening.saturating_sub(1);
        if self.opening == 0 {
            self.opening_rate = 0.0;
        }
    }
}

fn per_second(interval: Duration) -> f64 {
    interval.as_secs_f64().recip()
}

/// The last moment up to `at` that is whole intervals after `anchor`; `at` itself before that.
fn align(anchor: Instant, interval: Duration, at: Instant) -> Instant {
    let beyond = at.saturating_duration_since(anchor).as_nanos() % interval.as_nanos().max(1);
    at.checked_sub(Duration::from_nanos(u64::try_from(beyond).unwrap_or(0))).unwrap_or(at)
}

fn pop<Id: Copy + Ord>(queue: &mut BTreeSet<(Instant, Id)>, now: Instant) -> Option<Id> {
    let (at, id) = *queue.first()?;
    (at <= now).then(|| {
        queue.pop_first();
        id
    })
}

#[cfg(test)]
mod tests;
