//! How packets spread over CPUs while the machine was watched: two readings of counters, and what their difference
//! means. The reading knows files, the rest is pure.

use std::time::Duration;

use super::{Diagnosis, Finding, Root, Severity};

/// Rates below this say nothing about the spread, in packets per second.
const QUIET: f64 = 1000.0;
/// The busiest CPU may have this many times its fair share.
const UNEVEN: f64 = 1.5;
/// Times a second that a CPU may run out of its budget for packets.
const SQUEEZED: f64 = 10.0;

const CPUS: Share<'static> = Share { code: "LB220", place: "cpus", of_what: "", each: "CPU" };

/// Counters at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reading {
    /// Packets in lb's programs, by CPU; empty where lb is not attached.
    pub ours: Vec<u64>,
    /// Runs of the receive softirq, by CPU.
    pub softirqs: Vec<u64>,
    /// The stack's own counters, by CPU.
    pub stack: Vec<Stack>,
}

/// A CPU's line of /proc/net/softnet_stat (`softnet_seq_show`, net/core/net-procfs.c).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stack {
    /// Packets that entered the network stack.
    pub processed: u64,
    /// Packets dropped because the CPU's backlog was full.
    pub dropped: u64,
    /// Times that packets were left waiting because the budget was used up.
    pub squeezed: u64,
}

impl Reading {
    /// Reads it; `ours` comes from the data plane.
    pub fn read(root: &Root, ours: Vec<u64>) -> Self {
        let softirqs = root.text("/proc/softirqs").unwrap_or_default();
        let stack = root.text("/proc/net/softnet_stat").unwrap_or_default();
        Self {
            ours,
            softirqs: numbers(&softirqs, "NET_RX:"),
            stack: stack.lines().filter_map(Stack::parse).collect(),
        }
    }
}

impl Stack {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().map(|word| u64::from_str_radix(word, 16).ok());
        let mut next = || words.next().flatten();
        Some(Self { processed: next()?, dropped: next()?, squeezed: next()? })
    }
}

/// The numbers of the line that starts with `label`.
fn numbers(text: &str, label: &str) -> Vec<u64> {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(label));
    line.unwrap_or_default().split_whitespace().map_while(|word| word.parse().ok()).collect()
}

/// What the time between two readings shows.
pub fn findings(before: &Reading, after: &Reading, span: Duration) -> Vec<Diagnosis> {
    let seconds = span.as_secs_f64().max(0.001);
    let rates = |after: &[u64], before: &[u64]| -> Vec<f64> {
        let before = before.iter().copied().chain(std::iter::repeat(0));
        after.iter().zip(before).map(|(a, b)| a.saturating_sub(b) as f64 / seconds).collect()
    };
    let mut found = Vec::new();
    let ours = rates(&after.ours, &before.ours);
    if ours.is_empty() {
        let of_what = "NET_RX softirqs";
        found.push(balance(Share { of_what, ..CPUS }, &rates(&after.softirqs, &before.softirqs)));
    } else {
        found.push(balance(Share { of_what: "lb's packets", ..CPUS }, &ours));
    }
    let of = |field: fn(&Stack) -> u64| {
        let all = |reading: &Reading| reading.stack.iter().map(field).collect::<Vec<_>>();
        rates(&all(after), &all(before))
    };
    found.extend(backlog(&of(|cpu| cpu.dropped), &of(|cpu| cpu.squeezed)));
    found
}

/// Whose share of what is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share<'a> {
    pub(super) code: &'static str,
    pub(super) place: &'a str,
    pub(super) of_what: &'a str,
    /// Who has shares: `CPU`, `queue`.
    pub(super) each: &'a str,
}

/// Whether rates (per second) spread evenly.
pub(super) fn balance(share: Share<'_>, rates: &[f64]) -> Diagnosis {
    let Share { code, place, of_what, each } = share;
    let sum: f64 = rates.iter().sum();
    let (busiest, most) = rates
        .iter()
        .enumerate()
        .fold((0, 0.0), |max, (index, rate)| if *rate > max.1 { (index, *rate) } else { max });
    let mean = sum / rates.len().max(1) as f64;
    if rates.len() < 2 || sum < QUIET {
        let what = format!("{of_what}: {sum:.0}/s, too few to judge their spread");
        return Finding::ok(code, place, what).into();
    }
    let used = rates.iter().filter(|rate| **rate > mean / 10.0).count();
    let what = format!(
        "{of_what}: {sum:.0}/s on {used} of {} {each}s; {each} {busiest} has {:.0} %",
        rates.len(),
        most / sum * 100.0
    );
    if most <= mean * UNEVEN {
        return Finding::ok(code, place, what).into();
    }
    Finding::new(code, Severity::Warning, place, what)
        .why("a CPU that is full drops packets while others idle")
        .fix("as many queues as CPUs, an interrupt on each (`queues: auto`), hashing over ports; few flows cannot spread")
        .into()
}

