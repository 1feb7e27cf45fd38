//! One's-complement arithmetic of the Internet checksum (RFC 1071).

/// Folds a sum of 16-bit words into one word, not inverted.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// Sum of the two 16-bit words of a 32-bit value in host order of its network meaning.
#[inline(always)]
pub const fn halves(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

/// The checksum field for a sum of 16-bit words.
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// Sum of a header's 16-bit words; at most 64 KiB, so that the sum cannot overflow.
pub fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [high, low] => u32::from(u16::from_be_bytes([high, low])),
        [last] => u32::from(last) << 8,
        _ => 0,
    });
    words.fold(0, u32::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1071_section_3_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
        assert_eq!(finish(sum(&bytes)), !0xddf2);
    }

    #[test]
    fn an_odd_last_byte_is_padded_with_zero() {
        assert_eq!(sum(&[0x12]), 0x1200);
    }

    proptest! {
        #[test]
        fn a_block_with_its_checksum_sums_to_all_ones(mut words in proptest::collection::vec(any::<u8>(), 0..200)) {
            if words.len() % 2 == 1 { words.push(0); }
            let check = finish(sum(&words));
            words.extend(check.to_be_bytes());
            prop_assert_eq!(fold(sum(&words)), 0xffff);
        }

        #[test]
        fn a_partial_sum_can_be_completed_later(a in any::<u32>(), b in any::<u16>()) {
            let partial = u32::from(fold(halves(a)));
            prop_assert_eq!(fold(partial + u32::from(b)), fold(halves(a) + u32::from(b)));
        }
    }
}
