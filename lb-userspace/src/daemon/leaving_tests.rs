//! Who leaves, for how long, and what it is in nobody's way for.

use std::time::Duration;

use super::*;
use crate::config;
use crate::model::DrainRules;

const WEB: &str = "198.51.100.1:80/tcp";

fn model(last: &[u8]) -> Model {
    let backends: String = last.iter().map(|n| format!("{{address: 203.0.113.{n}}}, ")).collect();
    let text = format!(
        "version: 1\nservices: [{{name: web, address: 198.51.100.1, protocol: tcp, port: 80, pool: p}}]\n\
         pools: [{{name: p, forwarding: l2, backends: [{backends}], health_check: {{type: tcp}}}}]"
    );
    config::parse("test.yaml", &text).unwrap().model
}

fn with(mut model: Model, rules: DrainRules) -> Model {
    model.services.iter_mut().for_each(|service| service.drain = rules);
    model
}

fn deadline(seconds: u64) -> DrainRules {
    DrainRules { deadline: Some(Duration::from_secs(seconds)), ..DrainRules::default() }
}

fn address(last: u8) -> IpAddr {
    [203, 0, 113, last].into()
}

/// All backends of a model, numbered by the last byte of their addresses.
fn there(model: &Model, state: BackendState) -> Numbers {
    let service = &model.services[0];
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => u32::from(v4.octets()[3]),
        IpAddr::V6(_) => 0,
    };
    service.backends.iter().map(|b| ((service.id, b.address), (number(b.address), state))).collect()
}

fn leaving(drains: &Drains) -> Vec<(IpAddr, u64)> {
    drains.leaving.iter().map(|leaver| (leaver.backend.address, leaver.since)).collect()
}

fn left(flows: &[(u32, u64)], unseen: &[u32]) -> Census {
    Census {
        flows: flows.iter().copied().collect(),
        previous_fresh: unseen.iter().copied().collect(),
        ..Census::default()
    }
}

#[test]
fn one_that_is_not_listed_any_more_leaves_as_it_was_and_takes_no_new_flows() {
    let (old, new) = (model(&[1, 2]), model(&[2]));
    let drains = Drains::default().after(&old, &new, &there(&old, BackendState::Up), 7);
    assert_eq!(leaving(&drains), [(address(1), 7)]);
    let joined = drains.join(&new);
    let backends = &joined.services[0].backends;
    assert_eq!(backends.iter().map(|b| b.address).collect::<Vec<_>>(), [address(1), address(2)]);
    assert!(backends[0].leaving && backends[0].effective_weight() == 0 && backends[0].weight == 1);
    assert_eq!(backends[0].checks, old.services[0].backends[0].checks, "it is still probed");
    assert!(!backends[1].leaving);
    assert_eq!(joined.services[0].id.to_string(), WEB);
}

#[test]
fn the_time_counts_from_when_it_left_over_later_configs_and_restarts() {
    let old = model(&[1, 2]);
    let first = Drains::default().after(&old, &model(&[2]), &there(&old, BackendState::Up), 7);
    let text = serde_json::to_string(&first).unwrap();
    let restored: Drains = serde_json::from_str(&text).unwrap();
    let joined = restored.join(&model(&[2]));
    let leaver = &joined.services[0].backends[0];
    assert_eq!(leaver.checks, old.services[0].backends[0].checks, "those that the others have");
    let later = model(&[2, 3]);
    let second = restored.after(&joined, &later, &there(&joined, BackendState::Draining), 100);
    assert_eq!(leaving(&second), [(address(1), 7)]);
    // Listed again, it stays; and when it leaves once more, it has just left.
    let again = second.after(&second.join(&later), &old, &there(&joined, BackendState::Draining), 200);
    assert_eq!(leaving(&again), []);
    let once_more = again.after(&again.join(&old), &model(&[2]), &there(&old, BackendState::Up), 300);
    assert_eq!(leaving(&once_more), [(address(1), 300)]);
}

#[test]
fn who_has_no_flows_or_whose_service_goes_or_wants_no_drain_is_retired_at_once() {
    let (old, new) = (model(&[1, 2]), model(&[2]));
    let after = |new: &Model, there: &Numbers| leaving(&Drains::default().after(&old, new, there, 0));
    assert_eq!(after(&new, &there(&old, BackendState::Down)), []);
    assert_eq!(after(&new, &Numbers::new()), [], "a data plane that is new");
    let drop = DrainRules { on_remove: OnRemove::Drop, ..DrainRules::default() };
    assert_eq!(after(&with(new.clone(), drop), &there(&old, BackendState::Up)), []);
    let mut moved = new;
    moved.services[0].id.port = 81;
    moved.services[0].id.last_port = 81;
    assert_eq!(after(&moved, &there(&old, BackendState::Up)), []);
}

