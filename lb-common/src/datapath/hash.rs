//! The keyed flow hash.
//!
//! Each 64-bit word of the 5-tuple is added into the state and mixed by a bijection of two multiply–xorshift rounds
//! (the finalizer of SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014),
//! with one half of the secret key before the first and the other before the last. BPF has no 64×64→128 multiplication, which rules out the
//! folded-multiply family; two words of IPv4 cost four multiplications, five of IPv6 ten.

use crate::abi::{is_mapped, words};

/// SplitMix64's mixing function: a bijection in which every input bit flips every output bit about half the time.
#[inline(always)]
const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Hash of a flow; addresses in the 16-byte form, and both they and ports in network order. Of an IPv4 flow only what is
/// not the same in all of them is mixed.
#[inline(always)]
pub const fn flow(
    key: [u64; 2],
    source: [u8; 16],
    destination: [u8; 16],
    source_port: [u8; 2],
    destination_port: [u8; 2],
    protocol: u8,
) -> u64 {
    let [s0, s1] = words(source);
    let [d0, d1] = words(destination);
    let ports = (u16::from_be_bytes(source_port) as u64) << 16 | u16::from_be_bytes(destination_port) as u64;
    let rest = (protocol as u64) << 32 | ports;
    let [first, last] = key;
    let addresses = if is_mapped(destination) {
        mix((s1 << 32 | d1 & 0xffff_ffff) ^ first)
    } else {
        let source = mix(mix(s0 ^ first).wrapping_add(s1));
        mix(mix(source.wrapping_add(d0)).wrapping_add(d1))
    };
    mix(addresses.wrapping_add(rest) ^ last)
}

/// Hash of a client's address alone, whatever the service and the ports.
#[inline(always)]
pub const fn source(key: [u64; 2], source: [u8; 16]) -> u64 {
    let [s0, s1] = words(source);
    let [first, last] = key;
    mix(mix(mix(s0 ^ first).wrapping_add(s1)) ^ last)
}

/// Which of `size` slots a hash falls into: multiply–shift range reduction over the hash's upper half (Lemire, "Fast
/// Random Integer Generation in an Interval", 2019), which needs no division. The lower half stays free for entropy in
/// outer headers.
#[inline(always)]
pub const fn slot(hash: u64, size: u32) -> u32 {
    (((hash >> 32) * size as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::mapped;

    const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
    const BUCKETS: usize = 1021;
    const FLOWS: u32 = 200_000;

    fn hash(n: u32, vary: Pattern) -> u64 {
        let (source, port) = vary(n);
        flow(KEY, mapped(source), mapped([203, 0, 113, 10]), port, [0, 80], 6)
    }

    /// Upper bound of chi-square with `df` degrees of freedom at p = 0.001 (Wilson–Hilferty).
    fn chi_square_limit(df: f64) -> f64 {
        let z = 3.090;
        let t = 1.0 - 2.0 / (9.0 * df) + z * (2.0 / (9.0 * df)).sqrt();
        df * t * t * t
    }

    fn chi_square(counts: &[u32]) -> f64 {
        let total: f64 = counts.iter().map(|&c| f64::from(c)).sum();
        let expected = total / counts.len() as f64;
        counts.iter().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum()
    }

    /// Source address and port of the n-th flow.
    type Pattern = fn(u32) -> ([u8; 4], [u8; 2]);

    /// Sequential ports, sequential addresses, and addresses that differ in one byte only.
    const PATTERNS: [(&str, Pattern); 4] = [
        ("sequential ports", |n| ([198, 51, 100, (n >> 16) as u8], (n as u16).to_be_bytes())),
        ("sequential addresses", |n| ((0xc633_0000 + n).to_be_bytes(), [0x9c, 0x40])),
        ("addresses in steps of 256", |n| ((0x0a00_0000 + (n << 8)).to_be_bytes(), [0x9c, 0x40])),
        ("address and port in step", |n| ((0xc633_0000 + n).to_be_bytes(), (n as u16).to_be_bytes())),
    ];

    #[test]
    fn slots_are_even_for_regular_clients() {
        for (name, vary) in PATTERNS {
            let mut counts = [0; BUCKETS];
            for n in 0..FLOWS {
                counts[slot(hash(n, vary), BUCKETS as u32) as usize] += 1;
            }
            let chi = chi_square(&counts);
            assert!(chi < chi_square_limit((BUCKETS - 1) as f64), "{name}: chi-square {chi:.1}");
        }
    }

    #[test]
    fn the_low_half_is_even_too() {
        for (name, vary) in PATTERNS {
            let mut counts = [0; 1024];
            for n in 0..FLOWS {
                counts[(hash(n, vary) & 1023) as usize] += 1;
            }
            let chi = chi_square(&counts);
            assert!(chi < chi_square_limit(1023.0), "{name}: chi-square {chi:.1}");
        }
    }

    #[test]
    fn every_input_bit_flips_every_output_bit_about_half_the_time() {
        const ROUNDS: u32 = 4000;
        for bit in 0..48u32 {
            let mut flips = [0u32; 64];
            for n in 0..ROUNDS {
                let tuple = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) & ((1 << 48) - 1);
                let of = |t: u64| {
                    let [_, _, a, b, c, d, p, q] = t.to_be_bytes();
                    flow(KEY, mapped([a, b, c, d]), mapped([203, 0, 113, 10]), [p, q], [0, 80], 6)
                };
                let changed = of(tuple) ^ of(tuple ^ (1 << bit));
                for (out, count) in flips.iter_mut().enumerate() {
                    *count += (changed >> out & 1) as u32;
                }
            }
            for (out, &count) in flips.iter().enumerate() {
                let share = f64::from(count) / f64::from(ROUNDS);
                assert!((0.45..0.55).contains(&share), "input bit {bit}, output bit {out}: {share}");
            }
        }
    }

    #[test]
    fn the_key_changes_the_slot_of_nearly_every_flow() {
        let moved = (0..10_000u32)
            .filter(|n| {
                let (from, to) = (mapped(n.to_be_bytes()), mapped([203, 0, 113, 10]));
                let flow = |key| flow(key, from, to, [0, 9], [0, 80], 6);
                slot(flow(KEY), 1021) != slot(flow([KEY[0] ^ 1, KEY[1]]), 1021)
            })
            .count();
        assert!(moved > 9900, "{moved}");
    }

    #[test]
    fn slots_stay_below_the_size() {
        assert_eq!(slot(u64::MAX, 655_373), 655_372);
        assert_eq!(slot(0, 655_373), 0);
        assert_eq!(slot(u64::MAX, 0), 0);
    }
}
