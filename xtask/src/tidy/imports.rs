//! Finds the paths (`a::b::c`) in code, wherever they stand, with the groups of `use` declarations expanded and
//! `self`, `super` and the crate's own name resolved.

/// A path and the line it starts on, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    pub line: usize,
    pub segments: Vec<String>,
}

impl Import {
    pub fn starts_with(&self, path: &[&str]) -> bool {
        self.segments.len() >= path.len() && self.segments.iter().zip(path).all(|(a, b)| a == b)
    }
}

/// `file` is the path below the crate's `src`, such as `model/ring.rs`.
pub fn imports(code: &str, file: &str) -> Vec<Import> {
    let tokens = tokens(code);
    let module = module_of(file);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = if tokens[at].is_word() { path(&tokens, at, &[], &mut found) } else { at + 1 };
    }
    for import in &mut found {
        resolve(&mut import.segments, &module);
    }
    found
}

struct Token<'a> {
    line: usize,
    text: &'a str,
}

impl Token<'_> {
    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// Words, `::`, and single other characters.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (index, text) in code.lines().enumerate() {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = if word > 0 {
                word
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push(Token { line: index + 1, text: &rest[..length] });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Reads one path from `at` on and returns where it ends. A group stands for one path per member.
fn path(tokens: &[Token<'_>], mut at: usize, prefix: &[String], found: &mut Vec<Import>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let line = tokens[at].line;
    let mut segments = prefix.to_vec();
    loop {
        if text(at) == "{" {
            at += 1;
            while at < tokens.len() && text(at) != "}" {
                let is_member = tokens[at].is_word() || text(at) == "{";
                at = if is_member { path(tokens, at, &segments, found) } else { at + 1 };
            }
            return at + 1;
        }
        segments.push(text(at).to_owned());
        at += 1;
        let goes_on = text(at) == "::" && tokens.get(at + 1).is_some_and(|t| t.is_word() || t.text == "{");
        if !goes_on {
            found.push(Import { line, segments });
            // `as name` gives no path.
            return if text(at) == "as" && !prefix.is_empty() { at + 2 } else { at };
        }
        at += 1;
    }
}

fn module_of(file: &str) -> Vec<String> {
    let mut module: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// Rewrites relative paths to start with `crate`. In an inline module `super` may mean the file itself, so a
/// path is resolved as if from the file: too far up rather than not at all, and never beyond the root.
fn resolve(segments: &mut Vec<String>, module: &[String]) {
    let supers = segments.iter().take_while(|segment| *segment == "super").count();
    let starts_at_self = segments.first().is_some_and(|first| first == "self");
    if supers == 0 && !starts_at_self {
        return;
    }
    let kept = module.len().saturating_sub(supers);
    let rest = segments.split_off(supers + usize::from(starts_at_self));
    *segments =
        std::iter::once("crate".to_owned()).chain(module[..kept].iter().cloned()).chain(rest).collect();
}

#[cfg(test)]
mod tests {
    use super::imports;

    fn paths(code: &str, file: &str) -> Vec<String> {
        imports(code, file).into_iter().map(|i| format!("{} {}", i.line, i.segments.join("::"))).collect()
    }

    #[test]
    fn groups_are_expanded() {
        let code = "use std::{\n    fs,\n    io::{self, Read as R},\n};";
        assert_eq!(paths(code, "a.rs"), ["1 use", "2 std::fs", "3 std::io::self", "3 std::io::Read"]);
    }

    #[test]
    fn inline_paths_count() {
        let code = "fn f() -> tokio::io::Result<()> { aya::Ebpf::load(x) }";
        let found = paths(code, "a.rs");
        assert!(found.contains(&"1 tokio::io::Result".to_owned()), "{found:?}");
        assert!(found.contains(&"1 aya::Ebpf::load".to_owned()), "{found:?}");
    }

    #[test]
    fn super_is_resolved_from_the_file() {
        assert!(
            paths("use super::super::config::X;", "model/ring.rs").contains(&"1 crate::config::X".to_owned())
        );
        assert!(paths("use super::config;", "model/mod.rs").contains(&"1 crate::config".to_owned()));
        assert!(paths("use self::ring::R;", "model/mod.rs").contains(&"1 crate::model::ring::R".to_owned()));
        assert!(paths("use super::config;", "model/ring.rs").contains(&"1 crate::model::config".to_owned()));
    }
}
