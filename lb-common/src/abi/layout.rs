//! Golden sizes and offsets: whoever changes one must change the ABI version with it.

use core::mem::{offset_of, size_of};

use super::*;

#[test]
fn sizes_and_offsets_of_abi_version_4() {
    assert_eq!(ABI_VERSION, 4);
    let sizes = [
        ("AclKey", size_of::<AclKey>(), 20),
        ("AffinityEntry", size_of::<AffinityEntry>(), 16),
        ("AffinityKey", size_of::<AffinityKey>(), 24),
        ("BackendCounters", size_of::<BackendCounters>(), 24),
        ("BackendEntry", size_of::<BackendEntry>(), 64),
        ("BucketKey", size_of::<BucketKey>(), 24),
        ("Control", size_of::<Control>(), 48),
        ("FlowEntry", size_of::<FlowEntry>(), 24),
        ("FlowKey", size_of::<FlowKey>(), 40),
        ("FragmentEntry", size_of::<FragmentEntry>(), 24),
        ("FragmentKey", size_of::<FragmentKey>(), 40),
        ("LoadEntry", size_of::<LoadEntry>(), 16),
        ("PolicyEntry", size_of::<PolicyEntry>(), 16),
        ("PortEntry", size_of::<PortEntry>(), 16),
        ("PrefixEntry", size_of::<PrefixEntry>(), 8),
        ("ProbeEntry", size_of::<ProbeEntry>(), 48),
        ("PrefixKey", size_of::<PrefixKey>(), 20),
        ("QuicKey", size_of::<QuicKey>(), 16),
        ("RangeKey", size_of::<RangeKey>(), 24),
        ("RateEntry", size_of::<RateEntry>(), 72),
        ("Sample", size_of::<Sample>(), 312),
        ("SampleFilter", size_of::<SampleFilter>(), 40),
        ("ServiceEntry", size_of::<ServiceEntry>(), 32),
        ("ServiceKey", size_of::<ServiceKey>(), 24),
        ("Slot", size_of::<Slot>(), 8),
        ("VipEntry", size_of::<VipEntry>(), 8),
        ("VipKey", size_of::<VipKey>(), 16),
    ];
    for (name, actual, golden) in sizes {
        assert_eq!(actual, golden, "size of {name}");
    }
    let offsets = [
        ("BackendEntry.service", offset_of!(BackendEntry, service), 8),
        ("BackendEntry.state", offset_of!(BackendEntry, state), 12),
        ("AclKey.address", offset_of!(AclKey, address), 4),
        ("BackendEntry.egress", offset_of!(BackendEntry, egress), 16),
        ("BackendEntry.address", offset_of!(BackendEntry, address), 24),
        ("BackendEntry.outer_source", offset_of!(BackendEntry, outer_source), 40),
        ("BackendEntry.source_bits", offset_of!(BackendEntry, source_bits), 56),
        ("BackendEntry.checksum", offset_of!(BackendEntry, checksum), 60),
        ("BucketKey.address", offset_of!(BucketKey, address), 8),
        ("Control.hash_key", offset_of!(Control, hash_key), 8),
        ("Control.generation", offset_of!(Control, generation), 24),
        ("Control.epoch", offset_of!(Control, epoch), 32),
        ("Control.sampling", offset_of!(Control, sampling), Control::SAMPLING_WORD * 8),
        ("FlowEntry.last_seen_ns", offset_of!(FlowEntry, last_seen_ns), 8),
        ("FlowEntry.marks", offset_of!(FlowEntry, marks), 16),
        ("FlowKey.protocol", offset_of!(FlowKey, protocol), 36),
        ("FragmentKey.id", offset_of!(FragmentKey, id), 32),
        ("RangeKey.port", offset_of!(RangeKey, port), 20),
        ("RateEntry.source_v4_bits", offset_of!(RateEntry, source_v4_bits), 64),
        ("Sample.bytes", offset_of!(Sample, bytes), 56),
        ("PortEntry.mac", offset_of!(PortEntry, mac), 8),
        ("ProbeEntry.service_address", offset_of!(ProbeEntry, service_address), 8),
        ("ProbeEntry.protocol", offset_of!(ProbeEntry, protocol), 40),
        ("ServiceEntry.id", offset_of!(ServiceEntry, id), 8),
        ("PolicyEntry.kind", offset_of!(PolicyEntry, kind), 8),
        ("ServiceEntry.acl", offset_of!(ServiceEntry, acl), 16),
        ("ServiceEntry.idle_ms", offset_of!(ServiceEntry, idle_ms), 24),
        ("ServiceKey.port", offset_of!(ServiceKey, port), 16),
        ("ServiceKey.protocol", offset_of!(ServiceKey, protocol), 18),
    ];
    for (name, actual, golden) in offsets {
        assert_eq!(actual, golden, "offset of {name}");
    }
}

#[test]
fn reasons_are_numbered_densely_and_fit_their_counters() {
    for (index, reason) in Reason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index, "{}", reason.name());
    }
    for (index, reason) in DecapReason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index, "{}", reason.name());
    }
    for (index, reason) in ClampReason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index, "{}", reason.name());
    }
    assert!(Reason::ALL.len() <= REASON_SLOTS as usize);
    assert!(DecapReason::ALL.len() <= REASON_SLOTS as usize);
    assert!(ClampReason::ALL.len() <= REASON_SLOTS as usize);
}
