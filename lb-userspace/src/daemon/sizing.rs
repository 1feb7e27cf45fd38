//! How large the maps have to be for a config: what it needs, with room to grow without a new attach. Pure, but for
//! asking the machine for its CPUs.

use std::fmt;

use crate::dataplane::{PORT_CAPACITY, possible_cpus};
use crate::model::{Limits, Model, Protocol, Service, schedule};
use crate::nic::Topology;
use crate::reconcile::{FlowSizes, Size, key_count};

/// Fewest services, single ports of theirs, (service, backend) pairs and recorded flows that there is room for.
const LEAST_SERVICES: u32 = 64;
const LEAST_KEYS: u32 = 1024;
const LEAST_BACKENDS: u32 = 1024;
/// Flows of TCP that are established, and as many old ones; half as many half open. Enough for those of slots that
/// change.
const TCP_FLOWS: u32 = 20 << 10;
/// The same for UDP and SCTP.
const UDP_FLOWS: u32 = 8 << 10;
/// So many times as many where some service has all of its flows recorded.
const ALL_FLOWS: u32 = 8;
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

/// Something of a model that is not in force while the maps are as large as they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lack {
    /// Its limits ask for other sizes.
    Limits,
    /// There is no room for clients, whom some service is to remember.
    Affinity,
    /// Tables for the flows of some, where some service has come to have all of its flows recorded.
    Flows {
        /// Of TCP, or of everything else.
        tcp: bool,
        /// Entries for established flows that there are.
        present: u32,
        /// Entries that there should be.
        asked: u32,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limits => f.write_str("limits differ from the maps that are in use"),
            Self::Affinity => {
                f.write_str("affinity has no effect yet: the maps in use have no room for clients")
            }
            Self::Flows { tcp, present, asked } => {
                let of = if *tcp { "TCP" } else { "UDP" };
                write!(
                    f,
                    "room is tight for the flows of {of}: some service has all of them recorded, and the maps in use \
                     have {present} entries, not {asked}"
                )
            }
        }
    }
}

/// What of the model waits until maps of this size move. What else it needs more of than there is its plan refuses.
pub(super) fn lacks(model: &Model, present: &Size, used: &Size) -> Vec<Lack> {
    let asked = size(model);
    let mut lacks = Vec::new();
    if at_least(limited(model, present, &asked), used) != *present {
        lacks.push(Lack::Limits);
    }
    if least(model).affinity > present.affinity {
        lacks.push(Lack::Affinity);
    }
    let tables = [
        (true, model.limits.flows, present.tcp_flows, asked.tcp_flows),
        (false, model.limits.udp_flows, present.udp_flows, asked.udp_flows),
    ];
    for (tcp, limit, present, asked) in tables {
        if limit.is_none() && all_flows(model, tcp, present, asked) != present {
            lacks.push(Lack::Flows { tcp, present: present.established, asked: asked.established });
        }
    }
    lacks
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
        tcp_flows: all_flows(model, true, present.tcp_flows, asked.tcp_flows),
        udp_flows: all_flows(model, false, present.udp_flows, asked.udp_flows),
        affinity: need(least.affinity, present.affinity, asked.affinity),
        ..*present
    };
    at_least(limited(model, &grown, &asked), used)
}

/// `size`, but no less than what is in use.
fn at_least(size: Size, used: &Size) -> Size {
    Size {
        services: size.services.max(used.services),
        keys: size.keys.max(used.keys),
        vips: size.vips.max(used.vips),
        ring_slots: size.ring_slots.max(used.ring_slots),
        backends: size.backends.max(used.backends),
        ..size
    }
}

/// Tables that are there, or larger ones where some service has come to have all of its flows recorded.
fn all_flows(model: &Model, tcp: bool, present: FlowSizes, asked: FlowSizes) -> FlowSizes {
    if records_all(model, tcp) && asked.established > present.established { asked } else { present }
}

/// Whether a service of TCP, or of anything else, has all of its flows recorded.
fn records_all(model: &Model, tcp: bool) -> bool {
    let of = |service: &&Service| (service.id.protocol == Protocol::Tcp) == tcp;
    model.services.iter().filter(of).any(|service| service.flows.records_all())
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
    let some = |flows: u32, tcp| if records_all(model, tcp) { flows * ALL_FLOWS } else { flows };
    Size {
        services,
        keys: services.max(roomy(least.keys, LEAST_KEYS)),
        vips: services.max(least.vips),
        ring_slots: model.limits.ring_slots.unwrap_or_else(slots),
        backends: model.limits.backends.unwrap_or(roomy(least.backends, LEAST_BACKENDS)),
        ports: PORT_CAPACITY,
        tcp_flows: flows(model.limits.flows.unwrap_or(some(TCP_FLOWS, true))),
        udp_flows: flows(model.limits.udp_flows.unwrap_or(some(UDP_FLOWS, false))),
        affinity: model.limits.affinity.unwrap_or(if least.affinity > 0 { AFFINITY } else { 1 }),
    }
}

/// Tables for so many live flows.
fn flows(established: u32) -> FlowSizes {
    FlowSizes { half_open: (established / 2).max(1), established, old: established }
}

/// Slots of the pool that the model's services take: their rings, and schedules where new flows go by one. A schedule
/// that changes is made beside the one before.
pub fn slots(model: &Model) -> u32 {
    let slots = |service: &Service| service.new_ring_size().saturating_add(schedules(service));
    model.services.iter().map(slots).fold(0, u32::saturating_add)
}

