//! The Maglev lookup table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4), weighted.
//!
//! A ring depends on the service's addresses, protocol and ports, the shared key, the backends' addresses and weights, and
//! its size; never on the order of a list, time or the node, so that all balancers compute the same one.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use super::ServiceId;

/// Sizes that are chosen without being asked for: primes, each about twice the one before.
const SIZES: [u32; 8] = [4093, 8191, 16_381, 32_749, 65_537, 131_071, 262_139, 655_373];

/// Slots per backend that keep the shares even to about a percent (section 5.3 of the paper).
const SLOTS_PER_BACKEND: u32 = 100;

/// The size of a ring for this many backends: the smallest listed prime that gives each a hundred slots.
pub fn default_size(backends: usize) -> u32 {
    let wanted = u32::try_from(backends).unwrap_or(u32::MAX).saturating_mul(SLOTS_PER_BACKEND);
    let [.., largest] = SIZES;
    SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(largest)
}

/// One backend's wish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Member {
    /// Its identity.
    pub address: IpAddr,
    /// Its share relative to the others; 0: none. Only the ratios count.
    pub weight: u32,
}

/// What the permutations of a ring derive from besides the backends.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    /// The service.
    pub service: ServiceId,
    /// The key all balancers share.
    pub key: [u8; 16],
}

impl Seed {
    /// Offset and skip of a backend's permutation of `size` slots.
    fn permutation(&self, address: IpAddr, size: u32) -> Permutation {
        let service = &self.service;
        let hash = |purpose: u8| {
            let mut hasher = SipHasher24::new_with_key(&self.key);
            hasher.write(&wide(service.address));
            hasher.write(&service.port.to_be_bytes());
            hasher.write(&[service.protocol.number(), purpose]);
            hasher.write(&wide(address));
            // What a single port of an IPv4 address, the oldest form, does without; the length tells the forms apart.
            if service.address.is_ipv6() || service.is_prefix() || service.last_port != service.port {
                hasher.write(&[u8::from(service.address.is_ipv6()), service.prefix_len]);
                hasher.write(&service.last_port.to_be_bytes());
            }
            hasher.finish()
        };
        let size = u64::from(size);
        Permutation {
            next: (hash(0) % size) as u32,
            skip: (hash(1) % (size - 1) + 1) as u32,
            size: size as u32,
        }
    }
}

/// An address in 16 bytes, IPv4 ones mapped (RFC 4291 section 2.5.5.2).
fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// A walk over all slots: size is prime, so any skip reaches each slot once.
struct Permutation {
    next: u32,
    skip: u32,
    size: u32,
}

impl Permutation {
    fn step(&mut self) -> u32 {
        let slot = self.next;
        self.next += self.skip;
        if self.next >= self.size {
            self.next -= self.size;
        }
        slot
    }
}

/// Which slots are taken, one bit each: a thirty-second of the table, so that it stays in the first-level cache.
struct Taken(Vec<u64>);

impl Taken {
    fn new(size: u32) -> Self {
        Self(vec![0; size.div_ceil(64) as usize])
    }

    fn take(&mut self, slot: u32) -> bool {
        let (word, bit) = (&mut self.0[slot as usize / 64], 1 << (slot % 64));
        let free = *word & bit == 0;
        *word |= bit;
        free
    }
}

/// Builds a ring of `size` (a prime above 1) slots: for each, the index into `members` of its owner. Empty if no member
/// has a weight. A member's share of the slots is its share of the weights, exact to about one slot; as long as
/// there are slots, every positive weight gets at least one.
///
/// Members take turns in the order of their addresses, each claiming the next free slot of its permutation; in round
/// `n` a member has had `n × weight / largest weight` turns.
pub fn build(seed: &Seed, members: &[Member], size: u32) -> Vec<u32> {
    let mut turns: Vec<Turn> = members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.weight > 0)
        .map(|(index, member)| Turn {
            index: index as u32,
            address: member.address,
            weight: u64::from(member.weight),
            due: 0,
            permutation: seed.permutation(member.address, size),
        })
        .collect();
    turns.sort_by_key(|turn| turn.address);
    let Some(largest) = turns.iter().map(|turn| turn.weight).max() else {
        return Vec::new();
    };
    let mut ring = vec![0; size as usize];
    let mut taken = Taken::new(size);
    let mut left = size;
    for round in 1.. {
        for turn in &mut turns {
            if round * turn.weight < turn.due {
                continue;
            }
            turn.due += largest;
            let slot = loop {
                let slot = turn.permutation.step();
                if taken.take(slot) {
                    break slot;
                }
            };
            ring[slot as usize] = turn.index;
            left -= 1;
            if left == 0 {
                return ring;
            }
        }
    }
    ring
}

struct Turn {
    index: u32,
    address: IpAddr,
    weight: u64,
    /// The round's weight at which the next turn is due.
    due: u64,
    permutation: Permutation,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const M: u32 = 65_537;

    fn seed() -> Seed {
        let service = ServiceId::single([203, 0, 113, 10], Protocol::Tcp, 80);
        Seed { service, key: [7; 16] }
    }

