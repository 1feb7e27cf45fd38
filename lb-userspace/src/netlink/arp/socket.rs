//! A packet socket that carries ARP frames of one interface. Must not know what they say.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recv, send, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::super::error::Error;

/// An ARP socket on one interface, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct ArpSocket {
    fd: AsyncFd<OwnedFd>,
}

impl ArpSocket {
    /// Opens it on the interface; must be called inside a tokio runtime.
    pub fn open(ifindex: u32) -> Result<Self, Error> {
        let open = || {
            // Without a protocol nothing is received before the socket is bound to its interface.
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
            bind(fd.as_raw_fd(), &address(ifindex)?)?;
            // SAFETY: an `OwnedFd` is open and stays the same descriptor for as long as the `AsyncFd` owns it.
            let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
            Ok(Self { fd })
        };
        open().map_err(|source: io::Error| Error::ArpSocket { ifindex, source })
    }

    /// Sends a whole frame, now or not at all.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.fd.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// Waits for a frame; returns its length in bytes, cut to that of `buffer`. Safe to cancel. An interface
    /// that goes down gives one `ENETDOWN`; the socket works again when it is up.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let receive = |fd: &OwnedFd| Ok(recv(fd.as_raw_fd(), buffer, MsgFlags::empty())?);
        self.fd.async_io(Interest::READABLE, receive).await
    }
}

fn address(ifindex: u32) -> io::Result<LinkAddr> {
    let raw = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: i32::try_from(ifindex).map_err(|_| Errno::ENODEV)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of_val(&raw) as libc::socklen_t;
    // SAFETY: the pointer is to a whole `sockaddr_ll` of our own, alive during the call, which copies it.
    let address = unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(len)) };
    address.ok_or_else(|| Errno::EAFNOSUPPORT.into())
}
