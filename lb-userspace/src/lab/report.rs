//! What the demo says while it runs. Colour and moving progress only on a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Prints steps as they go.
#[derive(Debug)]
pub(super) struct Report {
    terminal: bool,
    colour: bool,
    step: usize,
    steps: usize,
    title: String,
    began: Instant,
    proven: Vec<String>,
}

impl Report {
    pub(super) fn new(steps: usize) -> Self {
        let terminal = io::stdout().is_terminal();
        // https://no-color.org: set and not empty.
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            terminal,
            colour,
            step: 0,
            steps,
            title: String::new(),
            began: Instant::now(),
            proven: Vec::new(),
        }
    }

    /// A step begins.
    pub(super) fn begin(&mut self, title: &str) {
        self.step += 1;
        title.clone_into(&mut self.title);
        self.began = Instant::now();
        let number = format!("[{}/{}]", self.step, self.steps);
        say(&format!("{} {}", self.paint("36", &number), self.paint("1", title)));
    }

    /// A step has shown what it should.
    pub(super) fn done(&mut self, proven: &str) {
        self.clear_progress();
        let seconds = format!("{:.1}s", self.began.elapsed().as_secs_f32());
        say(&format!("      {} {proven}  {}", self.paint("32", "✓"), self.paint("2", &seconds)));
        self.proven.push(proven.to_owned());
    }

    /// The title of the step under way.
    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// What was shown, in order.
    pub(super) fn proven(&self) -> &[String] {
        &self.proven
    }

    /// Lines that belong to the step.
    pub(super) fn detail(&self, text: &str) {
        self.clear_progress();
        for line in text.lines() {
            say(format!("      {line}").trim_end());
        }
    }

    /// A line that the next one replaces; nothing where lines cannot be replaced.
    pub(super) fn progress(&self, text: &str) {
        if self.terminal {
            let _ = write!(io::stdout(), "\r\x1b[K      {text}");
            let _ = io::stdout().flush();
        }
    }

    pub(super) fn good(&self, text: &str) {
        say(&self.paint("1;32", text));
    }

    pub(super) fn bad(&self, text: &str) {
        self.clear_progress();
        say(&self.paint("1;31", text));
    }

    fn clear_progress(&self) {
        if self.terminal {
            let _ = write!(io::stdout(), "\r\x1b[K");
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Prints a line. A reader that has gone away (`| head`) must not stop the clean-up with a panic.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