fn backlog(dropped: &[f64], squeezed: &[f64]) -> Vec<Diagnosis> {
    let (lost, tight): (f64, f64) = (dropped.iter().sum(), squeezed.iter().sum());
    let mut found = Vec::new();
    if lost > 0.0 {
        let finding = Finding::new(
            "LB221",
            Severity::Warning,
            "cpus",
            format!("{lost:.0} packets/s dropped: backlog full"),
        );
        found.push(
            finding
                .why("packets in generic mode, through veth or steered by RPS wait in a CPU's backlog")
                .fix("sysctl -w net.core.netdev_max_backlog=10000; native mode avoids it")
                .into(),
        );
    }
    if tight > SQUEEZED {
        let what = format!("{tight:.0} times/s packets were left waiting (time_squeeze)");
        let finding = Finding::new("LB221", Severity::Notice, "cpus", what);
        found.push(
            finding
                .why("the budget of a softirq was used up with packets still in the ring")
                .fix("spread over more CPUs; sysctl -w net.core.netdev_budget=600 net.core.netdev_budget_usecs=8000")
                .into(),
        );
    }
    if found.is_empty() {
        found.push(Finding::ok("LB221", "cpus", "nothing dropped or left waiting in the stack").into());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bad(before: &Reading, after: &Reading) -> Vec<(&'static str, Severity, String)> {
        let found = findings(before, after, SECOND).into_iter().map(|found| found.finding);
        let bad = found.filter(|finding| finding.severity > Severity::Ok);
        bad.map(|finding| (finding.code, finding.severity, finding.what)).collect()
    }

    fn reading(ours: &[u64], softirqs: &[u64], stack: [[u64; 3]; 2]) -> Reading {
        let stack = stack.map(|[processed, dropped, squeezed]| Stack { processed, dropped, squeezed });
        Reading { ours: ours.to_vec(), softirqs: softirqs.to_vec(), stack: stack.to_vec() }
    }

    #[test]
    fn files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("proc/net")).unwrap();
        let write = |name: &str, text| std::fs::write(directory.path().join(name), text).unwrap();
        write(
            "proc/softirqs",
            "                    CPU0       CPU1\n          HI:          1          2\n      NET_RX:   14489344   10948191\n",
        );
        write(
            "proc/net/softnet_stat",
            "031e75c7 00000002 00000151 00000000\n0266d4d1 00000000 00000125 00000000\n",
        );
        let read = Reading::read(&Root::below(directory.path()), vec![5]);
        let stack = [[0x031e_75c7, 2, 0x151], [0x0266_d4d1, 0, 0x125]];
        assert_eq!(read, reading(&[5], &[14_489_344, 10_948_191], stack));
    }

    #[test]
    fn our_own_packets_count_where_there_are_some() {
        let idle = reading(&[100, 100], &[0, 0], [[0; 3]; 2]);
        let even = reading(&[5100, 5200], &[90_000, 0], [[0; 3]; 2]);
        assert_eq!(bad(&idle, &even), []);
        let one = reading(&[9100, 100], &[50, 50], [[0; 3]; 2]);
        let what = "lb's packets: 9000/s on 1 of 2 CPUs; CPU 0 has 100 %".to_owned();
        assert_eq!(bad(&idle, &one), [("LB220", Severity::Warning, what)]);
        let quiet = reading(&[800, 100], &[90_000, 0], [[0; 3]; 2]);
        assert_eq!(bad(&idle, &quiet), []);
    }

    #[test]
    fn without_lb_softirqs_tell() {
        let before = reading(&[], &[0, 0], [[0; 3]; 2]);
        let found = bad(&before, &reading(&[], &[0, 5000], [[0; 3]; 2]));
        assert!(
            matches!(&found[..], [("LB220", Severity::Warning, what)] if what.contains("CPU 1 has 100 %")),
            "{found:?}"
        );
    }

    #[test]
    fn losses_in_the_stack_are_told() {
        let before = reading(&[], &[], [[0; 3]; 2]);
        let after = reading(&[], &[], [[9, 3, 0], [9, 4, 40]]);
        let found: Vec<_> =
            bad(&before, &after).into_iter().map(|(code, severity, _)| (code, severity)).collect();
        assert_eq!(found, [("LB221", Severity::Warning), ("LB221", Severity::Notice)]);
        assert_eq!(bad(&before, &reading(&[], &[], [[9, 0, 1], [9, 0, 1]])), []);
    }
}
