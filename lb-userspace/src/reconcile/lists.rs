//! Source lists: which numbers they have, and what is in them.
//!
//! A list's number comes from its content. So a list that has not changed needs neither be read back nor written, one
//! that services share is there once, and a changed one is there whole before any service turns to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::{AclKey, AclVerdict, ServiceEntry};

use super::TrieKey;
use super::address::wide_prefix;
use crate::model::{Admission, Prefix};

/// Entries of a list: prefixes and what becomes of sources there.
pub type AclEntries = Arc<[(TrieKey<AclKey>, AclVerdict)]>;

/// Bits of IPv4 addresses in the 16-byte form that are the same for all of them.
const MAPPED: (u128, u32) = (0xffff_0000_0000, 96);

/// A list's content.
#[derive(Clone, Debug)]
struct Content {
    allow: Arc<[Prefix]>,
    deny: Arc<[Prefix]>,
}

impl Content {
    fn is_same(&self, admission: &Admission) -> bool {
        Arc::ptr_eq(&self.allow, &admission.allow) && Arc::ptr_eq(&self.deny, &admission.deny)
    }
}

/// Numbers worked out lately, by the lists themselves: only saves time.
#[derive(Clone, Debug, Default)]
pub(super) struct Digests(Vec<(Content, u32)>);

impl Digests {
    fn digest(&mut self, admission: &Admission) -> u32 {
        let known = self.0.iter().find(|(content, _)| content.is_same(admission));
        if let Some((_, digest)) = known {
            return *digest;
        }
        let digest = digest(&admission.allow, &admission.deny);
        self.0.push((content(admission), digest));
        digest
    }
}

fn content(admission: &Admission) -> Content {
    Content { allow: Arc::clone(&admission.allow), deny: Arc::clone(&admission.deny) }
}

/// The lists that are wanted, by number.
#[derive(Debug, Default)]
pub(super) struct Lists(BTreeMap<u32, Content>);

impl Lists {
    /// The number of a service's list and the flags of its entry, if it has a list.
    pub(super) fn number(&mut self, admission: &Admission, digests: &mut Digests) -> Option<(u32, u32)> {
        if admission.allow.is_empty() && admission.deny.is_empty() {
            return None;
        }
        let only = if admission.allow.is_empty() { 0 } else { ServiceEntry::ACL_ONLY };
        let mut number = digests.digest(admission);
        // Two different lists with one digest: the later one takes the next number.
        while let Some(other) = self.0.get(&number) {
            if (&other.allow, &other.deny) == (&admission.allow, &admission.deny) {
                break;
            }
            number = number.wrapping_add(1);
        }
        self.0.entry(number).or_insert_with(|| content(admission));
        Some((number, ServiceEntry::ACL | only))
    }

    /// Forgets digests of lists that are wanted no more.
    pub(super) fn trim(&self, digests: &mut Digests) {
        let wanted = |old: &Content| self.0.values().any(|new| Arc::ptr_eq(&old.allow, &new.allow));
        digests.0.retain(|(content, _)| wanted(content));
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.keys().copied()
    }

    /// Prefixes in all of them; a little less than their entries where IPv6 prefixes contain what stands for IPv4.
    pub(super) fn len(&self) -> u64 {
        self.0.values().map(|content| (content.allow.len() + content.deny.len()) as u64).sum()
    }

    /// The entries of one.
    pub(super) fn entries(&self, number: u32) -> AclEntries {
        let Some(content) = self.0.get(&number) else { return Arc::default() };
        let allow = content.allow.iter().map(|prefix| (*prefix, AclVerdict::Allow));
        let deny = content.deny.iter().map(|prefix| (*prefix, AclVerdict::Deny));
        let mut prefixes: Vec<(Prefix, AclVerdict)> = allow.chain(deny).collect();
        // What a longer prefix says replaces what pieces of a shorter one have said.
        prefixes.sort_by_key(|(prefix, _)| prefix.length);
        let mut entries = BTreeMap::new();
        for (prefix, verdict) in prefixes {
            for (address, bits) in pieces(prefix) {
                let data = AclKey::new(number, address.to_be_bytes());
                entries.insert(TrieKey { data, bits: AclKey::LIST_BITS + bits }, verdict);
            }
        }
        entries.into_iter().collect()
    }
}

