//! The table, for people and for machines.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What came of histories.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub flows: u64,
    pub broken: u64,
    pub most_entries: usize,
}

/// A way to keep flows on their backends.
pub struct Row {
    pub name: &'static str,
    pub calm: Figures,
    /// In a flood of SYNs.
    pub hellos: Figures,
    /// In a flood of ACKs of flows that do not exist.
    pub strays: Figures,
    /// With small tables.
    pub tight: Figures,
    /// What a packet costs while nothing changes, and while something does.
    pub settled_ns: Option<f64>,
    pub changing_ns: Option<f64>,
}

/// What a packet costs, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs {
    pub settled: Option<f64>,
    pub unsettled: Option<f64>,
    pub tracked: Option<f64>,
}

impl Costs {
    /// Out of what `bench packet --json` has written.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let figures: Value =
            serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
        let of = |name: &str| {
            let rows = figures["rows"].as_array()?;
            rows.iter().find(|row| row["name"] == name)?["ns"].as_f64()
        };
        Ok(Self {
            settled: of("tcp, 100k flows"),
            unsettled: of("tcp, unsettled slots, 100k recorded flows"),
            tracked: of("tcp, all flows tracked, 100k flows"),
        })
    }
}

/// Prints the rows.
pub fn table(rows: &[Row]) {
    println!(
        "{:<36} {:>7} {:>9} {:>10} {:>12} {:>12} {:>17}",
        "", "calm", "SYN flood", "ACK flood", "small tables", "most entries", "ns per packet"
    );
    for row in rows {
        let most = [row.calm, row.hellos, row.strays].map(|figures| figures.most_entries);
        println!(
            "{:<36} {:>7} {:>9} {:>10} {:>12} {:>12} {:>17}",
            row.name,
            row.calm.broken,
            row.hellos.broken,
            row.strays.broken,
            row.tight.broken,
            format!("{} / {}", most[0], most[1].max(most[2])),
            format!("{} / {}", told(row.settled_ns), told(row.changing_ns)),
        );
    }
    // Whoever loses a connection begins another: the last row has the fewest.
    let flows = rows.last().map_or(0, |row| row.calm.flows);
    println!("of {flows} flows; entries in calm / in floods; 100k flows, nothing changing / changing");
}

fn told(ns: Option<f64>) -> String {
    ns.map_or("n/a".to_owned(), |ns| format!("{ns:.0}"))
}

/// Writes the figures.
pub fn save(rows: &[Row], file: &Path) -> Result<()> {
    let figures = |f: &Figures| json!({"flows": f.flows, "broken": f.broken, "most_entries": f.most_entries});
    let row = |row: &Row| {
        json!({
            "name": row.name,
            "calm": figures(&row.calm),
            "syn_flood": figures(&row.hellos),
            "ack_flood": figures(&row.strays),
            "small_tables": figures(&row.tight),
            "settled_ns": row.settled_ns,
            "changing_ns": row.changing_ns,
        })
    };
    let whole: Vec<Value> = rows.iter().map(row).collect();
    let text = serde_json::to_string_pretty(&whole).context("figures as JSON")?;
    fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
}
