//! The blast radius of configs on small data planes.

use super::*;
use crate::config;
use crate::health::member::Use;
use lb_common::abi::{BackendEntry, BackendId, Slot};

/// Ring size of the service.
const SIZE: u32 = 4093;

fn model(backends: &[&str], more: &str) -> Model {
    let backends: String = backends.iter().map(|b| format!("{{address: 203.0.113.{b}}}, ")).collect();
    let text = format!(
        "version: 1\nservices: [{{name: web, address: 198.51.100.1, protocol: tcp, port: 80, forwarding: l2, \
         ring_size: {SIZE}, {more} backends: [{backends}]}}]"
    );
    config::parse("test.yaml", &text).unwrap().model
}

fn desired(model: &Model) -> Desired {
    desired_with(model, &Uses::new())
}

fn desired_with(model: &Model, uses: &Uses) -> Desired {
    let attached = crate::netlink::Snapshot::default();
    let machine = crate::daemon::Machine { links: &attached, resolutions: &Default::default() };
    crate::daemon::assemble(model, &[], machine, uses).desired
}

/// A data plane as a model wants it, its backends numbered from 1.
fn observed(model: &Model, flags: u32) -> Observed {
    let service = &model.services[0];
    let desired = desired(model);
    let members: Vec<Member> = desired.services[0]
        .backends
        .iter()
        .map(|b| Member {
            address: b.address,
            weight: if b.state == BackendState::Up { b.weight } else { 0 },
        })
        .collect();
    let ring = ring::build(&Seed { service: service.id, key: model.hash_key }, &members, SIZE);
    let slots = ring.iter().map(|owner| Slot::settled(BackendId::new(owner + 1).unwrap())).collect();
    let entry = ServiceEntry { ring_size: SIZE, id: 5, flags, ..ServiceEntry::default() };
    let key = crate::reconcile::wide(service.id.address);
    let key = lb_common::abi::ServiceKey {
        address: key,
        port: 80u16.to_be_bytes(),
        protocol: service.id.protocol.number(),
        ..Default::default()
    };
    let backend = |(number, b): (u32, &crate::reconcile::DesiredBackend)| {
        let address = crate::reconcile::wide(b.address);
        (number, BackendEntry { service: 5, state: b.state.to_raw(), address, ..BackendEntry::default() })
    };
    Observed {
        exact: BTreeMap::from([(key, entry)]),
        rings: BTreeMap::from([(5, slots)]),
        backends: (1..).zip(&desired.services[0].backends).map(backend).collect(),
        now_ns: 3600 * 1_000_000_000,
        ..Observed::default()
    }
}

fn look(old: &Model, flags: u32, new: &Model, left: &Census, counted: &[(u32, u64)]) -> Vec<Blast> {
    look_with(&Uses::new(), (old, flags, new), left, counted)
}

fn look_with(
    uses: &Uses,
    (old, flags, new): (&Model, u32, &Model),
    left: &Census,
    counted: &[(u32, u64)],
) -> Vec<Blast> {
    let observed = observed(old, flags);
    blast(&Scene {
        observed: &observed,
        before: old,
        after: new,
        desired: &desired_with(new, uses),
        uses,
        left: Some(left),
        counted: &counted.iter().copied().collect(),
        pace: &Pace::default(),
        written: &if uses.is_empty() { BTreeSet::from([0]) } else { BTreeSet::new() },
    })
}

fn flows(count: u64, accuracy: Accuracy) -> Flows {
    Flows { count, accuracy }
}

fn ip(last: u8) -> IpAddr {
    [203, 0, 113, last].into()
}

#[test]
fn what_changes_nothing_says_nothing() {
    let model = model(&["1", "2", "3"], "");
    assert_eq!(look(&model, 0, &model, &Census::default(), &[(1, 9)]), []);
}

#[test]
fn a_drain_moves_slots_and_no_flow() {
    let (old, mut new) = (model(&["1", "2", "3"], ""), model(&["1", "2", "3"], ""));
    new.services[0].backends[0].drain = true;
    new.services[0].backends[0].leaving = true;
    let counted = [(1, 300), (2, 300), (3, 300)];
    let found = look(&old, 0, &new, &Census::default(), &counted);
    let [web] = &found[..] else { panic!("{found:?}") };
    assert_eq!((web.slots, web.takers_before, web.takers_after), (SIZE, 3, 2));
    // Its third, and a few that Maglev moves beside it.
    assert!((1360..1700).contains(&web.slots_moving), "{}", web.slots_moving);
    assert_eq!((&web.leaving[..], &web.dropped[..]), (&[ip(1)][..], &[][..]));
    assert_eq!((web.flows_dropped.count, web.flows_moved.count), (0, 0));
    assert!((295..380).contains(&web.flows_watched.count), "{:?}", web.flows_watched);
    assert_eq!((web.flows_watched.accuracy, web.watched_s), (Accuracy::AtMost, 900));
    new.services[0].backends[0].leaving = false;
    let found = look(&old, 0, &new, &Census::default(), &counted);
    assert_eq!((&found[0].drained[..], &found[0].leaving[..]), (&[ip(1)][..], &[][..]));
}

