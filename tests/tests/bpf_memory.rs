//! What packets remember of services and addresses ends with every change of either.

use std::net::Ipv4Addr;

use lb_common::abi::{Control, ServiceKey, VipEntry, VipKey};
use lb_tests::bpf::{Action, Bench};
use lb_tests::packets::*;
use lb_tests::scene::*;
use lb_userspace::model::{Prefix, Protocol, ServiceId};
use lb_userspace::reconcile::{Desired, History, Memo, Step, plan};

fn to(address: Ipv4Addr, port: u16) -> Vec<u8> {
    Packet::tcp((CLIENT, NEAR), Flow::nth(7, (address, port)), Segment::Syn).bytes()
}

/// The same verdict for each of a few packets, of which all but the first may go by memory.
fn always(bench: &mut Bench, packet: &[u8], expected: Action, what: &str) {
    for n in 0..3 {
        assert_eq!(bench.kernel(packet).0, expected, "{what}, packet {n}");
    }
}

/// The scene with its layer 2 service somewhere else.
fn moved(address: Ipv4Addr, port: u16) -> Desired {
    let mut desired = desired();
    let service =
        desired.services.iter_mut().find(|service| service.id.port == L2).expect("a service of the scene");
    service.id = ServiceId::single(address, Protocol::Tcp, port);
    desired
}

#[test]
fn a_service_is_found_where_it_is_now() {
    let mut bench = Bench::new(&desired());
    let spare = 4999;
    for (place, wanted) in [
        ((VIP, L2), desired()),
        ((VIP, spare), moved(VIP, spare)),
        ((STRANGER, L2), moved(STRANGER, L2)),
        ((VIP, L2), desired()),
    ] {
        bench.apply(&wanted);
        for other in [(VIP, L2), (VIP, spare), (STRANGER, L2)] {
            let (address, port) = other;
            let expected = match other {
                _ if other == place => Action::Transmit,
                // A service's address drops what no service wants; an address of nobody's passes.
                (VIP, _) => Action::Drop,
                _ => Action::Pass,
            };
            always(
                &mut bench,
                &to(address, port),
                expected,
                &format!("{address}:{port} while it is at {place:?}"),
            );
        }
    }
}

#[test]
fn an_addresss_policy_is_the_one_of_now() {
    let mut bench = Bench::new(&desired());
    let packet = to(VIP, 4999);
    for (flags, expected) in [
        (VipEntry::DROP_OTHER_PORTS, Action::Drop),
        (0, Action::Pass),
        (VipEntry::DROP_OTHER_PORTS, Action::Drop),
    ] {
        let mut wanted = desired();
        wanted.vips.insert(Prefix::host(VIP.into()), VipEntry { flags, reserved: 0 });
        // Another address keeps the policy, so that it is looked up at all.
        wanted.vips.insert(
            Prefix::host(STRANGER.into()),
            VipEntry { flags: VipEntry::DROP_OTHER_PORTS, reserved: 0 },
        );
        bench.apply(&wanted);
        always(&mut bench, &packet, expected, "other ports");
    }
}

/// While keys change, and after a daemon that ended while they did.
#[test]
fn nothing_is_remembered_while_keys_change() {
    let mut bench = Bench::new(&desired());
    let packet = to(VIP, L2);
    always(&mut bench, &packet, Action::Transmit, "before");
    let control = bench.observed().control;
    let epoch = Control::changing(control.epoch);
    bench.execute(vec![Step::PutControl(Control { epoch, ..control })]);
    always(&mut bench, &packet, Action::Transmit, "while they change");
    bench.execute(vec![Step::DeleteService(ServiceKey::v4(VIP.octets(), lb_common::abi::Protocol::Tcp, L2))]);
    always(&mut bench, &packet, Action::Drop, "the service is gone");
    bench.execute(vec![Step::DeleteVip(VipKey::v4(VIP.octets()))]);
    always(&mut bench, &packet, Action::Pass, "its address as well");
    let mut without = desired();
    without.services.retain(|service| service.id.port != L2);
    bench.apply(&without);
    let after = bench.observed().control;
    assert_eq!(after.epoch, Control::changed(control.epoch), "a plan ends what another began");
    always(&mut bench, &packet, Action::Drop, "without the service");
    bench.apply(&desired());
    always(&mut bench, &packet, Action::Transmit, "after");
}

/// Whoever samples and whoever changes the configuration do not get into each other's way.
#[test]
fn sampling_begins_and_ends_whatever_changes() {
    let mut bench = Bench::new(&desired());
    let way = |bench: &Bench, to: &Desired| {
        plan(bench.observed(), to, &mut Memo::default(), &History::default()).expect("a plan").steps
    };
    let steps = way(&bench, &moved(STRANGER, L2));
    let sampling = bench.sample();
    let between = bench.observed().control;
    bench.execute(steps);
    let control = bench.observed().control;
    assert_eq!(control.sampling, 1, "a plan from before it began leaves it on");
    let steps = way(&bench, &desired());
    drop(sampling);
    bench.execute(steps);
    let after = bench.observed().control;
    assert_eq!(after.sampling, 0, "and one from before it ended leaves it off");
    assert!(between.epoch < control.epoch && control.epoch < after.epoch, "epochs only go on");
    always(&mut bench, &to(VIP, L2), Action::Transmit, "after all that");
}
