//! What holds whatever happens.

use proptest::prelude::*;

use super::*;

const STATES: [State; 5] = [State::Unknown, State::Up, State::Trial, State::Held, State::Down];

/// What happens to a member, after how many seconds.
#[derive(Clone, Debug)]
enum Event {
    State(State),
    Drain,
    Ready,
    Weight(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => prop::sample::select(&STATES[..]).prop_map(Event::State),
        8 => Just(Event::State(State::Down)),
        1 => Just(Event::Drain),
        1 => Just(Event::Ready),
        1 => (0u32..2).prop_map(Event::Weight),
    ]
}

fn policy() -> impl Strategy<Value = FailurePolicy> {
    let all_down = prop::sample::select(vec![AllDown::LastKnown, AllDown::LastKnown, AllDown::Reject]);
    (all_down, prop::sample::select(vec![0u8, 30, 50, 80, 100]), 0u32..4)
        .prop_map(|(all_down, max_failed, min_active)| FailurePolicy { all_down, max_failed, min_active })
}

fn apply(story: &mut Story, at: u64, key: usize, event: &Event) {
    let state = story.members[key].state;
    match event {
        Event::State(state) => {
            story.set(at, &[key], *state);
        }
        Event::Drain => {}
        Event::Ready => {
            story.members[key].admin = Admin::Ready;
            story.set(at, &[key], state);
        }
        Event::Weight(weight) => story.members[key].weight = *weight,
    }
    if matches!(event, Event::Drain) || story.members[key].admin == Admin::Drain {
        story.drain(key);
    }
}

fn holds(story: &Story, decision: &Decision) -> Result<(), TestCaseError> {
    let serves = |use_: &Use| use_.serves();
    let candidates = || story.members.iter().filter(|member| member.is_candidate());
    if story.policy.all_down == AllDown::LastKnown && candidates().count() > 0 {
        prop_assert!(decision.uses.iter().any(serves), "someone serves");
    }
    prop_assert_eq!(decision.alarm == Some(Alarm::Rejecting), !decision.uses.iter().any(serves));
    let up = |group| candidates().filter(|m| m.group == group && m.state.is_up()).count();
    let enough = up(0) >= story.policy.min_active.max(1) as usize;
    for (member, use_) in story.members.iter().zip(&decision.uses) {
        let latched = story.floor.latched().any(|key| *key == member.key);
        prop_assert!(!latched || member.is_candidate() && member.has_failed());
        if !serves(use_) {
            continue;
        }
        prop_assert!(member.is_candidate(), "the drained and weightless never serve");
        prop_assert!(member.state != State::Down || latched, "the down serve only if not believed");
        prop_assert!(member.group == 0 || !enough, "no backup beside enough primaries");
        prop_assert!(member.state != State::Unknown || candidates().all(|m| !m.state.is_up()));
    }
    let idle = candidates().any(|m| m.group == 0 && m.state.is_up() && !serves(&decision.uses[m.key]));
    prop_assert!(!idle, "a primary that is up serves");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_laws_hold(
        policy in policy(),
        groups in prop::collection::vec(0u8..3, 1..8),
        starts_unknown in any::<bool>(),
        events in prop::collection::vec((0u64..8, 0usize..8, event()), 1..40),
    ) {
        let mut story = Story::new(policy, &groups);
        if starts_unknown {
            story.floor = Floor::default();
            let all: Vec<usize> = (0..groups.len()).collect();
            story.set(0, &all, State::Unknown);
        }
        let mut at = 0;
        for (later, key, event) in events {
            at += later;
            apply(&mut story, at, key % groups.len(), &event);
            let before = story.floor.clone();
            let decision = story.decide(at);
            holds(&story, &decision)?;

            let after = std::mem::replace(&mut story.floor, before);
            prop_assert_eq!(&story.decide(at), &decision, "the same twice");
            prop_assert_eq!(&story.floor.latched, &after.latched);
            prop_assert_eq!(&story.decide(at), &decision, "and again, with the new memory");
            prop_assert_eq!(&story.decide(at + 1000).uses, &decision.uses, "time alone changes nothing");
            story.floor = after;
            story.members.reverse();
            let mut mirrored = story.decide(at);
            story.members.reverse();
            mirrored.uses.reverse();
            prop_assert_eq!(&mirrored, &decision, "in any order");
        }
    }
}
