//! Lets aya copy the ABI types to and from the kernel.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait; zerocopy has proven what it asks for")]

use super::*;

/// Implements `Pod` for types that zerocopy knows to be plain bytes without padding.
macro_rules! pod {
    ($($name:ty),+ $(,)?) => {$(
        const _: fn() = || {
            fn plain<T: zerocopy::FromBytes + zerocopy::IntoBytes + Copy + 'static>() {}
            plain::<$name>();
        };
        // SAFETY: any bytes are a value and no byte is padding, as the bound above checks.
        unsafe impl aya::Pod for $name {}
    )+};
}

pod!(
    AclKey,
    AffinityEntry,
    AffinityKey,
    BackendCounters,
    BackendEntry,
    BucketKey,
    Control,
    FlowEntry,
    FlowKey,
    FragmentEntry,
    FragmentKey,
    LoadEntry,
    PolicyEntry,
    PortEntry,
    PrefixEntry,
    PrefixKey,
    ProbeEntry,
    QuicKey,
    RangeKey,
    RateEntry,
    SampleFilter,
    ServiceEntry,
    ServiceKey,
    VipEntry,
    VipKey
);
