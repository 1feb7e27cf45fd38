//! What checks mean together, damping, trials, and who has the last word.

use proptest::prelude::*;

use super::*;

const POLICY: HealthPolicy = HealthPolicy {
    require: Require::All,
    hold_down: Duration::from_secs(5),
    max_hold_down: Duration::from_secs(30),
    flap_window: Duration::from_secs(300),
    trial_after: Duration::from_secs(60),
    trial_time: Duration::from_secs(10),
    trial_share: 10,
};

/// A member and the moment it was made, so that tests can speak in seconds.
struct Story {
    member: Member,
    start: Instant,
}

impl Story {
    fn new(policy: HealthPolicy, checks: usize, initial: State) -> Self {
        let start = Instant::now();
        Self { member: Member::new(policy, checks, None, initial, start), start }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn check(&mut self, seconds: u64, index: usize, standing: Standing) -> State {
        let now = self.at(seconds);
        self.member.check(now, index, standing);
        self.member.state()
    }

    fn fails(&mut self, seconds: u64) -> State {
        self.check(seconds, 0, Standing::Failing)
    }

    fn passes(&mut self, seconds: u64) -> State {
        self.check(seconds, 0, Standing::Passing)
    }

    fn tick(&mut self, seconds: u64) -> State {
        let now = self.at(seconds);
        self.member.tick(now);
        self.member.state()
    }

    fn until(&self) -> Option<u64> {
        assert_eq!(self.member.until(), self.member.next_timer());
        self.member.until().map(|until| (until - self.start).as_secs())
    }
}

#[test]
fn all_or_any_of_the_checks() {
    use Standing::{Failing, Passing};
    for (require, first, second, expected) in [
        (Require::All, Passing, None, State::Unknown),
        (Require::All, Passing, Some(Passing), State::Up),
        (Require::All, Failing, None, State::Down),
        (Require::All, Passing, Some(Failing), State::Down),
        (Require::Any, Passing, None, State::Up),
        (Require::Any, Failing, None, State::Unknown),
        (Require::Any, Failing, Some(Passing), State::Up),
        (Require::Any, Failing, Some(Failing), State::Down),
    ] {
        let mut story = Story::new(HealthPolicy { require, ..POLICY }, 2, State::Unknown);
        story.check(1, 0, first);
        if let Some(second) = second {
            story.check(2, 1, second);
        }
        assert_eq!(story.member.state(), expected, "{require:?} {first:?} {second:?}");
    }
}

#[test]
fn a_check_that_has_not_spoken_agrees_with_what_was_known() {
    let mut story = Story::new(POLICY, 2, State::Down);
    assert_eq!(story.passes(1), State::Down);
    assert_eq!(story.check(2, 1, Standing::Passing), State::Up);
    let mut story = Story::new(HealthPolicy { require: Require::Any, ..POLICY }, 2, State::Up);
    assert_eq!(story.fails(1), State::Up);
    assert_eq!(story.check(2, 1, Standing::Failing), State::Down);
    let mut story = Story::new(POLICY, 2, State::Up);
    assert_eq!(story.fails(1), State::Down);
    assert_eq!(story.passes(2), State::Up, "the other one still agrees");
}

#[test]
fn who_has_no_checks_is_up_unless_its_agent_was_unhappy() {
    assert_eq!(Story::new(POLICY, 0, State::Unknown).member.state(), State::Up);
    let strict = HealthPolicy { require: Require::Any, trial_after: Duration::ZERO, ..POLICY };
    let mut story = Story::new(strict, 0, State::Down);
    assert_eq!((story.member.state(), story.tick(1)), (State::Up, State::Up));
    let now = Instant::now();
    let agent = Some(Agent::default());
    assert_eq!(Member::new(POLICY, 0, agent, State::Unknown, now).state(), State::Up);
    let mut member = Member::new(POLICY, 0, agent, State::Down, now);
    assert_eq!(member.state(), State::Down);
    member.agent(now, Agent { weight_percent: 50, ..Agent::default() });
    assert_eq!((member.state(), member.use_()), (State::Up, Use::Serving { percent: 50 }));
}

#[test]
fn the_second_failure_within_the_window_is_held_down_and_each_further_one_for_longer() {
    let mut story = Story::new(POLICY, 1, State::Up);
    assert_eq!(story.fails(1), State::Down);
    assert_eq!(story.passes(2), State::Up, "once is no flapping");
    for (round, hold) in [5, 10, 20, 30, 30].into_iter().enumerate() {
        let at = 10 + 40 * round as u64;
        assert_eq!(story.fails(at), State::Down);
        assert_eq!(story.passes(at + 2), State::Held);
        assert_eq!((story.until(), story.member.use_()), (Some(at + 2 + hold), Use::Out));
        assert_eq!(story.tick(at + 1 + hold), State::Held);
        assert_eq!(story.tick(at + 2 + hold), State::Up);
        assert_eq!(story.until(), None);
    }
    assert_eq!(story.member.flaps(story.at(180)), 6);
    assert_eq!(story.member.flaps(story.at(300)), 6);
    assert_eq!(story.member.flaps(story.at(301)), 5, "the first is forgotten");
    assert_eq!(story.fails(2000), State::Down);
    assert_eq!(story.passes(2001), State::Up, "all are");
}

#[test]
fn failing_while_held_goes_down_without_counting() {
    let mut story = Story::new(POLICY, 1, State::Up);
    for at in [1, 3] {
        story.fails(at);
        story.passes(at + 1);
    }
    assert_eq!(story.member.state(), State::Held);
    assert_eq!(story.fails(5), State::Down);
    assert_eq!((story.member.flaps(story.at(5)), story.until()), (2, None));
    assert_eq!(story.passes(6), State::Held);
    assert_eq!(story.until(), Some(11));
}

#[test]
fn no_hold_down_where_it_is_zero() {
    let mut story = Story::new(HealthPolicy { hold_down: Duration::ZERO, ..POLICY }, 1, State::Up);
    for at in 0..20 {
        assert_eq!(story.fails(2 * at), State::Down);
        assert_eq!(story.passes(2 * at + 1), State::Up);
    }
}

#[test]
fn who_was_away_for_long_comes_back_on_trial() {
    let mut story = Story::new(POLICY, 1, State::Up);
    story.fails(10);
    assert_eq!(story.passes(69), State::Up, "59 s are not long");
    story.fails(100);
    assert_eq!(story.passes(156), State::Held);
    assert_eq!(story.tick(161), State::Trial, "61 s, the hold-down included");
    assert_eq!((story.member.use_(), story.until()), (Use::Serving { percent: 10 }, Some(171)));
    assert_eq!(story.tick(170), State::Trial);
    assert_eq!(story.tick(171), State::Up);
    assert_eq!((story.member.use_(), story.member.since()), (Use::Serving { percent: 100 }, story.at(171)));
}

#[test]
fn failing_on_trial_is_a_flap() {
    let mut story = Story::new(POLICY, 1, State::Down);
    assert_eq!(story.passes(60), State::Trial);
    assert_eq!(story.fails(62), State::Down);
    assert_eq!(story.member.flaps(story.at(62)), 1);
    assert_eq!(story.member.down_since(), Some(story.at(62)));
}

#[test]
fn no_trial_at_first_nor_where_there_is_none() {
    let mut story = Story::new(POLICY, 1, State::Unknown);
    assert_eq!(story.passes(500), State::Up);
    let mut story = Story::new(HealthPolicy { trial_time: Duration::ZERO, ..POLICY }, 1, State::Up);
    story.fails(1);
    assert_eq!(story.passes(500), State::Up);
}

#[test]
fn the_agents_health_beats_the_checks() {
    let mut story = Story::new(POLICY, 1, State::Up);
    let down = Agent { up: Operational::Down, ..Agent::default() };
    story.member.agent(story.at(1), down);
    assert_eq!(story.passes(2), State::Down);
    story.member.agent(story.at(3), Agent { up: Operational::Up, ..down });
    assert_eq!(story.member.state(), State::Up);
    assert_eq!(story.fails(4), State::Down, "it cannot speak for the checks");
}

#[test]
fn words_decide_the_use_and_the_operators_is_the_last() {
    use Override::{Disable, Drain};
    let (hundred, ready) = (100, Admin::Ready);
    for (operator, admin, weight_percent, expected) in [
        (None, ready, 100, Use::Serving { percent: 100 }),
        (None, ready, 250, Use::Serving { percent: 250 }),
        (None, ready, 0, Use::Draining),
        (None, Admin::Drain, hundred, Use::Draining),
        (None, Admin::Maint, hundred, Use::Out),
        (Some(Drain), Admin::Maint, hundred, Use::Draining),
        (Some(Disable), Admin::Drain, hundred, Use::Out),
    ] {
        let mut story = Story::new(POLICY, 1, State::Up);
        story.member.agent(story.at(1), Agent { weight_percent, up: Operational::Unsaid, admin });
        story.member.override_(story.at(2), operator);
        assert_eq!(story.member.use_(), expected, "{operator:?} {admin:?} {weight_percent}");
        assert_eq!(story.member.state(), State::Up, "words change the use, not the state");
        story.fails(3);
        assert_eq!(story.member.use_(), Use::Out);
    }
}

#[test]
fn shares_multiply_and_never_round_to_nothing() {
    let mut story = Story::new(POLICY, 1, State::Down);
    story.passes(100);
    for (weight_percent, percent) in [(100, 10), (55, 6), (54, 5), (1, 1), (200, 20)] {
        story.member.agent(story.at(101), Agent { weight_percent, ..Agent::default() });
        assert_eq!(story.member.use_(), Use::Serving { percent });
    }
}

proptest! {
    /// Whatever happens: a timer that is due is gone after a tick, only the up and the unknown serve, and the state
    /// follows the checks.
    #[test]
    fn the_state_agrees_with_the_checks_and_timers_expire(
        any in any::<bool>(),
        events in prop::collection::vec((0u64..40, 0usize..3, any::<bool>()), 1..60),
    ) {
        let require = if any { Require::Any } else { Require::All };
        let mut story = Story::new(HealthPolicy { require, ..POLICY }, 3, State::Unknown);
        let (mut at, mut said) = (0, [None; 3]);
        for (later, index, passing) in events {
            at += later;
            said[index] = Some(passing);
            story.check(at, index, if passing { Standing::Passing } else { Standing::Failing });
            story.tick(at);
            prop_assert!(story.until().is_none_or(|until| until > at));
            let state = story.member.state();
            let (passed, failed) = (said.contains(&Some(true)), said.contains(&Some(false)));
            let heard = !said.contains(&None);
            match if any { (passed, heard && !passed) } else { (heard && !failed, failed) } {
                (true, _) => prop_assert!(state.is_up() || state == State::Held),
                (_, true) => prop_assert_eq!(state, State::Down),
                _ => {}
            }
            let serves = matches!(story.member.use_(), Use::Serving { .. });
            prop_assert_eq!(serves, state.is_up() || state == State::Unknown);
            let away = matches!(state, State::Down | State::Held);
            prop_assert_eq!(story.member.down_since().is_some(), away);
        }
    }
}
