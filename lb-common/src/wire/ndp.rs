//! Neighbour discovery for IPv6 over Ethernet (RFC 4861, RFC 2464): who has an address, and where it is.
//!
//! A message is its fixed part, and, where somebody's MAC address is told, one option of eight bytes behind it. Whether
//! a packet may be believed (hop limit 255, checksum, who sent it) is for whoever takes it off the wire.

use super::checksum::{address, finish, halves};
use super::ethernet::Mac;

/// Length of the fixed part of either message, in bytes.
pub const LEN: usize = 24;
/// Length of the option that tells a MAC address, in bytes.
pub const OPTION_LEN: usize = 8;

/// ICMPv6 type of a solicitation.
pub const SOLICITATION: u8 = 135;
/// ICMPv6 type of an advertisement.
pub const ADVERTISEMENT: u8 = 136;
/// Type of the option with the sender's MAC address, in a solicitation.
pub const SOURCE_OPTION: u8 = 1;
/// Type of the option with the target's MAC address, in an advertisement.
pub const TARGET_OPTION: u8 = 2;

/// Hop limit of every such packet: one that has passed a router has less (RFC 4861 section 11.2).
pub const HOP_LIMIT: u8 = 255;
/// All nodes of the segment, `ff02::1`.
pub const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Next header of the packets, for the pseudo header (RFC 8200 section 8.1).
const ICMP: u8 = network_types::ip::IpProto::Ipv6Icmp as u8;
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A message as bytes: the fixed part, and the option if there is one.
pub type Bytes = ([u8; LEN], Option<[u8; OPTION_LEN]>);

/// Asks who has an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Solicitation {
    /// The address asked for.
    pub target: [u8; 16],
    /// The asker's MAC address; absent while it only looks whether the address is free (RFC 4862).
    pub source_mac: Option<Mac>,
}

/// Tells where an address is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Advertisement {
    /// The sender is a router.
    pub router: bool,
    /// It is the answer to a question of its receiver.
    pub solicited: bool,
    /// It replaces what the receiver may believe already.
    pub replaces: bool,
    /// The address told of.
    pub target: [u8; 16],
    /// Its MAC address; may be absent in an answer to one who must know it.
    pub target_mac: Option<Mac>,
}

impl Solicitation {
    /// Reads a solicitation, with its option if there is one; `None` if it is none, or asks for a multicast address
    /// (section 7.1.1).
    #[inline(always)]
    pub fn parse(bytes: [u8; LEN], option: Option<[u8; OPTION_LEN]>) -> Option<Self> {
        let (SOLICITATION, _, target) = fixed_part(bytes)? else { return None };
        Some(Self { target, source_mac: mac(SOURCE_OPTION, option) })
    }

    /// Writes it as sent between these addresses.
    #[inline(always)]
    pub const fn emit(&self, source: [u8; 16], destination: [u8; 16]) -> Bytes {
        message(SOLICITATION, 0, self.target, option(SOURCE_OPTION, self.source_mac), source, destination)
    }

    /// The answer to one who asked from the address `source`: the target is at `mac`. Goes to `source`, or to
    /// [`ALL_NODES`] if that is unspecified (section 7.2.4).
    #[inline(always)]
    pub const fn answer(&self, source: [u8; 16], mac: Mac) -> Advertisement {
        let solicited = u128::from_be_bytes(source) != 0;
        Advertisement { router: false, solicited, replaces: true, target: self.target, target_mac: Some(mac) }
    }
}

impl Advertisement {
    /// Reads an advertisement, with its option if there is one; `None` if it is none, or tells of a multicast address
    /// (section 7.1.2).
    #[inline(always)]
    pub fn parse(bytes: [u8; LEN], option: Option<[u8; OPTION_LEN]>) -> Option<Self> {
        let (ADVERTISEMENT, flags, target) = fixed_part(bytes)? else { return None };
        Some(Self {
            router: flags & ROUTER != 0,
            solicited: flags & SOLICITED != 0,
            replaces: flags & OVERRIDE != 0,
            target,
            target_mac: mac(TARGET_OPTION, option),
        })
    }

