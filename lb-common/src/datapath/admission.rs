//! Whether a service takes a packet at all: source lists, then rates.

use super::Tables;
use super::parse::{Kind, Packet};
use crate::abi::{AclKey, AclVerdict, BucketKey, BucketKind, Rate, RateEntry, Reason, ServiceEntry};

/// Refuses what a service's lists and limits do not let in. The caller has looked whether the service has any.
#[inline(never)]
pub(super) fn admit<T: Tables>(
    tables: &T,
    service: &ServiceEntry,
    packet: &Packet,
    kind: Kind,
) -> Result<(), Reason> {
    if service.flags & ServiceEntry::ACL != 0 {
        let listed = tables.acl(&AclKey::new(service.acl, packet.ip.source));
        let admitted = match listed {
            Some(verdict) => verdict == AclVerdict::Allow,
            None => service.flags & ServiceEntry::ACL_ONLY == 0,
        };
        if !admitted {
            return Err(Reason::Denied);
        }
    }
    if service.flags & ServiceEntry::RATES == 0 {
        return Ok(());
    }
    match tables.rates(service.id) {
        Some(rates) => within(tables, service.id, packet, kind, rates),
        None => Ok(()),
    }
}

/// Sources first, so that one that exceeds its own limits does not use up everybody's.
#[inline(always)]
fn within<T: Tables>(
    tables: &T,
    service: u32,
    packet: &Packet,
    kind: Kind,
    rates: &RateEntry,
) -> Result<(), Reason> {
    let now_ns = tables.now_ns();
    let opening = kind == Kind::Opening;
    let source = |kind: BucketKind| {
        let bits = if packet.ip.is_v6 { rates.source_v6_bits } else { rates.source_v4_bits };
        let address = masked(packet.ip.source, bits);
        BucketKey { service, kind: kind as u32, address }
    };
    if opening && !take(tables, &source(BucketKind::SourceNewFlows), rates.source_new_flows, now_ns) {
        return Err(Reason::SourceFlowLimit);
    }
    if !take(tables, &source(BucketKind::SourcePackets), rates.source_packets, now_ns) {
        return Err(Reason::SourcePacketLimit);
    }
    let index = service.wrapping_mul(2);
    if opening && !take_service(tables, index, rates.new_flows, now_ns) {
        return Err(Reason::FlowLimit);
    }
    if !take_service(tables, index.wrapping_add(1), rates.packets, now_ns) {
        return Err(Reason::PacketLimit);
    }
    Ok(())
}

/// What a bucket says to one more packet.
enum Turn {
    /// Too early.
    Refused,
    /// The schedule begins anew with this time.
    Set(u64),
    /// The schedule goes on.
    Add,
}

/// The generic cell rate algorithm (ITU-T I.371, virtual scheduling): a packet may come at most `tolerance_ns` before
/// the time that is scheduled for it.
#[inline(always)]
fn turn(scheduled_ns: Option<u64>, rate: Rate, now_ns: u64) -> Turn {
    match scheduled_ns {
        Some(at) if at > now_ns => {
            if at - now_ns > rate.tolerance_ns {
                Turn::Refused
            } else {
                Turn::Add
            }
        }
        Some(_) | None => Turn::Set(now_ns.wrapping_add(rate.interval_ns)),
    }
}

/// Takes a turn in a bucket; whether there was one. Without a rate there always is.
#[inline(always)]
pub(super) fn take<T: Tables>(tables: &T, key: &BucketKey, rate: Rate, now_ns: u64) -> bool {
    if rate.interval_ns == 0 {
        return true;
    }
    match turn(tables.bucket(key), rate, now_ns) {
        Turn::Refused => return false,
        Turn::Set(at) => tables.set_bucket(key, at),
        Turn::Add => tables.add_bucket(key, rate.interval_ns),
    }
    true
}

#[inline(always)]
fn take_service<T: Tables>(tables: &T, index: u32, rate: Rate, now_ns: u64) -> bool {
    if rate.interval_ns == 0 {
        return true;
    }
    match turn(tables.service_bucket(index), rate, now_ns) {
        Turn::Refused => return false,
        Turn::Set(at) => tables.set_service_bucket(index, at),
        Turn::Add => tables.add_service_bucket(index, rate.interval_ns),
    }
    true
}

/// The first `bits` bits of an address.
#[inline(always)]
pub(super) const fn masked(address: [u8; 16], bits: u32) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    let high = u64::from_be_bytes([a, b, c, d, e, f, g, h]) & leading(bits);
    let low = u64::from_be_bytes([i, j, k, l, m, n, o, p]) & leading(bits.saturating_sub(64));
    let [a, b, c, d, e, f, g, h] = high.to_be_bytes();
    let [i, j, k, l, m, n, o, p] = low.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// A word whose first `bits` bits are set.
#[inline(always)]
const fn leading(bits: u32) -> u64 {
    match bits {
        0 => 0,
        1..=63 => !(u64::MAX >> bits),
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn admitted(rate: Rate, arrivals: impl Iterator<Item = u64>) -> usize {
        let mut bucket = None;
        arrivals
            .filter(|now_ns| match turn(bucket, rate, *now_ns) {
                Turn::Refused => false,
                Turn::Set(at) => {
                    bucket = Some(at);
                    true
                }
                Turn::Add => {
                    bucket = bucket.map(|at| at + rate.interval_ns);
                    true
                }
            })
            .count()
    }

    fn rate(per_second: u64, burst: u64) -> Rate {
        let interval_ns = 1_000_000_000 / per_second;
        Rate { interval_ns, tolerance_ns: (burst - 1) * interval_ns }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        assert_eq!(admitted(rate(10, 5), std::iter::repeat_n(1_000, 100)), 5);
        // 100 a second for ten seconds, of which 10 a second and the burst pass.
        let passed = admitted(rate(10, 5), (0..1000).map(|n| n * 10_000_000));
        assert!((100..=105).contains(&passed), "{passed}");
        assert_eq!(admitted(rate(10, 1), (0..50).map(|n| n * 100_000_000)), 50, "exactly at the rate");
    }

    proptest! {
        #[test]
        fn never_more_than_rate_and_burst(
            per_second in 1u64..100_000, burst in 1u64..100, gaps in proptest::collection::vec(0u64..1_000_000, 1..500),
        ) {
            let times: Vec<u64> = gaps.iter().scan(0, |now, gap| { *now += gap; Some(*now) }).collect();
            let span = times.last().unwrap() - times.first().unwrap();
            let rate = rate(per_second, burst);
            let most = burst + span / rate.interval_ns + 1;
            prop_assert!(admitted(rate, times.into_iter()) as u64 <= most);
        }

        #[test]
        fn masks_keep_leading_bits(address: u128, bits in 0u32..=128) {
            let mask = u128::MAX.checked_shr(bits).map_or(u128::MAX, |low| !low);
            let expected = (address & mask).to_be_bytes();
            prop_assert_eq!(masked(address.to_be_bytes(), bits), expected);
        }
    }
}
