//! The operator's command that is told of changes: run for one at a time, in order, and never for long.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::mpsc;

/// A command that takes longer is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Changes that wait for the command; beyond that the oldest are dropped.
const WAITING: usize = 256;

/// Where changes are handed in.
#[derive(Clone, Debug)]
pub struct Hook(mpsc::UnboundedSender<Job>);

struct Job {
    command: Vec<String>,
    event: String,
}

impl Hook {
    /// Starts the task that runs commands; must be called inside a tokio runtime.
    pub fn start() -> Self {
        let (sender, jobs) = mpsc::unbounded_channel();
        tokio::spawn(work(jobs));
        Self(sender)
    }

    /// Has `command` run with `event`, a line of JSON, on its standard input.
    pub fn tell(&self, command: &[String], event: &str) {
        if !command.is_empty() {
            let _daemon_ends = self.0.send(Job { command: command.to_vec(), event: event.to_owned() });
        }
    }
}

async fn work(mut jobs: mpsc::UnboundedReceiver<Job>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match jobs.recv().await {
                Some(job) => waiting.push_back(job),
                None => return,
            }
        }
        let mut dropped = 0;
        while let Ok(job) = jobs.try_recv() {
            waiting.push_back(job);
            if waiting.len() > WAITING {
                waiting.pop_front();
                dropped += 1;
            }
        }
        if dropped > 0 {
            tracing::warn!(dropped, "on_change: the command is too slow, changes dropped");
        }
        if let Some(job) = waiting.pop_front()
            && let Err(why) = run(&job).await
        {
            tracing::warn!(command = job.command.join(" "), why, "on_change: the command failed");
        }
    }
}

async fn run(job: &Job) -> Result<(), String> {
    let Some((program, arguments)) = job.command.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let talk = async {
        if let Some(mut input) = child.stdin.take() {
            // A command that does not read is none the worse for it.
            let _not_read = input.write_all(format!("{}\n", job.event).as_bytes()).await;
        }
        child.wait().await.map_err(|error| error.to_string())
    };
    match tokio::time::timeout(PATIENCE, talk).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(status.to_string()),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            // And whatever it has started.
            let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
            let _already_gone = group.map(|group| killpg(group, Signal::SIGKILL));
            Err(format!("killed after {} s", PATIENCE.as_secs()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(script: &str) -> Job {
        Job { command: ["sh", "-c", script].map(str::to_owned).to_vec(), event: "{\"a\":1}".to_owned() }
    }

    #[tokio::test]
    async fn the_event_is_on_standard_input() {
        assert_eq!(run(&job("read line && [ \"$line\" = '{\"a\":1}' ]")).await, Ok(()));
    }

    #[tokio::test]
    async fn failures_are_told() {
        assert_eq!(run(&job("exit 3")).await, Err("exit status: 3".to_owned()));
        let missing = Job { command: vec!["/nonexistent/hook".to_owned()], event: String::new() };
        assert!(run(&missing).await.unwrap_err().contains("No such file"));
        assert_eq!(run(&job("exec <&-; exit 0")).await, Ok(()), "nobody has to read");
    }
}