    /// Writes it as sent between these addresses.
    #[inline(always)]
    pub const fn emit(&self, source: [u8; 16], destination: [u8; 16]) -> Bytes {
        let router = if self.router { ROUTER } else { 0 };
        let solicited = if self.solicited { SOLICITED } else { 0 };
        let replaces = if self.replaces { OVERRIDE } else { 0 };
        let option = option(TARGET_OPTION, self.target_mac);
        message(ADVERTISEMENT, router | solicited | replaces, self.target, option, source, destination)
    }
}

/// The multicast address that the owner of an address listens to (RFC 4291 section 2.7.1).
#[inline(always)]
pub const fn solicited_node(address: [u8; 16]) -> [u8; 16] {
    let [.., a, b, c] = address;
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]
}

/// The MAC address that packets for a multicast address go to (RFC 2464 section 7).
#[inline(always)]
pub const fn multicast_mac(address: [u8; 16]) -> Mac {
    let [.., a, b, c, d] = address;
    [0x33, 0x33, a, b, c, d]
}

/// The checksum of a message between these addresses, over the pseudo header too; the message's own field counts as
/// zero. A message as received has the right one if this equals its field.
#[inline(always)]
pub const fn checksum(source: [u8; 16], destination: [u8; 16], (fixed, option): Bytes) -> u16 {
    let [kind, code, _, _, f0, f1, f2, f3, target @ ..] = fixed;
    let head = u32::from_be_bytes([kind, code, 0, 0]) >> 16;
    let (length, option) = match option {
        Some([o0, o1, o2, o3, o4, o5, o6, o7]) => {
            let first = halves(u32::from_be_bytes([o0, o1, o2, o3]));
            (LEN + OPTION_LEN, first + halves(u32::from_be_bytes([o4, o5, o6, o7])))
        }
        None => (LEN, 0),
    };
    let pseudo_header = address(source) + address(destination) + length as u32 + ICMP as u32;
    finish(pseudo_header + head + halves(u32::from_be_bytes([f0, f1, f2, f3])) + address(target) + option)
}

/// Type, flags and target; `None` for another code than 0 and for a multicast target.
#[inline(always)]
const fn fixed_part(bytes: [u8; LEN]) -> Option<(u8, u8, [u8; 16])> {
    let [kind, code, _, _, flags, _, _, _, target @ ..] = bytes;
    let [first, ..] = target;
    if code == 0 && first != 0xff { Some((kind, flags, target)) } else { None }
}

/// The MAC address in an option of this type; the option's length is counted in units of eight bytes.
#[inline(always)]
fn mac(wanted: u8, option: Option<[u8; OPTION_LEN]>) -> Option<Mac> {
    let [kind, length, mac @ ..] = option?;
    (kind == wanted && length == 1).then_some(mac)
}

#[inline(always)]
const fn option(kind: u8, mac: Option<Mac>) -> Option<[u8; OPTION_LEN]> {
    match mac {
        Some([a0, a1, a2, a3, a4, a5]) => Some([kind, 1, a0, a1, a2, a3, a4, a5]),
        None => None,
    }
}