/// What a service's schedules take at most: the one in force and the one that takes its place.
fn schedules(service: &Service) -> u32 {
    let backends = u32::try_from(service.backends.len()).unwrap_or(u32::MAX);
    if service.flows.algorithm.needs_state() {
        schedule::LONGEST.saturating_add(backends).saturating_mul(2)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::config;
    use crate::dataplane::memory;

    fn model(text: &str) -> Model {
        config::parse("lb.yaml", &format!("version: 1\n{text}"))
            .unwrap_or_else(|error| panic!("{error}"))
            .model
    }

    proptest! {
        #[test]
        fn the_receiving_cpus_parts_hold_what_is_wanted(wanted in 1u32..1 << 20, possible in 1u32..512, of in 1u32..512) {
            let receiving = of.min(possible);
            let entries = Cpus { possible, receiving }.entries(wanted);
            let part = entries / possible;
            prop_assert_eq!(entries % possible, 0, "each CPU has a part of the same size");
            prop_assert!(part * receiving >= wanted);
            prop_assert!((part - 1) * receiving < wanted, "and none is larger than need be");
        }
    }

    #[test]
    fn flow_tables_are_made_for_the_cpus_that_receive() {
        let model = model("limits: {flows: 10k, udp_flows: 3000, receiving_cpus: 2}\n");
        let size = on(&model, Cpus { possible: 8, receiving: 2 });
        let of = |half_open, established| FlowSizes { half_open, established, old: established };
        assert_eq!((size.tcp_flows, size.udp_flows), (of(20_000, 40_000), of(6_000, 12_000)));
        assert_eq!(wanted(&model).tcp_flows, of(5_000, 10_000));
        // More than there are do not receive.
        let many = Limits { receiving_cpus: Some(8192), ..Limits::default() };
        let here = Cpus::here(&many);
        assert_eq!(here.receiving, here.possible);
        assert_eq!(Cpus::here(&Limits { receiving_cpus: Some(1), ..many }).receiving, 1);
    }

    #[test]
    fn more_room_where_all_flows_are_recorded() {
        let service = |protocol, keys| {
            model(&format!(
                "services: [{{name: a, address: 203.0.113.10, protocol: {protocol}, port: 80, forwarding: l2, \
                 backends: [{{address: 192.0.2.1}}]{keys}}}]\n"
            ))
        };
        let established =
            |model: &Model| [wanted(model).tcp_flows, wanted(model).udp_flows].map(|f| f.established);
        assert_eq!(established(&service("tcp", "")), [20 << 10, 8 << 10]);
        assert_eq!(established(&service("tcp", ", tracking: always")), [160 << 10, 8 << 10]);
        let sctp = service("sctp", ", algorithm: round-robin");
        assert_eq!(slots(&sctp), slots(&service("sctp", "")) + 2 * (schedule::LONGEST + 1));
        assert_eq!(established(&sctp), [20 << 10, 64 << 10]);
        assert_eq!(
            established(&Model { limits: Limits { udp_flows: Some(9), ..sctp.limits }, ..sctp }),
            [20 << 10, 9]
        );

        // Maps that were made before move; larger ones stay.
        let (plain, all) = (service("tcp", ""), service("tcp", ", affinity: {by: source}"));
        let small = size(&plain);
        assert_eq!(moved(&plain, &small, &Size::default()), small);
        assert_eq!(moved(&all, &small, &Size::default()).tcp_flows, size(&all).tcp_flows);
        assert_eq!(moved(&plain, &size(&all), &Size::default()), size(&all));

        // Until they move it is said what waits for that.
        let none = Size::default();
        let (present, asked) = (small.tcp_flows.established, size(&all).tcp_flows.established);
        let flows = Lack::Flows { tcp: true, present, asked };
        assert_eq!(lacks(&all, &small, &none), [Lack::Affinity, flows]);
        assert_eq!(lacks(&all, &moved(&all, &small, &none), &none), []);
        assert_eq!(lacks(&plain, &size(&all), &none), []);
        assert_eq!(lacks(&service("sctp", ", tracking: always"), &size(&all), &none).len(), 1);
        let limited = Model { limits: Limits { flows: Some(9), ..all.limits }, ..all };
        assert_eq!(lacks(&limited, &small, &none), [Lack::Limits, Lack::Affinity]);
        // What is in use cannot go.
        let shrunk = Model { limits: Limits { backends: Some(1), ..plain.limits }, ..plain };
        assert_eq!(lacks(&shrunk, &small, &none), [Lack::Limits]);
        let used = Size { backends: small.backends, ..none };
        assert_eq!(lacks(&shrunk, &small, &used), []);
    }

    #[test]
    fn room_for_clients_only_where_they_are_remembered() {
        let service = "services: [{name: a, address: 203.0.113.10, protocol: tcp, port: 80, forwarding: l2, \
                       backends: [{address: 192.0.2.1}]";
        assert_eq!(wanted(&model(&format!("{service}}}]\n"))).affinity, 1);
        assert_eq!(wanted(&model(&format!("{service}, affinity: {{by: source}}}}]\n"))).affinity, AFFINITY);
    }

    /// The promise of the documentation, also on 64 CPUs.
    #[test]
    fn ten_services_with_a_hundred_backends_fit_32_mib() {
        let mut text = "services:\n".to_owned();
        for service in 0..10 {
            let backends: Vec<String> =
                (1..=100).map(|n| format!("{{address: 10.0.{service}.{n}}}")).collect();
            let _ = writeln!(
                text,
                "  - {{name: s{service}, address: 203.0.113.{service}, protocol: tcp, port: 80, forwarding: ipip, \
                 backends: [{}]}}",
                backends.join(", ")
            );
        }
        let model = model(&text);
        for cpus in [2, 16, 64] {
            let memory = memory(&on(&model, Cpus { possible: cpus, receiving: cpus }), cpus.into());
            assert!(memory.total() <= 32 << 20, "{cpus} CPUs: {memory:?}");
        }
    }
}
