//! What the network itself says of backends: ICMP errors about tunnel packets that we sent (RFC 792). They come to the
//! node's own address, and the host's stack has no use for them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

const DESTINATION_UNREACHABLE: u8 = 3;
/// "Fragmentation needed" says nothing of a backend's health.
const FRAGMENTATION_NEEDED: u8 = 4;
const ICMP: u8 = 1;
/// How long a backend's complaints rest after one has been heeded.
const REST: Duration = Duration::from_secs(1);
/// Complaints heeded in that time.
const AT_MOST: u32 = 100;
/// IP protocols that a backend's tunnel can be: IPIP, UDP, GRE.
const TUNNELS: [u8; 3] = [4, 17, 47];

/// An ICMP error about a packet to a backend. Anybody can forge one: it is a reason to look, not a result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Complaint {
    /// Where the packet was going.
    pub backend: IpAddr,
    /// The code of "destination unreachable".
    pub code: u8,
}

/// Hears ICMP errors of the current network namespace.
#[derive(Debug)]
pub struct Complaints(UdpSocket);

impl Complaints {
    /// Opens a raw socket; must be called inside a tokio runtime.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        socket.set_nonblocking(true)?;
        // Only read from, which is the same for every kind of socket.
        let socket = std::net::UdpSocket::from(OwnedFd::from(socket));
        UdpSocket::from_std(socket).map(Self)
    }

    /// Waits for the next one.
    pub async fn next(&self) -> io::Result<Complaint> {
        let mut packet = [0; 128];
        loop {
            let len = self.0.recv(&mut packet).await?;
            if let Some(complaint) = packet.get(..len).and_then(parse) {
                return Ok(complaint);
            }
        }
    }
}

/// Which complaints are looked at: anybody can forge them, and each costs an extra probe.
#[derive(Clone, Debug, Default)]
pub struct Heed {
    last: BTreeMap<IpAddr, Instant>,
    since: Option<Instant>,
    taken: u32,
}

impl Heed {
    /// Whether to look at a complaint about a backend that `known` knows: one a second for each, and a hundred for all.
    pub fn takes(&mut self, complaint: &Complaint, known: impl Fn(IpAddr) -> bool, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= REST) {
            self.since = Some(now);
            self.taken = 0;
            self.last.retain(|_, at| now.saturating_duration_since(*at) < REST);
        }
        let backend = complaint.backend;
        let rests = self.last.get(&backend).is_some_and(|at| now.saturating_duration_since(*at) < REST);
        if self.taken >= AT_MOST || rests || !known(backend) {
            return false;
        }
        self.taken += 1;
        self.last.insert(backend, now);
        true
    }
}

/// The complaint in an IPv4 packet, as a raw socket delivers it.
fn parse(packet: &[u8]) -> Option<Complaint> {
    let (protocol, _, icmp) = ipv4(packet)?;
    let [kind, code, _, _, _, _, _, _, inner @ ..] = icmp else { return None };
    if protocol != ICMP || *kind != DESTINATION_UNREACHABLE || *code == FRAGMENTATION_NEEDED {
        return None;
    }
    let (protocol, backend, _) = ipv4(inner)?;
    TUNNELS.contains(&protocol).then_some(Complaint { backend: backend.into(), code: *code })
}

/// Protocol, destination and payload of an IPv4 packet.
fn ipv4(packet: &[u8]) -> Option<(u8, Ipv4Addr, &[u8])> {
    let header = packet.first_chunk::<20>()?;
    let [first, .., d0, d1, d2, d3] = *header;
    let [_, _, _, _, _, _, _, _, _, protocol, ..] = *header;
    let payload = packet.get(usize::from(first & 0x0f) * 4..)?;
    (first >> 4 == 4).then_some((protocol, Ipv4Addr::new(d0, d1, d2, d3), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8, destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1];
        packet.extend(destination);
        packet.extend(payload);
        packet
    }

    fn error(kind: u8, code: u8, inner: &[u8]) -> Vec<u8> {
        packet(1, [192, 0, 2, 1], &[&[kind, code, 0, 0, 0, 0, 0, 0], inner].concat())
    }

    #[test]
    fn the_backend_is_where_the_tunnel_packet_was_going() {
        let inner = packet(4, [192, 0, 2, 9], &[]);
        let complaint = Complaint { backend: Ipv4Addr::new(192, 0, 2, 9).into(), code: 2 };
        assert_eq!(parse(&error(3, 2, &inner)), Some(complaint));
    }

    #[test]
    fn a_flood_is_heeded_a_little() {
        let (mut heed, start) = (Heed::default(), Instant::now());
        let about = |n: u32| Complaint { backend: Ipv4Addr::from(0xc000_0200 + n).into(), code: 2 };
        let mut takes = |n, at| heed.takes(&about(n), |address| address < IpAddr::from([192, 0, 4, 0]), at);
        assert!(takes(1, start));
        assert!(!takes(1, start + REST / 2), "the same backend, too soon");
        assert!(takes(1, start + REST));
        assert!(!takes(1000, start + REST), "nobody's");
        let taken = (2..500).filter(|n| takes(*n, start + REST)).count();
        assert_eq!(taken, 99, "and the one before");
    }

    #[test]
    fn other_messages_are_none() {
        let inner = packet(4, [192, 0, 2, 9], &[]);
        assert_eq!(parse(&error(11, 0, &inner)), None, "time exceeded");
        assert_eq!(parse(&error(3, 4, &inner)), None, "fragmentation needed");
        assert_eq!(parse(&error(3, 3, &packet(6, [192, 0, 2, 9], &[]))), None, "not a tunnel packet");
        assert_eq!(parse(&packet(17, [192, 0, 2, 1], &error(3, 3, &inner))), None, "not ICMP");
    }

    #[test]
    fn cut_short_anywhere_it_is_none() {
        let whole = error(3, 2, &packet(4, [192, 0, 2, 9], &[]));
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len]), None, "{len} bytes");
        }
        let mut lying = whole.clone();
        lying[0] = 0x4f;
        assert_eq!(parse(&lying), None);
    }
}
