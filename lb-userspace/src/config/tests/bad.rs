//! Bad configs and the full text of what is said about them, kept in `bad/*.txt`:
//! `=== name`, the config, `>>>`, the findings. `UPDATE_EXPECTED=1` rewrites the files; read the difference.

use std::path::{Path, PathBuf};
use std::{env, fs};

use super::parse;

struct Case {
    name: String,
    config: String,
    expected: String,
}

fn read(path: &Path) -> Vec<Case> {
    let text = fs::read_to_string(path).unwrap();
    text.split("=== ")
        .skip(1)
        .map(|case| {
            let (name, rest) = case.split_once('\n').unwrap();
            let (config, expected) = rest.split_once(">>>\n").unwrap_or((rest, ""));
            Case { name: name.into(), config: config.into(), expected: expected.trim_end().into() }
        })
        .collect()
}

fn findings(config: &str) -> String {
    match parse(config) {
        Ok(loaded) => loaded.warnings.iter().map(|warning| format!("{warning}\n\n")).collect(),
        Err(errors) => errors.to_string(),
    }
}

pub(super) fn check(file: &str) -> usize {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/bad").join(file);
    let cases = read(&path);
    if env::var_os("UPDATE_EXPECTED").is_some() {
        let render = |case: &Case| {
            format!("=== {}\n{}>>>\n{}\n\n", case.name, case.config, findings(&case.config).trim_end())
        };
        fs::write(&path, cases.iter().map(render).collect::<String>()).unwrap();
        return cases.len();
    }
    for case in &cases {
        assert_eq!(findings(&case.config).trim_end(), case.expected, "{file}: {}", case.name);
        assert!(!case.expected.is_empty(), "{file}: {}: nothing is said", case.name);
    }
    cases.len()
}

#[test]
fn yaml_itself() {
    assert!(check("yaml.txt") >= 10);
}

#[test]
fn keys() {
    assert!(check("keys.txt") >= 8);
}

#[test]
fn values() {
    assert!(check("values.txt") >= 20);
}

#[test]
fn meaning() {
    assert!(check("meaning.txt") >= 15);
}

#[test]
fn traffic() {
    assert!(check("traffic.txt") >= 18);
}

#[test]
fn health() {
    assert!(check("health.txt") >= 12);
}
