//! Services told as stories: who is up, who fails when, and who serves.

mod laws;

use super::*;

const WINDOW: Duration = Duration::from_secs(10);
const HALF: FailurePolicy = FailurePolicy { all_down: AllDown::LastKnown, max_failed: 50, min_active: 1 };
const ANY: FailurePolicy = FailurePolicy { max_failed: 100, ..HALF };

/// A service whose members are named by their place.
pub(super) struct Story {
    policy: FailurePolicy,
    pub(super) floor: Floor<usize>,
    start: Instant,
    pub(super) members: Vec<Input<usize>>,
    alarm: Option<Alarm>,
}

impl Story {
    /// As many members as groups are given, all up and served.
    pub(super) fn new(policy: FailurePolicy, groups: &[u8]) -> Self {
        let start = Instant::now();
        let members = groups.iter().enumerate().map(|(key, group)| Input {
            founding: false,
            key,
            state: State::Up,
            use_: Use::Serving { percent: 100 },
            admin: Admin::Ready,
            group: *group,
            weight: 1,
            down_since: None,
        });
        let members = members.collect();
        let mut story = Self { policy, floor: Floor::default(), start, members, alarm: None };
        story.at(0);
        story
    }

    pub(super) fn set(&mut self, seconds: u64, keys: &[usize], state: State) -> &mut Self {
        let now = self.start + Duration::from_secs(seconds);
        for member in self.members.iter_mut().filter(|member| keys.contains(&member.key)) {
            let away = matches!(state, State::Down | State::Held);
            member.down_since = away.then(|| member.down_since.unwrap_or(now));
            member.state = state;
            member.use_ = if away { Use::Out } else { Use::Serving { percent: 100 } };
        }
        self
    }

    pub(super) fn drain(&mut self, key: usize) -> &mut Self {
        for member in self.members.iter_mut().filter(|member| member.key == key) {
            member.admin = Admin::Drain;
            member.use_ = if member.has_failed() { Use::Out } else { Use::Draining };
        }
        self
    }

    pub(super) fn decide(&mut self, seconds: u64) -> Decision {
        let now = self.start + Duration::from_secs(seconds);
        decide(&self.policy, &mut self.floor, WINDOW, now, &self.members)
    }

    /// The keys of those that serve.
    fn at(&mut self, seconds: u64) -> Vec<usize> {
        let decision = self.decide(seconds);
        self.alarm = decision.alarm;
        let serving = self.members.iter().zip(decision.uses);
        serving.filter(|(_, use_)| use_.serves()).map(|(member, _)| member.key).collect()
    }

    fn fail_at(&mut self, seconds: u64, keys: &[usize]) -> Vec<usize> {
        self.set(seconds, keys, State::Down).at(seconds)
    }

    fn rise_at(&mut self, seconds: u64, keys: &[usize]) -> Vec<usize> {
        self.set(seconds, keys, State::Up).at(seconds)
    }
}

#[test]
fn one_by_one_over_hours_each_failure_is_believed_and_the_last_one_serves_on() {
    let mut story = Story::new(HALF, &[0; 4]);
    assert_eq!(story.fail_at(1000, &[0]), [1, 2, 3]);
    assert_eq!(story.fail_at(2000, &[1]), [2, 3]);
    assert_eq!(story.fail_at(3000, &[2]), [3]);
    assert_eq!(story.alarm, None);
    assert_eq!(story.fail_at(4000, &[3]), [3]);
    assert_eq!(story.alarm, Some(Alarm::AllDown { kept: 1 }));
    assert_eq!(story.at(9000), [3], "for as long as it takes");
    assert_eq!(story.rise_at(9001, &[0]), [0], "anyone else will do");
    assert_eq!(story.alarm, None);
}

#[test]
fn failures_seen_over_the_window_are_one_event() {
    let mut story = Story::new(ANY, &[0; 4]);
    for (at, key, serving) in [(1, 0, vec![1, 2, 3]), (4, 1, vec![2, 3]), (7, 2, vec![3])] {
        assert_eq!(story.fail_at(at, &[key]), serving);
    }
    assert_eq!(story.fail_at(11, &[3]), [0, 1, 2, 3], "all come back");
    assert_eq!(story.rise_at(60, &[2]), [2], "until one is up");

    let mut story = Story::new(ANY, &[0; 2]);
    story.fail_at(1, &[0]);
    assert_eq!(story.fail_at(12, &[1]), [1], "eleven seconds are two events");
}

