//! Commands that end in bounded time, and waiting for conditions.

use std::fmt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// What was run.
    pub what: String,
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Run {
    /// Runs a command to its end.
    pub fn of(mut command: Command) -> anyhow::Result<Self> {
        let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
        let what = words.skip_while(|word| word != "--").skip(1).collect::<Vec<_>>().join(" ");
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {what}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Ok(Self { what, code, out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// An error with everything it said unless it ended with this code.
    pub fn expect(self, code: i32) -> anyhow::Result<Self> {
        if self.code != code {
            bail!("expected exit code {code} of {self}");
        }
        Ok(self)
    }

    /// An error with everything it said unless output or error output contain all of these.
    pub fn says(self, words: &[&str]) -> anyhow::Result<Self> {
        match words.iter().find(|word| !self.out.contains(**word) && !self.err.contains(**word)) {
            Some(missing) => bail!("{missing:?} is not in what was said by {self}"),
            None => Ok(self),
        }
    }

    /// Its standard output as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_str(&self.out).with_context(|| format!("JSON expected from {self}"))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, code, out, err } = self;
        write!(f, "`{what}`: exit code {code}\n--- stdout\n{out}--- stderr\n{err}---")
    }
}

/// Polls until the condition gives a value; the error names it, and the last thing seen on the way.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        let late = start.elapsed() >= limit;
        let last = match ready() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        match last {
            Some(error) if late => {
                return Err(error.context(format!("{what}: not within {} s", limit.as_secs_f32())));
            }
            None if late => bail!("{what}: not within {} s", limit.as_secs_f32()),
            _ => thread::sleep(Duration::from_millis(20)),
        }
    }
}
