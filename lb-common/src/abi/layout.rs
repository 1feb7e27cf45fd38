//! Golden sizes and offsets: whoever changes one must change the ABI version with it.

use core::mem::{offset_of, size_of};

use super::*;

#[test]
fn sizes_and_offsets_of_abi_version_2() {
    assert_eq!(ABI_VERSION, 2);
    let sizes = [
        ("BackendCounters", size_of::<BackendCounters>(), 24),
        ("BackendEntry", size_of::<BackendEntry>(), 64),
        ("Control", size_of::<Control>(), 32),
        ("FlowEntry", size_of::<FlowEntry>(), 24),
        ("FlowKey", size_of::<FlowKey>(), 40),
        ("PortEntry", size_of::<PortEntry>(), 16),
        ("ProbeEntry", size_of::<ProbeEntry>(), 48),
        ("ServiceEntry", size_of::<ServiceEntry>(), 32),
        ("ServiceKey", size_of::<ServiceKey>(), 20),
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
        ("BackendEntry.address", offset_of!(BackendEntry, address), 16),
        ("BackendEntry.outer_source", offset_of!(BackendEntry, outer_source), 32),
        ("BackendEntry.source_bits", offset_of!(BackendEntry, source_bits), 48),
        ("BackendEntry.checksum", offset_of!(BackendEntry, checksum), 52),
        ("Control.hash_key", offset_of!(Control, hash_key), 8),
        ("Control.generation", offset_of!(Control, generation), 24),
        ("FlowEntry.last_seen_ns", offset_of!(FlowEntry, last_seen_ns), 8),
        ("FlowKey.protocol", offset_of!(FlowKey, protocol), 36),
        ("PortEntry.mac", offset_of!(PortEntry, mac), 8),
        ("ProbeEntry.service_address", offset_of!(ProbeEntry, service_address), 8),
        ("ProbeEntry.protocol", offset_of!(ProbeEntry, protocol), 40),
        ("ServiceEntry.id", offset_of!(ServiceEntry, id), 8),
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
    assert!(Reason::ALL.len() <= REASON_SLOTS as usize);
    assert!(DecapReason::ALL.len() <= REASON_SLOTS as usize);
}
