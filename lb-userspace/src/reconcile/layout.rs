//! Which keys stand for which service, so that the most specific one gets a packet: the longest prefix first, then the
//! fewest ports.
//!
//! A packet is looked up by its address, and then by the longest prefix there is of it; at either, single ports come
//! before ranges. So everything that shorter prefixes would decide is copied to the longer ones, and what belongs to
//! whom there is worked out here.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{PrefixEntry, PrefixKey, Protocol, RangeKey, ServiceKey, VipEntry, prefix_address};

use super::address::wide_prefix;
use super::{Observed, TrieKey, wide};
use crate::model::{Prefix, ServiceId};

/// Ranges of at most so many ports are written out port by port: that is what packets are looked up by first.
const WRITTEN_OUT: u32 = 64;

/// Keys, and the index of the service behind each.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) exact: BTreeMap<ServiceKey, usize>,
    pub(super) ranges: BTreeMap<TrieKey<RangeKey>, usize>,
    pub(super) prefixes: BTreeMap<TrieKey<PrefixKey>, PrefixEntry>,
}

/// The keys of services with these ids, and the prefixes with their numbers: those they have, or ones that nothing that
/// is there names.
pub(super) fn of(ids: &[ServiceId], vips: &BTreeMap<Prefix, VipEntry>, observed: &Observed) -> Layout {
    let mut layout = Layout::default();
    let mut at: BTreeMap<Prefix, Vec<usize>> = BTreeMap::new();
    for (index, id) in ids.iter().enumerate() {
        at.entry(id.prefix()).or_default().push(index);
    }
    for (prefix, there) in at.iter().filter(|(prefix, _)| prefix.is_host()) {
        layout.add(wide(prefix.network), there, ids);
    }
    let wide_ones = at.keys().chain(vips.keys()).filter(|prefix| !prefix.is_host());
    let wide_ones: BTreeSet<Prefix> = wide_ones.copied().collect();
    let mut numbers = numbers(observed);
    for prefix in &wide_ones {
        let key = prefix_key(*prefix);
        let present = observed.prefixes.get(&key).map(|entry| entry.number);
        let Some(number) = present.or_else(|| numbers.next()) else { continue };
        let flags = containing(*prefix).find_map(|outer| vips.get(&outer)).map_or(0, |vip| vip.flags);
        layout.prefixes.insert(key, PrefixEntry { number, flags });
        let there: Vec<usize> =
            containing(*prefix).filter_map(|outer| at.get(&outer)).flatten().copied().collect();
        layout.add(prefix_address(number), &there, ids);
    }
    layout
}

fn prefix_key(prefix: Prefix) -> TrieKey<PrefixKey> {
    let (address, bits) = wide_prefix(prefix);
    TrieKey { data: PrefixKey::new(address), bits: PrefixKey::ADDRESS_AT + bits }
}

/// The prefix itself and those that contain it, the longest first.
fn containing(prefix: Prefix) -> impl Iterator<Item = Prefix> {
    (0..=prefix.length).rev().map(move |length| Prefix::containing(prefix.network, length))
}

/// Numbers that no prefix has, nor a key of one that is gone.
fn numbers(observed: &Observed) -> impl Iterator<Item = u32> {
    let used: BTreeSet<u32> = observed.prefixes.values().map(|entry| entry.number).collect();
    let exact = observed.exact.keys().map(|key| key.address);
    let addresses: BTreeSet<[u8; 16]> =
        exact.chain(observed.ranges.keys().map(|key| key.data.address)).collect();
    (1..).filter(move |number| !used.contains(number) && !addresses.contains(&prefix_address(*number)))
}

