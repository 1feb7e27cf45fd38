//! Which backend a flow gets while a ring changes, in the kernel: what DESIGN.md section 3 promises to clients.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use lb_common::abi::{BackendId, BackendState, Protocol, Slot, SlotState, mapped};
use lb_common::datapath::hash;
use lb_tests::bpf::{Action, Bench, delta};
use lb_tests::packets::*;
use lb_tests::scene::*;
use lb_userspace::model::ServiceId;
use lb_userspace::reconcile::{Desired, DesiredBackend, Step};

/// Flows that each test follows.
const FLOWS: u32 = 300;

fn flow(n: u32, port: u16) -> Flow {
    Flow::nth(n, (VIP, port))
}

fn segment(n: u32, segment: Segment) -> Vec<u8> {
    Packet::tcp(INBOUND, flow(n, L2), segment).bytes()
}

fn datagram(n: u32) -> Vec<u8> {
    Packet::udp(INBOUND, flow(n, DNS)).bytes()
}

/// Number of the L2 backend that a packet goes to.
fn goes_to(bench: &mut Bench, frame: &[u8]) -> u8 {
    let (action, output) = bench.both(frame);
    assert_eq!(action, Action::Transmit);
    let number = output[5];
    assert!(output == relinked(frame, (NEAR, mac(number))));
    number
}

/// [`L2`] and [`DNS`] with these backends (number, weight).
fn backends(list: &[(u8, u32)]) -> Desired {
    let mut desired = desired();
    for service in desired.services.iter_mut().filter(|service| [L2, DNS].contains(&service.id.port)) {
        let weighted = |(number, weight): &(u8, u32)| {
            let state = if *weight > 0 { BackendState::Up } else { BackendState::Draining };
            DesiredBackend { weight: *weight, state, ..backend(1, *number, None) }
        };
        service.backends = list.iter().map(weighted).collect();
    }
    desired
}

/// Where flow `n`'s slot is in the pool, and what is in it.
fn slot_of(bench: &Bench, n: u32, protocol: Protocol) -> (u32, Slot) {
    let port = if protocol == Protocol::Tcp { L2 } else { DNS };
    let flow = flow(n, port);
    let observed = bench.observed();
    let service = observed.services()[&ServiceId::single(VIP, protocol, port)];
    let (from, to) = (flow.from, flow.to);
    let hash = hash::flow(
        observed.control.hash_key,
        mapped(from.0.octets()),
        mapped(to.0.octets()),
        from.1.to_be_bytes(),
        to.1.to_be_bytes(),
        protocol.number(),
    );
    let index = hash::slot(hash, service.ring_size);
    (service.ring_start + index, observed.rings[&service.id][index as usize])
}

fn id_of(bench: &Bench, number: u8, protocol: Protocol) -> BackendId {
    let port = if protocol == Protocol::Tcp { L2 } else { DNS };
    let service = bench.observed().services()[&ServiceId::single(VIP, protocol, port)].id;
    let address = mapped(near(number).octets());
    let mut found = bench
        .observed()
        .backends
        .iter()
        .filter(|(_, entry)| entry.address == address && entry.service == service);
    BackendId::new(*found.next_back().expect("a backend").0).expect("ids are valid")
}

/// Flows by whether their slot moved when the ring changed from `before` to now.
fn split(before: &BTreeMap<u32, u8>, bench: &Bench, protocol: Protocol) -> (Vec<u32>, Vec<u32>) {
    let (moved, stayed): (Vec<u32>, Vec<u32>) =
        before.keys().partition(|n| slot_of(bench, **n, protocol).1.state() != SlotState::Settled);
    assert!(moved.len() > 20 && stayed.len() > 20, "{} moved, {} stayed", moved.len(), stayed.len());
    (moved, stayed)
}

/// A bench with some flows open on three backends, where they are, and then a fourth backend in the ring.
fn grown() -> (Bench, BTreeMap<u32, u8>, Vec<u32>, Vec<u32>) {
    let mut bench = Bench::new(&backends(&[(61, 1), (62, 1), (63, 1)]));
    let before = (0..FLOWS).map(|n| (n, goes_to(&mut bench, &segment(n, Segment::Syn)))).collect();
    bench.apply(&backends(&[(61, 1), (62, 1), (63, 1), (64, 3)]));
    let (moved, stayed) = split(&before, &bench, Protocol::Tcp);
    (bench, before, moved, stayed)
}

fn current(bench: &Bench, n: u32) -> u8 {
    number(bench, slot_of(bench, n, Protocol::Tcp).1.current())
}