#[test]
fn a_mass_failure_is_not_believed_until_few_enough_still_fail() {
    let mut story = Story::new(HALF, &[0; 6]);
    assert_eq!(story.fail_at(1, &[0, 1, 2]), [3, 4, 5], "half is not more than half");
    assert_eq!(story.fail_at(2, &[3]), [0, 1, 2, 3, 4, 5]);
    assert_eq!(story.alarm, Some(Alarm::MassFailure { failed: 4, of: 6, kept: 4 }));
    assert_eq!(story.at(500), [0, 1, 2, 3, 4, 5]);
    assert_eq!(story.rise_at(501, &[3]), [3, 4, 5], "the rest is believed");
    assert_eq!(story.alarm, None);
}

#[test]
fn a_mass_failure_that_all_share_ends_by_the_share_and_not_with_the_first_to_return() {
    for order in [[0, 1, 2], [3, 1, 0]] {
        let mut story = Story::new(HALF, &[0; 4]);
        assert_eq!(story.fail_at(1, &[0, 1, 2, 3]), [0, 1, 2, 3]);
        assert_eq!(story.alarm, Some(Alarm::AllDown { kept: 4 }));
        assert_eq!(story.rise_at(100, &order[..1]), [0, 1, 2, 3]);
        assert_eq!(story.alarm, Some(Alarm::MassFailure { failed: 3, of: 4, kept: 3 }));
        assert_eq!(story.rise_at(101, &order[1..2]).len(), 2);
        assert_eq!(story.rise_at(102, &order[2..]).len(), 3);
    }
}

#[test]
fn while_a_mass_failure_lasts_further_failures_are_not_believed_either() {
    let mut story = Story::new(HALF, &[0; 6]);
    story.fail_at(1, &[0, 1, 2, 3]);
    assert_eq!(story.fail_at(300, &[4]).len(), 6);
    assert_eq!(story.alarm, Some(Alarm::MassFailure { failed: 5, of: 6, kept: 5 }));
}

#[test]
fn flapping_around_the_limit_does_not_revive_what_was_believed() {
    let mut story = Story::new(HALF, &[0; 6]);
    story.fail_at(1, &[0, 1, 2, 3]);
    assert_eq!(story.rise_at(30, &[3]), [3, 4, 5]);
    for at in [40, 60, 80] {
        assert_eq!(story.fail_at(at, &[3]), [4, 5]);
        assert_eq!(story.rise_at(at + 1, &[3]), [3, 4, 5]);
    }
}

#[test]
fn reject_believes_all_but_a_mass_failure() {
    let reject = FailurePolicy { all_down: AllDown::Reject, ..ANY };
    let mut story = Story::new(reject, &[0; 3]);
    assert_eq!(story.fail_at(1, &[0, 1, 2]), [0; 0]);
    assert_eq!(story.alarm, Some(Alarm::Rejecting));
    assert_eq!(story.rise_at(2, &[1]), [1]);

    let mut story = Story::new(FailurePolicy { max_failed: 50, ..reject }, &[0; 3]);
    assert_eq!(story.fail_at(1, &[0, 1, 2]), [0, 1, 2]);
    assert_eq!(story.alarm, Some(Alarm::MassFailure { failed: 3, of: 3, kept: 3 }));
    let mut story = Story::new(FailurePolicy { max_failed: 50, ..reject }, &[0; 2]);
    story.fail_at(1, &[0]);
    assert_eq!(story.fail_at(100, &[1]), [0; 0], "the last one, alone, is no mass");
}

#[test]
fn who_is_removed_or_drained_leaves_the_latch() {
    let mut story = Story::new(HALF, &[0; 4]);
    story.fail_at(1, &[0, 1, 2]);
    assert_eq!(story.drain(0).at(20), [1, 2, 3]);
    assert_eq!(story.alarm, Some(Alarm::MassFailure { failed: 2, of: 3, kept: 2 }));
    story.members.remove(1);
    assert_eq!(story.at(21), [3], "one of two is not more than half");

    let mut story = Story::new(ANY, &[0; 2]);
    story.fail_at(1, &[0]);
    assert_eq!(story.fail_at(50, &[1]), [1]);
    story.members.remove(1);
    assert_eq!(story.at(51), [0], "better than nobody");
}

#[test]
fn who_served_last_serves_on_where_no_failure_is_recent() {
    let mut story = Story::new(ANY, &[0; 3]);
    story.fail_at(1, &[0]);
    story.set(20, &[1, 2], State::Down);
    assert_eq!(story.at(500), [1, 2], "told late");
}

