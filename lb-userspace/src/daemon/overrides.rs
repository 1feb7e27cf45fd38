//! The operator's words about backends: drain, disable, enable. They survive apply, restart and reboot. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Finding;
use crate::health::fleet::Place;
use crate::health::member::Override;
use crate::model::{Backend, Model, Service};

/// A word about a backend.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// No new flows.
    Drain,
    /// No flows.
    Disable,
    /// As the config and its checks say.
    Enable,
}

/// What the operator asks for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Order {
    /// `BACKEND` or `POOL/BACKEND`, the backend by name or address.
    pub backend: String,
    /// The word.
    pub word: Word,
    /// When it ends by itself, in seconds since 1970.
    pub until: Option<u64>,
    /// When what is left of its flows moves, in seconds since 1970; only with [`Word::Drain`].
    #[serde(default)]
    pub deadline: Option<u64>,
    /// Why, for whoever reads it later.
    pub reason: Option<String>,
    /// Also where a service is left without a backend that takes new flows.
    pub force: bool,
}

/// A word in force.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InForce {
    /// The pool.
    pub pool: String,
    /// The backend's address.
    pub backend: IpAddr,
    /// The backend's name when it was given, if it had one.
    #[serde(default)]
    pub name: Option<String>,
    /// Drain or disable.
    pub word: Word,
    /// When it was given, in seconds since 1970.
    pub since: u64,
    /// When it ends, in seconds since 1970.
    pub until: Option<u64>,
    /// When what is left of the backend's flows moves, in seconds since 1970. The word goes on.
    #[serde(default)]
    pub deadline: Option<u64>,
    /// Why.
    pub reason: Option<String>,
}

/// All words after another order, and whom it is about; `down` are backends that nothing could be left to.
pub(super) fn follow(
    model: &Model,
    present: &[InForce],
    order: &Order,
    down: &BTreeSet<Place>,
    now: u64,
) -> Result<(Vec<InForce>, Vec<String>), Finding> {
    let mut meant = find(model, &order.backend);
    if order.word == Word::Enable {
        // A word may outlive its backend's place in the config: it can still be taken back.
        let (pool, backend) = parts(&order.backend);
        let named = |word: &&InForce| {
            let is_it = word.name.as_deref() == Some(backend) || word.backend.to_string() == backend;
            is_it && pool.is_none_or(|pool| word.pool == pool)
        };
        meant.extend(orphans(model, present).filter(named).map(|word| (word.pool.clone(), word.backend)));
    }
    if meant.is_empty() {
        return Err(unknown(model, &order.backend));
    }
    let mut words: Vec<InForce> =
        present.iter().filter(|word| !meant.contains(&(word.pool.clone(), word.backend))).cloned().collect();
    if order.word != Word::Enable {
        words.extend(meant.iter().map(|(pool, backend)| InForce {
            pool: pool.clone(),
            backend: *backend,
            name: name_of(model, pool, *backend),
            word: order.word,
            since: now,
            until: order.until,
            deadline: order.deadline.filter(|_| order.word == Word::Drain),
            reason: order.reason.clone(),
        }));
        let alone = left_alone(model, present, &words, &meant, down);
        if let Some(finding) = alone.filter(|_| !order.force) {
            return Err(finding);
        }
    }
    Ok((words, meant.into_iter().map(|(pool, backend)| format!("{pool}/{backend}")).collect()))
}

/// Words about backends that no service of a model has.
pub fn orphans<'w>(model: &Model, words: &'w [InForce]) -> impl Iterator<Item = &'w InForce> {
    words.iter().filter(|word| !lists(model, word))
}

fn lists(model: &Model, word: &InForce) -> bool {
    let mut services = model.services.iter().filter(|service| service.pool == word.pool);
    services.any(|service| service.backends.iter().any(|backend| backend.address == word.backend))
}

/// What the operator should know where `after` lists backends that `before` did not, and that words are about.
pub(super) fn returning(before: &Model, after: &Model, words: &[InForce]) -> Vec<Finding> {
    let back = orphans(before, words).filter(|word| lists(after, word));
    let tell = |word: &InForce| {
        let (name, done) = (
            format!("{}/{}", word.pool, word.backend),
            if word.word == Word::Drain { "draining" } else { "disabled" },
        );
        Finding::warning(
            "LB049",
            format!("{name} is {done} from the start: the operator's word about it is still in force"),
            &format!("`lb enable {name}` takes it back"),
        )
    };
    back.map(tell).collect()
}

