//! Places, lanes and turns; how evenly probes are spread is simulated in [`spread`].

mod spread;

use proptest::prelude::*;

use super::*;

const INTERVAL: Duration = Duration::from_secs(2);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Starts all that is due up to `until`, as a caller would that is never late.
fn run(schedule: &mut Schedule<u32>, from: Instant, until: Instant) -> Vec<(Instant, u32)> {
    let (mut now, mut started) = (from, Vec::new());
    loop {
        started.extend(schedule.due(now).into_iter().map(|id| (now, id)));
        match schedule.next_wakeup(now) {
            Some(at) if at <= until => now = at.max(now),
            _ => return started,
        }
    }
}

#[test]
fn few_checks_are_all_probed_within_their_first_second_whatever_their_interval() {
    let now = Instant::now();
    let mut schedule = Schedule::new(100);
    (0..20).for_each(|id| schedule.insert(id, now, Duration::from_secs(3600)));
    let started = run(&mut schedule, now, now + ms(1020));
    assert_eq!(started.len(), 20);
    assert_eq!(schedule.next_wakeup(now + ms(1020)), None, "nothing waits");
    let gaps = started.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(gaps.max().unwrap() < ms(120), "evenly");
}

#[test]
fn no_more_are_in_flight_than_allowed_and_each_end_frees_a_place() {
    let now = Instant::now();
    let mut schedule = Schedule::new(8);
    (0..100).for_each(|id| schedule.insert(id, now, ms(100)));
    let started = run(&mut schedule, now, now + Duration::from_secs(5));
    assert_eq!((started.len(), schedule.in_flight()), (8, 8));
    let later = now + Duration::from_secs(5);
    assert_eq!(schedule.next_wakeup(later), None, "waits for a place, not for a time");
    schedule.reschedule(started[0].1, later + INTERVAL, Urgency::Paced);
    assert_eq!(schedule.due(later).len(), 1);
    assert_eq!(schedule.in_flight(), 8);
}

#[test]
fn the_urgent_overtake_and_leave_a_quarter_of_the_places() {
    let now = Instant::now();
    let mut schedule = Schedule::new(8);
    (0..100).for_each(|id| schedule.insert(id, now, ms(100)));
    (50..100).for_each(|id| schedule.hurry(id, now));
    let started = schedule.due(now + INTERVAL);
    assert_eq!(started[..6], [50, 51, 52, 53, 54, 55]);
    assert!(started[6..].iter().all(|id| *id < 50));
    assert!(started.len() > 6, "those in their turn are looked after as well");
}

#[test]
fn the_urgent_need_no_token() {
    let now = Instant::now();
    let mut schedule = Schedule::new(1000);
    (0..200).for_each(|id| schedule.insert(id, now, INTERVAL));
    let started = run(&mut schedule, now, now + INTERVAL);
    assert_eq!(started.len(), 200);
    let at = now + 2 * INTERVAL;
    started.iter().for_each(|(_, id)| schedule.reschedule(*id, at, Urgency::Urgent));
    assert_eq!(schedule.due(at).len(), 200);
}

#[test]
fn hurrying_probes_at_once_or_right_after_the_probe_in_flight() {
    let now = Instant::now();
    let mut schedule = Schedule::new(10);
    schedule.insert(1, now, INTERVAL);
    schedule.due(now);
    schedule.reschedule(1, now + INTERVAL, Urgency::Paced);
    assert_eq!(schedule.due(now + ms(10)), [0; 0]);
    schedule.hurry(1, now + ms(20));
    assert_eq!(schedule.next_wakeup(now + ms(20)), Some(now + ms(20)));
    assert_eq!(schedule.due(now + ms(20)), [1]);
    schedule.hurry(1, now + ms(30));
    assert_eq!(schedule.due(now + ms(30)), [0; 0], "never two at a time");
    schedule.reschedule(1, now + INTERVAL, Urgency::Paced);
    assert_eq!(schedule.due(now + ms(40)), [1]);
    schedule.reschedule(1, now + INTERVAL, Urgency::Paced);
    assert_eq!(schedule.due(now + ms(50)), [0; 0], "once");
}

#[test]
fn who_is_removed_in_flight_gives_its_place_back_and_is_not_rescheduled() {
    let now = Instant::now();
    let mut schedule = Schedule::new(1);
    schedule.insert(1, now, INTERVAL);
    assert_eq!(schedule.due(now), [1]);
    schedule.remove(1);
    assert_eq!(schedule.in_flight(), 0);
    schedule.reschedule(1, now, Urgency::Urgent);
    schedule.hurry(1, now);
    assert_eq!(run(&mut schedule, now, now + INTERVAL), []);
    schedule.insert(1, now, INTERVAL);
    schedule.reschedule(1, now + 10 * INTERVAL, Urgency::Paced);
    assert_eq!(
        run(&mut schedule, now, now + INTERVAL).len(),
        1,
        "the old probe does not speak for the new check"
    );
}

proptest! {
    /// Whatever is called: places are counted right, no check is in flight twice, and a caller that sleeps until the
    /// next wake-up never spins.
    #[test]
    fn places_add_up_and_wakeups_are_ahead(
        limit in 1usize..6,
        calls in prop::collection::vec((0u64..60, 0u8..6, 0u32..12, 0u64..200), 1..200),
    ) {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(limit);
        let mut flying = BTreeSet::new();
        for (later, call, id, ahead) in calls {
            now += ms(later);
            match call {
                0 => {
                    schedule.insert(id, now, ms(ahead));
                    flying.remove(&id);
                }
                1 => {
                    schedule.remove(id);
                    flying.remove(&id);
                }
                2 => schedule.hurry(id, now),
                _ => {
                    let urgency = if call == 3 { Urgency::Urgent } else { Urgency::Paced };
                    schedule.reschedule(id, now + ms(ahead), urgency);
                    flying.remove(&id);
                }
            }
            for id in schedule.due(now) {
                prop_assert!(flying.insert(id), "in flight twice");
            }
            prop_assert_eq!(schedule.in_flight(), flying.len());
            prop_assert!(flying.len() <= limit);
            prop_assert!(schedule.next_wakeup(now).is_none_or(|at| at > now));
            let waiting = schedule.paced.len() + schedule.urgent.len();
            prop_assert_eq!(waiting + flying.len(), schedule.entries.len());
            prop_assert!(flying.len() == limit || waiting == 0 || schedule.next_wakeup(now).is_some()
                || schedule.paced.is_empty());
        }
        for id in 0..12 {
            schedule.remove(id);
        }
        prop_assert_eq!((schedule.mean, schedule.opening, schedule.in_flight()), (0.0, 0, 0));
    }
}