impl Layout {
    /// Adds the keys of the services of one address, or of what stands for a prefix.
    fn add(&mut self, address: [u8; 16], there: &[usize], ids: &[ServiceId]) {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let ours = there.iter().filter_map(|index| Some((*index, *ids.get(*index)?)));
            let mut ours: Vec<(usize, ServiceId)> = ours.filter(|(_, id)| id.protocol == protocol).collect();
            ours.sort_by_key(|(_, id)| (std::cmp::Reverse(id.prefix_len), width(id.port, id.last_port), *id));
            for Claim { index, blocks, ports } in claims(&ours) {
                self.exact.extend(ports.into_iter().map(|port| {
                    let key = ServiceKey {
                        address,
                        port: port.to_be_bytes(),
                        protocol: protocol.number(),
                        reserved: 0,
                        padding: 0,
                    };
                    (key, index)
                }));
                self.ranges.extend(blocks.into_iter().map(|(start, bits)| {
                    let data = RangeKey::new(address, protocol, start.to_be_bytes());
                    (TrieKey { data, bits: RangeKey::PORT_AT + bits }, index)
                }));
            }
        }
    }
}

/// What a service gets of its ports.
struct Claim {
    index: usize,
    /// First port and number of leading bits of each aligned block.
    blocks: Vec<(u16, u32)>,
    ports: Vec<u16>,
}

fn width(first: u16, last: u16) -> u32 {
    u32::from(last) + 1 - u32::from(first)
}

/// Divides the ports among services, the first of which have the first choice.
///
/// A range whose ports only written-out ones take away is laid down whole, as they are found before it. So is one of all
/// ports, whose block is shorter than every other. Otherwise blocks of two ranges could win against each other the
/// wrong way round, and only what is left of a range is laid down.
fn claims(services: &[(usize, ServiceId)]) -> Vec<Claim> {
    let (mut taken, mut taken_by_ranges) = (Spans::default(), Spans::default());
    let mut claims = Vec::new();
    for (index, id) in services {
        let left = taken.free(id.port, id.last_port);
        if left.is_empty() {
            continue;
        }
        let mut claim = Claim { index: *index, blocks: Vec::new(), ports: Vec::new() };
        let written_out = width(id.port, id.last_port) <= WRITTEN_OUT;
        let whole = id.any_port() || !taken_by_ranges.touches(id.port, id.last_port);
        for (first, last) in &left {
            if width(*first, *last) <= WRITTEN_OUT && (written_out || !whole) {
                claim.ports.extend(*first..=*last);
            } else if !whole {
                claim.blocks.extend(blocks(*first, *last));
            }
            taken.add(*first, *last);
            if !written_out {
                taken_by_ranges.add(*first, *last);
            }
        }
        if whole && !written_out {
            claim.blocks = blocks(id.port, id.last_port);
        }
        claims.push(claim);
    }
    claims
}

/// Disjoint spans of ports, last by first.
#[derive(Default)]
struct Spans(BTreeMap<u16, u16>);

impl Spans {
    fn overlapping(&self, first: u16, last: u16) -> impl DoubleEndedIterator<Item = (u16, u16)> {
        let before = self.0.range(..first).next_back().filter(move |(_, end)| **end >= first);
        let within = self.0.range(first..=last);
        before.into_iter().chain(within).map(|(first, last)| (*first, *last))
    }

    fn touches(&self, first: u16, last: u16) -> bool {
        self.overlapping(first, last).next().is_some()
    }

    fn add(&mut self, first: u16, last: u16) {
        self.0.insert(first, last);
    }

    /// What none of them has of a span.
    fn free(&self, first: u16, last: u16) -> Vec<(u16, u16)> {
        let mut free = Vec::new();
        let mut next = Some(first);
        for (start, end) in self.overlapping(first, last) {
            if let Some(from) = next.filter(|from| *from < start) {
                free.push((from, start - 1));
            }
            next = end.checked_add(1);
        }
        free.extend(next.filter(|from| *from <= last).map(|from| (from, last)));
        free
    }
}

/// The fewest aligned blocks of powers of two that make up a span: first port and number of leading bits.
fn blocks(first: u16, last: u16) -> Vec<(u16, u32)> {
    let (mut start, end) = (u32::from(first), u32::from(last) + 1);
    let mut blocks = Vec::new();
    while start < end {
        let aligned = if start == 0 { 16 } else { start.trailing_zeros() };
        let size = aligned.min((end - start).ilog2());
        blocks.push((start as u16, 16 - size));
        start += 1 << size;
    }
    blocks
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
