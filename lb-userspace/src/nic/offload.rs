//! Work that an interface takes from the network stack, switched one by one.

use std::io;

use super::ioctl::Control;

/// Work that a NIC, or a virtual one, takes from the network stack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Offload {
    /// Checksums of packets that leave.
    TransmitChecksum,
    /// Segmentation of large TCP packets that leave.
    TcpSegmentation,
    /// Segmentation late in the stack.
    GenericSegmentation,
    /// Merging of packets that come in; on veth it also lets the other end redirect frames here.
    GenericReceive,
}

impl Offload {
    /// The command that sets it.
    fn command(self) -> u32 {
        match self {
            Self::TransmitChecksum => 0x17,
            Self::TcpSegmentation => 0x1f,
            Self::GenericSegmentation => 0x24,
            Self::GenericReceive => 0x2c,
        }
    }
}

/// Why an offload could not be set.
#[derive(Debug, thiserror::Error)]
#[error("{interface}: setting {offload:?}: {source}")]
pub struct Error {
    /// The interface.
    pub interface: String,
    /// What was to be set.
    pub offload: Offload,
    /// The kernel's answer.
    pub source: io::Error,
}

/// Switches `on` and `off` offloads of an interface in the calling thread's network namespace.
pub fn set_offload(interface: &str, on: &[Offload], off: &[Offload]) -> Result<(), Error> {
    let pairs = on.iter().map(|offload| (*offload, 1)).chain(off.iter().map(|offload| (*offload, 0)));
    for (offload, value) in pairs {
        let set = |control: Control| control.exchange(&mut [offload.command(), value]);
        let failed = |source| Error { interface: interface.to_owned(), offload, source };
        Control::open(interface).and_then(set).map_err(failed)?;
    }
    Ok(())
}
