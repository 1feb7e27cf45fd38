//! Tables and JSON on standard output.

use std::io::{self, Write};

use serde::Serialize;

use super::args::Output;
use super::error::Failure;

/// A table whose columns align; the last column is not padded.
#[derive(Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned).to_vec()] }
    }

    /// A table with as many columns as the header has.
    pub(super) fn with(header: Vec<&str>) -> Self {
        Self { rows: vec![header.into_iter().map(str::to_owned).collect()] }
    }

    /// Adds a row.
    pub(super) fn line(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The table, every line indented by `indent` spaces.
    pub(super) fn render(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(&" ".repeat(indent));
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Prints a value as JSON, or the text.
pub(super) fn print(
    output: Output,
    value: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let text = match output {
        Output::Table => text(),
        Output::Json => serde_json::to_string_pretty(value).map_err(Failure::failed)? + "\n",
    };
    self::text(&text)
}

/// Prints a text that ends with a new line.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // `lb counters | head` ends early.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Failure::failed),
    }
}

/// 1234567 as `1.2M`.
pub(super) fn short(count: u64) -> String {
    let scale = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    match scale.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, suffix)) => format!("{:.1}{suffix}", count as f64 / unit as f64),
        None => count.to_string(),
    }
}

/// Bytes in MiB.
pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_end_without_blanks() {
        let mut table = Table::new(["A", "LONG"]);
        table.row(["value".into(), "x".into()]);
        assert_eq!(table.render(2), "  A      LONG\n  value  x\n");
    }

    #[test]
    fn counts_are_shortened() {
        assert_eq!([999, 1000, 81_234, 2_500_000].map(short), ["999", "1.0k", "81.2k", "2.5M"]);
    }
}
