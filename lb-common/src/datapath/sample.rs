//! Which packets are sampled for `lb capture`.

use super::Frame;
use super::parse::untag;
use crate::abi::{SampleFilter, mapped};
use crate::wire::{ethernet, ipv4, ipv6};

/// Source address of a frame as it came; zero where it has none.
#[inline(always)]
pub fn source<F: Frame>(frame: &F) -> [u8; 16] {
    read_source(frame).unwrap_or_default()
}

#[inline(always)]
fn read_source<F: Frame>(frame: &F) -> Option<[u8; 16]> {
    let link = ethernet::Header::parse(frame.read(0)?);
    match untag(frame, &link) {
        (start, ethernet::IPV4) => Some(mapped(ipv4::Header::parse(frame.read(start)?).source)),
        (start, ethernet::IPV6) => Some(ipv6::Header::parse(frame.read(start)?).source),
        _ => None,
    }
}

/// Whether a packet with this fate is to be sampled, before one in so many is taken.
#[inline(always)]
pub fn matches(filter: &SampleFilter, service: u32, verdict: u32, source: [u8; 16]) -> bool {
    let wants = |flag| filter.flags & flag != 0;
    if wants(SampleFilter::SERVICE) && filter.service != service {
        return false;
    }
    if wants(SampleFilter::VERDICT) && filter.verdict != verdict {
        return false;
    }
    if !wants(SampleFilter::SOURCE) {
        return true;
    }
    super::admission::masked(source, filter.source_bits) == filter.source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_must_hold() {
        let source = mapped([198, 51, 100, 7]);
        let all = SampleFilter {
            flags: SampleFilter::SERVICE | SampleFilter::VERDICT | SampleFilter::SOURCE,
            service: 3,
            verdict: 2,
            source: mapped([198, 51, 100, 0]),
            source_bits: 120,
            ..SampleFilter::default()
        };
        assert!(matches(&all, 3, 2, source));
        assert!(!matches(&all, 4, 2, source) && !matches(&all, 3, 1, source));
        assert!(!matches(&all, 3, 2, mapped([198, 51, 101, 7])));
        assert!(matches(&SampleFilter::default(), 9, 9, [0; 16]));
    }
}