    fn members(n: u32, weight: impl Fn(u32) -> u32) -> Vec<Member> {
        let address = |i: u32| Ipv4Addr::from(0xc612_0000 + i).into();
        (0..n).map(|i| Member { address: address(i), weight: weight(i) }).collect()
    }

    fn shares(ring: &[u32], members: usize) -> Vec<u32> {
        let mut shares = vec![0; members];
        for owner in ring {
            shares[*owner as usize] += 1;
        }
        shares
    }

    #[test]
    fn default_sizes_are_listed_primes() {
        let sizes = [1, 40, 41, 655, 656, 6553, 6554, 1_000_000].map(default_size);
        assert_eq!(sizes, [4093, 4093, 8191, 65_537, 131_071, 655_373, 655_373, 655_373]);
        for size in SIZES {
            assert!((2..size).take_while(|d| d * d <= size).all(|d| size % d != 0), "{size}");
        }
    }

    #[test]
    fn equal_weights_differ_by_one_slot_at_most() {
        for n in [10, 100, 1000] {
            let shares = shares(&build(&seed(), &members(n, |_| 1), M), n as usize);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{n} backends: {least} to {most}");
        }
    }

    #[test]
    fn shares_follow_weights_to_one_slot() {
        for n in [10u32, 100, 1000] {
            let members = members(n, |i| i % 7 + 1);
            let total: u64 = members.iter().map(|m| u64::from(m.weight)).sum();
            for (share, member) in shares(&build(&seed(), &members, M), members.len()).iter().zip(&members) {
                let exact = f64::from(M) * f64::from(member.weight) / total as f64;
                assert!((f64::from(*share) - exact).abs() <= 1.5, "{n}: {share} slots, {exact} wanted");
            }
        }
    }

    /// Removing one of N backends must move its own slots, 1/N, and only few others: section 5.3, figure 12 of the
    /// paper shows about 2 % more at this size.
    #[test]
    fn removing_a_backend_moves_little_else() {
        for n in [10u32, 100, 1000] {
            let before = members(n, |_| 1);
            let mut after = before.clone();
            after[n as usize / 2].weight = 0;
            let (old, new) = (build(&seed(), &before, M), build(&seed(), &after, M));
            let gone = n / 2;
            let needless = old.iter().zip(&new).filter(|(a, b)| a != b && **a != gone).count();
            let share = needless as f64 / f64::from(M);
            assert!(share < 0.03, "{n} backends: {:.2} % moved needlessly", share * 100.0);
        }
    }

    #[test]
    fn services_and_keys_have_rings_of_their_own() {
        let members = members(10, |_| 1);
        let ring = build(&seed(), &members, 4093);
        let mut other = seed();
        other.service = ServiceId::single(other.service.address, Protocol::Tcp, 81);
        assert_ne!(ring, build(&other, &members, 4093));
        let wider = [
            ServiceId { last_port: 81, ..seed().service },
            ServiceId { prefix_len: 31, ..seed().service },
            ServiceId::single(Ipv4Addr::new(203, 0, 113, 10).to_ipv6_mapped(), Protocol::Tcp, 80),
        ];
        let mut rings = std::collections::BTreeSet::from([ring.clone()]);
        rings.extend(wider.map(|service| build(&Seed { service, ..seed() }, &members, 4093)));
        assert_eq!(rings.len(), 4);
        let mut keyed = seed();
        keyed.key[0] = 8;
        assert_ne!(ring, build(&keyed, &members, 4093));
    }

    /// Pins the algorithm: every balancer of a cluster, whatever its version, must compute this.
    #[test]
    fn the_ring_is_the_same_for_ever() {
        let ring = build(&seed(), &members(5, |i| i), 101);
        assert_eq!(shares(&ring, 5), [0, 11, 21, 30, 39]);
        let digest =
            ring.iter().fold(0u64, |hash, owner| hash.wrapping_mul(31).wrapping_add(u64::from(*owner)));
        assert_eq!(digest, 13_312_549_143_170_649_117);
    }

    #[test]
    fn only_the_ratios_of_weights_count() {
        let (plain, scaled) = (members(9, |i| i % 4), members(9, |i| (i % 4) * 100));
        assert_eq!(build(&seed(), &plain, 4093), build(&seed(), &scaled, 4093));
    }

    #[test]
    fn nobody_with_weight_means_no_ring() {
        assert!(build(&seed(), &members(3, |_| 0), M).is_empty());
        assert!(build(&seed(), &[], M).is_empty());
    }

    proptest! {
        #[test]
        fn order_does_not_matter(weights in proptest::collection::vec(0u32..50, 1..40), shift in 0usize..40) {
            let members = members(weights.len() as u32, |i| weights[i as usize]);
            let mut rotated = members.clone();
            rotated.rotate_left(shift % members.len());
            let owner = |list: &[Member], ring: Vec<u32>| -> Vec<IpAddr> {
                ring.into_iter().map(|i| list[i as usize].address).collect()
            };
            prop_assert_eq!(
                owner(&members, build(&seed(), &members, 1009)),
                owner(&rotated, build(&seed(), &rotated, 1009))
            );
        }
    }
}