#[test]
fn it_goes_when_no_flow_can_be_left_or_its_time_is_over_or_it_is_down() {
    let (old, new) = (model(&[1, 2, 3]), with(model(&[3]), deadline(60)));
    let up = there(&old, BackendState::Up);
    let drains = Drains::default().after(&old, &new, &up, 1000);
    let go = |there: &Numbers, left: Option<&Census>, now| {
        let mut drains = drains.clone();
        let gone = drains.let_go(&new, there, left, now);
        assert_eq!(gone.len() + drains.leaving.len(), 2);
        gone.iter().map(|leaver| leaver.backend.address).collect::<Vec<_>>()
    };
    assert!(go(&up, None, 1059).is_empty(), "nothing is known of its flows");
    assert_eq!(go(&up, None, 1060), [address(1), address(2)]);
    assert_eq!(go(&up, Some(&left(&[(1, 5), (3, 9)], &[3])), 1001), [address(2)]);
    assert!(go(&up, Some(&left(&[(1, 5)], &[2])), 1001).is_empty(), "flows that nobody has seen");
    assert_eq!(go(&there(&old, BackendState::Down), None, 1001), [address(1), address(2)]);
    assert_eq!(go(&Numbers::new(), None, 1001), [address(1), address(2)]);
}

#[test]
fn without_a_daemon_time_tells_whose_flows_have_all_been_seen() {
    let (old, new) = (model(&[1, 2]), model(&[2]));
    let up = there(&old, BackendState::Up);
    let drains = Drains::default().after(&old, &new, &up, 1000);
    let idle = new.services[0].flows.idle.established.as_secs();
    let gone = |now, census: &Census| {
        let mut census = census.clone();
        drains.heard_out(&new, &up, &mut census, now);
        drains.clone().let_go(&new, &up, Some(&census), now).len()
    };
    assert_eq!(gone(1000 + idle, &left(&[], &[1])), 0);
    assert_eq!(gone(1000 + idle + STEPS_S + 1, &left(&[], &[1])), 1);
    assert_eq!(gone(1000 + idle + STEPS_S + 1, &left(&[(1, 1)], &[1])), 0, "it has a flow");
    let owner = Census { current: [1].into(), ..Census::default() };
    assert_eq!(gone(1000 + idle + STEPS_S + 1, &owner), 0, "it still owns slots");
}

#[test]
fn a_deadline_counts_from_the_beginning_of_the_drain_and_then_as_down() {
    let mut listed = with(model(&[1, 2, 3]), deadline(60));
    listed.services[0].backends[0].drain = true;
    let place = |last| (listed.services[0].id, address(last));
    let up = there(&listed, BackendState::Up);
    let drains = Drains::default().after(&listed, &listed, &up, 1000);
    let drains = drains.after(&listed, &listed, &up, 1050);
    assert_eq!(drains.deadlines(&listed, &[]), BTreeMap::from([(place(1), 1060)]));
    let word = |last, since, deadline| InForce {
        pool: "p".to_owned(),
        backend: address(last),
        name: None,
        word: Word::Drain,
        since,
        until: None,
        deadline,
        reason: None,
    };
    let words = [word(2, 1010, None), word(3, 1010, Some(1500))];
    let deadlines = drains.deadlines(&listed, &words);
    assert_eq!(deadlines, BTreeMap::from([(place(1), 1060), (place(2), 1070), (place(3), 1500)]));
    assert_eq!(next_deadline(&deadlines, 1060), Some(1070));
    let uses = Uses::from([(place(1), Use::Draining), (place(2), Use::Draining)]);
    assert_eq!(overdue(&uses, &deadlines, 1059), uses);
    let over = overdue(&uses, &deadlines, 1060);
    assert_eq!(over, Uses::from([(place(1), Use::Out), (place(2), Use::Draining)]));
    // Without one a drain takes as long as it takes.
    assert_eq!(drains.deadlines(&model(&[1, 2, 3]), &words[..1]), BTreeMap::new());
}

#[test]
fn what_the_new_config_says_of_its_address_or_server_id_counts() {
    let (mut old, mut new) = (model(&[1, 2]), model(&[2]));
    old.services[0].backends[0].server_id = Some(7);
    old.services[0].backends[0].mac = Some([2; 6]);
    new.services[0].backends[0].server_id = Some(7);
    let mut other = new.services[0].clone();
    other.id.port = 443;
    other.id.last_port = 443;
    other.backends[0].address = address(1);
    new.services.push(other);
    let drains = Drains::default().after(&old, &new, &there(&old, BackendState::Up), 0);
    let joined = drains.join(&new);
    let leaver = &joined.services[0].backends[0];
    assert_eq!((leaver.address, leaver.server_id, leaver.mac), (address(1), None, None));
}
