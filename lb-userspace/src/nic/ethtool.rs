//! The `SIOCETHTOOL` ioctl (include/uapi/linux/ethtool.h), for what no library sets: offloads.

use std::io;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::{AsRawFd, OwnedFd};

/// Longest interface name with its terminating zero (`IFNAMSIZ`).
const NAME_LEN: usize = 16;

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

/// The kernel's `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// The kernel's `struct ifreq`, as far as `SIOCETHTOOL` reads it, padded to its size.
#[repr(C)]
struct Request {
    name: [u8; NAME_LEN],
    value: *mut EthtoolValue,
    padding: [u8; 16],
}

const _: () = assert!(size_of::<Request>() >= size_of::<libc::ifreq>());

nix::ioctl_readwrite_bad!(siocethtool, 0x8946, Request);

/// Whether an offload shall be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Switch {
    On,
    Off,
}

/// Switches `on` and `off` offloads of an interface in the calling thread's network namespace.
pub fn set_offload(interface: &str, on: &[Offload], off: &[Offload]) -> Result<(), Error> {
    let failed = |offload| move |source| Error { interface: interface.to_owned(), offload, source };
    let pairs = on.iter().map(|o| (*o, Switch::On)).chain(off.iter().map(|o| (*o, Switch::Off)));
    for (offload, switch) in pairs {
        set(interface, offload, switch).map_err(failed(offload))?;
    }
    Ok(())
}

fn set(interface: &str, offload: Offload, switch: Switch) -> io::Result<()> {
    let mut name = [0; NAME_LEN];
    let bytes = interface.as_bytes();
    // The last byte stays zero.
    let room = name.get_mut(..bytes.len()).filter(|room| room.len() < NAME_LEN);
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = EthtoolValue { command: offload.command(), data: u32::from(switch == Switch::On) };
    let mut request = Request { name, value: &raw mut value, padding: [0; 16] };
    // SAFETY: the request and the value it points to live until the call returns, and have the kernel's layout.
    unsafe { siocethtool(socket.as_raw_fd(), &raw mut request) }?;
    Ok(())
}
