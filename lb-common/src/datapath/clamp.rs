//! Whether a TCP SYN that leaves a backend promises a segment size that does not fit the tunnel it comes back through.
//!
//! It only reads: who changes the segment knows how far its checksum has been computed.

#[cfg(test)]
mod tests;

use super::Frame;
use super::parse::{Ip, State, read_ip, untag};
use crate::abi::{ClampReason, Protocol};
use crate::wire::ethernet;

/// A TCP header without options, in bytes (RFC 9293 section 3.1).
const TCP_LEN: usize = 20;
/// Where data offset and flags are.
const OFFSET_AND_FLAGS: usize = 12;
/// Where the checksum is.
const CHECKSUM: usize = 16;
const SYN: u8 = 0x02;
/// Options are at most this many bytes, and so at most as many.
const MAX_OPTIONS: usize = 40;
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
/// Maximum segment size (RFC 9293 section 3.7.1), an option of four bytes.
const MSS: u8 = 2;
const MSS_LEN: u8 = 4;

/// What decides of a SYN.
pub trait ClampTables {
    /// Whether this is a service address, in the 16-byte form.
    fn is_vip(&self, address: [u8; 16]) -> bool;
    /// The largest MSS with IPv6, or with IPv4.
    fn mss(&self, is_v6: bool) -> u16;
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Clamp {
    /// No SYN from a service address: nothing.
    NotOurs,
    /// Nothing, and why.
    Keep(ClampReason),
    /// Change it.
    Lower(Lower),
}

/// A change of an MSS option.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lower {
    /// Where its value is in the frame.
    pub at: usize,
    /// Where the checksum of TCP is in the frame.
    pub checksum_at: usize,
    /// The value to be written.
    pub mss: [u8; 2],
    /// What the old value adds to the checksum, as a word in network order: the value's bytes, the other way round
    /// where it is not aligned to a word (RFC 1071 section 2 (B)).
    pub before: [u8; 2],
    /// What the new value adds.
    pub after: [u8; 2],
}

/// Decides about a frame on its way out. A value is never raised, an option never added, and what is no sound TCP
/// segment is left as it is. IPv6 extension headers are not looked behind: no stack sends a SYN with any by itself.
#[inline(always)]
pub fn clamp<F: Frame, T: ClampTables>(frame: &F, tables: &T) -> Clamp {
    let Some(bytes) = frame.read(0) else {
        return Clamp::NotOurs;
    };
    let (start, ether_type) = untag(frame, &ethernet::Header::parse(bytes));
    let mut ip = Ip::NONE;
    read_ip(frame, start, ether_type, &mut ip);
    if ip.state != State::Whole || ip.protocol != Protocol::Tcp.number() {
        return Clamp::NotOurs;
    }
    let Some([offset, flags]) = frame.read(ip.payload + OFFSET_AND_FLAGS) else {
        return Clamp::NotOurs;
    };
    // The dearest question last: nearly every packet ends at the flags.
    if flags & SYN == 0 || !tables.is_vip(ip.source) {
        return Clamp::NotOurs;
    }
    let header_len = usize::from(offset >> 4) * 4;
    if header_len > ip.payload_len() as usize {
        return Clamp::Keep(ClampReason::NoOption);
    }
    let Some(at) = option(frame, ip.payload + TCP_LEN, ip.payload + header_len) else {
        return Clamp::Keep(ClampReason::NoOption);
    };
    let Some(old) = frame.read(at) else {
        return Clamp::Keep(ClampReason::NoOption);
    };
    let most = tables.mss(ip.is_v6);
    if u16::from_be_bytes(old) <= most {
        return Clamp::Keep(ClampReason::LowEnough);
    }
    let mss = most.to_be_bytes();
    let is_aligned = at.wrapping_sub(ip.payload) % 2 == 0;
    let (before, after) = if is_aligned { (old, mss) } else { (swapped(old), swapped(mss)) };
    Clamp::Lower(Lower { at, checksum_at: ip.payload + CHECKSUM, mss, before, after })
}

/// Where the value of the MSS option is, among options from `at` to `end`. A length of 0 ends nowhere, and so in
/// nothing: to ask for it would tell the verifier more than it can keep apart in so many rounds.
#[inline(always)]
fn option<F: Frame>(frame: &F, mut at: usize, end: usize) -> Option<usize> {
    for _ in 0..MAX_OPTIONS {
        // Nothing shorter can be one.
        if at + usize::from(MSS_LEN) > end {
            return None;
        }
        let [kind, len] = frame.read(at)?;
        match kind {
            END => return None,
            NO_OPERATION => at += 1,
            MSS => return (len == MSS_LEN).then_some(at + 2),
            _ if len == 1 => return None,
            _ => at += usize::from(len),
        }
    }
    None
}

#[inline(always)]
const fn swapped([first, second]: [u8; 2]) -> [u8; 2] {
    [second, first]
}
