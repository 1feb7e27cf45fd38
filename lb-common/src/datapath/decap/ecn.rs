//! Explicit congestion notification where a tunnel ends (RFC 6040 section 4.2).

use super::super::Frame;
use super::super::parse::Ip;
use crate::wire::checksum;

/// The ECN field in TOS and traffic class.
pub(super) const BITS: u8 = 3;

const NOT_CAPABLE: u8 = 0;
const CAPABLE_1: u8 = 1;
const CAPABLE_0: u8 = 2;
const CONGESTED: u8 = 3;

/// Bytes of an IPv4 header up to the end of its checksum.
const V4_CHANGED: usize = 12;

/// The ECN field of what comes out of a tunnel (figure 4 of the RFC); `None` where it must be dropped, because its
/// sender would not understand that there is congestion.
#[inline(always)]
pub(super) const fn combined(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_CAPABLE, CONGESTED) => None,
        (_, CONGESTED) => Some(CONGESTED),
        (CAPABLE_0, CAPABLE_1) => Some(CAPABLE_1),
        _ => Some(inner),
    }
}

/// Writes the ECN field of a packet, with the checksum that goes with it.
#[inline(always)]
pub(super) fn mark<F: Frame>(frame: &mut F, ip: &Ip, ecn: u8) -> Option<()> {
    if ip.is_v6 {
        // Four bits of version, then the traffic class.
        let [first, second] = frame.read(ip.start)?;
        return frame.write(ip.start, [first, second & !(BITS << 4) | ecn << 4]);
    }
    let [vihl, tos, b2, b3, b4, b5, b6, b7, b8, b9, c0, c1] = frame.read::<V4_CHANGED>(ip.start)?;
    let marked = tos & !BITS | ecn;
    let check = u16::from_be_bytes([c0, c1]);
    let [c0, c1] = checksum::update(check, u32::from(tos), u32::from(marked)).to_be_bytes();
    frame.write(ip.start, [vihl, marked, b2, b3, b4, b5, b6, b7, b8, b9, c0, c1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sixteen_combinations_are_those_of_rfc_6040() {
        // Rows: Not-ECT, ECT(0), ECT(1), CE inside; columns in the same order outside.
        const FIGURE_4: [(u8, [Option<u8>; 4]); 4] = [
            (0b00, [Some(0b00), Some(0b00), Some(0b00), None]),
            (0b10, [Some(0b10), Some(0b10), Some(0b01), Some(0b11)]),
            (0b01, [Some(0b01), Some(0b01), Some(0b01), Some(0b11)]),
            (0b11, [Some(0b11), Some(0b11), Some(0b11), Some(0b11)]),
        ];
        for (inner, row) in FIGURE_4 {
            for (outer, expected) in [0b00, 0b10, 0b01, 0b11].into_iter().zip(row) {
                assert_eq!(combined(inner, outer), expected, "inner {inner:02b}, outer {outer:02b}");
            }
        }
    }
}
