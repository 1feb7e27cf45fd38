//! What the house rules ask and clippy does not check: layering, file sizes, left-overs, unsafe, machine paths.
//! Each rule is a pure function from a file to findings; only this file reads the disk.

mod imports;
mod layers;
mod source;
mod text;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use source::Source;

/// One broken rule, at one place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    /// Why it is a rule, then the way out.
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.message)
    }
}

/// Checks every text file below `root`.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    walk(root, root, &mut findings)?;
    findings.sort();
    Ok(findings)
}

fn walk(root: &Path, directory: &Path, findings: &mut Vec<Finding>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() && entry.file_name() != "target" && entry.file_name() != ".git" {
            walk(root, &path, findings)?;
        } else if kind.is_file() {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
            let bytes = fs::read(&path).with_context(|| format!("reading {name}"))?;
            // What is not text (captures, corpora) has no rules.
            if let Ok(content) = String::from_utf8(bytes) {
                findings.extend(check_file(&name, &content));
            }
        }
    }
    Ok(())
}

fn check_file(path: &str, content: &str) -> Vec<Finding> {
    let mut findings = text::check(path, content);
    if path.ends_with(".rs") {
        let source = Source::parse(path, content);
        findings.extend(text::check_rust(&source));
        findings.extend(layers::check(&source));
    }
    findings
}

/// Tests have a few more freedoms than what they test.
fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    path.starts_with("tests/")
        || path.contains("/tests/")
        || name == "tests.rs"
        || name.ends_with("_tests.rs")
}