fn number(bench: &Bench, id: BackendId) -> u8 {
    bench.observed().backends[&id.get()].address[15]
}

/// Makes every fresh slot late.
fn age(bench: &mut Bench) {
    let observed = bench.observed();
    let late = |slot: &Slot| (slot.state() == SlotState::Fresh).then_some(slot.late());
    let entries = observed.entries();
    let steps = observed.rings.iter().map(|(id, slots)| Step::WriteSlots {
        start: entries[id].ring_start,
        words: slots.iter().map(late).collect(),
    });
    let steps = steps.collect();
    bench.execute(steps);
}

#[test]
fn open_flows_stay_and_new_ones_follow_the_ring() {
    for late in [false, true] {
        let (mut bench, before, moved, stayed) = grown();
        if late {
            age(&mut bench);
        }
        for n in &stayed {
            assert_eq!(goes_to(&mut bench, &segment(*n, Segment::Ack)), before[n], "its slot did not move");
        }
        assert!(bench.kernel_flows().is_empty(), "settled slots record nothing");
        for n in &moved {
            assert_eq!(goes_to(&mut bench, &segment(*n, Segment::Ack)), before[n], "an open flow stays");
        }
        // New flows in slots that moved: SYN to the new owner, and their later packets after it.
        let fresh: Vec<u32> = (FLOWS..2 * FLOWS)
            .filter(|n| slot_of(&bench, *n, Protocol::Tcp).1.state() != SlotState::Settled)
            .collect();
        for n in &fresh {
            let owner = goes_to(&mut bench, &segment(*n, Segment::Syn));
            assert_eq!(owner, current(&bench, *n), "a SYN goes to the current owner");
            assert_eq!(goes_to(&mut bench, &segment(*n, Segment::Ack)), owner, "and its flow stays there");
        }
        // In late slots strays leave no record.
        let strays = if late { 0 } else { moved.len() };
        assert_eq!(bench.kernel_flows().len(), strays + fresh.len());
    }
}

#[test]
fn a_stray_in_a_late_slot_is_noted_and_counted_as_forwarded() {
    let (mut bench, _, moved, _) = grown();
    age(&mut bench);
    let before = bench.kernel_counts();
    goes_to(&mut bench, &segment(moved[0], Segment::Ack));
    let counted = delta(&before, &bench.kernel_counts());
    assert_eq!(counted.get(&format!("{L2} note flow_at_risk")), Some(&1), "{counted:?}");
    let sum = |of: &str| counted.iter().filter(|(name, _)| name.contains(of)).map(|(_, n)| n).sum::<u64>();
    assert_eq!((sum(" packets"), sum(" drop ")), (1, 0), "{counted:?}");
}

#[test]
fn recorded_flows_survive_further_changes() {
    let (mut bench, before, moved, _) = grown();
    for n in &moved {
        goes_to(&mut bench, &segment(*n, Segment::Ack));
    }
    let added: Vec<u32> = (FLOWS..2 * FLOWS).collect();
    let owners: BTreeMap<u32, u8> =
        added.iter().map(|n| (*n, goes_to(&mut bench, &segment(*n, Segment::Syn)))).collect();
    // Back to the first ring, then to one without the first backend's weight.
    bench.apply(&backends(&[(61, 1), (62, 1), (63, 1), (64, 0)]));
    bench.apply(&backends(&[(61, 0), (62, 1), (63, 1), (64, 1)]));
    for n in &moved {
        assert_eq!(
            goes_to(&mut bench, &segment(*n, Segment::Ack)),
            before[n],
            "an open flow stays, draining or not"
        );
    }
    for (n, owner) in owners {
        assert_eq!(goes_to(&mut bench, &segment(n, Segment::Ack)), owner, "a flow recorded in between stays");
    }
}

#[test]
fn flows_of_a_removed_backend_move_to_the_current_owner() {
    let mut bench = Bench::new(&backends(&[(61, 1), (62, 1), (63, 1)]));
    let before: BTreeMap<u32, u8> =
        (0..FLOWS).map(|n| (n, goes_to(&mut bench, &segment(n, Segment::Syn)))).collect();
    bench.apply(&backends(&[(61, 1), (63, 1)]));
    for (n, owner) in &before {
        let now = goes_to(&mut bench, &segment(*n, Segment::Ack));
        assert_eq!(now, if *owner == 62 { current(&bench, *n) } else { *owner });
        assert_ne!(now, 62);
    }
}

