//! The ioctls of an interface: `SIOCETHTOOL` (include/uapi/linux/ethtool.h) and the MTU's. Moves words; what they mean
//! is `ethtool`'s.
//!
//! The netlink library for ethtool sets channels, but neither rings, coalescing, features nor receive-side scaling: so all
//! of it goes one way here.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Longest interface name with its terminating zero (`IFNAMSIZ`).
const NAME_LEN: usize = 16;

/// An interface of the calling thread's network namespace.
pub(super) struct Control {
    socket: OwnedFd,
    name: [u8; NAME_LEN],
}

/// The kernel's `struct ifreq` with a pointer, padded to its size.
#[repr(C)]
struct Exchange {
    name: [u8; NAME_LEN],
    words: *mut u32,
    padding: [u8; 16],
}

/// The kernel's `struct ifreq` with a number, padded to its size.
#[repr(C)]
struct Number {
    name: [u8; NAME_LEN],
    value: libc::c_int,
    padding: [u8; 20],
}

const _: () = assert!(size_of::<Exchange>() >= size_of::<libc::ifreq>());
const _: () = assert!(size_of::<Number>() >= size_of::<libc::ifreq>());

nix::ioctl_readwrite_bad!(siocethtool, 0x8946, Exchange);
nix::ioctl_readwrite_bad!(siocgifmtu, 0x8921, Number);
nix::ioctl_readwrite_bad!(siocsifmtu, 0x8922, Number);

impl Control {
    /// Opens what it takes to ask; whether the interface exists shows with the first question.
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        let mut name = [0; NAME_LEN];
        let bytes = interface.as_bytes();
        // The last byte stays zero.
        let room = name.get_mut(..bytes.len()).filter(|room| room.len() < NAME_LEN);
        room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { socket, name })
    }

    /// One ethtool command: a structure that begins with the command's number, as words.
    ///
    /// The kernel writes as much as the structure says; `words` must have room for the command's whole structure.
    pub(super) fn exchange(&self, words: &mut [u32]) -> io::Result<()> {
        let mut request = Exchange { name: self.name, words: words.as_mut_ptr(), padding: [0; 16] };
        // SAFETY: the request and the words it points to live until the call returns; callers give room for the whole
        // structure of their command, variable parts included, whose length the kernel takes from the structure.
        unsafe { siocethtool(self.socket.as_raw_fd(), &raw mut request) }?;
        Ok(())
    }

    /// Largest layer-3 packet, in bytes.
    pub(super) fn mtu(&self) -> io::Result<u32> {
        let mut request = Number { name: self.name, value: 0, padding: [0; 20] };
        // SAFETY: the request lives until the call returns and has the kernel's layout and size.
        unsafe { siocgifmtu(self.socket.as_raw_fd(), &raw mut request) }?;
        u32::try_from(request.value).map_err(io::Error::other)
    }

    /// Sets the MTU.
    pub(super) fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        let value = libc::c_int::try_from(mtu).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut request = Number { name: self.name, value, padding: [0; 20] };
        // SAFETY: the request lives until the call returns and has the kernel's layout and size.
        unsafe { siocsifmtu(self.socket.as_raw_fd(), &raw mut request) }?;
        Ok(())
    }
}
