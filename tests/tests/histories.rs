//! No connection breaks: random histories of flows and backends, through the packet engine and the control plane.
//!
//! How much of it: `LB_HISTORIES` histories for each property, and one of `LB_HISTORY_HOURS` hours.

use std::env;
use std::str::FromStr;

use lb_tests::histories::{Action, Outcome, Rule, Setup, Speech, World, shortened, told};
use lb_userspace::model::{Algorithm, Tracking};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

fn asked<T: FromStr>(name: &str, otherwise: T) -> T {
    env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// Slow builds get along with less.
fn histories(usual: u32) -> u32 {
    asked("LB_HISTORIES", if cfg!(debug_assertions) { usual / 10 } else { usual })
}

/// Random histories. What goes wrong is shortened here, and not by proptest: that takes away one thing after the other,
/// of which most do not matter.
fn hold(setup: impl Strategy<Value = Setup>) {
    let history = prop::collection::vec(any::<u64>().prop_map(Action::random), 1..600);
    let config =
        Config { cases: histories(600), failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let holds = |(setup, history): (Setup, Vec<Action>)| {
        if World::run(&setup, &history).wrong.is_empty() {
            return Ok(());
        }
        let short = shortened(&setup, &history);
        let wrong = World::run(&setup, &short).wrong.join("\n");
        Err(TestCaseError::fail(format!("{wrong}\n{setup:?}\n{}", told(&short))))
    };
    if let Err(TestError::Fail(reason, _)) = TestRunner::new(config).run(&(setup, history), holds) {
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

/// All of the same length, one after the other.
fn sum(setup: &Setup, histories: u64, seconds: usize) -> Outcome {
    let mut sum = Outcome::default();
    for seed in 0..histories {
        let one = World::run(setup, &Action::history(seed, seconds));
        sum.flows += one.flows;
        sum.packets += one.packets;
        sum.broken += one.broken;
        sum.unsettled += one.unsettled / histories as f64;
        sum.wrong.extend(one.wrong.into_iter().take(1));
    }
    sum
}

#[test]
fn each_rule_is_needed() {
    let histories = 30;
    for rule in [None].into_iter().chain(Rule::ALL.map(Some)) {
        let setup = Setup { broken: rule, ..Setup::default() };
        let outcome = sum(&setup, histories, 1000);
        println!("{rule:?}: {} of {} flows, {:.2}", outcome.broken, outcome.flows, outcome.unsettled);
    }
}
