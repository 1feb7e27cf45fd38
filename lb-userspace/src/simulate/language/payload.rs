//! Bytes behind headers: a pattern that a length alone describes, anything short in hex, and QUIC's own headers.

use std::fmt::Write as _;

/// What is longer is described by its length alone.
const SHOWN_BYTES: usize = 64;
/// Longest connection id (RFC 9000 section 17.2), in bytes.
pub(super) const MAX_CID: usize = 20;
const VERSION_1: [u8; 4] = [0, 0, 0, 1];
/// Bytes that the datagram of an Initial has at least (RFC 9000 section 14.1).
const INITIAL_BYTES: usize = 1200;

/// So many bytes of a pattern that differs from place to place.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + 1) as u8).collect()
}

/// The words for a payload, with a blank in front: none for none.
pub(super) fn words(bytes: &[u8]) -> String {
    match bytes.len() {
        0 => String::new(),
        len if len > SHOWN_BYTES || bytes == pattern(len) => format!(" len {len}"),
        _ => format!(" data {}", hex(bytes)),
    }
}

/// As hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

/// A QUIC packet of version 1 (RFC 9000 section 17), as far as a load balancer can read it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Quic {
    /// Kind of its header.
    pub(super) form: Form,
    /// Destination connection id.
    pub(super) cid: Vec<u8>,
    /// Source connection id; empty in short headers.
    pub(super) source_cid: Vec<u8>,
}

/// Kinds of QUIC headers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    Initial,
    ZeroRtt,
    Handshake,
    Short,
}

impl Form {
    const ALL: [Self; 4] = [Self::Initial, Self::ZeroRtt, Self::Handshake, Self::Short];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::ZeroRtt => "0rtt",
            Self::Handshake => "handshake",
            Self::Short => "short",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    fn first_byte(self) -> u8 {
        match self {
            Self::Initial => 0xc0,
            Self::ZeroRtt => 0xd0,
            Self::Handshake => 0xe0,
            Self::Short => 0x40,
        }
    }
}

impl Quic {
    fn header(&self) -> Vec<u8> {
        let mut bytes = vec![self.form.first_byte()];
        if self.form != Form::Short {
            bytes.extend(VERSION_1);
            bytes.push(self.cid.len() as u8);
            bytes.extend(&self.cid);
            bytes.push(self.source_cid.len() as u8);
            bytes.extend(&self.source_cid);
        } else {
            bytes.extend(&self.cid);
        }
        bytes
    }

    /// The UDP payload: its header, then `rest`, or as much as such a packet usually has.
    pub(super) fn bytes(&self, rest: Option<Vec<u8>>) -> Vec<u8> {
        let mut bytes = self.header();
        let usual = match self.form {
            Form::Initial => INITIAL_BYTES.saturating_sub(bytes.len()),
            Form::ZeroRtt | Form::Handshake | Form::Short => 32,
        };
        bytes.extend(rest.unwrap_or_else(|| pattern(usual)));
        bytes
    }

    /// Finds a long header; a short one does not say how long its connection id is.
    pub(super) fn recognise(payload: &[u8]) -> Option<(Self, &[u8])> {
        let (first, rest) = payload.split_first()?;
        let form =
            Form::ALL.into_iter().find(|form| *form != Form::Short && first & 0xf0 == form.first_byte())?;
        let rest = rest.strip_prefix(&VERSION_1)?;
        let (cid, rest) = counted(rest)?;
        let (source_cid, rest) = counted(rest)?;
        Some((Self { form, cid: cid.to_vec(), source_cid: source_cid.to_vec() }, rest))
    }
}

/// Bytes behind their number.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*len)).filter(|(cid, _)| cid.len() <= MAX_CID)
}
