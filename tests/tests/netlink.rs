//! The `netlink` module against a real kernel: a balancer, backends and a gateway on one bridge, each in a
//! network namespace of its own. Needs root. Every test has its own namespaces and its own thread.

#[path = "netlink/foreign.rs"]
mod foreign;
#[path = "netlink/lab.rs"]
mod lab;
#[path = "netlink/v6.rs"]
mod v6;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::{Lab, ip, within};
use lb_userspace::netlink::{
    Mac, Netlink, NextHop, Resolution, Resolutions, RouteError, Target, Watcher, announce, resolve,
};
use tokio::sync::watch;

const LB: IpAddr = v4(192, 0, 2, 1);
const BACKEND: IpAddr = v4(192, 0, 2, 21);
const SECOND: IpAddr = v4(192, 0, 2, 22);
const GATEWAY: IpAddr = v4(192, 0, 2, 254);
const BEHIND: IpAddr = v4(198, 51, 100, 7);
const NOWHERE: IpAddr = v4(203, 0, 113, 7);
const SECOND_LIMIT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

fn target(address: IpAddr) -> Target {
    Target { address, mac: None, interface: None }
}

const fn mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0, last]
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.host("lb", "192.0.2.1/24", mac(1));
    lab.host("b1", "192.0.2.21/24", mac(0x21));
    lab
}

fn resolved(resolutions: &Resolutions, address: IpAddr) -> Option<NextHop> {
    resolutions.get(&address)?.next_hop().copied()
}

/// Waits until the state of `address` is as wanted; returns how long it took.
async fn until(
    seen: &mut watch::Receiver<Arc<Resolutions>>,
    address: IpAddr,
    wanted: impl Fn(&Resolution) -> bool,
) -> Duration {
    let start = Instant::now();
    let wanted = |map: &Arc<Resolutions>| map.get(&address).is_some_and(&wanted);
    match tokio::time::timeout(PATIENCE, seen.wait_for(wanted)).await.map(|found| found.is_ok()) {
        Ok(true) => return start.elapsed(),
        Ok(false) => panic!("the watcher ended"),
        Err(_) => {}
    }
    panic!("{address} stays {:?}", seen.borrow().get(&address));
}

fn has_mac(mac: Mac) -> impl Fn(&Resolution) -> bool {
    move |resolution| resolution.next_hop().is_some_and(|next_hop| next_hop.mac == mac)
}

fn why(words: &str) -> impl Fn(&Resolution) -> bool {
    move |resolution| match resolution {
        Resolution::Unresolved { why, .. } | Resolution::Unroutable(why) => why == words,
        Resolution::Resolved(_) | Resolution::Local => false,
    }
}

#[test]
fn links_and_routes() {
    let lab = lab();
    within(&lab.ns("lb"), async {
        let netlink = Netlink::open().unwrap();
        let links = netlink.links().await.unwrap();
        let eth0 = links.by_name("eth0").unwrap();
        assert_eq!((eth0.mac, eth0.mtu, eth0.up, eth0.lower_up), (Some(mac(1)), 1500, true, true));
        assert_eq!((eth0.kind.as_deref(), eth0.xdp, eth0.master), (Some("veth"), None, None));
        assert!(eth0.rx_queues >= 1 && eth0.tx_queues >= 1);
        assert!(links.is_local(LB) && !links.is_local(BACKEND));
        assert_eq!(links.on_link(BACKEND).map(|l| l.ifindex), Some(eth0.ifindex));
        assert_eq!(links.by_name("lo").unwrap().mac, None);

        let route = netlink.route_to(BACKEND, None).await.unwrap();
        assert_eq!((route.ifindex, route.gateway, route.prefsrc), (eth0.ifindex, None, Some(LB)));
        ip(&lab.ns("lb"), "route add 198.51.100.0/24 via 192.0.2.254 mtu 1400");
        let route = netlink.route_to(BEHIND, None).await.unwrap();
        assert_eq!((route.gateway, route.mtu), (Some(GATEWAY), Some(1400)));
        assert!(matches!(netlink.route_to(NOWHERE, None).await, Err(RouteError::NoRoute(NOWHERE))));
        assert!(matches!(netlink.route_to(LB, None).await, Err(RouteError::Local(LB))));
        let broadcast = v4(192, 0, 2, 255);
        assert!(matches!(netlink.route_to(broadcast, None).await, Err(RouteError::NotUnicast(_))));
        let on_eth0 = netlink.route_to(NOWHERE, Some(eth0.ifindex)).await.unwrap();
        assert_eq!((on_eth0.ifindex, on_eth0.gateway), (eth0.ifindex, None));
        for kind in ["blackhole", "unreachable", "prohibit"] {
            ip(&lab.ns("lb"), &format!("route replace {kind} 203.0.113.0/24"));
            let error = netlink.route_to(NOWHERE, None).await.unwrap_err();
            assert!(error.to_string().contains(kind), "{error}");
        }
    });
}

