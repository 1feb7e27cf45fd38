//! Source lists of the size that the config allows, in the kernel: written in seconds, and replaced as a whole.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use lb_common::abi::ServiceEntry;
use lb_tests::bpf::{Action, Bench};
use lb_tests::packets::*;
use lb_tests::scene::*;
use lb_userspace::model::{Admission, Prefix, Protocol, ServiceId};
use lb_userspace::reconcile::Desired;

/// As many as a list may have.
const MOST: u32 = 100_000;
/// Generous: a loaded machine in a debug build.
const PATIENCE: Duration = Duration::from_secs(60);

/// The scene with a list of `count` sources, and one more, that [`L2`] refuses.
fn refusing(count: u32, besides: Option<Ipv4Addr>) -> Desired {
    let host = |address: Ipv4Addr| Prefix::host(IpAddr::from(address));
    let mut deny: Vec<Prefix> = (0..count).map(|n| host(Ipv4Addr::from_bits(0x0a00_0000 + n * 2))).collect();
    deny.extend(besides.map(host));
    deny.sort_unstable();
    let mut desired = desired();
    let service = desired.services.iter_mut().find(|service| service.id.port == L2);
    let service = service.expect("a service of the scene");
    service.admission = Admission { deny: deny.into(), ..Admission::default() };
    desired
}

fn list(bench: &Bench) -> Option<u32> {
    let entry = bench.observed().services()[&ServiceId::single(VIP, Protocol::Tcp, L2)];
    (entry.flags & ServiceEntry::ACL != 0).then_some(entry.acl)
}

fn timed(bench: &mut Bench, desired: &Desired, what: &str) {
    let start = Instant::now();
    bench.apply(desired);
    println!("{what}: {:.2} s", start.elapsed().as_secs_f64());
    assert!(start.elapsed() < PATIENCE, "{what}: {:?}", start.elapsed());
}

#[test]
fn the_largest_lists_are_written_and_replaced_in_seconds() {
    let packet = tcp(L2, Segment::Syn).bytes();
    let client = Flow::nth(7, (VIP, L2)).from.0;
    let mut bench = Bench::new(&desired());
    timed(&mut bench, &refusing(MOST, None), "100,000 sources written");
    assert_eq!(bench.kernel(&packet).0, Action::Transmit, "the client is not listed");
    let first = list(&bench);

    timed(&mut bench, &refusing(MOST - 1, Some(client)), "another 100,000 in their place");
    assert_eq!(bench.kernel(&packet).0, Action::Drop, "the client is listed");
    assert!(list(&bench).is_some() && list(&bench) != first, "under another number");

    timed(&mut bench, &refusing(MOST - 1, Some(client)), "the same again");
    timed(&mut bench, &desired(), "none");
    assert_eq!(bench.kernel(&packet).0, Action::Transmit, "without a list");
    assert_eq!(list(&bench), None);
}
