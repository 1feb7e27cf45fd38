//! QUIC (RFC 8999, RFC 9000): which packets begin a connection, and which server chose a connection ID.

use super::Frame;
use super::parse::{Kind, Packet};
use crate::abi::QuicFormat;

/// Length of the UDP header.
const UDP_LEN: usize = 8;
/// Form and fixed bit of the first byte.
const LONG: u8 = 0x80;
/// RFC 9000 and RFC 9369: in version 2 the packet types are one further on.
const VERSION_1: [u8; 4] = [0, 0, 0, 1];
const VERSION_2: [u8; 4] = [0x6b, 0x33, 0x43, 0xcf];
const HANDSHAKE_1: u8 = 2;
const HANDSHAKE_2: u8 = 3;

/// What a packet's QUIC header says.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// Whether a connection begins.
    pub(super) kind: Kind,
    /// Id of the server that chose the connection ID.
    pub(super) server: Option<u64>,
}

/// Reads the header. Connection IDs are the server's only in handshake and short-header packets: in Initial and 0-RTT
/// ones, and in versions that nobody here knows, a client has made them up.
#[inline(always)]
pub(super) fn look<F: Frame>(frame: &F, packet: &Packet, format: Option<QuicFormat>) -> Seen {
    let start = packet.ip.payload + UDP_LEN;
    let nothing = Seen { kind: Kind::Later, server: None };
    let Some([first]) = frame.read(start) else {
        return nothing;
    };
    let (id, length) = if first & LONG == 0 {
        // How long it is only its server knows: as long as the format needs.
        (start + 1, u8::MAX)
    } else {
        let Some([v0, v1, v2, v3, length]) = frame.read(start + 1) else {
            return nothing;
        };
        let kind = first >> 4 & 3;
        match ([v0, v1, v2, v3], kind) {
            (VERSION_1, HANDSHAKE_1) | (VERSION_2, HANDSHAKE_2) => (start + 6, length),
            _ => return Seen { kind: Kind::Opening, server: None },
        }
    };
    Seen { kind: Kind::Later, server: format.and_then(|format| server(frame, format, id, length)) }
}

/// The server id in the connection ID of `length` bytes at `at`. Behind a connection ID there are at least 16 more bytes
/// (RFC 9001 section 5.4.2), so a fixed number can be read.
#[inline(always)]
fn server<F: Frame>(frame: &F, format: QuicFormat, at: usize, length: u8) -> Option<u64> {
    let [a, b, c, d, e, f, g, h, i] = frame.read(at)?;
    match format {
        QuicFormat::Draft { config_id, length: wanted } => {
            if a >> 5 != config_id || length <= wanted || wanted == 0 || wanted > 8 {
                return None;
            }
            let bits = 64 - u32::from(wanted) * 8;
            Some(u64::from_be_bytes([b, c, d, e, f, g, h, i]) >> (bits & 63))
        }
        QuicFormat::Katran if length < 4 => None,
        QuicFormat::Katran => match a >> 6 {
            1 => Some(u64::from(u32::from_be_bytes([0, a & 0x3f, b, c]) >> 6)),
            2 => Some(u64::from(u32::from_be_bytes([0, b, c, d]))),
            _ => None,
        },
    }
}
