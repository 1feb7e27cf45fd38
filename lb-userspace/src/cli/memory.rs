//! What the kernel's tables take and hold, as `lb validate` foresees it and `lb status` finds it.

use lb_common::abi::{FlowTable, Reason, names};
use serde_json::{Value, json};

use super::output::{Table, mib};
use super::view::{View, possible_cpus};
use crate::daemon::{Cpus, size, wanted};
use crate::dataplane::{FlowUse, Memory, memory};
use crate::doctor::{Finding, Severity};
use crate::model::Model;
use crate::reconcile::Size;

/// Maps that take less are told of together.
const SMALL: u64 = 100 << 10;

/// What a config's maps will take on this machine.
pub(super) struct Foreseen {
    /// Capacities.
    pub(super) size: Size,
    pub(super) memory: Memory,
    /// Capacities with the entries of flow tables that the receiving CPUs are to have together.
    wanted: Size,
    cpus: Cpus,
}

impl Foreseen {
    pub(super) fn of(model: &Model) -> Self {
        let size = size(model);
        Self {
            memory: memory(&size, possible_cpus()),
            size,
            wanted: wanted(model),
            cpus: Cpus::here(&model.limits),
        }
    }

    /// `maps` by name, `flow_tables`, CPUs, for a JSON object.
    pub(super) fn json(&self) -> [(&'static str, Value); 4] {
        let maps = self.memory.maps.iter();
        let maps: Vec<Value> = maps.map(|(name, bytes)| json!({"name": name, "bytes": bytes})).collect();
        let tables = tables().map(|(table, tcp)| {
            json!({
                "name": names::flow_table(table, tcp),
                "wanted": self.wanted.flows(table, tcp),
                "entries": self.size.flows(table, tcp),
                "bytes": self.bytes(names::flow_table(table, tcp)),
            })
        });
        [
            ("maps", maps.into()),
            ("flow_tables", tables.collect::<Vec<_>>().into()),
            ("possible_cpus", self.cpus.possible.into()),
            ("receiving_cpus", self.cpus.receiving.into()),
        ]
    }

    /// The flow tables with what was wanted of them, then the other maps, the largest first.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new(["MAP", "FLOWS", "ENTRIES", "MEMORY"]);
        for (flows, tcp) in tables() {
            let name = names::flow_table(flows, tcp);
            let (wanted, entries) = (self.wanted.flows(flows, tcp), self.size.flows(flows, tcp));
            table.row([name.to_owned(), wanted.to_string(), entries.to_string(), mib(self.bytes(name))]);
        }
        let is_flows = |name: &str| tables().any(|(table, tcp)| names::flow_table(table, tcp) == name);
        let mut others: Vec<_> =
            self.memory.maps.iter().copied().filter(|(name, _)| !is_flows(name)).collect();
        others.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let (large, small): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, bytes)| *bytes >= SMALL);
        for (name, bytes) in large {
            table.row([name.to_owned(), String::new(), String::new(), mib(bytes)]);
        }
        let rest = small.iter().map(|(_, bytes)| bytes).sum();
        table.row([format!("{} smaller ones", small.len()), String::new(), String::new(), mib(rest)]);
        let Cpus { possible, receiving } = self.cpus;
        let parts = match possible == receiving {
            true => String::new(),
            false => format!("  flow tables have parts for {possible} CPUs, of which {receiving} receive\n"),
        };
        table.render(2) + &parts
    }

    /// A warning where this is much for the machine.
    pub(super) fn warning(&self) -> Option<Finding> {
        let machine = machine_bytes(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
        too_large(self.memory.total(), machine)
    }

    fn bytes(&self, map: &str) -> u64 {
        self.memory.maps.iter().find(|(name, _)| *name == map).map_or(0, |(_, bytes)| *bytes)
    }
}

