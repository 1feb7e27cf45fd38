//! No connection breaks: random histories of flows and backends, through the packet engine and the control plane.
//!
//! How much of it: `LB_HISTORIES` histories for each property, and one of `LB_HISTORY_HOURS` hours. They are the same ones
//! each time unless `LB_HISTORY_SEED` is another number.

use std::env;
use std::str::FromStr;

use lb_tests::histories::{Action, Outcome, Rule, Setup, Speech, World, history, shortened, told};
use lb_userspace::model::{Algorithm, Tracking};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRng, TestRunner};

fn asked<T: FromStr>(name: &str, otherwise: T) -> T {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn seed() -> u64 {
    asked("LB_HISTORY_SEED", 1)
}

/// Slow builds get along with less.
fn histories(usual: u32) -> u32 {
    asked("LB_HISTORIES", if cfg!(debug_assertions) { usual / 10 } else { usual })
}

/// Random histories. What goes wrong is shortened here, and not by proptest: that takes away one thing after the other,
/// of which most do not matter.
fn hold(setup: impl Strategy<Value = Setup>) {
    let history = prop::collection::vec(any::<u64>().prop_map(Action::random), 1..600);
    let config = Config {
        cases: histories(1500),
        failure_persistence: None,
        max_shrink_iters: 0,
        ..Config::default()
    };
    let holds = |(setup, history): (Setup, Vec<Action>)| {
        if World::run(&setup, &history).wrong.is_empty() {
            return Ok(());
        }
        let short = shortened(&setup, &history);
        let wrong = World::run(&setup, &short).wrong.join("\n");
        Err(TestCaseError::fail(format!("{wrong}\n{setup:?}\n{}", told(&short))))
    };
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&self::seed().to_le_bytes());
    let rng = TestRng::from_seed(config.rng_algorithm, &seed);
    if let Err(TestError::Fail(reason, _)) =
        TestRunner::new_with_rng(config, rng).run(&(setup, history), holds)
    {
        panic!("{}", reason.message());
    }
}

fn speaking(services: &[Speech]) -> Setup {
    Setup { services: services.to_vec(), ..Setup::default() }
}

#[test]
fn tcp_flows_stay() {
    hold(Just(speaking(&[Speech::Tcp])));
}

#[test]
fn udp_flows_stay() {
    hold(Just(speaking(&[Speech::Udp])));
}

#[test]
fn quic_flows_stay() {
    hold(Just(speaking(&[Speech::Quic])));
}

#[test]
fn flows_of_all_kinds_stay_under_all_settings() {
    let algorithm = prop_oneof![Just(Algorithm::Maglev), Just(Algorithm::SourceHash)];
    let tracking = prop_oneof![Just(Tracking::Auto), Just(Tracking::Always)];
    hold((algorithm, tracking).prop_map(|(algorithm, tracking)| Setup {
        algorithm,
        tracking,
        ..speaking(&[Speech::Tcp, Speech::Udp, Speech::Quic])
    }));
}

/// SYNs that do not go on push out each other only.
#[test]
fn flows_stay_in_a_flood_of_syns() {
    for speech in [Speech::Tcp, Speech::Quic] {
        let outcome = sum(&Setup { hellos: 40, ..speaking(&[speech]) });
        assert_eq!((outcome.broken, outcome.wrong), (0, Vec::new()), "{speech:?}");
    }
}

/// Of many histories, all of the same length.
fn sum(setup: &Setup) -> Outcome {
    const SECONDS: usize = 1000;
    let histories = if cfg!(debug_assertions) { 4 } else { 20 };
    let mut sum = Outcome::default();
    for seed in 0..histories {
        let one = World::run(setup, &Action::history(seed, SECONDS));
        sum.flows += one.flows;
        sum.broken += one.broken;
        sum.wrong.extend(one.wrong);
    }
    sum
}

/// As designed no flow breaks; with any rule broken flows do.
#[test]
fn each_rule_is_needed() {
    let broken = |rule| sum(&Setup { broken: rule, ..Setup::default() }).broken;
    assert_eq!(broken(None), 0);
    for rule in [Rule::OldestPrevious, Rule::MarkStays, Rule::FlowsSettle, Rule::HelloKeeps, Rule::TwoSteps] {
        let flows = broken(Some(rule));
        println!("without {rule:?}: {flows} broken");
        assert!(flows > 0, "{rule:?}");
    }
}

/// Packets of flows that do not exist are taken for older flows. In a table of their own they push out those that really
/// are, but not all the others.
#[test]
fn the_table_of_old_flows_is_needed() {
    let broken = |rule| sum(&Setup { strays: 20, broken: rule, ..Setup::default() });
    let (designed, without) = (broken(None), broken(Some(Rule::TableOfOldFlows)));
    println!("of {}: {} broken, {} without", designed.flows, designed.broken, without.broken);
    assert!(designed.broken * 4 < without.broken);
}

