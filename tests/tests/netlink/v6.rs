//! The same for IPv6: neighbour discovery instead of ARP.

use std::net::IpAddr;
use std::time::Duration;

use lb_userspace::netlink::{Hop, Netlink, ProbeNet, Resolution, RouteError, Watcher, announce, resolve};

use super::lab::{self, Lab, ip, within};
use super::{BEHIND, LB, PATIENCE, SECOND_LIMIT, has_mac, mac, resolved, target, until, why};

fn v6(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The balancer, a backend and a gateway, each with a link-local address.
pub fn lab() -> Lab {
    let lab = super::lab();
    lab.host("gw", "192.0.2.254/24", mac(0xfe));
    lab.add_ipv6("lb", &["fe80::1/64", "2001:db8::1/64"]);
    lab.add_ipv6("b1", &["fe80::21/64", "2001:db8::21/64"]);
    lab.add_ipv6("gw", &["fe80::fe/64", "2001:db8::fe/64"]);
    lab
}

#[test]
fn links_and_routes() {
    let lab = lab();
    let lb = lab.ns("lb");
    within(&lb, async {
        let netlink = Netlink::open().unwrap();
        let links = netlink.links().await.unwrap();
        let eth0 = links.by_name("eth0").unwrap();
        let backend = v6("2001:db8::21");
        assert_eq!(eth0.vlan, None);
        assert!(links.is_local(v6("2001:db8::1")) && !links.is_local(backend));
        assert_eq!(links.on_link(backend).map(|link| link.ifindex), Some(eth0.ifindex));
        assert_eq!(eth0.source_for(backend), v6("2001:db8::1"));
        assert_eq!(eth0.source_for(v6("fe80::21")), v6("fe80::1"));

        let route = netlink.route_to(backend, None).await.unwrap();
        assert_eq!((route.ifindex, route.gateway), (eth0.ifindex, None));
        assert_eq!(route.prefsrc, Some(v6("2001:db8::1")));
        ip(&lb, "route add 2001:db8:1::/48 via 2001:db8::fe mtu 1400");
        let route = netlink.route_to(v6("2001:db8:1::7"), None).await.unwrap();
        assert_eq!((route.gateway, route.mtu), (Some(v6("2001:db8::fe")), Some(1400)));
        ip(&lb, "route add 198.51.100.0/24 via inet6 fe80::fe dev eth0");
        let route = netlink.route_to(BEHIND, None).await.unwrap();
        assert_eq!((route.gateway, route.prefsrc), (Some(v6("fe80::fe")), Some(LB)));

        let nowhere = v6("2001:db8:2::7");
        assert!(matches!(netlink.route_to(nowhere, None).await, Err(RouteError::NoRoute(_))));
        assert!(matches!(netlink.route_to(v6("2001:db8::1"), None).await, Err(RouteError::Local(_))));
        assert!(matches!(netlink.route_to(v6("ff0e::1"), None).await, Err(RouteError::NotUnicast(_))));
        for kind in ["blackhole", "unreachable", "prohibit"] {
            ip(&lb, &format!("route replace {kind} 2001:db8:2::/48"));
            let error = netlink.route_to(nowhere, None).await.unwrap_err();
            assert!(error.to_string().contains(kind), "{error}");
        }
    });
}

#[test]
fn addresses_whose_uniqueness_is_not_established_are_not_used() {
    let lab = lab();
    within(&lab.ns("lb"), async {
        let netlink = Netlink::open().unwrap();
        // The backend has it already.
        ip(&lab.ns("lb"), "addr add 2001:db8::21/64 dev eth0");
        let seen = async || netlink.links().await.unwrap().is_local(v6("2001:db8::21"));
        assert!(!seen().await, "tentative");
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let table = lab::output(&lab.ns("lb"), "ip -6 addr show dev eth0");
        assert!(table.contains("dadfailed"), "{table}");
        assert!(!seen().await, "somebody else's");
    });
}

#[test]
fn one_shot() {
    let lab = lab();
    let lb = lab.ns("lb");
    ip(&lb, "route add 2001:db8:1::/48 via 2001:db8::fe mtu 1400");
    ip(&lb, "route add 2001:db8:2::/48 via fe80::fe dev eth0");
    ip(&lb, "route add 198.51.100.0/24 via inet6 fe80::fe dev eth0");
    within(&lb, async {
        let on_link = v6("2001:db8::21");
        let [behind, beyond, nowhere] = ["2001:db8:1::7", "2001:db8:2::7", "2001:db8:3::7"].map(v6);
        let targets = [on_link, behind, beyond, BEHIND, nowhere, v6("2001:db8::1")].map(target).to_vec();
        let start = std::time::Instant::now();
        let found = resolve(targets, PATIENCE).await.unwrap();
        println!("one-shot resolution of 6 targets: {:?}", start.elapsed());
        assert!(start.elapsed() < SECOND_LIMIT);
        let way = |address: IpAddr| {
            let hop = resolved(&found, address).unwrap_or_else(|| panic!("{:?}", found[&address]));
            (hop.via, hop.mac, hop.source, hop.mtu)
        };
        let own = v6("2001:db8::1");
        assert_eq!(way(on_link), (on_link, mac(0x21), own, 1500));
        assert_eq!(way(behind), (v6("2001:db8::fe"), mac(0xfe), own, 1400));
        assert_eq!(way(beyond), (v6("fe80::fe"), mac(0xfe), own, 1500));
        assert_eq!(way(BEHIND), (v6("fe80::fe"), mac(0xfe), LB, 1500));
        assert!(why("no route to 2001:db8:3::7")(&found[&nowhere]));
        assert_eq!(found[&own], Resolution::Local);
    });
}

#[test]
fn silence_and_the_lack_of_an_address_to_ask_from() {
    let lab = super::lab();
    let silent = v6("2001:db8::22");
    let lb = lab.ns("lb");
    lab.add_ipv6("lb", &[]);
    ip(&lb, "route add 2001:db8::/64 dev eth0");
    within(&lb, async {
        let once = async || resolve(vec![target(silent)], Duration::from_millis(300)).await.unwrap();
        let words = "interface eth0 has no IPv6 address to ask for 2001:db8::22 from";
        let found = once().await;
        assert!(why(words)(&found[&silent]), "{found:?}");
        ip(&lb, "addr add fe80::1/64 dev eth0 nodad");
        let found = once().await;
        assert!(why("no neighbour advertisement from 2001:db8::22 on eth0")(&found[&silent]), "{found:?}");
        lab.add_ipv6("b1", &["2001:db8::22/64"]);
        assert!(has_mac(mac(0x21))(&once().await[&silent]), "asked from a link-local address");
    });
}

#[test]
fn a_changed_mac_is_learnt_within_a_second() {
    let lab = lab();
    let backend = v6("2001:db8::21");
    within(&lab.ns("lb"), async {
        let watcher = Watcher::start(vec![target(backend)]).await.unwrap();
        let mut seen = watcher.resolutions();
        until(&mut seen, backend, has_mac(mac(0x21))).await;
        let mut took = Vec::new();
        for round in 0..6u8 {
            tokio::time::sleep(Duration::from_millis(700 + 37 * u64::from(round))).await;
            let new = mac(0x40 + round);
            // No unsolicited advertisement: ndisc_notify is 0 by default.
            ip(&lab.ns("b1"), &format!("link set dev eth0 address 02:00:00:00:00:{:02x}", new[5]));
            took.push(until(&mut seen, backend, has_mac(new)).await);
        }
        println!("silent MAC change learnt after {took:?}");
        assert!(took.iter().all(|t| *t < SECOND_LIMIT), "{took:?}");
    });
}

#[test]
fn who_answers_is_asked_alone() {
    let lab = lab();
    let backend = v6("2001:db8::21");
    within(&lab.ns("lb"), async {
        let watcher = Watcher::start(vec![target(backend)]).await.unwrap();
        until(&mut watcher.resolutions(), backend, has_mac(mac(0x21))).await;
        // Until everybody has told which groups it is in.
        tokio::time::sleep(Duration::from_millis(3000)).await;
        let counters =
            || ["Icmp6InNeighborSolicits", "Ip6InMcastPkts"].map(|name| lab.ipv6_received("b1", name));
        let before = counters();
        tokio::time::sleep(Duration::from_millis(2000)).await;
        let [asked, to_all] = std::array::from_fn(|at| counters()[at] - before[at]);
        assert!((6..=10).contains(&asked), "{asked} questions in 2 s");
        assert_eq!(to_all, 0, "an answer without an address counts as one");
    });
}

#[test]
fn what_the_kernel_knows_and_gives_up() {
    let lab = lab();
    let lb = lab.ns("lb");
    let backend = v6("2001:db8::21");
    within(&lb, async {
        let mut watcher = Watcher::start(vec![target(backend)]).await.unwrap();
        let mut doubts = watcher.doubts().unwrap();
        let mut seen = watcher.resolutions();
        until(&mut seen, backend, has_mac(mac(0x21))).await;
        ip(&lb, "neigh replace 2001:db8::21 lladdr 02:00:00:00:00:99 nud permanent dev eth0");
        until(&mut seen, backend, has_mac(mac(0x99))).await;
        let eth0 = watcher.links().borrow().by_name("eth0").unwrap().ifindex;
        let known = Netlink::open().unwrap().neighbours().await.unwrap();
        let hop = Hop { ifindex: eth0, via: backend };
        assert_eq!(known[&hop].fixed(), Some(mac(0x99)));
        ip(&lb, "neigh del 2001:db8::21 dev eth0");
        let doubted = tokio::time::timeout(PATIENCE, doubts.recv()).await.unwrap();
        assert_eq!(doubted, Some(vec![backend]));
        until(&mut seen, backend, has_mac(mac(0x21))).await;
    });
}

#[test]
fn routes_and_addresses_change() {
    let lab = lab();
    let lb = lab.ns("lb");
    let behind = v6("2001:db8:1::7");
    within(&lb, async {
        let watcher = Watcher::start(vec![target(behind)]).await.unwrap();
        let mut seen = watcher.resolutions();
        assert!(why("no route to 2001:db8:1::7")(&seen.borrow()[&behind]));
        ip(&lb, "route add 2001:db8:1::/48 via fe80::fe dev eth0");
        let routed = until(&mut seen, behind, has_mac(mac(0xfe))).await;
        ip(&lb, "route replace 2001:db8:1::/48 via fe80::21 dev eth0");
        let moved = until(&mut seen, behind, has_mac(mac(0x21))).await;
        println!("new route seen after {routed:?}, other gateway after {moved:?}");
        ip(&lb, "addr add 2001:db8:1::7/128 dev lo");
        until(&mut seen, behind, |resolution| *resolution == Resolution::Local).await;
        ip(&lb, "addr del 2001:db8:1::7/128 dev lo");
        until(&mut seen, behind, has_mac(mac(0x21))).await;
        ip(&lb, "link set dev eth0 down");
        until(&mut seen, behind, |resolution| resolution.next_hop().is_none()).await;
    });
}

#[test]
fn announcements_reach_the_neighbours() {
    let lab = lab();
    let b1 = lab.ns("b1");
    ip(&b1, "neigh replace 2001:db8::200 lladdr 02:00:00:00:00:0f nud stale dev eth0");
    within(&lab.ns("lb"), async {
        let links = Netlink::open().unwrap().links().await.unwrap();
        let before = lab.ipv6_received("b1", "Icmp6InNeighborAdvertisements");
        let addresses = [v6("2001:db8::200"), super::v4(192, 0, 2, 200)];
        announce(links.by_name("eth0").unwrap().ifindex, mac(1), &addresses).await.unwrap();
        assert_eq!(lab.ipv6_received("b1", "Icmp6InNeighborAdvertisements") - before, 3);
        let gone = announce(4711, mac(1), &addresses[..1]).await.unwrap_err();
        assert_eq!(gone.to_string(), "interface index 4711: cannot open a neighbour discovery socket");
    });
    let table = lab::output(&b1, "ip -6 neigh show 2001:db8::200");
    assert!(table.contains("lladdr 02:00:00:00:00:01"), "{table}");
}

/// Echoes one datagram to whoever sent it, from the address it was sent to.
async fn echo_once(address: IpAddr) {
    let socket = tokio::net::UdpSocket::bind((address, 7)).await.unwrap();
    let mut buffer = [0; 16];
    let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
    socket.send_to(&buffer[..len], from).await.unwrap();
}

#[test]
fn probes_leave_their_namespace_by_the_gate_in_both_families() {
    let lab = Lab::new();
    lab.host("lb", "192.0.2.1/24", mac(1));
    let lb = lab.ns("lb");
    let (gate, far) = (mac(0x60), mac(0x61));
    let ways =
        [("192.0.2.5", "203.0.113.10"), ("2001:db8::5", "2001:db8:1::10")].map(|(a, b)| (v6(a), v6(b)));
    within(&lb, async {
        let mut net = ProbeNet::enter(gate, far).await.unwrap();
        lab::output(&lb, "sysctl -qw net.ipv6.conf.lb-probe.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0");
        ip(&lb, "link set dev lb-probe up");
        net.set_addresses(&ways.map(|(node, _)| node).into()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let heard = lab::output(&lb, "cat /sys/class/net/lb-probe/statistics/rx_packets");
        assert_eq!(heard.trim(), "0", "nothing but probes comes out");
        for (node, service) in ways {
            ip(&lb, &format!("addr add {service} dev lo"));
            ip(&lb, &format!("route add {node} dev lb-probe"));
            ip(&lb, &format!("neigh add {node} lladdr 02:00:00:00:00:61 nud permanent dev lb-probe"));
        }
        for (node, service) in ways {
            let ns = lb.clone();
            let server = std::thread::spawn(move || within(&ns, echo_once(service)));
            // Bound at once: nothing is in doubt about an address in there.
            let socket = tokio::net::UdpSocket::bind((node, 0)).await.unwrap();
            let mut buffer = [0; 16];
            while tokio::time::timeout(Duration::from_millis(50), socket.recv(&mut buffer)).await.is_err() {
                // Refused until the server is there.
                let _ = socket.send_to(b"probe", (service, 7)).await;
            }
            server.join().unwrap();
        }
        net.set_addresses(&[ways[0].0].into()).await.unwrap();
        assert!(tokio::net::UdpSocket::bind((ways[0].0, 0)).await.is_ok());
        assert!(tokio::net::UdpSocket::bind((ways[1].0, 0)).await.is_err(), "taken away again");
    });
}
