//! Ctrl-C and SIGTERM become a flag that every wait looks at, so that the guards get to clean up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::error::LabError;

/// Whether the user asked to stop. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// One that never fires, for tests.
    pub fn never() -> Self {
        Self::default()
    }

    /// Takes over SIGINT and SIGTERM for the rest of the process's life.
    ///
    /// A thread with a runtime of its own: callers may or may not be inside a runtime, and a blocked
    /// caller must still be interruptible.
    pub fn install() -> Result<Self, LabError> {
        let interrupt = Self::default();
        let flag = Arc::clone(&interrupt.0);
        let (ready, installed) = mpsc::channel();
        thread::Builder::new()
            .name("lab-signals".into())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                runtime.block_on(async move {
                    let (mut int, mut term) = match signal(SignalKind::interrupt())
                        .and_then(|i| Ok((i, signal(SignalKind::terminate())?)))
                    {
                        Ok(both) => both,
                        Err(error) => return drop(ready.send(Err(error))),
                    };
                    let _ = ready.send(Ok(()));
                    loop {
                        tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
                        flag.store(true, Ordering::Relaxed);
                    }
                });
            })
            .map_err(LabError::io("start the signal thread"))?;
        installed
            .recv()
            .unwrap_or_else(|gone| Err(std::io::Error::other(gone)))
            .map_err(LabError::io("catch signals"))?;
        Ok(interrupt)
    }

    /// An error once the user asked to stop.
    pub fn check(&self) -> Result<(), LabError> {
        if self.0.load(Ordering::Relaxed) { Err(LabError::Interrupted) } else { Ok(()) }
    }
}
