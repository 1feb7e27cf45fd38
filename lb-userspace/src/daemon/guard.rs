//! Guard rails: changes that are more likely a mistake than an intention. Pure.
//!
//! What counts is who takes new flows in the data plane now, by config, health and the operator's word together: so it
//! does not matter how a config arrives, nor what was known of the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::abi::BackendState;

use super::leaving::Numbers;
use super::{Finding, InForce};
use crate::model::{Backend, Model, ServiceId};

/// Findings against going from a data plane with these backends to `new`, under the operator's words: of those that take a
/// service's new flows no more than half may leave at once, and at least half as many must take them afterwards. Of the
/// services that take flows no more than half may go at once: a config that was cut short looks like that.
pub(super) fn guard(there: &Numbers, words: &[InForce], new: &Model) -> Vec<Finding> {
    let mut takers: BTreeMap<ServiceId, BTreeSet<IpAddr>> = BTreeMap::new();
    for ((service, backend), _) in there.iter().filter(|(_, (_, state))| *state == BackendState::Up) {
        takers.entry(*service).or_default().insert(*backend);
    }
    let backends = takers.iter().filter_map(|(service, before)| one(*service, before, there, words, new));
    backends.chain(gone(takers.keys(), new)).collect()
}

fn gone<'s>(present: impl ExactSizeIterator<Item = &'s ServiceId>, new: &Model) -> Option<Finding> {
    let of = present.len();
    let gone: Vec<String> = present
        .filter(|id| new.services.iter().all(|service| service.id != **id))
        .map(ToString::to_string)
        .collect();
    let few = gone.len() * 2 <= of;
    (!few).then(|| {
        Finding::error(
            "LB043",
            format!("{} of {of} services that take flows would go at once: {}", gone.len(), gone.join(", ")),
            "their connections would break; if that is meant, use `lb apply --force`",
        )
    })
}

fn one(
    id: ServiceId,
    before: &BTreeSet<IpAddr>,
    there: &Numbers,
    words: &[InForce],
    new: &Model,
) -> Option<Finding> {
    let after = new.services.iter().find(|after| after.id == id)?;
    let spoken =
        |b: &Backend| words.iter().any(|word| (&word.pool, word.backend) == (&after.pool, b.address));
    let down =
        |b: &Backend| there.get(&(id, b.address)).is_some_and(|(_, state)| *state == BackendState::Down);
    let able = |b: &&Backend| b.effective_weight() > 0 && !down(b) && !spoken(b);
    let able = after.backends.iter().filter(able).count();
    let leaving = before.iter().filter(|old| after.backends.iter().all(|b| b.address != **old)).count();
    // Who drains stays, and others may take its place; who leaves is looked at more closely.
    let stopping = leaving.max(before.len().saturating_sub(able));
    if leaving * 2 <= before.len() && able * 2 >= before.len() {
        return None;
    }
    let what =
        if stopping == before.len() { "all".to_owned() } else { format!("{stopping} of {}", before.len()) };
    Some(Finding::error(
        "LB030",
        format!("service {} ({id}): {what} backends that take new flows would stop at once", after.name),
        "remove or drain at most half of them at a time, or use `lb apply --force`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn model(backends: &[&str]) -> Model {
        let backends: String = backends.iter().map(|b| format!("{{address: 203.0.113.{b}}}, ")).collect();
        let text = format!(
            "version: 1\nservices: [{{name: web, address: 198.51.100.1, protocol: tcp, port: 80, forwarding: l2, \
             backends: [{backends}]}}]"
        );
        config::parse("test.yaml", &text).unwrap().model
    }

    /// The states of backends 1, 2, … of the service.
    fn there(states: &[BackendState]) -> Numbers {
        let service = model(&["9"]).services[0].id;
        let place = |number: u8| (service, IpAddr::from([203, 0, 113, number]));
        (1..).zip(states).map(|(number, state)| (place(number), (number.into(), *state))).collect()
    }

    use BackendState::{Down, Draining, Up};

    fn refusal(states: &[BackendState], backends: &[&str]) -> Option<String> {
        refusal_under(&[], states, backends)
    }

    fn refusal_under(words: &[InForce], states: &[BackendState], backends: &[&str]) -> Option<String> {
        let findings = guard(&there(states), words, &model(backends));
        assert!(findings.len() <= 1 && findings.iter().all(|finding| finding.fatal));
        findings.first().map(|finding| format!("{} {}", finding.code, finding.message))
    }

    #[test]
    fn up_to_half_of_those_that_take_new_flows_may_stop() {
        let four = [Up; 4];
        assert_eq!(refusal(&four, &["1", "2"]), None);
        assert_eq!(refusal(&four, &["1", "2", "5", "6"]), None);
        assert!(refusal(&four, &["1"]).unwrap().contains("LB030"));
        assert!(refusal(&four, &["1"]).unwrap().contains("3 of 4 backends"));
        assert!(refusal(&four, &["5", "6", "7", "8"]).unwrap().contains("all backends"));
        assert_eq!(refusal(&[Up], &["1", "2", "3", "4"]), None, "adding");
    }

    #[test]
    fn it_does_not_matter_how_they_stop() {
        let (weight, drain) = (", weight: 0", ", drain: true");
        for (second, third) in [(weight, weight), (drain, drain), (weight, drain)] {
            let backends = ["1".to_owned(), format!("2{second}"), format!("3{third}")];
            let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
            assert!(refusal(&[Up; 3], &backends).unwrap().contains("2 of 3"));
            assert_eq!(refusal(&[Up; 3], &["1", backends[1], "3"]), None);
        }
    }

    #[test]
    fn others_may_take_the_place_of_those_that_drain() {
        assert_eq!(refusal(&[Up], &["1, drain: true", "2", "3"]), None);
        assert_eq!(refusal(&[Up, Draining], &["1, drain: true", "2"]), None, "they change places");
        assert!(refusal(&[Up], &["2", "3"]).unwrap().contains("all backends"), "it leaves");
    }

    #[test]
    fn the_last_one_that_works_stays() {
        // The operator has drained the second one, and the third one has failed.
        let states = [Up, Draining, Down];
        let word = InForce {
            pool: "web".to_owned(),
            backend: [203, 0, 113, 2].into(),
            name: None,
            word: crate::daemon::Word::Drain,
            since: 0,
            until: None,
            deadline: None,
            reason: None,
        };
        let refusal = |states: &[BackendState], backends: &[&str]| {
            refusal_under(std::slice::from_ref(&word), states, backends)
        };
        assert!(refusal(&states, &["2", "3"]).unwrap().contains("all backends"));
        assert!(refusal(&states, &["1, drain: true", "2", "3"]).unwrap().contains("all backends"));
        assert_eq!(refusal(&states, &["1"]), None, "the others take no new flows");
        assert_eq!(refusal(&[Down, Down], &["3"]), None, "nothing is lost");
    }

    #[test]
    fn half_of_the_services_that_take_flows_may_go() {
        let other = Model { services: Vec::new(), ..model(&["1"]) };
        let mut two = there(&[Up]);
        let second = ServiceId { port: 81, last_port: 81, ..model(&["9"]).services[0].id };
        two.insert((second, IpAddr::from([203, 0, 113, 1])), (9, Up));
        assert!(guard(&two, &[], &model(&["1"])).is_empty());
        assert!(guard(&two, &[], &other)[0].message.contains("2 of 2 services"));
        assert_eq!(guard(&there(&[Up, Up]), &[], &other)[0].code, "LB043");
        assert!(guard(&there(&[Draining, Down]), &[], &other).is_empty());
        assert!(guard(&Numbers::new(), &[], &other).is_empty());
    }
}
