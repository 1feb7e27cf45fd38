//! Histories without what does not matter.

use super::{Action, Setup, World};

/// A short history that still goes wrong, out of one that does. What can be left out is, and where that would take
/// time away, nothing happens instead.
pub fn shortened(setup: &Setup, history: &[Action]) -> Vec<Action> {
    let goes_wrong = |history: &[Action]| !World::run(setup, history).wrong.is_empty();
    let mut history = history.to_vec();
    for replace in [leave_out, wait_instead, leave_out, wait_instead] {
        let mut part = history.len().div_ceil(2);
        while part > 0 {
            let mut at = 0;
            while at < history.len() {
                let shorter = replace(&history, at, (at + part).min(history.len()));
                if shorter != history && goes_wrong(&shorter) {
                    history = shorter;
                }
                at += part;
            }
            part /= 2;
        }
    }
    history
}

fn leave_out(history: &[Action], from: usize, to: usize) -> Vec<Action> {
    [&history[..from], &history[to..]].concat()
}

fn wait_instead(history: &[Action], from: usize, to: usize) -> Vec<Action> {
    let mut history = history.to_vec();
    history[from..to].fill(Action::Wait);
    history
}

/// A history as it is written in tests: what happens, and after how many seconds of nothing.
pub fn told(history: &[Action]) -> String {
    let mut told = String::new();
    let mut waited = 0;
    for action in history {
        if *action == Action::Wait {
            waited += 1;
            continue;
        }
        told.push_str(&format!("({waited}, {action:?}), "));
        waited = 0;
    }
    format!("&[{told}({waited}, Wait)]")
}

/// The history that is told so.
pub fn history(told: &[(usize, Action)]) -> Vec<Action> {
    told.iter().flat_map(|(waits, action)| [vec![Action::Wait; *waits], vec![*action]].concat()).collect()
}