/// A prefix in the 16-byte form. Where it is one of IPv6 that contains what stands for all of IPv4, the pieces around
/// that.
fn pieces(prefix: Prefix) -> Vec<(u128, u32)> {
    let (address, bits) = wide_prefix(prefix);
    let address = u128::from_be_bytes(address);
    let (mapped, mapped_bits) = MAPPED;
    let contains = (address ^ mapped).leading_zeros() >= bits && bits <= mapped_bits;
    if prefix.network.is_ipv4() || !contains {
        return vec![(address, bits)];
    }
    let sibling = |bits: u32| {
        let flipped = mapped ^ 1 << (128 - bits);
        (flipped & u128::MAX << (128 - bits), bits)
    };
    (bits + 1..=mapped_bits).map(sibling).collect()
}

/// FNV-1a (RFC 9923) of a list's prefixes, folded to 32 bits.
fn digest(allow: &[Prefix], deny: &[Prefix]) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    for (list, verdict) in [(allow, 1), (deny, 0)] {
        for prefix in list {
            match prefix.network {
                IpAddr::V4(v4) => v4.octets().into_iter().for_each(&mut add),
                IpAddr::V6(v6) => v6.octets().into_iter().for_each(&mut add),
            }
            add(prefix.length);
            add(verdict);
        }
    }
    (hash >> 32) as u32 ^ hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix::containing(address.parse().unwrap(), length.parse().unwrap())
    }

    fn admission(allow: &[&str], deny: &[&str]) -> Admission {
        let list = |texts: &[&str]| texts.iter().map(|text| prefix(text)).collect();
        Admission { allow: list(allow), deny: list(deny), ..Admission::default() }
    }

    fn verdict(entries: &AclEntries, source: &str) -> Option<AclVerdict> {
        let source = super::super::wide(source.parse().unwrap());
        let source = u128::from_be_bytes(source);
        let fits = |key: &TrieKey<AclKey>| {
            let bits = key.bits - AclKey::LIST_BITS;
            (source ^ u128::from_be_bytes(key.data.address)).leading_zeros() >= bits
        };
        entries
            .iter()
            .filter(|(key, _)| fits(key))
            .max_by_key(|(key, _)| key.bits)
            .map(|(_, verdict)| *verdict)
    }

    #[test]
    fn equal_lists_share_a_number_and_different_ones_do_not() {
        let (mut lists, mut digests) = (Lists::default(), Digests::default());
        let one = lists.number(&admission(&["192.0.2.0/24"], &[]), &mut digests).unwrap();
        assert_eq!(lists.number(&admission(&["192.0.2.0/24"], &[]), &mut digests), Some(one));
        let other = lists.number(&admission(&[], &["192.0.2.0/24"]), &mut digests).unwrap();
        assert_ne!(one.0, other.0);
        assert_eq!((one.1, other.1), (ServiceEntry::ACL | ServiceEntry::ACL_ONLY, ServiceEntry::ACL));
        assert_eq!(lists.number(&admission(&[], &[]), &mut digests), None);
    }

    #[test]
    fn all_of_ipv6_does_not_mean_ipv4() {
        let (mut lists, mut digests) = (Lists::default(), Digests::default());
        let wanted = admission(&["::/0", "4000::/2"], &["::/16", "::ffff:0:0:0/95"]);
        let (number, _) = lists.number(&wanted, &mut digests).unwrap();
        let entries = lists.entries(number);
        for (source, expected) in [
            ("192.0.2.1", None),
            ("2001:db8::1", Some(AclVerdict::Allow)),
            ("4000::1", Some(AclVerdict::Allow)),
            ("::1", Some(AclVerdict::Deny)),
            ("0:1::1", Some(AclVerdict::Deny)),
            ("ff00::1", Some(AclVerdict::Allow)),
        ] {
            assert_eq!(verdict(&entries, source), expected, "{source}");
        }
    }
}
