//! Rules about words and sizes rather than about who knows whom.

use super::Finding;
use super::source::Source;

const MAX_LINES: usize = 400;
const MAX_TEST_LINES: usize = 500;

/// Where unsafe is the job: kernel, system calls, hardware; everything else goes through these.
const UNSAFE_ALLOWED: [&str; 10] = [
    "lb-ebpf/src/",
    "lb-userspace/build.rs",
    "lb-userspace/src/dataplane/",
    "lb-userspace/src/dataplane.rs",
    "lb-userspace/src/netlink/",
    "lb-userspace/src/nic/",
    "lb-userspace/src/nic.rs",
    "lb-userspace/src/sys/",
    "lb-common/src/abi/",
    "tests/",
];

// Put together here, or this file would break its own rules.
const MACHINE_PATHS: [&str; 3] = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/")];
const MARKERS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
const MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Rules for any text file.
pub fn check(path: &str, content: &str) -> Vec<Finding> {
    let mut findings = Findings::of(path);
    for (line, text) in numbered(content) {
        if let Some(found) = MACHINE_PATHS.iter().find(|found| has_absolute(text, found)) {
            findings.add(
                line,
                "machine-path",
                format!("{found}… exists on one machine only; derive the path at run time"),
            );
        }
    }
    let hash_comments = [".sh", ".toml", ".yaml", ".yml", ".ci/run"].iter().any(|end| path.ends_with(end));
    if hash_comments {
        for (line, text) in numbered(content) {
            findings.markers(line, text.split_once('#').map_or("", |(_, comment)| comment));
        }
    }
    let limit = if super::is_test_file(path) { MAX_TEST_LINES } else { MAX_LINES };
    let count = content.lines().count();
    if count > limit && (path.ends_with(".rs") || path.ends_with(".sh")) {
        let message = format!("{count} lines, the limit is {limit}; split it where its jobs part");
        findings.add(limit + 1, "long-file", message);
    }
    findings.found
}

/// Rules for Rust files.
pub fn check_rust(source: &Source<'_>) -> Vec<Finding> {
    let mut findings = Findings::of(source.path);
    if !source.content.starts_with("//!") {
        findings.add(
            1,
            "no-headline",
            "say what the file decides and must not know; start it with //!".into(),
        );
    }
    for (line, text) in numbered(&source.comments) {
        findings.markers(line, text);
    }
    let may_be_unsafe = UNSAFE_ALLOWED.iter().any(|allowed| source.path.starts_with(allowed));
    for (line, text) in numbered(&source.code) {
        for name in MACROS {
            if words(text).any(|(word, rest)| word == name && rest.starts_with('!')) {
                findings.add(
                    line,
                    "left-over",
                    format!("{name}! is for work in progress; finish it or take it out"),
                );
            }
        }
        if !may_be_unsafe && words(text).any(|(word, _)| word == "unsafe") {
            let message = "unsafe stays in the few adapter modules; use or extend one of them \
                           (lb-userspace: dataplane, netlink, nic, sys)";
            findings.add(line, "unsafe-outside", message.into());
        }
    }
    findings.found
}

struct Findings<'a> {
    path: &'a str,
    found: Vec<Finding>,
}

impl<'a> Findings<'a> {
    fn of(path: &'a str) -> Self {
        Self { path, found: Vec::new() }
    }

    fn add(&mut self, line: usize, rule: &'static str, message: String) {
        self.found.push(Finding { path: self.path.into(), line, rule, message });
    }

    fn markers(&mut self, line: usize, comment: &str) {
        if let Some((word, _)) = words(comment).find(|(word, _)| MARKERS.contains(word)) {
            self.add(line, "left-over", format!("{word} gets forgotten here; do it, or open an issue"));
        }
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Each word, with what follows it.
fn words(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        rest = &rest[rest.find(is_word)?..];
        let (word, after) = rest.split_at(rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()));
        rest = after;
        Some((word, after))
    })
}

/// Not part of a longer path (`target/work/`, `$HOME/work/`) or of an address (`host/work/`).
fn has_absolute(text: &str, path: &str) -> bool {
    text.match_indices(path).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.~/}{)*>".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::check_file;
    use super::{MACHINE_PATHS, MARKERS};

    fn rules(path: &str, content: &str) -> Vec<(usize, &'static str)> {
        check_file(path, content).into_iter().map(|finding| (finding.line, finding.rule)).collect()
    }

    #[test]
    fn a_clean_file_has_no_findings() {
        assert!(rules("lb-common/src/wire/ip.rs", "//! IPv4.\n\nuse core::fmt;\n").is_empty());
    }

    #[test]
    fn left_overs() {
        let rust = |body: &str| rules("xtask/src/a.rs", &format!("//! A.\n{body}\n"));
        for body in ["todo!()", "unimplemented!(\"x\")", "dbg!(x)", &format!("// {}: later", MARKERS[0])] {
            assert_eq!(rust(body), [(2, "left-over")], "{body}");
        }
        assert!(rust("let todo = \"todo!()\"; // mktemp aXXXXXX, dbg!").is_empty());
        assert_eq!(rules("a.sh", &format!("# {} me\n", MARKERS[1])), [(1, "left-over")]);
    }

    #[test]
    fn unsafe_only_where_it_is_the_job() {
        let text = "//! A.\nunsafe { x() }\n";
        assert_eq!(rules("lb-userspace/src/model/a.rs", text), [(2, "unsafe-outside")]);
        assert!(rules("lb-userspace/src/dataplane/a.rs", text).is_empty());
        assert!(rules("xtask/src/a.rs", "//! A.\n#![forbid(unsafe_code)] // no unsafe\n").is_empty());
    }

    #[test]
    fn machine_paths() {
        for path in MACHINE_PATHS {
            assert_eq!(rules("README.md", &format!("see {path}main\n")), [(1, "machine-path")]);
            assert!(rules("README.md", &format!("see target{path}main\n")).is_empty());
        }
    }

    #[test]
    fn sizes_and_headlines() {
        let long = |lines: usize| "//! A.\n".repeat(lines);
        assert_eq!(rules("xtask/src/a.rs", &long(401)), [(401, "long-file")]);
        assert!(rules("xtask/src/a.rs", &long(400)).is_empty());
        assert!(rules("tests/tests/a.rs", &long(500)).is_empty());
        assert_eq!(rules("xtask/src/a.rs", "// A.\n"), [(1, "no-headline")]);
        assert_eq!(rules("xtask/src/a.rs", ""), [(1, "no-headline")]);
    }
}