#[test]
fn one_shot() {
    let lab = lab();
    lab.host("gw", "192.0.2.254/24", mac(0xfe));
    ip(&lab.ns("lb"), "route add 198.51.100.0/24 via 192.0.2.254 mtu 1400");
    ip(&lab.ns("lb"), "route add blackhole 198.51.100.128/25");
    within(&lab.ns("lb"), async {
        let blackhole = v4(198, 51, 100, 200);
        let other = Target { interface: Some("eth7".into()), ..target(v4(192, 0, 2, 30)) };
        let named = Target { mac: Some(mac(0x33)), ..target(v4(192, 0, 2, 33)) };
        let all = [BACKEND, BEHIND, NOWHERE, LB, blackhole].map(target);
        let targets = all.into_iter().chain([other, named]).collect();
        let start = Instant::now();
        let found = resolve(targets, PATIENCE).await.unwrap();
        println!("one-shot resolution of 7 targets: {:?}", start.elapsed());
        assert!(start.elapsed() < SECOND_LIMIT);

        let backend = resolved(&found, BACKEND).unwrap();
        assert_eq!((backend.via, backend.mac, backend.source, backend.mtu), (BACKEND, mac(0x21), LB, 1500));
        let behind = resolved(&found, BEHIND).unwrap();
        assert_eq!((behind.via, behind.mac, behind.source, behind.mtu), (GATEWAY, mac(0xfe), LB, 1400));
        let named = resolved(&found, v4(192, 0, 2, 33)).unwrap();
        assert_eq!(named.mac, mac(0x33));
        assert_eq!(found[&LB], Resolution::Local);
        assert!(why("no route to 203.0.113.7")(&found[&NOWHERE]));
        assert!(why("the route to 198.51.100.200 is a blackhole")(&found[&blackhole]));
        assert!(why("interface eth7 does not exist")(&found[&v4(192, 0, 2, 30)]));
    });
}

