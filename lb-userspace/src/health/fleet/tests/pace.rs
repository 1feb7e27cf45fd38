//! Shares that move by themselves: slow start, and latencies.

use super::*;

const POOL: &str = "version: 1
services:
  - {name: web, address: 198.51.100.1, protocol: tcp, port: 80, pool: p, RULES}
pools:
  - name: p
    forwarding: l2
    health_check: {type: icmp}
    backends: [{address: 192.0.2.1}, {address: 192.0.2.2}]
";

fn model(rules: &str, backends: &str) -> Model {
    let text = POOL.replace("RULES", rules).replace("{address: 192.0.2.2}", backends);
    config::parse("test.yaml", &text).unwrap_or_else(|errors| panic!("{errors}")).model
}

const BOTH: &str = "{address: 192.0.2.2}";
const SLOWLY: &str = "slow_start: 16s";

fn percent(fleet: &mut Fleet, last: u8, now: Instant) -> u32 {
    match fleet.decide(now).uses[&place(80, last)] {
        Use::Serving { percent } => percent,
        gets => panic!("192.0.2.{last} is {gets:?}"),
    }
}

fn say(fleet: &mut Fleet, last: u8, standing: Standing, now: Instant) {
    let task = fleet.tasks_at(place(80, last))[0];
    fleet.standing(task, standing, None, now);
}

#[test]
fn who_is_there_at_the_start_serves_at_once_and_who_recovers_or_comes_later_slowly() {
    let (mut fleet, mut now) = (Fleet::default(), Instant::now());
    fleet.set_model(&model(SLOWLY, BOTH), |_| State::Unknown, now);
    assert_eq!(percent(&mut fleet, 1, now), 100, "unknown");
    say(&mut fleet, 1, Standing::Passing, now);
    say(&mut fleet, 2, Standing::Passing, now);
    assert_eq!(percent(&mut fleet, 1, now), 100, "and proven");
    assert_eq!(fleet.next_timer(), None);

    say(&mut fleet, 1, Standing::Failing, now);
    fleet.decide(now);
    now += Duration::from_secs(1);
    say(&mut fleet, 1, Standing::Passing, now);
    assert_eq!(percent(&mut fleet, 1, now), 10, "recovers");
    assert_eq!(percent(&mut fleet, 2, now), 100);
    assert_eq!(fleet.next_timer(), Some(now + Duration::from_secs(2)));
    now += Duration::from_secs(8);
    assert_eq!(percent(&mut fleet, 1, now), 55);
    now += Duration::from_secs(8);
    assert_eq!((percent(&mut fleet, 1, now), fleet.next_timer()), (100, None));

    fleet.set_model(&model(SLOWLY, "{address: 192.0.2.2}, {address: 192.0.2.3}"), |_| State::Unknown, now);
    say(&mut fleet, 3, Standing::Passing, now);
    assert_eq!(percent(&mut fleet, 3, now), 10, "added");
    assert_eq!(percent(&mut fleet, 2, now), 100, "was there");
    fleet.set_model(
        &model(SLOWLY, "{address: 192.0.2.2}, {address: 192.0.2.3, weight: 2}"),
        |_| State::Up,
        now,
    );
    assert_eq!(percent(&mut fleet, 3, now), 10, "another weight is no other backend");
}

#[test]
fn a_new_daemon_starts_nobody_slowly_but_those_who_were_down() {
    let (mut fleet, now) = (Fleet::default(), Instant::now());
    let known = |place: Place| if place.1 == IpAddr::from([192, 0, 2, 1]) { State::Up } else { State::Down };
    fleet.set_model(&model(SLOWLY, BOTH), known, now);
    assert_eq!(percent(&mut fleet, 1, now), 100);
    say(&mut fleet, 2, Standing::Passing, now);
    assert_eq!(percent(&mut fleet, 2, now), 10);
}

#[test]
fn without_slow_start_weights_come_back_at_once() {
    let (mut fleet, now) = (Fleet::default(), Instant::now());
    fleet.set_model(&model("algorithm: maglev", BOTH), |_| State::Down, now);
    say(&mut fleet, 1, Standing::Passing, now);
    assert_eq!(percent(&mut fleet, 1, now), 100);
}

fn answered(fleet: &Fleet, at: Instant, latencies: [u64; 2]) -> BTreeMap<TaskId, Last> {
    let last = |(n, ms): (u8, u64)| {
        let latency = Duration::from_millis(ms);
        let last = Last { at, latency, failure: None, streak: 1, hindrance: None };
        (fleet.tasks_at(place(80, n))[0], last)
    };
    (1..).zip(latencies).map(last).collect()
}

#[test]
fn shares_follow_latencies_where_the_service_goes_by_them() {
    let mut now = Instant::now();
    let mut run = |rules: &str| {
        let mut fleet = Fleet::default();
        fleet.set_model(&model(rules, BOTH), |_| State::Up, now);
        let mut shares = Vec::new();
        for latencies in [[5, 5], [5, 50], [5, 5]] {
            for _ in 0..30 {
                now += Duration::from_secs(2);
                let last = answered(&fleet, now, latencies);
                fleet.latencies(&last);
                fleet.decide(now);
            }
            shares.push((percent(&mut fleet, 1, now), percent(&mut fleet, 2, now)));
        }
        (fleet.wants_latencies(), shares)
    };
    let (wants, shares) = run("algorithm: least-response-time");
    assert!(wants);
    assert_eq!(shares[..2], [(100, 100), (100, 25)]);
    assert!(shares[2].1 > 80, "{shares:?}");
    assert_eq!(run("algorithm: maglev"), (false, vec![(100, 100); 3]));
}
