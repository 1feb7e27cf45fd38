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

/// Sum of the 16-bit words of an address in its 16-byte form. IPv4 ones count without the mapping's prefix.
#[inline(always)]
pub const fn address(address: [u8; 16]) -> u32 {
    let [high, low] = crate::abi::words(address);
    let last = halves(low as u32);
    match crate::abi::is_mapped(address) {
        true => last,
        false => halves((high >> 32) as u32) + halves(high as u32) + halves((low >> 32) as u32) + last,
    }
}

/// The checksum field after the 16-bit words that sum to `before` have been replaced by ones that sum to `after`
/// (RFC 1624, equation 3).
#[inline(always)]
pub const fn update(check: u16, before: u32, after: u32) -> u16 {
    !fold(!check as u32 + !fold(before) as u32 + fold(after) as u32)
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
        fn an_update_equals_a_full_computation(
            mut words in proptest::collection::vec(any::<u8>(), 4..200), at in 0usize..100, new: [u8; 2],
        ) {
            if words.len() % 2 == 1 { words.push(0); }
            words[0] |= 1; // a header is never all zero: 0 and 0xffff are told apart
            let at = 2 + at * 2 % (words.len() - 2);
            let check = finish(sum(&words));
            let before = sum(&words[at..at + 2]);
            words[at..at + 2].copy_from_slice(&new);
            prop_assert_eq!(update(check, before, sum(&new)), finish(sum(&words)));
        }

        #[test]
        fn a_partial_sum_can_be_completed_later(a in any::<u32>(), b in any::<u16>()) {
            let partial = u32::from(fold(halves(a)));
            prop_assert_eq!(fold(partial + u32::from(b)), fold(halves(a) + u32::from(b)));
        }
    }
}