#[test]
fn one_shot_gives_up_in_time() {
    let lab = lab();
    within(&lab.ns("lb"), async {
        let start = Instant::now();
        let found = resolve(vec![target(SECOND), target(BACKEND)], Duration::from_millis(600)).await.unwrap();
        assert!((600..900).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        assert!(why("no ARP answer from 192.0.2.22 on eth0")(&found[&SECOND]));
        assert!(has_mac(mac(0x21))(&found[&BACKEND]));
    });
}

#[test]
fn a_changed_mac_is_learnt_within_a_second() {
    let lab = lab();
    within(&lab.ns("lb"), async {
        let watcher = Watcher::start(vec![target(BACKEND)]).await.unwrap();
        let mut seen = watcher.resolutions();
        until(&mut seen, BACKEND, has_mac(mac(0x21))).await;
        let mut took = Vec::new();
        for round in 0..8u8 {
            tokio::time::sleep(Duration::from_millis(700 + 37 * u64::from(round))).await;
            let new = mac(0x40 + round);
            // No gratuitous ARP: arp_notify is 0 by default.
            ip(&lab.ns("b1"), &format!("link set dev eth0 address 02:00:00:00:00:{:02x}", new[5]));
            took.push(until(&mut seen, BACKEND, has_mac(new)).await);
        }
        println!("silent MAC change learnt after {took:?}");
        assert!(took.iter().all(|t| *t < SECOND_LIMIT), "{took:?}");
    });
}

#[test]
fn permanent_entries_win() {
    let lab = lab();
    let lb = lab.ns("lb");
    within(&lb, async {
        let watcher = Watcher::start(vec![target(BACKEND)]).await.unwrap();
        let mut seen = watcher.resolutions();
        until(&mut seen, BACKEND, has_mac(mac(0x21))).await;
        ip(&lb, "neigh replace 192.0.2.21 lladdr 02:00:00:00:00:99 nud permanent dev eth0");
        let took = until(&mut seen, BACKEND, has_mac(mac(0x99))).await;
        println!("permanent neighbour taken over after {took:?}");
        let before = lab.arp_received("b1");
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(has_mac(mac(0x99))(&seen.borrow()[&BACKEND]));
        assert_eq!(lab.arp_received("b1"), before, "nobody is asked for it");
        ip(&lb, "neigh del 192.0.2.21 dev eth0");
        until(&mut seen, BACKEND, has_mac(mac(0x21))).await;
    });
}

#[test]
fn links_go_down_and_come_back() {
    let lab = lab();
    let lb = lab.ns("lb");
    within(&lb, async {
        let watcher = Watcher::start(vec![target(BACKEND)]).await.unwrap();
        let mut seen = watcher.resolutions();
        until(&mut seen, BACKEND, has_mac(mac(0x21))).await;
        let first = resolved(&seen.borrow(), BACKEND).unwrap().ifindex;

        ip(&lb, "link set dev eth0 down");
        let down = until(&mut seen, BACKEND, why("interface eth0 is down")).await;
        ip(&lb, "link set dev eth0 up");
        let up = until(&mut seen, BACKEND, has_mac(mac(0x21))).await;
        ip(&lab.ns("sw"), "link set dev lb down");
        let carrier = until(&mut seen, BACKEND, why("interface eth0 has no carrier")).await;
        ip(&lab.ns("sw"), "link set dev lb up");
        until(&mut seen, BACKEND, has_mac(mac(0x21))).await;
        println!("down seen after {down:?}, up after {up:?}, lost carrier after {carrier:?}");

        ip(&lb, "link del dev eth0");
        until(&mut seen, BACKEND, why("no route to 192.0.2.21")).await;
        assert!(watcher.links().borrow().by_name("eth0").is_none());
        lab.wire("lb", "192.0.2.1/24", mac(2));
        until(&mut seen, BACKEND, has_mac(mac(0x21))).await;
        assert_ne!(resolved(&seen.borrow(), BACKEND).unwrap().ifindex, first);

        // The same once more, into the index of the interface just deleted: its sockets are dead.
        let index = resolved(&seen.borrow(), BACKEND).unwrap().ifindex;
        ip(&lb, "link del dev eth0");
        lab.wire_with_index("lb", "192.0.2.1/24", mac(3), index);
        ip(&lab.ns("b1"), "link set dev eth0 address 02:00:00:00:00:77");
        until(&mut seen, BACKEND, has_mac(mac(0x77))).await;
    });
}

#[test]
fn routes_addresses_and_targets_change() {
    let lab = lab();
    lab.host("gw", "192.0.2.254/24", mac(0xfe));
    let lb = lab.ns("lb");
    within(&lb, async {
        let watcher = Watcher::start(vec![target(BEHIND)]).await.unwrap();
        let mut seen = watcher.resolutions();
        assert!(why("no route to 198.51.100.7")(&seen.borrow()[&BEHIND]));
        ip(&lb, "route add 198.51.100.0/24 via 192.0.2.254");
        let routed = until(&mut seen, BEHIND, has_mac(mac(0xfe))).await;
        ip(&lb, "route replace 198.51.100.0/24 via 192.0.2.21");
        let moved = until(&mut seen, BEHIND, has_mac(mac(0x21))).await;
        println!("new route seen after {routed:?}, other gateway after {moved:?}");

        watcher.set_targets(vec![target(BEHIND), target(SECOND)]);
        until(&mut seen, SECOND, why("no ARP answer from 192.0.2.22 on eth0")).await;
        ip(&lab.ns("b1"), "addr add 192.0.2.22/24 dev eth0");
        until(&mut seen, SECOND, has_mac(mac(0x21))).await;
        ip(&lb, "addr add 192.0.2.22/32 dev lo");
        until(&mut seen, SECOND, |resolution| *resolution == Resolution::Local).await;
        watcher.set_targets(Vec::new());
        seen.wait_for(|map| map.is_empty()).await.unwrap();
    });
}

#[test]
fn of_several_gateways_the_one_that_is_left_takes_over() {
    let lab = lab();
    lab.host("gw", "192.0.2.254/24", mac(0xfe));
    let lb = lab.ns("lb");
    ip(&lb, "route add 198.51.100.0/24 nexthop via 192.0.2.254 nexthop via 192.0.2.21");
    let addresses: Vec<IpAddr> = (1..=64).map(|n| v4(198, 51, 100, n)).collect();
    within(&lb, async {
        let watcher = Watcher::start(addresses.into_iter().map(target).collect()).await.unwrap();
        let mut seen = watcher.resolutions();
        let via = |map: &Resolutions, last: u8| map.values().filter(|way| has_mac(mac(last))(way)).count();
        let both = |map: &Arc<Resolutions>| {
            via(map, 0xfe) >= 8 && via(map, 0x21) >= 8 && via(map, 0xfe) + via(map, 0x21) == 64
        };
        tokio::time::timeout(PATIENCE, seen.wait_for(both)).await.unwrap().unwrap();
        let start = Instant::now();
        ip(&lb, "route replace 198.51.100.0/24 via 192.0.2.21");
        tokio::time::timeout(PATIENCE, seen.wait_for(|map| via(map, 0x21) == 64)).await.unwrap().unwrap();
        println!("64 backends on the gateway that is left after {:?}", start.elapsed());
    });
}

#[test]
fn ten_thousand_backends_behind_a_gateway_are_one_neighbour() {
    let lab = lab();
    lab.host("gw", "192.0.2.254/24", mac(0xfe));
    let lb = lab.ns("lb");
    ip(&lb, "route add 198.18.0.0/15 via 192.0.2.254");
    let addresses = (0..10_000u16).map(|n| v4(198, 18, (n >> 8) as u8, n as u8));
    within(&lb, async {
        let start = Instant::now();
        let watcher = Watcher::start(addresses.map(target).collect()).await.unwrap();
        let mut seen = watcher.resolutions();
        let all = |last: u8| {
            move |map: &Arc<Resolutions>| map.len() == 10_000 && map.values().all(has_mac(mac(last)))
        };
        tokio::time::timeout(PATIENCE, seen.wait_for(all(0xfe))).await.unwrap().unwrap();
        println!("10,000 ways known after {:?}", start.elapsed());
        let before = lab.arp_received("gw");
        tokio::time::sleep(Duration::from_secs(3)).await;
        let asked = lab.arp_received("gw") - before;
        assert!((1..=60).contains(&asked), "{asked} requests in 3 s: as many as for one");
        let entries = lab::output(&lb, "ip neigh show dev eth0");
        assert!(entries.lines().count() <= 1, "{entries}");
        let start = Instant::now();
        ip(&lb, "route replace 198.18.0.0/15 via 192.0.2.21");
        tokio::time::timeout(PATIENCE, seen.wait_for(all(0x21))).await.unwrap().unwrap();
        println!("10,000 ways changed after {:?}", start.elapsed());
    });
}

#[test]
fn the_dead_do_not_flood_the_lan() {
    let lab = lab();
    within(&lab.ns("lb"), async {
        let dead: Vec<Target> = (100..150).map(|n| target(v4(192, 0, 2, n))).collect();
        let watcher = Watcher::start(dead).await.unwrap();
        tokio::time::sleep(Duration::from_secs(8)).await;
        let before = lab.arp_received("b1");
        tokio::time::sleep(Duration::from_secs(4)).await;
        let broadcasts = lab.arp_received("b1") - before;
        println!("50 dead hops: {} broadcasts a second", broadcasts / 4);
        // 50 at 1.5 to 2 s each: 25 to 33 a second.
        assert!((80..=150).contains(&broadcasts), "{broadcasts} in 4 s");
        assert!(watcher.resolutions().borrow().values().all(Resolution::is_pending));
    });
}

#[test]
fn lost_notifications_are_made_up_for() {
    let lab = lab();
    let lb = lab.ns("lb");
    within(&lb, async {
        let watcher = Watcher::start(vec![target(BACKEND), target(BEHIND)]).await.unwrap();
        let mut seen = watcher.resolutions();
        until(&mut seen, BACKEND, has_mac(mac(0x21))).await;
        // This thread is the whole runtime: nothing is read while `ip` runs.
        let routes: String =
            (0..30_000).map(|n| format!("route add 10.{}.{}.0/24 dev eth0\n", n / 256, n % 256)).collect();
        lab::ip_batch(&lb, &routes);
        assert!(lab::netlink_drops(&lb) > 0, "every notification found room");
        ip(&lb, "route add 198.51.100.0/24 via 192.0.2.21");
        let took = until(&mut seen, BEHIND, has_mac(mac(0x21))).await;
        println!("after 30000 routes in one go: {took:?}");
    });
}

#[test]
fn announcements_reach_the_neighbours() {
    let lab = lab();
    let b1 = lab.ns("b1");
    let service = v4(192, 0, 2, 200);
    ip(&b1, "neigh replace 192.0.2.200 lladdr 02:00:00:00:00:0f nud stale dev eth0");
    within(&lab.ns("lb"), async {
        let before = lab.arp_received("b1");
        let links = Netlink::open().unwrap().links().await.unwrap();
        let start = Instant::now();
        announce(links.by_name("eth0").unwrap().ifindex, mac(1), &[service]).await.unwrap();
        println!("announced in {:?}", start.elapsed());
        assert_eq!(lab.arp_received("b1") - before, 6, "three requests, three replies");
        let gone = announce(4711, mac(1), &[service]).await.unwrap_err();
        assert_eq!(gone.to_string(), "interface index 4711: cannot open an ARP socket");
    });
    let table = lab::output(&b1, "ip neigh show 192.0.2.200");
    assert!(table.contains("lladdr 02:00:00:00:00:01"), "{table}");
}

#[test]
fn many_hops() {
    let lab = lab();
    let b1 = lab.ns("b1");
    ip(&b1, "route add local 192.0.2.64/26 dev eth0");
    ip(&b1, "route add local 192.0.2.128/26 dev eth0");
    let addresses: Vec<IpAddr> = (64..192).map(|n| v4(192, 0, 2, n)).collect();
    within(&lab.ns("lb"), async {
        let start = Instant::now();
        let found = resolve(addresses.iter().copied().map(target).collect(), PATIENCE).await.unwrap();
        println!("128 next hops resolved in {:?}", start.elapsed());
        let wrong: BTreeMap<_, _> = found.iter().filter(|(_, r)| !has_mac(mac(0x21))(r)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let watcher = Watcher::start(addresses.iter().copied().map(target).collect()).await.unwrap();
        let mut seen = watcher.resolutions();
        let all = |map: &Arc<Resolutions>| map.len() == 128 && map.values().all(has_mac(mac(0x21)));
        tokio::time::timeout(PATIENCE, seen.wait_for(all)).await.unwrap().unwrap();
        let (cpu, before) = (lab::cpu_time(), lab.arp_received("b1"));
        tokio::time::sleep(Duration::from_secs(4)).await;
        let (cpu, asked) = (lab::cpu_time() - cpu, lab.arp_received("b1") - before);
        println!("128 hops: {} requests a second, {:?} of CPU a second", asked / 4, cpu / 4);
        assert!((1800..=2200).contains(&asked), "{asked} requests in 4 s");
    });
}
