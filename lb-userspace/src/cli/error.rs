//! How commands fail: a message and an exit code.

use std::fmt;
use std::process::ExitCode;

use crate::simulate::capture_file::CaptureError;
use crate::{backend, daemon, dataplane};

/// Exit code of anything that could not be done.
const FAILED: u8 = 1;
/// Exit code of input that is wrong.
pub(super) const BAD_INPUT: u8 = 2;

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The machine's fault.
    pub(super) fn failed(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), code: FAILED }
    }

    /// The input's fault.
    pub(super) fn bad_input(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), code: BAD_INPUT }
    }

    /// With a sentence behind it.
    pub(super) fn and(self, sentence: &str) -> Self {
        Self { message: format!("{}\n{sentence}", self.message.trim_end()), ..self }
    }

    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.trim_end())
    }
}

impl From<backend::Error> for Failure {
    fn from(error: backend::Error) -> Self {
        match error {
            backend::Error::NoInterface(_) | backend::Error::WhichInterface(_) => {
                Self::bad_input(chain(&error))
            }
            _ => Self::failed(chain(&error)),
        }
    }
}

impl From<daemon::Error> for Failure {
    fn from(error: daemon::Error) -> Self {
        if error.is_bad_input() { Self::bad_input(chain(&error)) } else { Self::failed(chain(&error)) }
    }
}

impl From<dataplane::Error> for Failure {
    fn from(error: dataplane::Error) -> Self {
        Self::failed(chain(&error))
    }
}

impl From<CaptureError> for Failure {
    fn from(error: CaptureError) -> Self {
        match error {
            CaptureError::File { action: "opening", .. } => Self::bad_input(chain(&error)),
            CaptureError::File { .. } => Self::failed(chain(&error)),
            _ => Self::bad_input(chain(&error)),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

/// The error and its causes, without those whose words are already there.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}
