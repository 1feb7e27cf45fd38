//! Services that take each other's packets: the same traffic twice is an error, a part of another's is worth a warning
//! that says who wins. The longest prefix wins, then the fewest ports.

use std::collections::{BTreeMap, BTreeSet};

use super::decode::quoted;
use super::diagnostic::{Findings, Report, code};
use super::source::Span;
use crate::model::{Prefix, Protocol, ServiceId};

/// As many warnings are looked for.
const MAX_WARNINGS: usize = 100;

/// What a service takes.
#[derive(Clone, Copy)]
pub(super) struct Taken<'c> {
    pub(super) id: ServiceId,
    pub(super) span: Span,
    /// Which entry of the config it is from.
    pub(super) service: usize,
    pub(super) name: &'c str,
}

/// Everything that is taken, by addresses.
pub(super) struct Overlaps<'c> {
    all: BTreeMap<(Protocol, Prefix), Ports<'c>>,
    /// Lengths of the prefixes, the longest first.
    lengths: BTreeSet<std::cmp::Reverse<u8>>,
    warnings: usize,
}

/// What is taken of one prefix and protocol.
#[derive(Default)]
struct Ports<'c> {
    /// By first port; of those with the same, the widest first.
    list: Vec<Taken<'c>>,
    /// The highest last port of each and those before it.
    reach: Vec<u16>,
}

impl<'c> Overlaps<'c> {
    pub(super) fn new(taken: Vec<Taken<'c>>) -> Overlaps<'c> {
        let mut all: BTreeMap<_, Ports<'c>> = BTreeMap::new();
        for one in taken {
            all.entry((one.id.protocol, one.id.prefix())).or_default().list.push(one);
        }
        let lengths = all.keys().map(|(_, prefix)| std::cmp::Reverse(prefix.length)).collect();
        all.values_mut().for_each(Ports::sort);
        Overlaps { all, lengths, warnings: 0 }
    }

    pub(super) fn report(mut self, out: &mut Findings<'_>) {
        let all = std::mem::take(&mut self.all);
        for ports in all.values() {
            self.within_ports(ports, out);
        }
        for ((protocol, prefix), ports) in &all {
            let shorter = self.lengths.iter().map(|length| length.0).filter(|length| *length < prefix.length);
            let around: Vec<&Ports<'c>> = shorter
                .filter_map(|length| all.get(&(*protocol, Prefix::containing(prefix.network, length))))
                .collect();
            for one in ports.list.iter().filter(|_| !around.is_empty()) {
                if self.warnings >= MAX_WARNINGS {
                    return;
                }
                if let Some(other) = around.iter().find_map(|ports| ports.overlapping(one)) {
                    self.warn(one, other, out);
                }
            }
        }
    }

    /// Ranges of the same addresses: each either within the one before, or apart from it.
    fn within_ports(&mut self, ports: &Ports<'c>, out: &mut Findings<'_>) {
        let mut open: Vec<&Taken<'c>> = Vec::new();
        for one in &ports.list {
            while open.last().is_some_and(|outer| outer.id.last_port < one.id.port) {
                open.pop();
            }
            let outer = open.last().copied();
            open.push(one);
            match outer {
                None => {}
                // An entry's own doubles were reported where they are listed.
                Some(outer) if outer.id == one.id && outer.service == one.service => {}
                Some(outer) if outer.id == one.id => out.push_error(|| twice(one, outer)),
                Some(outer) if outer.id.last_port < one.id.last_port => {
                    out.push_error(|| crossing(one, outer));
                }
                Some(outer) => self.warn(one, outer, out),
            }
        }
    }

    fn warn(&mut self, one: &Taken<'c>, other: &Taken<'c>, out: &mut Findings<'_>) {
        if one.service == other.service || self.warnings >= MAX_WARNINGS {
            return;
        }
        self.warnings += 1;
        let (name, of) = (quoted(one.name), quoted(other.name));
        let message = format!("{name} ({}) takes part of what {of} ({}) takes, and wins", one.id, other.id);
        let report = Report::warning(code::OVERLAP, one.span, message).also(other.span, "the wider one");
        out.push(report.help("the longest prefix wins, then the fewest ports"));
    }
}

impl<'c> Ports<'c> {
    fn sort(&mut self) {
        self.list.sort_by_key(|one| (one.id.port, std::cmp::Reverse(one.id.last_port), one.service));
        let mut reach = 0;
        self.reach = self
            .list
            .iter()
            .map(|one| {
                reach = reach.max(one.id.last_port);
                reach
            })
            .collect();
    }

    /// The narrowest that shares a port with another, as far as one look tells.
    fn overlapping(&self, other: &Taken<'c>) -> Option<&Taken<'c>> {
        let before = self.list.partition_point(|one| one.id.port <= other.id.last_port);
        let reached = self.reach.get(before.checked_sub(1)?)?;
        if *reached < other.id.port {
            return None;
        }
        self.list.get(..before)?.iter().rev().find(|one| one.id.last_port >= other.id.port)
    }
}

fn twice(one: &Taken<'_>, other: &Taken<'_>) -> Report {
    let message = format!("two services take {}", one.id);
    let (first, second) = if one.service < other.service { (one, other) } else { (other, one) };
    Report::error(code::DUPLICATE_SERVICE, second.span, message).also(first.span, "first here")
}

fn crossing(one: &Taken<'_>, other: &Taken<'_>) -> Report {
    let message = format!("{} and {} overlap, and neither is within the other", one.id, other.id);
    let (first, second) = if one.service < other.service { (one, other) } else { (other, one) };
    Report::error(code::CROSSING, second.span, message).also(first.span, "the other").help(
        "who takes the ports that both have would be open; make one a part of the other, or separate them",
    )
}
