//! A packet socket that carries the frames of one protocol on one interface. Must not know what they say.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recv, send, socket,
};
use socket2::{SockFilter, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use lb_common::wire::{ethernet, ipv6, ndp};

use super::error::Error;

/// How a station is asked for its Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    /// For IPv4.
    Arp,
    /// Neighbour discovery, for IPv6.
    Ndp,
}

/// A socket in the network namespace of the thread that opened it. Frames that the interface sees in passing, because it
/// listens to all, are not received: those of a VLAN that has no device here would look untagged.
#[derive(Debug)]
pub(super) struct FrameSocket {
    fd: AsyncFd<OwnedFd>,
}

impl Protocol {
    /// The one that asks for this address.
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Arp,
            IpAddr::V6(_) => Self::Ndp,
        }
    }

    /// In words.
    fn name(self) -> &'static str {
        match self {
            Self::Arp => "an ARP",
            Self::Ndp => "a neighbour discovery",
        }
    }

    fn ether_type(self) -> u16 {
        match self {
            Self::Arp => ethernet::ARP,
            Self::Ndp => ethernet::IPV6,
        }
    }

    /// What wakes us: of IPv6 only the two messages, or every packet of every connection would.
    fn filter(self) -> Vec<SockFilter> {
        let next_header = ethernet::LEN + 6;
        let kind = ethernet::LEN + ipv6::LEN;
        match self {
            Self::Arp => vec![packet_type(), skip_if(libc::PACKET_OTHERHOST, 1, 0), accept(), refuse()],
            Self::Ndp => vec![
                packet_type(),
                skip_if(libc::PACKET_OTHERHOST, 6, 0),
                byte_at(next_header),
                skip_if(ipv6::ICMP, 0, 4),
                byte_at(kind),
                skip_if(ndp::SOLICITATION, 1, 0),
                skip_if(ndp::ADVERTISEMENT, 0, 1),
                accept(),
                refuse(),
            ],
        }
    }
}

impl FrameSocket {
    /// Opens it on the interface; must be called inside a tokio runtime.
    pub(super) fn open(ifindex: u32, protocol: Protocol) -> Result<Self, Error> {
        let open = || {
            // Without a protocol nothing is received before the socket is bound to its interface.
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
            SockRef::from(&fd).attach_filter(&protocol.filter())?;
            bind(fd.as_raw_fd(), &address(ifindex, protocol)?)?;
            // SAFETY: an `OwnedFd` is open and stays the same descriptor for as long as the `AsyncFd` owns it.
            let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
            Ok(Self { fd })
        };
        open().map_err(|source: io::Error| Error::Socket { ifindex, kind: protocol.name(), source })
    }

    /// Sends a whole frame, now or not at all.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.fd.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// Waits for a frame; returns its length in bytes, cut to that of `buffer`. Safe to cancel. An interface
    /// that goes down gives one `ENETDOWN`; the socket works again when it is up.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let receive = |fd: &OwnedFd| Ok(recv(fd.as_raw_fd(), buffer, MsgFlags::empty())?);
        self.fd.async_io(Interest::READABLE, receive).await
    }
}

fn address(ifindex: u32, protocol: Protocol) -> io::Result<LinkAddr> {
    let raw = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.ether_type().to_be(),
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

// Classic BPF (Documentation/networking/filter.rst), as far as the filters need it.

/// Loads how the frame was addressed: to us, to all, or to another station.
fn packet_type() -> SockFilter {
    let place = libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE;
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, place.cast_unsigned())
}

/// Loads a byte of the frame; a frame that is too short is refused.
fn byte_at(offset: usize) -> SockFilter {
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, offset as u32)
}

/// Skips so many instructions if what was loaded is `value`, and so many others if not.
fn skip_if(value: u8, equal: u8, other: u8) -> SockFilter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, equal, other, value.into())
}

fn accept() -> SockFilter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX)
}

fn refuse() -> SockFilter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0)
}

fn instruction(code: u32, equal: u8, other: u8, k: u32) -> SockFilter {
    SockFilter::new(code as u16, equal, other, k)
}