/// Strays would keep slots from settling for as long as they come.
#[test]
fn the_late_state_is_needed() {
    let history = history(&[(0, Action::Weigh(0, 3)), (3 * 60, Action::Wait)]);
    let unsettled = |rule| {
        let setup = Setup { strays: 20, broken: rule, ..Setup::default() };
        World::run(&setup, &history).unsettled_in_the_end
    };
    assert_eq!(unsettled(None), 0.0);
    assert!(unsettled(Some(Rule::LateState)) > 0.0);
}

/// One after the other, of which each goes through everything that can happen many times.
#[test]
fn a_long_history() {
    let setup = speaking(&[Speech::Tcp, Speech::Udp, Speech::Quic]);
    let hours = asked("LB_HISTORY_HOURS", if cfg!(debug_assertions) { 0.2 } else { 2.0 });
    let seed = seed();
    let outcome = World::run(&setup, &Action::history(seed, (hours * 3600.0) as usize));
    assert!(outcome.wrong.is_empty(), "seed {seed}:\n{}", outcome.wrong.join("\n"));
    println!("{hours} h: {} flows, {} packets", outcome.flows, outcome.packets);
}

/// Histories that went wrong once.
mod regressions {
    use lb_tests::histories::Action::*;

    use super::*;

    fn goes_right(speech: Speech, told: &[(usize, Action)]) {
        goes_right_with(&speaking(&[speech]), told);
    }

    fn goes_right_with(setup: &Setup, told: &[(usize, Action)]) {
        assert_eq!(World::run(setup, &history(told)).wrong, [""; 0]);
    }

    /// The flow was silent for longer than a closing flow may be, and its record was deleted.
    #[test]
    fn an_rst_in_a_silent_flows_name() {
        let history = [
            (0, Weigh(4, 161)),
            (17, Open(6661619569213332257)),
            (2, Open(17149956743975778339)),
            (2, Open(12636339933243617102)),
            (4, Close(12875)),
            (2, Vanish(27921)),
            (0, SpoofReset(1448)),
            (29, Wait),
        ];
        goes_right(Speech::Tcp, &history);
    }

    /// Its record was dead when the sweep saw it, and alive again when it was to be deleted: the slot settled elsewhere.
    #[test]
    fn a_port_that_is_used_again_during_a_sweep() {
        let history = [
            (119, Open(4735025899867597965)),
            (197, Weigh(191, 204)),
            (5, Reset(9083)),
            (78, Reuse(60519)),
            (0, Wait),
        ];
        goes_right(Speech::Udp, &history);
    }

    /// Nobody took new flows any more, so its slot had no owner when flows of others ceased to be recorded.
    #[test]
    fn a_recorded_flow_in_a_slot_that_nobody_owns() {
        let history = [
            (7, Drain(80)),
            (1, Open(8978762906912120875)),
            (39, Drain(132)),
            (22, Fail(85)),
            (90, Settings(196)),
            (0, Wait),
        ];
        let setup =
            Setup { tracking: Tracking::Always, ..speaking(&[Speech::Tcp, Speech::Udp, Speech::Quic]) };
        goes_right_with(&setup, &history);
    }

    /// It was the first packet that the marked slot saw of this flow; the record was of an earlier one.
    #[test]
    fn a_forged_syn_of_a_flow_that_is_silent_since_its_slot_was_marked() {
        let history = [
            (0, Weigh(113, 238)),
            (0, Open(10938188949274691266)),
            (13, Open(15751497173617210609)),
            (12, Open(15572814361447234624)),
            (25, Open(9589968836862308964)),
            (26, Close(11867)),
            (1, Reuse(10089)),
            (1, Weigh(43, 238)),
            (1, Close(1441)),
            (1, Reset(61697)),
            (1, Close(63393)),
            (2, SpoofHello(61999)),
            (0, Wait),
        ];
        goes_right(Speech::Tcp, &history);
    }

    /// Its SYN came while the slot was settled; the record of an earlier flow from that port, which had ended, became its
    /// own, and did not live for longer than a closing flow's.
    #[test]
    fn a_flow_that_finds_the_record_of_one_that_has_ended() {
        let history = [
            (115, Resize(194)),
            (78, Weigh(154, 131)),
            (73, Open(13148264708123531585)),
            (5, Close(6129)),
            (9, Reuse(6080)),
            (2, Settings(91)),
            (75, Wait),
        ];
        let setup =
            Setup { algorithm: Algorithm::SourceHash, ..speaking(&[Speech::Tcp, Speech::Udp, Speech::Quic]) };
        goes_right_with(&setup, &history);
    }
}
