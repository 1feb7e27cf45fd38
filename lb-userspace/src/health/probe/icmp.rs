//! Probes by ICMP and ICMPv6 echo (RFC 792, RFC 4443 section 4). Must not know how sockets get to the target.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use socket2::Type;

use super::dial::Dial;
use super::failure::Failure;
use super::progress::{Progress, Stage};
use super::{Prober, Probing};

/// Header and payload: a token that nobody else can know, so that only an answer to this very probe fits.
const MESSAGE: usize = 8 + 8;

/// Room for an IPv4 header with all its options before the message, and more, so that longer messages show.
const ROOM: usize = 128;

/// Sends an echo request and waits for its reply; other messages are passed over.
pub(super) struct Echo {
    secret: RandomState,
    probes: AtomicU64,
}

/// What differs between the two ICMPs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Kind {
    request: u8,
    reply: u8,
}

const V4: Kind = Kind { request: 8, reply: 0 };
const V6: Kind = Kind { request: 128, reply: 129 };

impl Echo {
    pub(super) fn new() -> Self {
        Self { secret: RandomState::new(), probes: AtomicU64::new(0) }
    }

    async fn exchange(&self, dial: &Dial, progress: &Progress) -> Result<(), Failure> {
        let failed = |e: &std::io::Error| Failure::from_datagram(e, Stage::Echo);
        let (socket, shape) = dial.icmp()?;
        let kind = if dial.target.is_ipv4() { V4 } else { V6 };
        let token = self.secret.hash_one(self.probes.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
        let request = message(kind.request, token);
        progress.at(Stage::Echo);
        socket.send(&request).await.map_err(|e| failed(&e))?;
        let mut buffer = [0; ROOM];
        loop {
            let length = socket.recv(&mut buffer).await.map_err(|e| failed(&e))?;
            let received = buffer.get(..length).unwrap_or_default();
            let received = match (shape, kind) {
                (Type::RAW, V4) => after_ipv4_header(received),
                _ => received,
            };
            // Datagram sockets have an identifier of the kernel's, by which it also finds the socket for a reply.
            if is_reply(received, kind, token, shape == Type::RAW) {
                return Ok(());
            }
        }
    }
}

impl Prober for Echo {
    fn probe<'a>(&'a self, dial: &'a Dial, progress: &'a Progress) -> Probing<'a> {
        Box::pin(self.exchange(dial, progress))
    }
}

/// An echo message; identifier and sequence number are taken from the token, too.
fn message(kind: u8, token: [u8; 8]) -> [u8; MESSAGE] {
    let [a, b, c, d, e, f, g, h] = token;
    let with = |[high, low]: [u8; 2]| [kind, 0, high, low, a, b, c, d, a, b, c, d, e, f, g, h];
    let sum = checksum(&with([0, 0]));
    // The kernel computes ICMPv6's own, which covers addresses that are not known here.
    with(sum.to_be_bytes())
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.as_chunks::<2>().0;
    let sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// What follows the IPv4 header, which raw sockets hand over, too.
fn after_ipv4_header(packet: &[u8]) -> &[u8] {
    let words = packet.first().map_or(0, |first| usize::from(first & 0x0f));
    packet.get(words * 4..).unwrap_or_default()
}

/// Whether a message is the reply to the request with this token.
fn is_reply(received: &[u8], kind: Kind, token: [u8; 8], own_identifier: bool) -> bool {
    let expected = message(kind.reply, token);
    let from = if own_identifier { 4 } else { 6 };
    received.len() == MESSAGE
        && received.get(..2) == expected.get(..2)
        && received.get(from..) == expected.get(from..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: [u8; 8] = *b"\x12\x34\x00\x07token".first_chunk::<8>().expect("nine bytes");

    #[test]
    fn a_request_on_the_wire() {
        let request = message(V4.request, TOKEN);
        assert_eq!(request[..2], [8, 0]);
        assert_eq!(request[4..8], [0x12, 0x34, 0, 7]);
        assert_eq!(checksum(&request), 0, "a message with its checksum sums up to nothing");
    }

    #[test]
    fn the_checksum_of_rfc_1071() {
        // The example of section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff; 64]), 0);
        assert_eq!(checksum(&[0xff, 0xff, 0xff, 0xff, 0, 1]), 0xfffe, "carried twice");
    }

    #[test]
    fn only_its_own_reply_counts() {
        let reply = message(V4.reply, TOKEN);
        assert!(is_reply(&reply, V4, TOKEN, true));
        assert!(!is_reply(&message(V4.request, TOKEN), V4, TOKEN, true), "the request itself, on loopback");
        assert!(!is_reply(
            &message(V4.reply, *b"\x12\x34\x00\x07other"[..8].first_chunk().unwrap()),
            V4,
            TOKEN,
            true
        ));
        assert!(!is_reply(&reply[..15], V4, TOKEN, true), "cut short");
        assert!(!is_reply(&[&reply[..], &[0]].concat(), V4, TOKEN, true), "longer");
        assert!(!is_reply(&reply, V6, TOKEN, true), "the other protocol's");
        let mut another = reply;
        another[4] ^= 1;
        assert!(!is_reply(&another, V4, TOKEN, true), "another identifier");
        assert!(is_reply(&another, V4, TOKEN, false), "which the kernel has checked");
        another[7] ^= 1;
        assert!(!is_reply(&another, V4, TOKEN, false), "another sequence number");
    }

    #[test]
    fn headers_with_options_and_broken_ones() {
        assert_eq!(after_ipv4_header(&[&[0x46][..], &[0; 23], b"echo"].concat()), b"echo");
        assert_eq!(after_ipv4_header(&[0x4f; 20]), b"");
        assert_eq!(after_ipv4_header(&[]), b"");
    }
}