#[inline(always)]
const fn message(
    kind: u8,
    flags: u8,
    target: [u8; 16],
    option: Option<[u8; OPTION_LEN]>,
    source: [u8; 16],
    destination: [u8; 16],
) -> Bytes {
    let [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, ta, tb, tc, td, te, tf] = target;
    #[rustfmt::skip]
    let unsummed = [kind, 0, 0, 0, flags, 0, 0, 0, t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, ta, tb, tc, td, te, tf];
    let [c0, c1] = checksum(source, destination, (unsummed, option)).to_be_bytes();
    #[rustfmt::skip]
    let fixed = [kind, 0, c0, c1, flags, 0, 0, 0, t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, ta, tb, tc, td, te, tf];
    (fixed, option)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::Icmpv6Type;
    use proptest::prelude::*;

    const OWN: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const OTHER: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xab, 0x12, 0x34, 0x56];
    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    /// The checksum as an independent library computes it.
    fn oracle(source: [u8; 16], destination: [u8; 16], (fixed, option): Bytes) -> u16 {
        let [kind, code, _, _, rest @ ..] = fixed;
        let kind =
            Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest[..4].try_into().unwrap() };
        let payload: Vec<u8> = rest[4..].iter().chain(option.iter().flatten()).copied().collect();
        etherparse::Icmpv6Header::with_checksum(kind, source, destination, &payload).unwrap().checksum
    }

    #[test]
    fn bytes_of_a_solicitation() {
        let solicitation = Solicitation { target: OTHER, source_mac: Some(MAC) };
        let (fixed, option) = solicitation.emit(OWN, solicited_node(OTHER));
        assert_eq!(
            (fixed[..2].to_vec(), fixed[4..8].to_vec(), &fixed[8..]),
            (vec![135, 0], vec![0; 4], &OTHER[..])
        );
        assert_eq!(option, Some([1, 1, 2, 0, 0, 0, 0, 9]));
        assert_eq!(Solicitation::parse(fixed, option), Some(solicitation));
        assert_eq!(Advertisement::parse(fixed, option), None);
    }

    #[test]
    fn an_answer_tells_the_target() {
        let solicitation = Solicitation { target: OTHER, source_mac: None };
        let answer = solicitation.answer(OWN, MAC);
        let (fixed, option) = answer.emit(OTHER, OWN);
        assert_eq!((fixed[0], fixed[4], option), (136, 0x60, Some([2, 1, 2, 0, 0, 0, 0, 9])));
        assert_eq!(Advertisement::parse(fixed, option), Some(answer));
        assert!(!solicitation.answer([0; 16], MAC).solicited, "nobody to answer: everybody is told");
    }

    #[test]
    fn multicast_addresses() {
        assert_eq!(solicited_node(OTHER), [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(multicast_mac(solicited_node(OTHER)), [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(multicast_mac(ALL_NODES), [0x33, 0x33, 0, 0, 0, 1]);
    }

    #[test]
    fn other_types_codes_targets_and_options_are_refused() {
        let (fixed, option) = Solicitation { target: OTHER, source_mac: Some(MAC) }.emit(OWN, OTHER);
        for (index, value) in [(0, 134), (1, 1), (8, 0xff)] {
            let mut bytes = fixed;
            bytes[index] = value;
            assert_eq!(Solicitation::parse(bytes, option), None, "byte {index}");
        }
        for (index, value) in [(0, 2), (1, 0), (1, 2)] {
            let mut bytes = option.unwrap();
            bytes[index] = value;
            assert_eq!(
                Solicitation::parse(fixed, Some(bytes)).unwrap().source_mac,
                None,
                "option byte {index}"
            );
        }
    }

    proptest! {
        #[test]
        fn checksums_agree_with_an_independent_library(
            source: [u8; 16], destination: [u8; 16], mut target: [u8; 16], mac: Option<Mac>, flags: [bool; 3],
        ) {
            target[0] &= 0x7f;
            let [router, solicited, replaces] = flags;
            let advertisement = Advertisement { router, solicited, replaces, target, target_mac: mac };
            let solicitation = Solicitation { target, source_mac: mac };
            let (fixed, option) = advertisement.emit(source, destination);
            prop_assert_eq!(Advertisement::parse(fixed, option), Some(advertisement));
            for bytes in [(fixed, option), solicitation.emit(source, destination)] {
                let found = u16::from_be_bytes([bytes.0[2], bytes.0[3]]);
                prop_assert_eq!(found, oracle(source, destination, bytes));
                prop_assert_eq!(found, checksum(source, destination, bytes));
            }
        }
    }
}
