//! Probes and replies, well-formed and mutated, against entries of every kind, right and wrong: the kernel's two
//! programs and the engine on the host are identical in verdict, bytes, counters and recorded flows.

use lb_common::abi::{BackendId, BackendState, PROBE_SLOTS, ProbeEntry, Protocol, mapped};
use lb_tests::bpf::Entrance::{Gate, Network};
use lb_tests::bpf::{Bench, SIZE};
use lb_tests::gate::*;
use lb_tests::mutate::{Random, mutated};
use lb_tests::packets::*;
use lb_tests::scene::*;
use lb_userspace::reconcile::Step;

/// Mutations of each well-formed packet, per state of the data plane.
const MUTATIONS: usize = 40;
/// Packets that must have run, or the corpus has dried up.
const ENOUGH: usize = 50_000;
/// Services that are probed: TCP, and UDP.
const TCP: [u16; 8] = [MIXED, L2, IPIP, IPIP_PREFIX, L2_FAR, IPIP_FAR, UNRESOLVED, EMPTY];
const UDP: [u16; 3] = [DNS, DNS_IPIP, DNS_MIXED];

/// A probe under way: its slot, and what it asks.
type Probe = (u32, Protocol, u16);

/// One probe and a few spare ones for each service, at slots that lie apart.
fn probes() -> Vec<Probe> {
    let tcp = TCP.into_iter().map(|port| (Protocol::Tcp, port));
    let all: Vec<_> = tcp.chain(UDP.into_iter().map(|port| (Protocol::Udp, port))).collect();
    let slots = (0..PROBE_SLOTS).step_by(PROBE_SLOTS as usize / 30).chain([PROBE_SLOTS - 1]);
    slots.zip(all.into_iter().cycle()).map(|(slot, (protocol, port))| (slot, protocol, port)).collect()
}

/// An entry that is right, or wrong in one of its fields.
fn random_entry((_, protocol, port): Probe, ids: &[u32], random: &mut Random) -> ProbeEntry {
    let right = entry(ids[random.below(ids.len())], protocol, port);
    match random.below(20) {
        0 => ProbeEntry::default(),
        1 => ProbeEntry { backend: random.below(SIZE.backends as usize + 3) as u32, ..right },
        2 => ProbeEntry { backend: random.word() as u32, ..right },
        3 => ProbeEntry { gate: random.below(SIZE.ports as usize + 3) as u16, ..right },
        4 => ProbeEntry { service_port: (random.word() as u16).to_be_bytes(), ..right },
        5 => ProbeEntry { service_address: mapped(QUIET_VIP.octets()), ..right },
        6 => ProbeEntry { node_address: mapped(STRANGER.octets()), ..right },
        7 => ProbeEntry { protocol: random.word() as u8, ..right },
        8 => {
            let mut words = right.words();
            words[random.below(6)] ^= 1 << random.below(64);
            ProbeEntry::from_words(words)
        }
        _ => right,
    }
}

/// Every packet that such a probe gives rise to, from either side.
fn corpus((slot, protocol, port): Probe) -> Vec<Vec<u8>> {
    let packets = match protocol {
        Protocol::Tcp => vec![
            probe_tcp(slot, port, Segment::Syn),
            probe_tcp(slot, port, Segment::Rst).tos(slot as u8),
            probe_tcp(slot, port, Segment::Ack).payload(30).padded(SHORTEST),
            probe_tcp(slot, port, Segment::Ack).options(8).payload(1),
            probe_tcp(slot, port, Segment::Ack).ip_len(NEAR_MTU - 20 + slot as usize % 3),
            reply_tcp(mac(41), slot, port, Segment::SynAck),
            reply_tcp(mac(41), slot, port, Segment::Ack).payload(100),
            reply_tcp(mac(41), slot, port, Segment::Fin).options(12),
        ],
        Protocol::Udp => vec![
            probe_udp(slot, port).payload(20),
            probe_udp(slot, port).options(20),
            probe_udp(slot, port).fragment(0, true).payload(32),
            reply_udp(mac(51), slot, port).payload(20),
            reply_udp(mac(51), slot, port).options(4).padded(SHORTEST),
        ],
        // No prober speaks it.
        Protocol::Sctp => Vec::new(),
    };
    let mut frames: Vec<_> = packets.iter().map(Packet::bytes).collect();
    // A client that is no prober, but has its port.
    let flow = Flow { from: (NODE, port_of(slot)), to: (VIP, port) };
    frames.push(Packet::tcp(INBOUND, flow, Segment::Syn).bytes());
    frames.push(arp(OUTWARD, true, (OUTWARD.0, NODE), ([0; 6], VIP)));
    frames
}

/// Arms all probes at random and sends all packets in at both entrances, again and again.
fn compare(bench: &mut Bench, state: &str, random: &mut Random) -> usize {
    let ids: Vec<u32> = bench.observed().backends.keys().copied().collect();
    let mut ran = 0;
    for probe in probes() {
        for frame in corpus(probe) {
            for mutation in 0..MUTATIONS {
                if mutation % 4 == 0 {
                    bench.arm(probe.0, &random_entry(probe, &ids, random));
                }
                let input = if mutation < 8 { frame.clone() } else { mutated(&frame, random) };
                for entrance in [Gate, Network] {
                    bench.both_at(entrance, &input);
                    ran += 1;
                }
            }
        }
        assert_eq!(bench.kernel_flows(), bench.host_flows(), "{state}: recorded flows");
        assert_eq!(bench.kernel_counts(), bench.host_counts(), "{state}: counters");
    }
    ran
}

/// Retires every third backend: entries still name them.
fn retire(bench: &mut Bench) {
    let retired = |id: &u32| BackendId::new(*id).map(Step::RetireBackend);
    let steps = bench.observed().backends.keys().step_by(3).filter_map(retired).collect();
    bench.execute(steps);
}

#[test]
fn kernel_and_host_agree_about_probes() {
    let mut random = Random::new(7);
    let mut bench = Bench::new(&gated());
    let mut ran = compare(&mut bench, "settled", &mut random);

    let mut backends = mixed();
    backends[0].state = BackendState::Down;
    backends[4].state = BackendState::Draining;
    bench.apply(&gated_with(MIXED, backends));
    ran += compare(&mut bench, "fresh, backends down", &mut random);

    retire(&mut bench);
    ran += compare(&mut bench, "backends retired", &mut random);

    bench.apply(&desired());
    ran += compare(&mut bench, "gate gone", &mut random);

    let mut counts = bench.kernel_counts();
    // Anew: nobody reads the counters of services that are gone.
    let mut bench = Bench::new(&gated());
    let mut emptied = gated();
    emptied.services.retain(|service| service.id.protocol == Protocol::Udp);
    bench.apply(&emptied);
    ran += compare(&mut bench, "services and backends removed", &mut random);

    for (name, n) in bench.kernel_counts() {
        *counts.entry(name).or_default() += n;
    }
    for reason in ["probe_sent", "probe_reply", "stray_probe", "no_backend", "no_next_hop", "too_big"] {
        let count = counts.get(reason).copied().unwrap_or(0);
        assert!(count > 100, "{count} packets met {reason}");
    }
    println!(
        "{ran} packets of probes through kernel and host: verdicts, bytes, counters and flows are the same \
         ({} sent, {} replies)",
        counts["probe_sent"], counts["probe_reply"]
    );
    assert!(ran >= ENOUGH);
}
