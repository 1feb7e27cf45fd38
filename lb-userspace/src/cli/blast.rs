//! What a config would do to flows, in words.

use std::net::IpAddr;

use super::status::duration;
use crate::daemon::{Accuracy, Blast, Flows};

/// Longest list of backends that is written out.
const SHOWN: usize = 8;

/// A service's part of a dry run, without the last new line.
pub(super) fn text(blast: &Blast) -> String {
    let Blast { service, id, slots, slots_moving, takers_before, takers_after, .. } = blast;
    if blast.removed {
        return format!(
            "{service} {id}: the service goes\n  flows: {} break",
            counted(&blast.flows_dropped, "of it")
        );
    }
    let lists = [
        ("added", &blast.added),
        ("drained", &blast.drained),
        ("leaving when their flows are gone", &blast.leaving),
        ("going at once", &blast.dropped),
    ];
    let lists = lists.iter().filter(|(_, list)| !list.is_empty());
    let lists: String = lists.map(|(what, list)| format!("; {what}: {}", addresses(list))).collect();
    let share = f64::from(*slots_moving) * 100.0 / f64::from((*slots).max(1));
    format!(
        "{service} {id}\n  backends: {takers_after} take new flows ({takers_before} now){lists}\n  \
         slots: {slots_moving} of {slots} change owner ({share:.1}%){}\n  flows: {}",
        later(blast),
        flows(blast)
    )
}

/// What moves when those who are new have been found up.
fn later(blast: &Blast) -> String {
    if blast.waiting.is_empty() {
        return String::new();
    }
    let share = f64::from(blast.slots_later) * 100.0 / f64::from(blast.slots.max(1));
    format!(
        ";\n         {} more ({share:.1}%) when checks have passed of {}",
        blast.slots_later,
        addresses(&blast.waiting)
    )
}

fn flows(blast: &Blast) -> String {
    let mut parts = Vec::new();
    if blast.dropped.is_empty() && blast.flows_moved.count == 0 {
        parts.push("0 flows move".to_owned());
    }
    if !blast.dropped.is_empty() {
        parts.push(format!("{} move and break, with their backend", counted(&blast.flows_dropped, "")));
    }
    if blast.flows_moved.count > 0 {
        parts.push(format!("{} move and break: tracking is never", counted(&blast.flows_moved, "")));
    }
    if blast.flows_watched.count > 0 {
        let watched = counted(&blast.flows_watched, "");
        parts.push(format!("{watched} are watched for {}", duration(blast.watched_s)));
    }
    if blast.flows_later.count > 0 {
        let what =
            if blast.untracked { "move and break then: tracking is never" } else { "are watched then" };
        parts.push(format!("{} {what}", counted(&blast.flows_later, "")));
    }
    parts.join("; ")
}

fn counted(flows: &Flows, of: &str) -> String {
    let how = match flows.accuracy {
        Accuracy::Exact => "",
        Accuracy::About => "about ",
        Accuracy::AtMost => "at most ",
    };
    let text = format!("{how}{} flows {of}", thousands(flows.count));
    text.trim_end().to_owned()
}

/// 1234567 as `1,234,567`.
fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let first = digits.len() % 3;
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && index % 3 == first % 3 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn addresses(list: &[IpAddr]) -> String {
    let shown: Vec<String> = list.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = list.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_says_that_no_flow_moves() {
        let blast = Blast {
            service: "web".to_owned(),
            id: "203.0.113.10:80/tcp".to_owned(),
            slots: 4093,
            slots_moving: 1364,
            takers_before: 3,
            takers_after: 2,
            leaving: vec![[203, 0, 113, 21].into()],
            flows_watched: Flows { count: 1200, accuracy: Accuracy::About },
            watched_s: 900,
            ..Blast::default()
        };
        let lines = text(&blast);
        assert!(
            lines.contains("2 take new flows (3 now); leaving when their flows are gone: 203.0.113.21"),
            "{lines}"
        );
        assert!(lines.contains("1364 of 4093 change owner (33.3%)"), "{lines}");
        assert!(lines.ends_with("0 flows move; about 1,200 flows are watched for 15m"), "{lines}");
        let gone = Blast {
            dropped: vec![[203, 0, 113, 21].into()],
            flows_dropped: Flows { count: 3, accuracy: Accuracy::Exact },
            ..blast
        };
        assert!(
            text(&gone).contains("flows: 3 flows move and break, with their backend; about"),
            "{}",
            text(&gone)
        );
    }

    #[test]
    fn what_moves_after_the_first_probes_has_a_line_of_its_own() {
        let blast = Blast {
            slots: 4093,
            takers_after: 3,
            slots_later: 1023,
            added: vec![[203, 0, 113, 24].into()],
            waiting: vec![[203, 0, 113, 24].into()],
            flows_later: Flows { count: 75, accuracy: Accuracy::About },
            ..Blast::default()
        };
        let lines = text(&blast);
        assert!(lines.contains("0 of 4093 change owner (0.0%);\n"), "{lines}");
        assert!(lines.contains("  1023 more (25.0%) when checks have passed of 203.0.113.24\n"), "{lines}");
        assert!(lines.ends_with("0 flows move; about 75 flows are watched then"), "{lines}");
        let lines = text(&Blast { untracked: true, ..blast });
        assert!(lines.ends_with("about 75 flows move and break then: tracking is never"), "{lines}");
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!(
            [0, 999, 1000, 12_345, 1_234_567].map(thousands),
            ["0", "999", "1,000", "12,345", "1,234,567"]
        );
    }
}
