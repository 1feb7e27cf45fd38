//! A service's turns: each backend as often as its weight says, spread evenly.
//!
//! The smooth weighted round robin of nginx (`ngx_http_upstream_get_peer` in ngx_http_upstream_round_robin.c): before
//! each turn everybody is given its weight, whoever has most takes the turn and pays for it what all were given. Pure;
//! knows nothing of slots or ids.

use super::ring::Member;

/// About the longest schedule. Weights whose ratios want a longer one are rounded to whole turns of it, one at least: so
/// each has half a turn too many or too few, and one with hardly any weight up to a whole one too many. The length may
/// then exceed this by a turn for each member.
pub const LONGEST: u32 = 4096;

/// The turns of one period, as indexes into `members`; empty if nobody has a weight. Each member has its weight divided
/// by what all weights have in common, or, where that would be longer than [`LONGEST`], its rounded share of it, and
/// at least one. At no time has anybody had a whole turn more than its share.
///
/// The order of `members` does not matter: who is equal takes turns by address.
pub fn build(members: &[Member]) -> Vec<u32> {
    let mut queue: Vec<Waiting> = members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.weight > 0)
        .map(|(index, member)| Waiting { index: index as u32, turns: i64::from(member.weight), credit: 0 })
        .collect();
    queue.sort_by_key(|waiting| members.get(waiting.index as usize).map(|member| member.address));
    shorten(&mut queue);
    let period: i64 = queue.iter().map(|waiting| waiting.turns).sum();
    (0..period).filter_map(|_| turn(&mut queue, period)).collect()
}

struct Waiting {
    index: u32,
    /// In a period.
    turns: i64,
    credit: i64,
}

/// Whose turn is next.
fn turn(queue: &mut [Waiting], period: i64) -> Option<u32> {
    let mut first: Option<usize> = None;
    let mut most = i64::MIN;
    for (place, waiting) in queue.iter_mut().enumerate() {
        waiting.credit += waiting.turns;
        if waiting.credit > most {
            (first, most) = (Some(place), waiting.credit);
        }
    }
    let taken = queue.get_mut(first?)?;
    taken.credit -= period;
    Some(taken.index)
}

/// Brings the numbers of turns down to a period that is not too long.
fn shorten(queue: &mut [Waiting]) {
    divide(queue);
    let period: i64 = queue.iter().map(|waiting| waiting.turns).sum();
    let longest = i64::from(LONGEST);
    if period > longest {
        for waiting in queue.iter_mut() {
            waiting.turns = ((waiting.turns * longest + period / 2) / period).max(1);
        }
        divide(queue);
    }
}

/// Divides by what all have in common.
fn divide(queue: &mut [Waiting]) {
    let common = queue.iter().fold(0, |common, waiting| gcd(common, waiting.turns));
    for waiting in queue.iter_mut() {
        waiting.turns /= common.max(1);
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn members(weights: &[u32]) -> Vec<Member> {
        let address = |n: usize| Ipv4Addr::from(0xc633_6400 + n as u32).into();
        weights
            .iter()
            .enumerate()
            .map(|(n, weight)| Member { address: address(n), weight: *weight })
            .collect()
    }

    fn counts(schedule: &[u32], members: usize) -> Vec<u32> {
        let mut counts = vec![0; members];
        schedule.iter().for_each(|index| counts[*index as usize] += 1);
        counts
    }

    /// nginx's own example, in the message of the commit that brought the algorithm.
    #[test]
    fn five_one_one_is_spread() {
        assert_eq!(build(&members(&[5, 1, 1])), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn who_is_equal_takes_turns_by_address() {
        assert_eq!(build(&members(&[100, 100, 100])), [0, 1, 2]);
    }

    #[test]
    fn nobody_with_weight_means_no_schedule() {
        assert!(build(&members(&[0, 0])).is_empty());
        assert!(build(&[]).is_empty());
    }

    #[test]
    fn a_tiny_weight_beside_huge_ones_has_a_turn() {
        let weights = [6_553_500, 6_553_500, 1];
        let schedule = build(&members(&weights));
        assert_eq!(counts(&schedule, 3), [2048, 2048, 1]);
    }

    #[test]
    fn more_members_than_turns_have_one_each() {
        let weights: Vec<u32> = (0..5000).map(|n| 1 + n % 7).collect();
        let schedule = build(&members(&weights));
        assert!(schedule.len() <= 2 * LONGEST as usize + 5000, "{}", schedule.len());
        assert!(counts(&schedule, weights.len()).iter().all(|turns| *turns >= 1));
    }

    fn small() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec(prop_oneof![0u32..9, 0u32..300], 1..24)
    }

    proptest! {
        /// Over a period everybody has exactly its share, where the period is not too long.
        #[test]
        fn counts_are_exact(weights in small(), factor in 1u32..200) {
            let scaled: Vec<u32> = weights.iter().map(|weight| weight * factor).collect();
            let schedule = build(&members(&scaled));
            let total: u32 = weights.iter().sum();
            let common = weights.iter().fold(0, |a, b| gcd(a, i64::from(*b))).max(1) as u32;
            prop_assume!(total / common <= LONGEST);
            let wanted: Vec<u32> = weights.iter().map(|weight| weight / common).collect();
            prop_assert_eq!(counts(&schedule, weights.len()), wanted);
        }

        /// Whatever the weights, shares are what is documented.
        #[test]
        fn shares_are_as_exact_as_promised(weights in prop::collection::vec(0u32..6_553_501, 1..200)) {
            let schedule = build(&members(&weights));
            let length = schedule.len();
            prop_assert!(length <= LONGEST as usize + weights.len());
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            // What half a turn of each amounts to, of as many turns as there are before common factors are taken out.
            let others = weights.len() as f64 / 2.0 / f64::from(LONGEST);
            for (turns, weight) in counts(&schedule, weights.len()).iter().zip(&weights) {
                prop_assert_eq!(*turns > 0, *weight > 0);
                let exact = f64::from(*weight) / total.max(1) as f64;
                let share = f64::from(*turns) / length.max(1) as f64;
                let allowed = (1.0 / f64::from(LONGEST) + exact * others) / (1.0 - others);
                prop_assert!((share - exact).abs() <= allowed, "{share} instead of {exact}");
            }
        }

        /// At no time is anybody a whole turn ahead of its share, or two behind.
        #[test]
        fn turns_are_spread_evenly(weights in small()) {
            let schedule = build(&members(&weights));
            let period = schedule.len() as f64;
            let total = counts(&schedule, weights.len());
            let mut had = vec![0u32; weights.len()];
            for (past, index) in (1..).zip(&schedule) {
                had[*index as usize] += 1;
                for (had, turns) in had.iter().zip(&total) {
                    let ahead = f64::from(*had) - f64::from(past) * f64::from(*turns) / period;
                    prop_assert!(ahead < 1.0 && ahead > -2.0, "{} turns ahead after {}", ahead, past);
                }
            }
        }

        #[test]
        fn order_does_not_matter(weights in small(), shift in 0usize..24) {
            let list = members(&weights);
            let mut rotated = list.clone();
            rotated.rotate_left(shift % list.len());
            let who = |list: &[Member], turns: Vec<u32>| -> Vec<IpAddr> {
                turns.into_iter().map(|index| list[index as usize].address).collect()
            };
            prop_assert_eq!(who(&list, build(&list)), who(&rotated, build(&rotated)));
        }
    }
}
