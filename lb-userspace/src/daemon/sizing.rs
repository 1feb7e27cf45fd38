//! How large the maps have to be for a config: what it needs, with room to grow without a new attach. Pure, but for
//! asking the machine for its CPUs.

use crate::dataplane::{PORT_CAPACITY, possible_cpus};
use crate::model::{Limits, Model, Service};
use crate::nic::Topology;
use crate::reconcile::{FlowSizes, Size, key_count};

/// Fewest services, single ports of theirs, (service, backend) pairs and recorded flows that there is room for.
const LEAST_SERVICES: u32 = 64;
const LEAST_KEYS: u32 = 1024;
const LEAST_BACKENDS: u32 = 1024;
/// Flows of TCP that are established, and as many old ones; half as many half open.
const TCP_FLOWS: u32 = 20 << 10;
/// The same for UDP and SCTP.
const UDP_FLOWS: u32 = 10 << 10;
/// Clients that are remembered where some service has affinity.
const AFFINITY: u32 = 64 << 10;
/// Bounds of the ring pool in slots: 8 MiB to 128 MiB.
const LEAST_SLOTS: u32 = 1 << 20;
const MOST_SLOTS: u32 = 16 << 20;
/// How often the config fits into what is made for it.
const HEADROOM: u32 = 4;

/// The CPUs that share a flow table. Each has a part of its own that no other may use (`BPF_F_NO_COMMON_LRU`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cpus {
    /// Those that the kernel makes parts for.
    pub possible: u32,
    /// Those that receive packets, so that their parts get filled.
    pub receiving: u32,
}

impl Cpus {
    /// This machine's; all that are online receive unless the limits say otherwise.
    pub fn here(limits: &Limits) -> Self {
        let possible = u32::try_from(possible_cpus()).unwrap_or(1).max(1);
        let online = || u32::try_from(Topology::read().0.len()).unwrap_or(possible);
        Self { possible, receiving: limits.receiving_cpus.unwrap_or_else(online).clamp(1, possible) }
    }

    /// Entries that a table must have so that the receiving CPUs' parts hold `wanted` together. The kernel rounds to a
    /// multiple of the possible CPUs likewise (`htab_map_alloc` in kernel/bpf/hashtab.c).
    fn entries(self, wanted: u32) -> u32 {
        let part = wanted.div_ceil(self.receiving);
        part.saturating_mul(self.possible)
    }

    fn spread(self, wanted: FlowSizes) -> FlowSizes {
        FlowSizes {
            half_open: self.entries(wanted.half_open),
            established: self.entries(wanted.established),
            old: self.entries(wanted.old),
        }
    }
}

/// Capacities of the maps for `model` on this machine.
pub fn size(model: &Model) -> Size {
    on(model, Cpus::here(&model.limits))
}

/// The same on a machine with these CPUs.
fn on(model: &Model, cpus: Cpus) -> Size {
    let wanted = wanted(model);
    Size { tcp_flows: cpus.spread(wanted.tcp_flows), udp_flows: cpus.spread(wanted.udp_flows), ..wanted }
}

/// Whether the model's limits ask for other maps than these.
pub(super) fn differ(model: &Model, size: &Size) -> bool {
    limited(model, size, &self::size(model)) != *size
}

/// The capacities that maps of this size should move to for the model: what its limits say, and what it needs beyond
/// what there is; never less than what is in use. The same size if they may stay.
pub(super) fn moved(model: &Model, present: &Size, used: &Size) -> Size {
    let asked = size(model);
    let need = |needed: u32, present: u32, asked: u32| if needed > present { asked } else { present };
    let least = least(model);
    let grown = Size {
        services: need(least.services, present.services, asked.services),
        keys: need(least.keys, present.keys, asked.keys),
        vips: need(least.vips, present.vips, asked.vips),
        ring_slots: need(least.ring_slots, present.ring_slots, asked.ring_slots),
        backends: need(least.backends, present.backends, asked.backends),
        affinity: need(least.affinity, present.affinity, asked.affinity),
        ..*present
    };
    let limited = limited(model, &grown, &asked);
    Size {
        services: limited.services.max(used.services),
        keys: limited.keys.max(used.keys),
        vips: limited.vips.max(used.vips),
        ring_slots: limited.ring_slots.max(used.ring_slots),
        backends: limited.backends.max(used.backends),
        ..limited
    }
}

/// `size` but for what the model limits, which is as `asked`. What it does not limit may have been made for another
/// config.
fn limited(model: &Model, size: &Size, asked: &Size) -> Size {
    let limits = &model.limits;
    let by_cpus = limits.receiving_cpus.is_some();
    let pick = |limited: bool, asked: u32, size: u32| if limited { asked } else { size };
    let flows = |limited: bool, asked: FlowSizes, size: FlowSizes| if limited { asked } else { size };
    Size {
        ring_slots: pick(limits.ring_slots.is_some(), asked.ring_slots, size.ring_slots),
        services: pick(limits.services.is_some(), asked.services, size.services),
        backends: pick(limits.backends.is_some(), asked.backends, size.backends),
        tcp_flows: flows(limits.flows.is_some() || by_cpus, asked.tcp_flows, size.tcp_flows),
        udp_flows: flows(limits.udp_flows.is_some() || by_cpus, asked.udp_flows, size.udp_flows),
        affinity: pick(limits.affinity.is_some(), asked.affinity, size.affinity),
        ..*size
    }
}

/// What the model cannot do without.
fn least(model: &Model) -> Size {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let has_affinity = model.services.iter().any(|service| service.flows.affinity.is_some());
    Size {
        services: count(model.services.len()),
        keys: count(key_count(model.services.iter().map(|service| service.id))),
        vips: count(model.vips.len()),
        ring_slots: slots(model),
        backends: count(model.services.iter().map(|service| service.backends.len()).sum()),
        // One entry stands for none.
        affinity: if has_affinity { 2 } else { 0 },
        ..Size::default()
    }
}

/// What `model` asks for: its limits where it sets them, otherwise four times what it needs. Of flow tables the entries
/// that the receiving CPUs shall have together.
pub fn wanted(model: &Model) -> Size {
    let least = least(model);
    let roomy = |needed: u32, floor: u32| needed.saturating_mul(HEADROOM).max(floor);
    let services = model.limits.services.unwrap_or(roomy(least.services, LEAST_SERVICES));
    let slots = || roomy(least.ring_slots, LEAST_SLOTS).min(MOST_SLOTS);
    Size {
        services,
        keys: services.max(roomy(least.keys, LEAST_KEYS)),
        vips: services.max(least.vips),
        ring_slots: model.limits.ring_slots.unwrap_or_else(slots),
        backends: model.limits.backends.unwrap_or(roomy(least.backends, LEAST_BACKENDS)),
        ports: PORT_CAPACITY,
        tcp_flows: flows(model.limits.flows.unwrap_or(TCP_FLOWS)),
        udp_flows: flows(model.limits.udp_flows.unwrap_or(UDP_FLOWS)),
        affinity: model.limits.affinity.unwrap_or(if least.affinity > 0 { AFFINITY } else { 1 }),
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
