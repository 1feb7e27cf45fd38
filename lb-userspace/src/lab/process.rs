//! Processes that live in a lab and end with it, even when the program holding the lab is killed.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::LabError;
use super::interrupt::Interrupt;
use super::wait::wait_for;

/// A process in a lab. Clones are handles to the same one; dropping a handle does not end it, the lab does.
#[derive(Debug, Clone)]
pub struct Process {
    program: String,
    child: Arc<Mutex<Child>>,
    log: PathBuf,
}

/// Whether a child dies with the process that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// Killed by the kernel when this process ends.
    Guarded,
    /// Outlives this process and its terminal.
    Kept,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.lock().id()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let mut child = self.lock();
        // Until it has been waited for, its pid cannot belong to anybody else.
        if matches!(child.try_wait(), Ok(Some(_))) {
            return Ok(());
        }
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        kill(Pid::from_raw(pid), signal)
            .map_err(|e| LabError::io(format!("signal {}", self.program))(e.into()))
    }

    /// How it ended, if it has.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, LabError> {
        self.lock().try_wait().map_err(LabError::io(format!("wait for {}", self.program)))
    }

    /// Waits for its end.
    pub fn wait(&self, limit: Duration, interrupt: &Interrupt) -> Result<ExitStatus, LabError> {
        wait_for(&format!("end of {}", self.program), limit, interrupt, || self.try_wait())
    }

    /// An error with the end of its log if it has ended.
    pub fn check_running(&self) -> Result<(), LabError> {
        match self.try_wait()? {
            None => Ok(()),
            Some(_) => Err(LabError::Ended { program: self.program.clone(), log: self.log_tail(10) }),
        }
    }

    /// Where its standard output and standard error go.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines it wrote.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    pub(super) fn end(&self) {
        let mut child = self.lock();
        let _ = child.kill();
        let _ = child.wait();
    }

    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts children from one thread that lives as long as the lab.
///
/// The kernel's "parent death signal" fires when the starting *thread* ends; started from whichever thread
/// asks (a test's, a runtime's worker), children would die with it.
#[derive(Debug)]
pub(super) struct Nursery {
    jobs: mpsc::Sender<Job>,
}

struct Job {
    command: Command,
    started: mpsc::Sender<std::io::Result<Child>>,
}

impl Nursery {
    /// The thread ends when this is dropped.
    pub(super) fn new() -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for mut job in inbox {
                let _ = job.started.send(job.command.spawn());
            }
        });
        Self { jobs }
    }

    /// Starts `command` with its output in the file `log`.
    pub(super) fn start(
        &self,
        program: &str,
        command: &Command,
        lifetime: Lifetime,
        log: &Path,
    ) -> Result<Process, LabError> {
        let attempt = || LabError::io(format!("write {}", log.display()));
        let out = File::create(log).map_err(attempt())?;
        let err = out.try_clone().map_err(attempt())?;
        let mut wrapped = wrap(command, lifetime);
        wrapped.stdin(Stdio::null()).stdout(out).stderr(err);
        let (started, answer) = mpsc::channel();
        let gone =
            || LabError::io(format!("start {program}"))(std::io::Error::other("the lab's thread is gone"));
        self.jobs.send(Job { command: wrapped, started }).map_err(|_| gone())?;
        let child = answer.recv().map_err(|_| gone())?.map_err(LabError::start(program))?;
        Ok(Process { program: program.to_owned(), child: Arc::new(Mutex::new(child)), log: log.to_owned() })
    }
}

/// Both wrappers replace themselves with the program, so the child's pid is the program's.
fn wrap(command: &Command, lifetime: Lifetime) -> Command {
    let mut wrapped = match lifetime {
        Lifetime::Guarded => {
            let mut setpriv = Command::new("setpriv");
            // A group of its own: Ctrl-C is for the lab's holder, who ends the others in order.
            setpriv.args(["--pdeathsig", "KILL"]).process_group(0);
            setpriv
        }
        Lifetime::Kept => Command::new("setsid"),
    };
    wrapped.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}
