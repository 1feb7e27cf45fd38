//! Which probes there are, whom they speak for, and what is told of it.

use super::*;
use crate::config;
use crate::health::member::Override;
use crate::model::{Protocol, ServiceId};

mod pace;

const SHARED: &str = "version: 1
services:
  - {name: web, address: 198.51.100.1, protocol: tcp, port: 80, pool: p}
  - {name: tls, address: 198.51.100.1, protocol: tcp, port: 443, pool: p}
pools:
  - name: p
    forwarding: l2
    health_check: CHECK
    backends: [{name: a, address: 192.0.2.1}, {address: 192.0.2.2}]
";

fn model(check: &str) -> Model {
    let loaded = config::parse("test.yaml", &SHARED.replace("CHECK", check));
    loaded.unwrap_or_else(|errors| panic!("{errors}")).model
}

fn fleet(check: &str) -> (Fleet, Instant) {
    let (mut fleet, now) = (Fleet::default(), Instant::now());
    fleet.set_model(&model(check), |_| State::Unknown, now);
    (fleet, now)
}

fn place(port: u16, last: u8) -> Place {
    let id = ServiceId::single([198, 51, 100, 1], Protocol::Tcp, port);
    (id, [192, 0, 2, last].into())
}

fn asks(fleet: &Fleet) -> Vec<Asked> {
    let nowhere = Target::Impossible(String::new());
    let tasks = fleet.tasks(|_, _| nowhere.clone());
    tasks.iter().filter_map(|task| fleet.asked(task.id).map(|(_, asked)| asked)).collect()
}

fn serves(decided: &Decided, place: Place) -> bool {
    decided.uses.get(&place).is_some_and(|use_| use_.serves())
}

#[test]
fn services_share_a_probe_only_where_it_asks_the_same() {
    assert_eq!(asks(&fleet("{type: tcp, via: direct, port: 8080}").0).len(), 2, "a port of its own");
    assert_eq!(asks(&fleet("{type: icmp}").0).len(), 2, "no port");
    assert_eq!(asks(&fleet("{type: tcp, via: direct}").0).len(), 4, "each service's port");
    let (through, _) = fleet("{type: tcp, port: 8080}");
    let both = asks(&through);
    assert_eq!(both.len(), 4, "each through its own service");
    assert!(both.iter().all(|asked| matches!(asked, Asked::Through(_, _, 8080))));
}

#[test]
fn one_result_moves_every_service_it_speaks_for() {
    let (mut fleet, now) = fleet("{type: icmp}");
    let first = fleet.tasks_at(place(80, 1));
    assert_eq!(first, fleet.tasks_at(place(443, 1)));
    fleet.standing(first[0], Standing::Failing, Some("no answer".to_owned()), now);
    fleet.standing(fleet.tasks_at(place(80, 2))[0], Standing::Passing, None, now);
    let decided = fleet.decide(now);
    assert!(!serves(&decided, place(80, 1)) && !serves(&decided, place(443, 1)));
    assert!(serves(&decided, place(80, 2)) && serves(&decided, place(443, 2)));
    let down: Vec<_> = decided.transitions.iter().filter(|change| change.to == State::Down).collect();
    assert_eq!(down.len(), 2);
    assert!(down.iter().all(|change| change.why.as_deref() == Some("no answer") && change.name.is_some()));
    assert!(fleet.decide(now).transitions.is_empty(), "told once");
}

#[test]
fn who_was_there_from_the_start_serves_unproven_and_who_comes_later_waits() {
    let (mut fleet, now) = fleet("{type: icmp}");
    fleet.standing(fleet.tasks_at(place(80, 1))[0], Standing::Passing, None, now);
    assert!(serves(&fleet.decide(now), place(80, 2)), "nothing speaks against it");
    let grown =
        SHARED.replace("CHECK", "{type: icmp}").replace("192.0.2.2}", "192.0.2.2}, {address: 192.0.2.3}");
    fleet.set_model(&config::parse("test.yaml", &grown).unwrap().model, |_| State::Unknown, now);
    let decided = fleet.decide(now);
    assert!(serves(&decided, place(80, 2)), "as before");
    assert!(!serves(&decided, place(80, 3)), "waits for its first probe");
    fleet.standing(fleet.tasks_at(place(80, 3))[0], Standing::Passing, None, now);
    assert!(serves(&fleet.decide(now), place(80, 3)));
}

#[test]
fn another_config_keeps_what_is_known() {
    let (mut fleet, now) = fleet("{type: tcp, via: direct, port: 8080}");
    let first = fleet.tasks_at(place(80, 1));
    fleet.standing(first[0], Standing::Failing, Some("refused".to_owned()), now);
    fleet.decide(now);
    fleet.set_model(&model("{type: tcp, via: direct, port: 8080}"), |_| State::Unknown, now);
    assert_eq!(fleet.tasks_at(place(80, 1)), first);
    assert!(!serves(&fleet.decide(now), place(80, 1)));
    // Asked otherwise now: believed down until the new probe says better.
    fleet.set_model(&model("{type: tcp, via: direct, port: 8081}"), |_| State::Unknown, now);
    assert_ne!(fleet.tasks_at(place(80, 1)), first);
    assert!(!serves(&fleet.decide(now), place(80, 1)));
    let standing = fleet.tasks(|_, _| Target::Impossible(String::new()));
    let task = standing.iter().find(|task| fleet.tasks_at(place(80, 1)).contains(&task.id)).unwrap();
    assert_eq!(task.standing, Standing::Failing, "so that it takes healthy_threshold successes");
}

#[test]
fn the_operators_word_is_about_a_pool() {
    let (mut fleet, now) = fleet("none");
    fleet.set_overrides([(("p".to_owned(), [192, 0, 2, 1].into()), Override::Disable)].into(), now);
    let decided = fleet.decide(now);
    assert_eq!(decided.uses[&place(80, 1)], Use::Out);
    assert_eq!(decided.uses[&place(443, 1)], Use::Out);
    assert!(serves(&decided, place(80, 2)));
    fleet.set_overrides(BTreeMap::new(), now);
    assert!(serves(&fleet.decide(now), place(80, 1)));
}

#[test]
fn what_an_agent_does_not_mention_stays() {
    let text = SHARED.replace("health_check: CHECK", "agent_check: {port: 9000}");
    let (mut fleet, now) = (Fleet::default(), Instant::now());
    fleet.set_model(&config::parse("test.yaml", &text).unwrap().model, |_| State::Unknown, now);
    let agent = fleet.tasks_at(place(80, 1))[0];
    let say = |fleet: &mut Fleet, line: &str| {
        fleet.agent(agent, &crate::health::probe::parse(line).unwrap(), now);
        fleet.decide(now).uses[&place(80, 1)]
    };
    assert_eq!(say(&mut fleet, "50%"), Use::Serving { percent: 50 });
    assert_eq!(say(&mut fleet, "down #full"), Use::Out);
    assert_eq!(say(&mut fleet, "up"), Use::Serving { percent: 50 });
    assert_eq!(say(&mut fleet, "drain"), Use::Draining);
    assert_eq!(say(&mut fleet, "ready 100%"), Use::Serving { percent: 100 });
}
