//! Waiting is polling for a condition until a deadline, never a fixed sleep.

use std::thread;
use std::time::{Duration, Instant};

use super::error::LabError;
use super::interrupt::Interrupt;

const PAUSE: Duration = Duration::from_millis(10);

/// Polls `ready` until it returns a value; `what` names the condition in the error.
///
/// The condition is always tried at least once, and a last time after the deadline.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    interrupt: &Interrupt,
    mut ready: impl FnMut() -> Result<Option<T>, LabError>,
) -> Result<T, LabError> {
    let start = Instant::now();
    loop {
        interrupt.check()?;
        let late = start.elapsed() >= limit;
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if late {
            return Err(LabError::Timeout { what: what.to_owned(), after: limit });
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_in_time_gives_its_value() {
        let mut left = 3;
        let value = wait_for("countdown", Duration::from_secs(5), &Interrupt::never(), || {
            left -= 1;
            Ok((left == 0).then_some("done"))
        });
        assert_eq!(value.unwrap(), "done");
    }

    #[test]
    fn a_condition_that_never_holds_is_a_timeout_naming_it() {
        let error = wait_for::<()>("the moon", Duration::from_millis(20), &Interrupt::never(), || Ok(None));
        assert!(error.unwrap_err().to_string().starts_with("the moon: not within"));
    }
}
