//! Floods of TCP segments that belong to no connection of their sender, at a bounded rate, from the client's namespace.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use lb_userspace::lab::{CLIENT, Role, VIP_L2};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};

use super::{LOAD_PORT, Rig, inside};

/// First of the addresses that floods come from: 198.18.0.0/15 is for benchmarks (RFC 2544, RFC 6890).
const SPOOFED: u32 = 0xc612_0000;
const SPOOFED_COUNT: u32 = 1 << 17;
/// The ports that a client's connections have unless somebody chooses one (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;
/// Segments sent at once.
const BURST: usize = 100;
/// Time of a burst: 25,000 segments per second, which the lab's other traffic does not notice.
const BURST_TIME: Duration = Duration::from_millis(4);

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoof {
    /// SYNs, each from another address and port.
    Syn,
    /// ACKs of connections that never were, likewise.
    Ack,
    /// RSTs as if from each of the client's connections, with a sequence number that no server believes.
    Rst,
    /// FINs, likewise.
    Fin,
}

impl Spoof {
    /// The segment's sender, of so many.
    fn source(self, number: u32) -> (Ipv4Addr, u16) {
        match self {
            Self::Syn | Self::Ack => {
                let address = SPOOFED + number.wrapping_mul(0x9e37) % SPOOFED_COUNT;
                (address.into(), 1024 + (number % 60_000) as u16)
            }
            Self::Rst | Self::Fin => {
                let ports = u32::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
                (CLIENT, EPHEMERAL.start() + (number % ports) as u16)
            }
        }
    }

    fn flags(self, tcp: PacketBuilderStep<TcpHeader>, number: u32) -> PacketBuilderStep<TcpHeader> {
        match self {
            Self::Syn => tcp.syn(),
            Self::Ack => tcp.ack(number),
            Self::Rst => tcp.rst(),
            Self::Fin => tcp.fin().ack(number),
        }
    }

    fn segment(self, number: u32) -> anyhow::Result<Vec<u8>> {
        let (address, port) = self.source(number);
        let ip = PacketBuilder::ipv4(address.octets(), VIP_L2.octets(), 64);
        let tcp = self.flags(ip.tcp(port, LOAD_PORT, number.wrapping_mul(0x9e37_79b9), 1024), number);
        let mut packet = Vec::with_capacity(tcp.size(0));
        tcp.write(&mut packet, &[]).context("building a segment")?;
        Ok(packet)
    }
}

impl Rig {
    /// Has answers to spoofed segments vanish at the router.
    pub fn swallow_spoofed(&self) -> anyhow::Result<()> {
        let range = format!("{}/15", Ipv4Addr::from(SPOOFED));
        self.on(Role::Router, "ip", ["route", "add", "blackhole", &range])?.expect(0).map(drop)
    }

    /// Sends so many segments to the TCP service of a [`super::Many`]; how long that took.
    pub fn flood(&self, what: Spoof, count: u32) -> anyhow::Result<Duration> {
        let segments = (0..count).map(|number| what.segment(number)).collect::<anyhow::Result<Vec<_>>>()?;
        let [a, b, c, d] = VIP_L2.octets();
        let to = SockaddrIn::new(a, b, c, d, 0);
        let began = Instant::now();
        let send = || -> nix::Result<()> {
            let socket =
                socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
            for (burst, segments) in segments.chunks(BURST).enumerate() {
                for segment in segments {
                    match sendto(socket.as_raw_fd(), segment, &to, MsgFlags::empty()) {
                        // The queue is full: as good as lost on the way.
                        Ok(_) | Err(Errno::ENOBUFS) => {}
                        Err(error) => return Err(error),
                    }
                }
                let next = BURST_TIME * (burst as u32 + 1);
                sleep(next.saturating_sub(began.elapsed()));
            }
            Ok(())
        };
        inside(&self.lab.netns(Role::Client), send)?.with_context(|| format!("sending {what:?}"))?;
        Ok(began.elapsed())
    }
}
