//! A Rust file with comments and strings told apart from code, and test code marked. Not a parser: just enough
//! that words in comments and strings do not count as code.

/// What the rules look at.
pub struct Source<'a> {
    pub path: &'a str,
    pub content: &'a str,
    /// The file with comments and literals blanked out; lines stay where they are.
    pub code: String,
    /// The file with everything but comments blanked out.
    pub comments: String,
    /// By line index: inside an item marked `#[cfg(test)]`.
    in_test: Vec<bool>,
}

impl<'a> Source<'a> {
    pub fn parse(path: &'a str, content: &'a str) -> Self {
        let (code, comments) = separate(content);
        let in_test = test_lines(&code);
        Self { path, content, code, comments, in_test }
    }

    /// `line` counts from 1.
    pub fn is_test(&self, line: usize) -> bool {
        super::is_test_file(self.path) || self.in_test.get(line - 1).copied().unwrap_or(false)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    BlockComment(usize),
    Text,
    /// Ends at a quote and this many hashes.
    RawText(usize),
}

fn separate(content: &str) -> (String, String) {
    let chars: Vec<char> = content.chars().collect();
    let (mut code, mut comments) =
        (String::with_capacity(content.len()), String::with_capacity(content.len()));
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        let (next, length) = step(state, &chars, at);
        for &c in &chars[at..(at + length).min(chars.len())] {
            let blank = if c == '\n' { '\n' } else { ' ' };
            let in_comment = |s| matches!(s, State::LineComment | State::BlockComment(_));
            let is_comment = in_comment(state) || in_comment(next);
            comments.push(if is_comment { c } else { blank });
            code.push(if state == State::Code && next == State::Code && length == 1 { c } else { blank });
        }
        state = next;
        at += length;
    }
    (code, comments)
}

/// The state after the token at `at`, and the token's length. In code, only literals are longer than one.
fn step(state: State, chars: &[char], at: usize) -> (State, usize) {
    let peek = |ahead: usize| chars.get(at + ahead).copied().unwrap_or('\0');
    match (state, peek(0), peek(1)) {
        (State::Code, '/', '/') => (State::LineComment, 2),
        (State::Code, '/', '*') => (State::BlockComment(1), 2),
        (State::Code, '"', _) => (State::Text, 1),
        (State::Code, 'r', '"' | '#') if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' => {
            let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
            if peek(1 + hashes) == '"' { (State::RawText(hashes), 2 + hashes) } else { (State::Code, 1) }
        }
        // A character literal, as opposed to a lifetime.
        (State::Code, '\'', '\\') => {
            let rest = chars.get(at + 3..).unwrap_or_default();
            (State::Code, 4 + rest.iter().take_while(|&&c| c != '\'').count())
        }
        (State::Code, '\'', _) if peek(2) == '\'' => (State::Code, 3),
        (State::LineComment, '\n', _) => (State::Code, 1),
        (State::BlockComment(depth), '/', '*') => (State::BlockComment(depth + 1), 2),
        (State::BlockComment(1), '*', '/') => (State::Code, 2),
        (State::BlockComment(depth), '*', '/') => (State::BlockComment(depth - 1), 2),
        (State::Text, '\\', _) => (State::Text, 2),
        (State::Text, '"', _) => (State::Code, 1),
        (State::RawText(hashes), '"', _) if (1..=hashes).all(|i| peek(i) == '#') => (State::Code, 1 + hashes),
        _ => (state, 1),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Marks each item after a `#[cfg(test)]`, up to its `;` or its closing brace.
fn test_lines(code: &str) -> Vec<bool> {
    let lines: Vec<&str> = code.lines().collect();
    let mut marked = vec![false; lines.len()];
    let mut at = 0;
    while at < lines.len() {
        if !lines[at].contains("#[cfg(test)]") && !lines[at].contains("#[cfg(all(test") {
            at += 1;
            continue;
        }
        let mut depth = 0_usize;
        loop {
            marked[at] = true;
            let mut ends = false;
            for c in lines[at].chars() {
                match c {
                    '{' => depth += 1,
                    '}' => {
                        depth = depth.saturating_sub(1);
                        ends |= depth == 0;
                    }
                    ';' => ends |= depth == 0,
                    _ => {}
                }
            }
            at += 1;
            if (ends && depth == 0) || at == lines.len() {
                break;
            }
        }
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::Source;

    fn words(text: &str) -> Vec<&str> {
        text.split_whitespace().collect()
    }

    #[test]
    fn tells_code_from_comments_and_literals() {
        let text = r####"a /* b /* c */ d */ e // f
let x = "g \" h"; let y = r#"i " j"#; let p = '"'; let q = '\''; l<'m>
"####;
        let source = Source::parse("a.rs", text);
        let code = words(&source.code);
        for kept in ["a", "e", "l<'m>"] {
            assert!(code.contains(&kept), "{kept}: {code:?}");
        }
        for gone in ["b", "d", "f", "g", "h", "i", "j"] {
            assert!(!code.contains(&gone), "{gone}: {code:?}");
        }
        assert_eq!(words(&source.comments), ["/*", "b", "/*", "c", "*/", "d", "*/", "//", "f"]);
        assert_eq!(source.code.lines().count(), text.lines().count());
    }

    #[test]
    fn marks_test_items_only() {
        let text =
            "use a;\n#[cfg(test)]\nmod helper;\nuse b;\n#[cfg(test)]\nmod tests {\n  fn f() {}\n}\nuse c;\n";
        let source = Source::parse("a.rs", text);
        let tests: Vec<usize> = (1..=9).filter(|line| source.is_test(*line)).collect();
        assert_eq!(tests, [2, 3, 5, 6, 7, 8]);
        assert!(Source::parse("tests/src/x.rs", "use a;\n").is_test(1));
    }

    #[test]
    fn a_cut_off_file_is_no_panic() {
        for text in ["'\\", "r#", "\"\\", "/*", "'", "b'\\x"] {
            let _ = Source::parse("a.rs", text);
        }
    }
}
