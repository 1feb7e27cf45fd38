//! The laws of `reconcile` for services of ranges and prefixes, with source lists and limits: over random histories of
//! configurations, whatever a packet finds after any step is what it found before the plan or what it finds after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::abi::{
    BackendState, Control, PrefixKey, QuicKey, RangeKey, ServiceEntry, ServiceKey, VipEntry, prefix_address,
};
use lb_userspace::dataplane::{DataPlane, MemoryPlane};
use lb_userspace::model::{
    Admission, FlowRules, Prefix, Protocol, Quic, Rate, RateLimits, ServerIdFormat, ServiceId,
};
use lb_userspace::reconcile::{
    Desired, DesiredBackend, DesiredHop, DesiredPort, DesiredService, FlowSizes, History, Memo, Observed,
    Size, Step, TrieKey, plan, wide,
};
use proptest::prelude::*;

const FLOWS: FlowSizes = FlowSizes { half_open: 100, established: 100, old: 100 };
const SIZE: Size = Size {
    services: 64,
    keys: 4096,
    vips: 64,
    ring_slots: 4096,
    backends: 256,
    ports: 4,
    tcp_flows: FLOWS,
    udp_flows: FLOWS,
    affinity: 1,
};
const RING: u32 = 13;
const PORTS: [u16; 14] = [0, 1, 79, 80, 81, 99, 100, 150, 199, 200, 1000, 32_768, 65_534, 65_535];

/// What a service wants besides: 0 nothing, others a list or limits.
type Spec = BTreeMap<ServiceId, u8>;

fn id(address: &str, prefix_len: u8, port: u16, last_port: u16) -> ServiceId {
    ServiceId { address: address.parse().unwrap(), prefix_len, protocol: Protocol::Udp, port, last_port }
}

fn ids() -> impl Strategy<Value = ServiceId> {
    let address = prop::sample::select(vec![
        ("203.0.113.0", 32),
        ("203.0.113.1", 32),
        ("203.0.113.0", 31),
        ("203.0.113.0", 30),
        ("203.0.113.0", 24),
        ("2001:db8::1", 128),
        ("2001:db8::", 64),
    ]);
    let ports = prop::sample::select(vec![
        (80, 80),
        (81, 81),
        (80, 99),
        (100, 199),
        (80, 1000),
        (150, 200),
        (1, 65_535),
        (32_768, 65_534),
        (0, 65_535),
    ]);
    (address, ports).prop_map(|((address, length), (first, last))| id(address, length, first, last))
}

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    prop::collection::vec(prop::collection::btree_map(ids(), 0u8..5, 0..8), 1..5)
}

fn admission(kind: u8) -> Admission {
    let list = |last: u8| -> std::sync::Arc<[Prefix]> {
        [Prefix { network: IpAddr::from([192, 0, 2, last]), length: 32 }].into()
    };
    let rate = Rate { per_second: 1000, burst: 10 };
    match kind {
        1 => Admission { allow: list(1), ..Admission::default() },
        2 => Admission { deny: list(2), ..Admission::default() },
        3 => {
            let limits = RateLimits { packets: Some(rate), ..RateLimits::default() };
            Admission { limits, ..Admission::default() }
        }
        _ => Admission::default(),
    }
}

fn desired(spec: &Spec, generation: u64) -> Desired {
    let services = spec.iter().map(|(id, kind)| DesiredService {
        id: *id,
        ring_size: Some(RING),
        backends: vec![DesiredBackend {
            address: IpAddr::from([198, 51, 100, 1]),
            weight: 1,
            state: BackendState::Up,
            tunnel: None,
            next_hop: Some(DesiredHop { ifindex: 7, mac: [2; 6], mtu: 1500, vlan: None }),
            server_id: Some(5),
        }],
        quic: (*kind == 4).then_some(Quic { server_id: Some(ServerIdFormat::Katran) }),
        admission: admission(*kind),
        flows: FlowRules::of(id.protocol),
    });
    Desired {
        generation,
        hash_key: [1; 16],
        ports: vec![DesiredPort { ifindex: 7, mtu: 1500, mac: [2; 6] }],
        vips: spec.keys().map(|id| (id.prefix(), VipEntry::default())).collect(),
        services: services.collect(),
    }
}

/// What the engine finds.
fn found(state: &Observed, address: IpAddr, port: u16) -> Option<ServiceEntry> {
    let port = port.to_be_bytes();
    let flag = |flag: u32| state.control.flags & flag != 0;
    let at = |address: [u8; 16]| {
        let key = ServiceKey { address, port, protocol: Protocol::Udp.number(), ..ServiceKey::default() };
        let packet = RangeKey::new(address, Protocol::Udp, port);
        let fits = |key: &TrieKey<RangeKey>| {
            let same = RangeKey { port, ..key.data } == packet;
            let differing = u16::from_be_bytes(key.data.port) ^ u16::from_be_bytes(port);
            same && differing.leading_zeros() >= key.bits - RangeKey::PORT_AT
        };
        let range = state.ranges.iter().filter(|(key, _)| flag(Control::RANGES) && fits(key));
        let range = range.max_by_key(|(key, _)| key.bits).map(|(_, entry)| *entry);
        state.exact.get(&key).copied().or(range)
    };
    let wanted = u128::from_be_bytes(wide(address));
    let fits = |key: &TrieKey<PrefixKey>| {
        let differing = wanted ^ u128::from_be_bytes(key.data.address);
        differing.leading_zeros() >= key.bits - PrefixKey::ADDRESS_AT
    };
    let prefixes = state.prefixes.iter().filter(|(key, _)| flag(Control::PREFIXES) && fits(key));
    let prefix = prefixes.max_by_key(|(key, _)| key.bits).map(|(_, entry)| entry.number);
    at(wide(address)).or_else(|| at(prefix_address(prefix?)))
}

