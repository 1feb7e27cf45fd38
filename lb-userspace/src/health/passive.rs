//! What the network itself says of backends: ICMP errors about tunnel packets that we sent (RFC 792, RFC 4443). They
//! come to the node's own address, and the host's stack has no use for them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::libc;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

const DESTINATION_UNREACHABLE: u8 = 3;
/// A code of it, which says nothing of a backend's health (RFC 1191 section 4).
const FRAGMENTATION_NEEDED: u8 = 4;
const ICMP: u8 = 1;
/// Types of ICMPv6 (RFC 4443 sections 3.1 and 3.2).
const V6_UNREACHABLE: u8 = 1;
const V6_TOO_BIG: u8 = 2;
/// How long a backend's complaints rest after one has been heeded.
const REST: Duration = Duration::from_secs(1);
/// Complaints heeded in that time.
const AT_MOST: u32 = 100;
/// IP protocols that a backend's tunnel can be: IPv4 and IPv6 in IP, UDP, GRE.
const TUNNELS: [u8; 4] = [4, 41, 17, 47];

/// An ICMP error about a packet to a backend. Anybody can forge one: it is a reason to look, not a result.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Complaint {
    /// Where the packet was going.
    pub backend: IpAddr,
    /// What is wrong.
    pub what: What,
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// The packet did not arrive; the code of "destination unreachable", as ICMP for IPv4 numbers them.
    Unreachable(u8),
    /// The packet was too big for the way; the largest that fits, in bytes, outer header included. 0: unknown.
    TooBig(u32),
}

/// Hears ICMP errors of the current network namespace.
#[derive(Debug)]
pub struct Complaints {
    v4: UdpSocket,
    /// `None` where the host has no IPv6.
    v6: Option<UdpSocket>,
}

impl Complaints {
    /// Opens raw sockets; must be called inside a tokio runtime.
    pub fn open() -> io::Result<Self> {
        let open = |domain, protocol, filter: &[SockFilter]| {
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            socket.attach_filter(filter)?;
            socket.set_nonblocking(true)?;
            // Only read from, which is the same for every kind of socket.
            UdpSocket::from_std(std::net::UdpSocket::from(OwnedFd::from(socket)))
        };
        let v4 = open(Domain::IPV4, Protocol::ICMPV4, &[accept()])?;
        let v6 = open(Domain::IPV6, Protocol::ICMPV6, &errors_only());
        Ok(Self { v4, v6: v6.ok() })
    }

    /// Waits for the next one.
    pub async fn next(&self) -> io::Result<Complaint> {
        let (mut first, mut second) = ([0; 128], [0; 128]);
        loop {
            let v6 = async {
                match &self.v6 {
                    Some(socket) => socket.recv(&mut second).await,
                    None => std::future::pending().await,
                }
            };
            let complaint = tokio::select! {
                len = self.v4.recv(&mut first) => first.get(..len?).and_then(parse),
                len = v6 => second.get(..len?).and_then(parse_v6),
            };
            if let Some(complaint) = complaint {
                return Ok(complaint);
            }
        }
    }
}

fn accept() -> SockFilter {
    SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX)
}

/// The two types that matter: neighbour discovery must not wake the daemon. (A raw ICMPv6 socket sees no IP header.)
fn errors_only() -> [SockFilter; 5] {
    let skip_if = |kind, then, otherwise| {
        SockFilter::new(
            (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            then,
            otherwise,
            u32::from(kind),
        )
    };
    [
        SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, 0),
        skip_if(V6_UNREACHABLE, 1, 0),
        skip_if(V6_TOO_BIG, 0, 1),
        accept(),
        SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
    ]
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
    let [kind, code, _, _, _, _, m0, m1, inner @ ..] = icmp else { return None };
    if protocol != ICMP || *kind != DESTINATION_UNREACHABLE {
        return None;
    }
    let what = match *code {
        FRAGMENTATION_NEEDED => What::TooBig(u16::from_be_bytes([*m0, *m1]).into()),
        code => What::Unreachable(code),
    };
    let (protocol, backend, _) = ipv4(inner)?;
    TUNNELS.contains(&protocol).then_some(Complaint { backend: backend.into(), what })
}

/// The complaint in an ICMPv6 message.
fn parse_v6(message: &[u8]) -> Option<Complaint> {
    let [kind, code, _, _, m0, m1, m2, m3, inner @ ..] = message else { return None };
    let what = match (*kind, *code) {
        (V6_TOO_BIG, _) => What::TooBig(u32::from_be_bytes([*m0, *m1, *m2, *m3])),
        // Prohibited, no port, the rest: what the same is called in ICMP for IPv4 (RFC 7915 section 5.2).
        (V6_UNREACHABLE, 1) => What::Unreachable(10),
        (V6_UNREACHABLE, 4) => What::Unreachable(3),
        (V6_UNREACHABLE, _) => What::Unreachable(1),
        _ => return None,
    };
    let [first, _, _, _, _, _, next, _, addresses @ ..] = inner.first_chunk::<40>()?;
    let destination: [u8; 16] = *addresses.last_chunk()?;
    let backend = Ipv6Addr::from(destination).into();
    (first >> 4 == 6 && TUNNELS.contains(next)).then_some(Complaint { backend, what })
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
        let complaint = |what| Some(Complaint { backend: Ipv4Addr::new(192, 0, 2, 9).into(), what });
        assert_eq!(parse(&error(3, 2, &inner)), complaint(What::Unreachable(2)));
        let mut too_big = error(3, 4, &inner);
        too_big[26..28].copy_from_slice(&1400_u16.to_be_bytes());
        assert_eq!(parse(&too_big), complaint(What::TooBig(1400)));
    }

    #[test]
    fn ipv6_says_the_same() {
        let backend: Ipv6Addr = "2001:db8::9".parse().unwrap();
        let inner = |next| [&[0x60, 0, 0, 0, 0, 0, next, 64], &[0; 16][..], &backend.octets()[..]].concat();
        let message = |kind, code, inner: &[u8]| [&[kind, code, 0, 0, 0, 0, 5, 0x78], inner].concat();
        let complaint = |what| Some(Complaint { backend: backend.into(), what });
        assert_eq!(parse_v6(&message(2, 0, &inner(41))), complaint(What::TooBig(1400)));
        assert_eq!(parse_v6(&message(1, 4, &inner(17))), complaint(What::Unreachable(3)));
        assert_eq!(parse_v6(&message(3, 0, &inner(41))), None, "time exceeded");
        assert_eq!(parse_v6(&message(2, 0, &inner(6))), None, "not a tunnel packet");
        for len in 0..48 {
            assert_eq!(parse_v6(&message(2, 0, &inner(41))[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn a_flood_is_heeded_a_little() {
        let (mut heed, start) = (Heed::default(), Instant::now());
        let about = |n: u32| Complaint {
            backend: Ipv4Addr::from(0xc000_0200 + n).into(),
            what: What::Unreachable(2),
        };
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