#[test]
fn a_recorded_flow_whose_backend_dies_is_corrected_for_good() {
    let (mut bench, before, moved, _) = grown();
    for n in &moved {
        goes_to(&mut bench, &segment(*n, Segment::Ack));
    }
    let dead = id_of(&bench, 61, Protocol::Tcp);
    bench.execute(vec![Step::RetireBackend(dead)]);
    let orphans: Vec<u32> = moved.into_iter().filter(|n| before[n] == 61).collect();
    assert!(orphans.len() > 10);
    for n in &orphans {
        assert_eq!(goes_to(&mut bench, &segment(*n, Segment::Ack)), current(&bench, *n));
    }
    let ids: Vec<u32> = bench.kernel_flows().values().map(|(_, backend, _)| *backend).collect();
    assert_eq!(ids.iter().filter(|id| **id == dead.get()).count(), 0, "no record names the dead backend");
}

#[test]
fn unknown_udp_takes_the_previous_owner_and_is_recorded() {
    let mut bench = Bench::new(&backends(&[(61, 1), (62, 1), (63, 1)]));
    let before = (0..FLOWS).map(|n| (n, goes_to(&mut bench, &datagram(n)))).collect();
    bench.apply(&backends(&[(61, 1), (62, 1), (63, 1), (64, 3)]));
    let (moved, _) = split(&before, &bench, Protocol::Udp);
    for n in &moved {
        assert_eq!(goes_to(&mut bench, &datagram(*n)), before[n]);
    }
    assert_eq!(bench.kernel_flows().len(), moved.len());
    // Recorded: the next change does not matter, and neither does a previous owner that is none any more.
    bench.apply(&backends(&[(61, 1), (62, 1), (63, 0), (64, 1)]));
    for n in &moved {
        assert_eq!(goes_to(&mut bench, &datagram(*n)), before[n]);
    }
}

#[test]
fn a_record_of_a_service_that_is_gone_is_a_miss() {
    let (mut bench, _, moved, _) = grown();
    for n in &moved {
        goes_to(&mut bench, &segment(*n, Segment::Ack));
    }
    // The same address and port again, as another service with other backends.
    let mut without = backends(&[]);
    without.services.retain(|service| service.id.port != L2);
    bench.apply(&without);
    bench.apply(&backends(&[(71, 1), (72, 1)]));
    bench.apply(&backends(&[(71, 1), (72, 1), (73, 5)]));
    let unsettled: Vec<u32> = moved
        .into_iter()
        .filter(|n| slot_of(&bench, *n, Protocol::Tcp).1.state() != SlotState::Settled)
        .collect();
    assert!(unsettled.len() > 10);
    for n in unsettled {
        let owner = goes_to(&mut bench, &segment(n, Segment::Syn));
        assert_eq!(owner, current(&bench, n), "a SYN that only a stale record knows is new");
        assert_eq!(goes_to(&mut bench, &segment(n, Segment::Ack)), owner, "and is recorded in spite of it");
    }
}

#[test]
fn a_new_service_without_weights_owns_nothing_of_an_older_ring() {
    let mut bench = Bench::new(&backends(&[(61, 1), (62, 1)]));
    // The ring's place in the pool is used again by a service whose backends all drain.
    let mut without = backends(&[(61, 1), (62, 1)]);
    without.services.retain(|service| service.id.port != L2);
    bench.apply(&without);
    bench.apply(&backends(&[(61, 0), (62, 0)]));
    let (action, _) = bench.both(&segment(1, Segment::Syn));
    assert_eq!(action, Action::Drop, "nobody takes new flows");
}

#[test]
fn weights_are_the_shares_of_new_flows() {
    let mut bench = Bench::new(&backends(&[(61, 1), (62, 2), (63, 5)]));
    let mut shares = BTreeMap::<Ipv4Addr, u32>::new();
    for n in 0..8000 {
        *shares.entry(near(goes_to(&mut bench, &segment(n, Segment::Syn)))).or_default() += 1;
    }
    // Three standard deviations of a binomial share, and one slot of the ring.
    for (number, weight) in [(61, 1.0_f64), (62, 2.0), (63, 5.0)] {
        let (p, got) = (weight / 8.0, f64::from(shares[&near(number)]));
        let tolerance = 3.0 * (8000.0 * p * (1.0 - p)).sqrt() + 8000.0 / f64::from(RING);
        assert!((got - 8000.0 * p).abs() < tolerance, "{number}: {got} of 8000, {p} wanted");
    }
}
