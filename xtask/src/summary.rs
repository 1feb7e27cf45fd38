//! Adds up the "test result" lines of cargo test.

use std::fmt;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl Summary {
    /// Takes one line of output; all but result lines are ignored.
    pub fn add(&mut self, line: &str) {
        let Some(counts) = line.trim_start().strip_prefix("test result: ") else { return };
        // "ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s"
        let Some((_, counts)) = counts.split_once(". ") else { return };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let Some(count) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.skipped += count,
                _ => {}
            }
        }
    }

    pub fn ran(&self) -> u64 {
        self.passed + self.failed
    }
}

/// The last line of `cargo xtask test`; programs read it.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn adds_up_result_lines_only() {
        let mut summary = Summary::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s",
            "test test_result: ok. 9 passed ... ok",
        ] {
            summary.add(line);
        }
        assert_eq!(summary, Summary { passed: 3, failed: 4, skipped: 1 });
        assert_eq!(summary.to_string(), "3 passed, 4 failed, 1 skipped");
        assert_eq!(summary.ran(), 7);
    }
}
