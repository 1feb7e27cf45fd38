//! What the programs themselves have to say: rare events, through aya-log.

use aya_log::{EbpfLogger, Error};
use log::Log;

/// The log of one attached program.
pub struct Events {
    logger: EbpfLogger<&'static dyn Log>,
}

impl Events {
    /// Opens the log of the program with this id.
    pub fn of(program_id: u32) -> Result<Self, Error> {
        Ok(Self { logger: EbpfLogger::init_from_id(program_id)? })
    }

    /// Passes on what was said since the last call.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}
