//! What `lb status` says of interfaces: settings, queues, CPUs. Pure.

use serde_json::{Value, json};

use super::output::{Table, short};
use super::view::Place;
use crate::daemon::{PartState, SettingState};
use crate::nic::QueuePackets;

/// Settings and queues of an attached interface; nothing where there is nothing to tell.
pub(super) fn text(place: &Place) -> String {
    let mut text = String::new();
    if !place.settings.is_empty() {
        let mut table = Table::new(["SETTING", "WANTED", "NOW", "BEFORE", "STATE"]);
        for parts in place.settings.chunk_by(is_like) {
            row(&mut table, parts);
        }
        text += &table.render(2);
        for parts in place.settings.chunk_by(is_like) {
            if let Some((first, why)) = parts.first().and_then(|part| Some((part, part.why.as_ref()?))) {
                text += &format!("  {} refused: {why}\n", first.setting);
            }
        }
    }
    // One queue has all the packets there are.
    if place.queues.len() > 1 {
        let queue = |(number, packets): (&u32, &QueuePackets)| {
            let count = |direction: &str, packets: Option<u64>| {
                packets.map(|packets| format!(" {direction} {}", short(packets))).unwrap_or_default()
            };
            format!("{number}:{}{}", count("rx", packets.rx), count("tx", packets.tx))
        };
        let queues: Vec<String> = place.queues.iter().map(queue).collect();
        text += &format!("  QUEUES  {}\n", queues.join("   "));
    }
    text
}

/// The same as JSON.
pub(super) fn json(place: &Place) -> Value {
    json!({"interface": place.interface, "settings": place.settings, "queues": place.queues})
}

fn key(setting: &SettingState) -> &str {
    setting.setting.split(' ').next().unwrap_or_default()
}

/// Whether two parts of one setting can share a line.
fn is_like(one: &SettingState, next: &SettingState) -> bool {
    key(one) == key(next) && one.state == next.state && one.why == next.why
}

/// A line for parts that are alike, each different value once.
fn row(table: &mut Table, parts: &[SettingState]) {
    let Some(first) = parts.first() else { return };
    let values = |of: fn(&SettingState) -> &Option<String>| {
        let mut values: Vec<&str> = parts.iter().map(|part| of(part).as_deref().unwrap_or("-")).collect();
        values.dedup();
        match values.len() {
            0..=4 => values.join(" | "),
            _ => format!("{} | … | {}", values[0], values[values.len() - 1]),
        }
    };
    let state = match first.state {
        PartState::Set => "set",
        PartState::Drifted => "DRIFTED",
        PartState::Refused => "refused",
    };
    let name = match parts.len() {
        1 => first.setting.clone(),
        several => format!("{} ({several})", key(first)),
    };
    let (wanted, now) = (values(|part| &part.wanted), values(|part| &part.now));
    table.row([name, wanted, now, values(|part| &part.before), state.to_owned()]);
}

/// Settings that somebody has changed.
pub(super) fn drifted(place: &Place) -> Vec<String> {
    let drifted = place.settings.iter().filter(|setting| setting.state == PartState::Drifted);
    let say = |value: &Option<String>| value.clone().unwrap_or_else(|| "gone".to_owned());
    drifted
        .map(|setting| {
            let (now, wanted) = (say(&setting.now), say(&setting.wanted));
            format!(
                "{}: {} is {now}, not {wanted}: somebody has changed it",
                place.interface, setting.setting
            )
        })
        .collect()
}

/// Packets that each CPU has worked on; nothing where there is only one.
pub(super) fn cpus(packets: &[u64]) -> String {
    let last = packets.iter().rposition(|packets| *packets > 0).map_or(0, |last| last + 1);
    if packets.len() < 2 || last == 0 {
        return String::new();
    }
    let all: u64 = packets.iter().sum();
    let cpu = |(cpu, packets): (usize, &u64)| {
        format!("{cpu}: {} ({}%)", short(*packets), (packets * 100).checked_div(all).unwrap_or(0))
    };
    let worked = packets.iter().enumerate().filter(|(_, packets)| **packets > 0);
    format!("CPUS  {}\n", worked.map(cpu).collect::<Vec<_>>().join("   "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        let setting = |name: &str, now: &str, state, why: Option<&str>| SettingState {
            setting: name.to_owned(),
            wanted: Some("9000".to_owned()),
            now: Some(now.to_owned()),
            before: Some("1500".to_owned()),
            state,
            why: why.map(str::to_owned),
        };
        let queue = |rx| QueuePackets { rx: Some(rx), tx: None };
        Place {
            interface: "eth0".to_owned(),
            mode: None,
            link: 1,
            program: 2,
            settings: vec![
                setting("mtu", "1400", PartState::Drifted, None),
                setting("rss", "1500", PartState::Refused, Some("Operation not supported")),
            ],
            queues: [(0, queue(10)), (1, queue(30))].into(),
        }
    }

    #[test]
    fn drifts_refusals_and_queues_are_told() {
        let text = text(&place());
        for part in ["DRIFTED", "1400", "rss refused: Operation not supported", "QUEUES  0: rx 10   1: rx 30"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(drifted(&place()), ["eth0: mtu is 1400, not 9000: somebody has changed it"]);
        let plain = Place { settings: Vec::new(), queues: Default::default(), ..place() };
        assert_eq!(super::text(&plain), "");
    }

    #[test]
    fn cpus_are_told_where_there_are_several() {
        assert_eq!(cpus(&[7]), "");
        assert_eq!(cpus(&[0, 0]), "");
        assert_eq!(cpus(&[10, 0, 30]), "CPUS  0: 10 (25%)   2: 30 (75%)\n");
    }
}
