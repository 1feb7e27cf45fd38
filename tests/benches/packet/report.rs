//! Figures: a table for people, JSON for machines, and what has changed since a baseline.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One row's measurements, a pair of figures per round.
pub struct Row {
    pub name: String,
    pub aim: Option<f64>,
    pub ns: Vec<f64>,
    /// In multiples of the encapsulating floor of the same moment.
    pub ratios: Vec<f64>,
}

/// A row summed up.
struct Figures {
    ns: f64,
    /// The quickest round: what it costs when nobody else is on the machine.
    best_ns: f64,
    median: f64,
    p10: f64,
    p90: f64,
}

impl Row {
    fn figures(&self) -> Figures {
        let (ns, ratios) = (sorted(&self.ns), sorted(&self.ratios));
        Figures {
            ns: at(&ns, 0.5),
            best_ns: at(&ns, 0.0),
            median: at(&ratios, 0.5),
            p10: at(&ratios, 0.1),
            p90: at(&ratios, 0.9),
        }
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// The value below which a share of sorted values lies; 0 if there are none.
fn at(sorted: &[f64], share: f64) -> f64 {
    let index = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// Prints the table; rows above their aim are marked.
pub fn table(rows: &[Row]) {
    println!("{:<44} {:>8} {:>7} {:>7} {:>14} {:>6}", "", "ns", "best", "× (c)", "p10–p90", "aim");
    for row in rows {
        let Figures { ns, best_ns, median, p10, p90 } = row.figures();
        let aim = match row.aim {
            Some(aim) if median > aim => format!("{aim:>6.2}  over"),
            Some(aim) => format!("{aim:>6.2}"),
            None => String::new(),
        };
        println!(
            "{:<44} {ns:>8.1} {best_ns:>7.1} {median:>7.2} {:>14} {aim}",
            row.name,
            format!("{p10:.2}–{p90:.2}")
        );
    }
}

/// Writes the figures.
pub fn save(rows: &[Row], rounds: usize, file: &Path) -> Result<()> {
    let row = |row: &Row| {
        let Figures { ns, best_ns, median, p10, p90 } = row.figures();
        json!({"name": row.name, "ns": ns, "best_ns": best_ns, "ratio": median, "p10": p10, "p90": p90, "aim": row.aim})
    };
    let whole = json!({"rounds": rounds, "rows": rows.iter().map(row).collect::<Vec<_>>()});
    let text = serde_json::to_string_pretty(&whole).context("figures as JSON")?;
    fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
}

/// Ratios of a saved run: median, p10 and p90 by name.
pub struct Baseline(BTreeMap<String, [f64; 3]>);

impl Baseline {
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let whole: Value =
            serde_json::from_str(&text).with_context(|| format!("{} as JSON", file.display()))?;
        let rows = whole["rows"].as_array().with_context(|| format!("{} has no rows", file.display()))?;
        let row = |row: &Value| {
            let name = row["name"].as_str()?.to_owned();
            Some((name, [row["ratio"].as_f64()?, row["p10"].as_f64()?, row["p90"].as_f64()?]))
        };
        Ok(Self(rows.iter().filter_map(row).collect()))
    }

    /// Prints each row's change; one is worth a word where the two spreads do not overlap.
    pub fn compare(&self, rows: &[Row]) {
        println!("\n{:<44} {:>7} {:>7} {:>8}", "against the baseline", "before", "now", "change");
        for row in rows {
            let Figures { median, p10, p90, .. } = row.figures();
            let Some([before, low, high]) = self.0.get(&row.name) else {
                println!("{:<44} {:>7} {median:>7.2}", row.name, "new");
                continue;
            };
            let verdict = match () {
                () if p10 > *high => "slower",
                () if p90 < *low => "faster",
                () => "",
            };
            let change = (median / before - 1.0) * 100.0;
            println!("{:<44} {before:>7.2} {median:>7.2} {change:>+7.1}% {verdict}", row.name);
        }
    }
}
