//! How large the maps have to be for a config: what it needs, with room to grow without a new attach. Pure.

use crate::dataplane::PORT_CAPACITY;
use crate::model::{Model, Service};
use crate::reconcile::{FlowSizes, Size, key_count};

/// Fewest services, single ports of theirs, (service, backend) pairs and recorded flows that there is room for.
const LEAST_SERVICES: u32 = 64;
const LEAST_KEYS: u32 = 1024;
const LEAST_BACKENDS: u32 = 1024;
/// Flows of TCP that are established, and as many old ones; half as many half open.
const TCP_FLOWS: u32 = 32 << 10;
/// The same for UDP and SCTP.
const UDP_FLOWS: u32 = 16 << 10;
/// Clients that are remembered where some service has affinity.
const AFFINITY: u32 = 64 << 10;
/// Bounds of the ring pool in slots: 8 MiB to 128 MiB.
const LEAST_SLOTS: u32 = 1 << 20;
const MOST_SLOTS: u32 = 16 << 20;
/// How often the config fits into what is made for it.
const HEADROOM: u32 = 4;

/// Capacities for `model`: its limits where it sets them, otherwise four times what it needs.
pub fn size(model: &Model) -> Size {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX / HEADROOM);
    let services = count(model.services.len());
    let pairs = count(model.services.iter().map(|service| service.backends.len()).sum());
    let services = model.limits.services.unwrap_or((services * HEADROOM).max(LEAST_SERVICES));
    let has_affinity = model.services.iter().any(|service| service.flows.affinity.is_some());
    let keys = count(key_count(model.services.iter().map(|service| service.id)));
    Size {
        services,
        keys: services.max(keys.saturating_mul(HEADROOM)).max(LEAST_KEYS),
        vips: services.max(count(model.vips.len())),
        ring_slots: model
            .limits
            .ring_slots
            .unwrap_or_else(|| slots(model).saturating_mul(HEADROOM).clamp(LEAST_SLOTS, MOST_SLOTS)),
        backends: model.limits.backends.unwrap_or((pairs * HEADROOM).max(LEAST_BACKENDS)),
        ports: PORT_CAPACITY,
        tcp_flows: flows(model.limits.flows.unwrap_or(TCP_FLOWS)),
        udp_flows: flows(model.limits.udp_flows.unwrap_or(UDP_FLOWS)),
        affinity: model.limits.affinity.unwrap_or(if has_affinity { AFFINITY } else { 1 }),
    }
}

/// Tables for so many live flows.
fn flows(established: u32) -> FlowSizes {
    FlowSizes { half_open: (established / 2).max(1), established, old: established }
}

/// Ring slots that the model's services take.
fn slots(model: &Model) -> u32 {
    model.services.iter().map(Service::new_ring_size).fold(0, u32::saturating_add)
}