fn name_of(model: &Model, pool: &str, address: IpAddr) -> Option<String> {
    let services = model.services.iter().filter(|service| service.pool == pool);
    services.flat_map(|service| &service.backends).find(|b| b.address == address)?.name.clone()
}

/// `POOL/BACKEND`, or `BACKEND` alone.
fn parts(text: &str) -> (Option<&str>, &str) {
    text.split_once('/').map_or((None, text), |(pool, backend)| (Some(pool), backend))
}

/// The backends that the operator means, by pool.
fn find(model: &Model, text: &str) -> BTreeSet<(String, IpAddr)> {
    let (pool, backend) = parts(text);
    let services = model.services.iter().filter(|service| pool.is_none_or(|pool| service.pool == pool));
    let backends = services.flat_map(|service| service.backends.iter().map(move |b| (service, b)));
    backends
        .filter(|(_, b)| b.name.as_deref() == Some(backend) || b.address.to_string() == backend)
        .map(|(service, b)| (service.pool.clone(), b.address))
        .collect()
}

fn unknown(model: &Model, text: &str) -> Finding {
    const SHOWN: usize = 8;
    let all: BTreeSet<String> = model
        .services
        .iter()
        .flat_map(|service| service.backends.iter().map(move |b| format!("{}/{}", service.pool, b.address)))
        .collect();
    let shown: Vec<&str> = all.iter().take(SHOWN).map(String::as_str).collect();
    let more = if all.len() > SHOWN { ", …" } else { "" };
    Finding::error("LB042", format!("no backend {text}"), &format!("there are {}{more}", shown.join(", ")))
}

/// A service that would have nobody left for new flows.
fn left_alone(
    model: &Model,
    before: &[InForce],
    after: &[InForce],
    meant: &BTreeSet<(String, IpAddr)>,
    down: &BTreeSet<Place>,
) -> Option<Finding> {
    let concerned =
        model.services.iter().filter(|service| meant.iter().any(|(pool, _)| *pool == service.pool));
    let left = |service: &Service, words: &[InForce]| {
        let spoken = |b: &Backend| words.iter().any(|w| w.pool == service.pool && w.backend == b.address);
        let able = |b: &&Backend| b.effective_weight() > 0 && !down.contains(&(service.id, b.address));
        service.backends.iter().filter(able).any(|b| !spoken(b))
    };
    // One that had nobody before loses nothing.
    let alone = |service: &&Service| left(service, before) && !left(service, after);
    let service = concerned.into_iter().find(alone)?;
    Some(Finding::error(
        "LB041",
        format!("service {} would have no backend that takes new flows", service.name),
        "enable or mend another one first, or use --force",
    ))
}

/// Words that have not ended, and those that have.
pub(super) fn split(words: &[InForce], now: u64) -> (Vec<InForce>, Vec<InForce>) {
    words.iter().cloned().partition(|word| word.until.is_none_or(|until| until > now))
}

/// How long until the next one ends.
pub(super) fn next_end(words: &[InForce], now: u64) -> Option<Duration> {
    let until = words.iter().filter_map(|word| word.until).min()?;
    Some(Duration::from_secs(until.saturating_sub(now)))
}

/// Words that have not ended.
pub(super) fn current(words: &[InForce], now: u64) -> Vec<InForce> {
    split(words, now).0
}