#[test]
fn backups_step_in_group_by_group_and_keep_their_flows_when_they_step_back() {
    let mut story = Story::new(FailurePolicy { min_active: 2, ..ANY }, &[0, 0, 1, 2, 2]);
    assert_eq!(story.at(0), [0, 1]);
    assert_eq!(story.fail_at(1, &[1]), [0, 2]);
    assert_eq!(story.fail_at(100, &[2]), [0, 3, 4]);
    assert_eq!(story.rise_at(200, &[1]), [0, 1]);
    let draining = story.decide(200).uses;
    assert_eq!(draining[2..], [Use::Out, Use::Draining, Use::Draining]);
}

#[test]
fn with_all_groups_down_the_ones_that_just_failed_serve_primaries_first() {
    let mut story = Story::new(ANY, &[0, 0, 1, 1]);
    assert_eq!(story.fail_at(1, &[0, 1, 2, 3]), [0, 1], "enough of the first group");
    assert_eq!(story.decide(1).uses[2..], [Use::Draining; 2]);
    let mut story = Story::new(ANY, &[0, 0, 1, 1]);
    story.fail_at(1, &[0, 1]);
    assert_eq!(story.fail_at(100, &[2, 3]), [2, 3], "the primaries are long gone");
}

#[test]
fn at_the_start_the_unknown_primaries_serve_until_one_is_proven() {
    let mut story = Story::new(ANY, &[0, 0, 0, 1]);
    story.floor = Floor::default();
    assert_eq!(story.set(0, &[0, 1, 2, 3], State::Unknown).at(0), [0, 1, 2]);
    assert_eq!(story.fail_at(1, &[0]), [1, 2], "it never was up");
    assert_eq!(story.alarm, None);
    assert_eq!(story.rise_at(2, &[1]), [1]);
    assert_eq!(story.decide(2).uses[2], Use::Draining);
    assert_eq!(story.fail_at(60, &[1]), [1, 2], "a proven one that fails, beside an unknown one");
    assert_eq!(story.alarm, Some(Alarm::AllDown { kept: 2 }));
}

#[test]
fn after_a_start_without_anyone_the_primaries_serve() {
    let mut story = Story::new(ANY, &[0, 0, 1]);
    story.floor = Floor::default();
    story.policy.max_failed = 30;
    assert_eq!(story.set(0, &[0, 1, 2], State::Down).at(3600), [0, 1]);
    assert_eq!(story.decide(3601).uses[2], Use::Out);
    assert_eq!(story.rise_at(3602, &[1]), [1], "no mass failure: nobody saw them fail");
}

#[test]
fn an_unknown_one_is_better_than_those_whose_failure_was_believed() {
    let mut story = Story::new(ANY, &[0; 2]);
    story.fail_at(1, &[0]);
    assert_eq!(story.set(100, &[1], State::Unknown).at(100), [1]);
    assert_eq!(story.alarm, Some(Alarm::AllDown { kept: 1 }), "none is known to be up");
}

#[test]
fn a_change_of_policy_takes_effect_at_once_and_remembers_who_served() {
    let mut story = Story::new(ANY, &[0; 2]);
    story.fail_at(1, &[0]);
    story.fail_at(100, &[1]);
    story.policy.all_down = AllDown::Reject;
    assert_eq!(story.at(500), [0; 0]);
    story.policy.all_down = AllDown::LastKnown;
    assert_eq!(story.at(501), [1]);
}

#[test]
fn the_held_serve_only_while_none_is_up_or_their_failure_is_not_believed() {
    let mut story = Story::new(ANY, &[0; 2]);
    assert_eq!(story.set(1, &[0], State::Held).at(1), [1]);
    assert_eq!(story.fail_at(60, &[1]), [0, 1]);
    assert_eq!(story.rise_at(61, &[1]), [1]);
    let mut story = Story::new(HALF, &[0; 4]);
    story.fail_at(1, &[0, 1, 2]);
    assert_eq!(story.set(60, &[0, 1, 2], State::Held).at(60), [0, 1, 2, 3]);
}

#[test]
fn the_drained_and_the_weightless_neither_count_nor_latch() {
    let mut story = Story::new(HALF, &[0; 3]);
    assert_eq!(story.drain(0).at(1), [1, 2]);
    story.members[1].weight = 0;
    assert_eq!(story.at(2), [2]);
    assert_eq!(story.decide(2).uses[..2], [Use::Draining; 2]);
    assert_eq!(story.fail_at(3, &[0, 1]), [2], "two of three, and no mass failure");
    story.drain(2);
    assert_eq!(story.at(4), [0; 0]);
    assert_eq!(story.alarm, Some(Alarm::Rejecting));
}