fn tables() -> impl Iterator<Item = (FlowTable, bool)> {
    [true, false].into_iter().flat_map(|tcp| FlowTable::ALL.map(|table| (table, tcp)))
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The kernel allocates most of it at once, and can neither swap it out nor take it back.
fn too_large(maps: u64, machine: u64) -> Option<Finding> {
    (maps > machine / 4).then(|| {
        let what = format!("the maps take {} of this machine's {}", mib(maps), mib(machine));
        Finding::new("LB153", Severity::Warning, "limits", what)
            .why("maps are allocated at once and never swapped out")
            .fix("smaller `limits`; `limits.receiving_cpus` if only some CPUs receive packets")
    })
}

/// What `lb status` says of tables and slots, for a JSON object.
pub(super) fn found_json(view: &View) -> [(&'static str, Value); 7] {
    let memory = memory(&view.observed.size, possible_cpus());
    let table = |used: &FlowUse| {
        let name = names::flow_table(used.table, used.tcp);
        json!({"name": name, "entries": used.entries, "capacity": used.capacity})
    };
    let maps: serde_json::Map<String, Value> =
        memory.maps.iter().map(|(name, bytes)| ((*name).to_owned(), (*bytes).into())).collect();
    [
        ("flow_tables", view.flows.iter().map(table).collect::<Vec<_>>().into()),
        ("affinity", json!({"entries": view.affinity.0, "capacity": view.affinity.1})),
        ("recorded_flows", recorded(view).into()),
        (
            "notes",
            noted(view)
                .map(|(reason, count)| (reason.name().to_owned(), count.into()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        ),
        ("forced_settles", view.forced_settles.into()),
        ("memory_bytes", memory.total().into()),
        ("maps", maps.into()),
    ]
}

/// The same as text: how full each flow table is, and what went wrong with flows.
pub(super) fn found_text(view: &View) -> String {
    let mut table = Table::new(["FLOWS", "HALF OPEN", "ESTABLISHED", "OLD"]);
    for (name, tcp) in [("tcp", true), ("udp", false)] {
        let cell = |table| {
            let used = view.flows.iter().find(|used| (used.table, used.tcp) == (table, tcp));
            used.map_or("-".to_owned(), |used| format!("{}/{}", used.entries, used.capacity))
        };
        let [half_open, established, old] = FlowTable::ALL.map(cell);
        table.row([name.to_owned(), half_open, established, old]);
    }
    if view.affinity != (0, UNUSED) {
        let (clients, room) = view.affinity;
        table.row(["clients".to_owned(), String::new(), format!("{clients}/{room}"), String::new()]);
    }
    let slots: usize = view.services.iter().map(|service| service.ring_size as usize).sum();
    let unsettled: usize = view.services.iter().map(|service| service.unsettled_slots).sum();
    let share = unsettled as f64 * 100.0 / slots.max(1) as f64;
    let memory = memory(&view.observed.size, possible_cpus()).total();
    let notes: Vec<String> = noted(view)
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{} {count}", reason.name()))
        .collect();
    let notes = if notes.is_empty() { "none" } else { &notes.join(", ") };
    let forced = match view.forced_settles {
        Some(slots) if slots > 0 => format!(", {slots} forced to settle"),
        _ => String::new(),
    };
    table.render(0)
        + &format!("SLOTS  {share:.1}% unsettled{forced}   MAPS  {}   NOTES  {notes}\n", mib(memory))
}

/// Entries of the table of clients where no service has affinity.
const UNUSED: u32 = 1;
/// From which share on a table counts as full, in percent.
const FULL: usize = 90;

/// Tables that are about to push out records of flows that live. Those of half-open flows may: SYN floods fill them.
pub(super) fn pressure(view: &View) -> Vec<String> {
    let receiving = view.counters.cpus.iter().filter(|packets| **packets > 0).count();
    let flows = view.flows.iter().filter(|used| used.table != FlowTable::HalfOpen);
    flows.filter_map(|used| full(used, receiving, possible_cpus() as usize)).collect()
}

/// What is wrong with a table, if it is full: each CPU has a part of it, which only packets that come there fill.
fn full(used: &FlowUse, receiving: usize, possible: usize) -> Option<String> {
    let usable = used.capacity as usize * receiving.clamp(1, possible) / possible;
    (used.entries > 0 && used.entries * 100 >= usable * FULL).then(|| {
        format!(
            "flow table {} is full: {} of {usable} entries that {receiving} of {possible} CPUs use; raise \
             `limits.{}` and start the daemon again, or connections may move",
            names::flow_table(used.table, used.tcp),
            used.entries,
            if used.tcp { "flows" } else { "udp_flows" },
        )
    })
}

fn recorded(view: &View) -> usize {
    view.flows.iter().map(|used| used.entries).sum()
}

/// Packets of all services with each note.
fn noted(view: &View) -> impl Iterator<Item = (Reason, u64)> {
    let notes = Reason::ALL.iter().copied().filter(|reason| reason.is_note());
    notes.map(|reason| {
        let of = |service: &super::view::ServiceView| service.notes.get(reason.name()).copied();
        (reason, view.services.iter().filter_map(of).sum())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_machine() {
        let text = "MemFree:  12 kB\nMemTotal:       16303428 kB\nSwapTotal: 0 kB\n";
        assert_eq!(machine_bytes(text), Some(16_303_428 * 1024));
        assert_eq!(machine_bytes("MemFree: 12 kB\n"), None);
    }

    #[test]
    fn a_table_is_full_when_the_parts_are_that_are_used() {
        let used = |entries| FlowUse { table: FlowTable::Established, tcp: true, entries, capacity: 400 };
        assert_eq!(full(&used(359), 4, 4), None);
        assert!(full(&used(360), 4, 4).unwrap().contains("360 of 400 entries that 4 of 4 CPUs use"));
        assert_eq!(full(&used(89), 1, 4), None);
        let told = full(&used(90), 1, 4).unwrap();
        assert!(told.contains("TCP_ESTABLISHED") && told.contains("`limits.flows`"), "{told}");
    }

    #[test]
    fn a_quarter_of_the_machine_is_much() {
        assert_eq!(too_large(1 << 30, 4 << 30), None);
        let finding = too_large((1 << 30) + 1, 4 << 30).unwrap();
        assert!(finding.to_string().contains("1024.0 MiB of this machine's 4096.0 MiB"), "{finding}");
    }

    #[test]
    fn tables_are_told_of_with_what_was_wanted_of_them() {
        let model = crate::config::parse("lb.yaml", "version: 1\nlimits: {flows: 3000, receiving_cpus: 1}\n");
        let mut foreseen = Foreseen::of(&model.unwrap().model);
        foreseen.cpus = Cpus { possible: 8, receiving: 1 };
        let text = foreseen.text();
        assert!(
            text.lines().any(|line| line.trim().starts_with("TCP_HALF_OPEN") && line.contains(" 1500 ")),
            "{text}"
        );
        assert!(text.contains("RINGS") && text.contains("smaller ones"), "{text}");
        assert!(text.ends_with("parts for 8 CPUs, of which 1 receive\n"), "{text}");
        let [_, (_, tables), ..] = foreseen.json();
        assert_eq!(tables[1]["wanted"], 3000);
        assert_eq!(tables[1]["entries"].as_u64().unwrap() % 3000, 0, "a part for each possible CPU");
    }
}