/// The words as the decision about a backend takes them.
pub(super) fn by_place(words: &[InForce]) -> BTreeMap<(String, IpAddr), Override> {
    let word = |word: &InForce| {
        let meant = match word.word {
            Word::Drain => Override::Drain,
            Word::Disable => Override::Disable,
            Word::Enable => return None,
        };
        Some(((word.pool.clone(), word.backend), meant))
    };
    words.iter().filter_map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn model() -> Model {
        let text = "version: 1\nservices:\n  - {name: web, address: 198.51.100.1, protocol: tcp, port: 80, pool: p}\n\
                    \x20 - {name: tls, address: 198.51.100.1, protocol: tcp, port: 443, pool: p}\n\
                    pools: [{name: p, forwarding: l2, backends: [{name: a, address: 192.0.2.1}, {address: 192.0.2.2}]}]\n";
        config::parse("test.yaml", text).unwrap().model
    }

    fn order(backend: &str, word: Word) -> Order {
        Order {
            backend: backend.to_owned(),
            word,
            until: Some(100),
            deadline: None,
            reason: None,
            force: false,
        }
    }

    #[test]
    fn a_backend_is_named_in_four_ways() {
        for text in ["a", "192.0.2.1", "p/a", "p/192.0.2.1"] {
            let (words, meant) =
                follow(&model(), &[], &order(text, Word::Drain), &BTreeSet::new(), 7).unwrap();
            assert_eq!(meant, ["p/192.0.2.1"]);
            let there = (words[0].backend.to_string(), words[0].word, words[0].since, words[0].until);
            assert_eq!(there, ("192.0.2.1".to_owned(), Word::Drain, 7, Some(100)));
        }
        for text in ["b", "q/a", "192.0.2.3", "p/", ""] {
            let finding = follow(&model(), &[], &order(text, Word::Drain), &BTreeSet::new(), 0).unwrap_err();
            assert_eq!(finding.code, "LB042", "{text}");
            assert!(finding.help.contains("p/192.0.2.1"));
        }
    }

    #[test]
    fn the_last_word_counts_until_it_ends() {
        let (words, _) = follow(&model(), &[], &order("a", Word::Drain), &BTreeSet::new(), 0).unwrap();
        let (words, _) = follow(&model(), &words, &order("a", Word::Disable), &BTreeSet::new(), 0).unwrap();
        assert_eq!(
            by_place(&words),
            BTreeMap::from([(("p".to_owned(), [192, 0, 2, 1].into()), Override::Disable)])
        );
        assert_eq!(current(&words, 99).len(), 1);
        assert_eq!(current(&words, 100), []);
        let (words, _) = follow(&model(), &words, &order("a", Word::Enable), &BTreeSet::new(), 0).unwrap();
        assert_eq!(words, []);
    }

    #[test]
    fn a_word_about_a_backend_that_is_gone_can_be_taken_back() {
        let both = model();
        let (words, _) = follow(&both, &[], &order("a", Word::Drain), &BTreeSet::new(), 0).unwrap();
        let mut one = both.clone();
        one.services.iter_mut().for_each(|service| service.backends.retain(|b| b.name.is_none()));
        assert_eq!(orphans(&both, &words).count(), 0);
        assert_eq!(orphans(&one, &words).count(), 1);
        for text in ["a", "p/a", "192.0.2.1", "p/192.0.2.1"] {
            let enabled = follow(&one, &words, &order(text, Word::Enable), &BTreeSet::new(), 0);
            assert_eq!(enabled.unwrap(), (Vec::new(), vec!["p/192.0.2.1".to_owned()]), "{text}");
            let drained = follow(&one, &words, &order(text, Word::Drain), &BTreeSet::new(), 0);
            assert_eq!(drained.unwrap_err().code, "LB042", "{text}");
        }
        for text in ["q/a", "192.0.2.3"] {
            assert!(follow(&one, &words, &order(text, Word::Enable), &BTreeSet::new(), 0).is_err(), "{text}");
        }
        assert!(returning(&both, &one, &words).is_empty() && returning(&both, &both, &words).is_empty());
        let told = returning(&one, &both, &words);
        assert!(told.len() == 1 && told[0].help.contains("lb enable p/192.0.2.1"), "{told:?}");
    }

    #[test]
    fn the_last_backend_stays_unless_forced() {
        let (words, _) = follow(&model(), &[], &order("a", Word::Disable), &BTreeSet::new(), 0).unwrap();
        let last = order("192.0.2.2", Word::Drain);
        assert_eq!(follow(&model(), &words, &last, &BTreeSet::new(), 0).unwrap_err().code, "LB041");
        assert!(follow(&model(), &words, &Order { force: true, ..last }, &BTreeSet::new(), 0).is_ok());
    }

    #[test]
    fn one_that_is_down_is_nobody_to_leave_a_service_to() {
        let model = model();
        let down = BTreeSet::from([(model.services[0].id, [192, 0, 2, 2].into())]);
        let first = follow(&model, &[], &order("a", Word::Drain), &down, 0);
        assert_eq!(first.unwrap_err().code, "LB041");
        assert!(follow(&model, &[], &order("192.0.2.2", Word::Drain), &down, 0).is_ok());
    }
}