/// Who shall get it: the longest prefix, then the fewest ports.
fn wanted(spec: &Spec, address: IpAddr, port: u16) -> Option<ServiceId> {
    let takes = spec.keys().filter(|id| id.prefix().contains(address) && id.ports().contains(&port));
    let rank = |id: &ServiceId| (std::cmp::Reverse(id.prefix_len), id.last_port - id.port, *id);
    takes.copied().min_by_key(rank)
}

fn points() -> impl Iterator<Item = (IpAddr, u16)> {
    let v4 = [0, 1, 2, 9].map(|last| IpAddr::from([203, 0, 113, last]));
    let v6 = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
    v4.into_iter().chain(v6).flat_map(|address| PORTS.map(|port| (address, port)))
}

type Names = BTreeMap<u32, ServiceId>;

fn names(state: &Observed) -> Names {
    state.services().into_iter().map(|(id, entry)| (entry.id, id)).collect()
}

/// All that packets find services and addresses by.
fn keys(state: &Observed) -> impl PartialEq {
    (state.exact.clone(), state.ranges.clone(), state.prefixes.clone(), state.vips.clone())
}

/// Executes a plan; after each step every packet finds what it found before, or what it will find, with all that its
/// service needs.
fn apply(plane: &mut MemoryPlane, before: &Spec, after: &Spec, desired: &Desired) {
    let start = plane.observe().unwrap();
    let steps = plan(&start, desired, &mut Memo::default(), &History::default()).unwrap().steps;
    let mut ahead = plane.clone();
    steps.iter().for_each(|step| ahead.execute(step).unwrap());
    let mut known = names(&start);
    let end = ahead.observe().unwrap();
    known.extend(names(&end));
    assert!(end.control.epoch & 1 == 0, "keys go on changing");
    for step in &steps {
        plane.execute(step).unwrap();
        let state = plane.observe().unwrap();
        if state.control.epoch & 1 == 0 {
            // What packets remember of this epoch they have found in it.
            let of_epoch = if state.control.epoch == start.control.epoch { &start } else { &end };
            assert!(keys(&state) == keys(of_epoch), "keys changed unannounced by «{step}»");
        }
        for (address, port) in points() {
            let entry = found(&state, address, port);
            let name = entry.map(|entry| known[&entry.id]);
            let (old, new) = (wanted(before, address, port), wanted(after, address, port));
            assert!(
                name == old || name == new,
                "{address} {port} after «{step}»: {name:?}, not {old:?} or {new:?}"
            );
            entry.inspect(|entry| check_needs(plane, &state, entry, step));
        }
    }
}

fn check_needs(plane: &MemoryPlane, state: &Observed, entry: &ServiceEntry, step: &Step) {
    if entry.flags & ServiceEntry::ACL != 0 {
        assert!(plane.lists().contains_key(&entry.acl), "no list after «{step}»");
    }
    if entry.flags & ServiceEntry::RATES != 0 {
        assert!(state.rates.contains_key(&entry.id), "no limits after «{step}»");
    }
    if entry.flags & ServiceEntry::QUIC != 0 {
        let key = QuicKey { server: 5, service: entry.id, reserved: 0 };
        let named = state.quic.get(&key).and_then(|id| state.backends.get(id));
        assert_eq!(named.map(|backend| backend.service), Some(entry.id), "after «{step}»");
    }
    assert!(state.rings[&entry.id].iter().all(|slot| state.backends.contains_key(&slot.current().get())));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn packets_find_the_old_service_or_the_new_one(history in specs()) {
        let mut plane = MemoryPlane::new(SIZE);
        let mut before = Spec::new();
        for (generation, spec) in (1..).zip(&history) {
            let desired = desired(spec, generation);
            apply(&mut plane, &before, spec, &desired);
            let state = plane.observe().unwrap();
            let there: BTreeSet<ServiceId> = state.services().into_keys().collect();
            prop_assert_eq!(there, spec.keys().copied().collect::<BTreeSet<_>>());
            for (address, port) in points() {
                let name = found(&state, address, port).map(|entry| names(&state)[&entry.id]);
                prop_assert_eq!(name, wanted(spec, address, port), "{} {}", address, port);
            }
            let lists = spec.values().filter(|kind| matches!(kind, 1 | 2)).collect::<BTreeSet<_>>();
            prop_assert_eq!(plane.lists().len(), lists.len(), "no list is left over");
            prop_assert_eq!(plan(&state, &desired, &mut Memo::default(), &History::default()).unwrap().steps, vec![]);
            before = spec.clone();
        }
    }
}

#[test]
fn a_changed_list_is_whole_before_its_service_turns_to_it() {
    let service = id("203.0.113.1", 32, 80, 80);
    let mut plane = MemoryPlane::new(SIZE);
    let first = desired(&Spec::from([(service, 1)]), 1);
    plane
        .run(&plan(&plane.observe().unwrap(), &first, &mut Memo::default(), &History::default()).unwrap())
        .unwrap();
    let second = desired(&Spec::from([(service, 2)]), 2);
    let steps =
        plan(&plane.observe().unwrap(), &second, &mut Memo::default(), &History::default()).unwrap().steps;
    assert!(
        matches!(
            &steps[..],
            [
                Step::PutAcl { .. },
                Step::PutControl(_),
                Step::PutService(..),
                Step::KeepAcl(_),
                Step::PutControl(_)
            ]
        ),
        "{steps:?}"
    );
}
