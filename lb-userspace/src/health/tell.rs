//! How transitions are told: one by one while they are few, as one digest per second while they are many. Knows
//! neither who listens nor why anything changed.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::member::State;
use crate::model::ServiceId;

/// Transitions told one by one within any [`PERIOD`].
const SINGLY: usize = 20;
/// From the first transition that is only counted to the digest that has it.
const PERIOD: Duration = Duration::from_secs(1);

/// A backend of a service changes its state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transition {
    /// The service's name.
    pub service: String,
    /// What traffic it takes.
    pub id: ServiceId,
    /// The backend's address.
    pub backend: IpAddr,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The state it leaves.
    pub from: State,
    /// The state it enters.
    pub to: State,
    /// Why, in words.
    pub why: Option<String>,
}

/// How to tell a transition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tell {
    /// By itself, now.
    Singly,
    /// Not at all: a digest will count it.
    Counted,
}

/// Transitions that were not told one by one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digest {
    /// Backends that came up, on trial or not.
    pub ups: usize,
    /// Backends that went down.
    pub downs: usize,
    /// All else, such as the end of a trial.
    pub others: usize,
    /// How many services these were in.
    pub services: usize,
    /// When the first of them happened.
    pub since: Instant,
}

/// Sums up what is too much to tell.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    told: VecDeque<Instant>,
    pending: Option<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    digest: Digest,
    services: BTreeSet<String>,
}

impl Summary {
    /// Takes a transition in. Once one is counted, all are until the digest: what is told stays in order.
    pub fn push(&mut self, now: Instant, transition: &Transition) -> Tell {
        while self.told.front().is_some_and(|at| now.saturating_duration_since(*at) >= PERIOD) {
            self.told.pop_front();
        }
        if self.pending.is_none() && self.told.len() < SINGLY {
            self.told.push_back(now);
            return Tell::Singly;
        }
        let pending = self.pending.get_or_insert_with(|| Pending {
            digest: Digest { ups: 0, downs: 0, others: 0, services: 0, since: now },
            services: BTreeSet::new(),
        });
        match (transition.from.is_up(), transition.to) {
            (false, State::Up | State::Trial) => pending.digest.ups += 1,
            (_, State::Down) => pending.digest.downs += 1,
            _ => pending.digest.others += 1,
        }
        if !pending.services.contains(&transition.service) {
            pending.services.insert(transition.service.clone());
        }
        Tell::Counted
    }

    /// The digest, if one is due.
    pub fn flush(&mut self, now: Instant) -> Option<Digest> {
        if self.next_timer()? > now {
            return None;
        }
        let pending = self.pending.take()?;
        Some(Digest { services: pending.services.len(), ..pending.digest })
    }

    /// When to call [`Self::flush`]; `None`: nothing is pending.
    pub fn next_timer(&self) -> Option<Instant> {
        self.pending.as_ref().map(|pending| pending.digest.since + PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn transition(service: usize, from: State, to: State) -> Transition {
        let id = ServiceId::single([198, 51, 100, 1], Protocol::Tcp, 80);
        let (service, backend) = (format!("s{service}"), [192, 0, 2, 1].into());
        Transition { service, id, backend, name: None, from, to, why: None }
    }

    fn down(service: usize) -> Transition {
        transition(service, State::Up, State::Down)
    }

    #[test]
    fn twenty_within_any_second_are_told_one_by_one() {
        let (mut summary, start) = (Summary::default(), Instant::now());
        for _ in 0..SINGLY {
            assert_eq!(summary.push(start, &down(0)), Tell::Singly);
        }
        assert_eq!(summary.next_timer(), None);
        assert_eq!(summary.push(start + PERIOD / 2, &down(0)), Tell::Counted);

        let mut steady = Summary::default();
        let at = |n: u32| start + n * PERIOD / 20;
        assert!((0..200).all(|n| steady.push(at(n), &down(0)) == Tell::Singly), "20 per second, for ever");
    }

    #[test]
    fn a_digest_follows_a_second_after_the_first_that_it_counts() {
        let (mut summary, start) = (Summary::default(), Instant::now());
        for service in 0..25 {
            summary.push(start, &down(service % 3));
        }
        let later = start + PERIOD / 2;
        for (from, to) in [
            (State::Down, State::Up),
            (State::Down, State::Trial),
            (State::Trial, State::Up),
            (State::Down, State::Held),
            (State::Held, State::Down),
        ] {
            assert_eq!(summary.push(later, &transition(7, from, to)), Tell::Counted);
        }
        assert_eq!(summary.next_timer(), Some(start + PERIOD));
        assert_eq!(summary.flush(later), None, "not yet");
        let digest = Digest { ups: 2, downs: 6, others: 2, services: 4, since: start };
        assert_eq!(summary.flush(start + PERIOD), Some(digest));
        assert_eq!((summary.flush(start + PERIOD), summary.next_timer()), (None, None));
    }

    #[test]
    fn a_storm_is_twenty_and_one_digest_per_second_and_nothing_is_lost() {
        let (mut summary, start) = (Summary::default(), Instant::now());
        let (mut singly, mut counted, mut digests) = (0, 0, 0);
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            if let Some(digest) = summary.flush(now) {
                counted += digest.downs;
                digests += 1;
            }
            singly += usize::from(summary.push(now, &down(0)) == Tell::Singly);
        }
        counted += summary.flush(start + 20 * PERIOD).map_or(0, |digest| digest.downs);
        assert_eq!(singly + counted, 10_000);
        assert!((8..=11).contains(&digests) && singly <= 220, "{digests} {singly}");
    }

    #[test]
    fn what_is_told_stays_in_order_where_a_digest_is_late() {
        let (mut summary, start) = (Summary::default(), Instant::now());
        for _ in 0..=SINGLY {
            summary.push(start, &down(0));
        }
        assert_eq!(summary.push(start + 5 * PERIOD, &down(0)), Tell::Counted);
        assert_eq!(summary.flush(start + 5 * PERIOD).map(|digest| digest.downs), Some(2));
        assert_eq!(summary.push(start + 5 * PERIOD, &down(0)), Tell::Singly);
    }
}