#[test]
fn an_addition_moves_its_share_of_slots() {
    let (old, new) = (model(&["1", "2", "3"], ""), model(&["1", "2", "3", "4"], ""));
    let found = look(&old, 0, &new, &Census::default(), &[]);
    let [web] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&web.added[..], web.takers_after), (&[ip(4)][..], 4));
    assert!((1020..1400).contains(&web.slots_moving), "{}", web.slots_moving);
    assert_eq!(web.flows_watched, flows(0, Accuracy::Exact), "none has ever begun");
}

#[test]
fn flows_on_backends_that_go_at_once_are_counted_where_all_are_recorded() {
    let (old, new) = (model(&["1", "2", "3"], ""), model(&["2", "3"], ""));
    let census = Census { flows: BTreeMap::from([(1, 40), (2, 50)]), ..Census::default() };
    let counted = [(1, 300), (2, 300), (3, 300)];
    let found = look(&old, ServiceEntry::TRACKED, &new, &census, &counted);
    assert_eq!((&found[0].dropped[..], found[0].flows_dropped), (&[ip(1)][..], flows(40, Accuracy::Exact)));
    let found = look(&old, 0, &new, &census, &counted);
    assert_eq!(found[0].flows_dropped, flows(300, Accuracy::AtMost));
    let found = look(&old, 0, &new, &census, &[(1, 7)]);
    assert_eq!(found[0].flows_dropped, flows(40, Accuracy::AtMost), "more are recorded than began of late");
}

#[test]
fn without_tracking_flows_of_moving_slots_move() {
    let never = "tracking: never,";
    let (old, new) = (model(&["1", "2", "3"], never), model(&["1", "2", "3", "4"], never));
    let found = look(&old, 0, &new, &Census::default(), &[(1, 1000), (2, 1000), (3, 1000)]);
    assert!((740..1050).contains(&found[0].flows_moved.count), "{:?}", found[0]);
    assert_eq!(found[0].flows_watched.count, 0);
}

#[test]
fn a_service_that_goes_takes_its_flows_with_it() {
    let old = model(&["1", "2"], "");
    let new = Model { services: Vec::new(), ..old.clone() };
    let found = look(&old, 0, &new, &Census::default(), &[(1, 30), (2, 12)]);
    let [web] = &found[..] else { panic!("{found:?}") };
    assert!(web.removed && web.slots_moving == SIZE);
    assert_eq!((web.service.as_str(), web.flows_dropped), ("web", flows(42, Accuracy::AtMost)));
}

/// Backends that are probed get their slots when they have passed: what they will move is told.
#[test]
fn what_moves_after_the_first_probes_is_told_too() {
    let checked = "health_check: {type: tcp},";
    let old = model(&["1", "2", "3"], checked);
    let id = old.services[0].id;
    let uses: Uses = (1..4).map(|n| ((id, ip(n)), Use::Serving { percent: 100 })).collect();
    let counted = [(1, 1000), (2, 1000), (3, 1000)];
    let one_more = model(&["1", "2", "3", "4"], checked);
    let found = look_with(&uses, (&old, 0, &one_more), &Census::default(), &counted);
    let [web] = &found[..] else { panic!("{found:?}") };
    assert_eq!((web.slots_moving, web.takers_after, &web.waiting[..]), (0, 3, &[ip(4)][..]));
    assert!((1020..1400).contains(&web.slots_later), "{}", web.slots_later);
    assert!((740..1050).contains(&web.flows_later.count), "{:?}", web.flows_later);
    // All of them replaced: those that leave keep their slots until somebody is there to take them.
    let mut others = model(&["1", "2", "3", "4", "5"], checked);
    for leaver in &mut others.services[0].backends[..3] {
        (leaver.drain, leaver.leaving) = (true, true);
    }
    let found = look_with(&uses, (&old, 0, &others), &Census::default(), &counted);
    assert_eq!((found[0].slots_moving, found[0].slots_later, found[0].waiting.len()), (0, SIZE, 2));
    // A backup waits on, whatever its probes say.
    let mut backup = one_more;
    backup.services[0].backends[3].group = 1;
    let found = look_with(&uses, (&old, 0, &backup), &Census::default(), &counted);
    assert_eq!((found[0].slots_later, &found[0].waiting[..]), (0, &[][..]));
}
