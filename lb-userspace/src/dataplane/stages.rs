//! The programs that a port's main program goes on with, by tail calls.

use aya::Ebpf;
use lb_common::abi::names::{SAMPLED_PROGRAM, SLOW_PROGRAM, STAGES};

use super::{Error, Pins, maps, object};

/// A port's programs and their places in the table, counted from twice the port's number.
const PROGRAMS: [(u32, &str); 2] = [(0, SLOW_PROGRAM), (1, SAMPLED_PROGRAM)];

/// Puts an instance's programs into the table. They serve an older instance's main program too, as they share the maps:
/// so they go in before the new one.
pub(super) fn set(pins: &Pins, object: &mut Ebpf, port: u16) -> Result<(), Error> {
    let mut stages = maps::stages(pins)?;
    for (offset, name) in PROGRAMS {
        let program = object::program(object, name)?;
        let fd = program.fd().map_err(|source| Error::Program { program: name, source })?;
        stages.set(u32::from(port) * 2 + offset, fd, 0).map_err(Error::map(STAGES))?;
    }
    Ok(())
}

/// Takes a port's programs out of the table, which keeps them loaded otherwise.
pub(super) fn clear(pins: &Pins, port: u16) -> Result<(), Error> {
    let mut stages = maps::stages(pins)?;
    for (offset, _) in PROGRAMS {
        let _never_set = stages.clear_index(&(u32::from(port) * 2 + offset));
    }
    Ok(())
}
