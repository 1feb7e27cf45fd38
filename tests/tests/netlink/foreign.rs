//! Frames that are not for this host, though its interface sees them: nothing is learnt from them.

use std::net::IpAddr;
use std::time::Duration;

use lb_common::wire::arp::{Operation, Packet};
use lb_common::wire::ndp::{self, Advertisement};
use lb_common::wire::{ethernet, ipv6};
use lb_userspace::netlink::{Mac, Watcher};

use super::lab::{self, ip, within};
use super::{BACKEND, has_mac, mac, target, until};

const LIAR: Mac = mac(0x66);

/// Ethernet header, an optional tag, packet.
fn frame(destination: Mac, tag: Option<u16>, ether_type: u16, packet: &[u8]) -> Vec<u8> {
    let tag = tag.map(|id| [&[0x81, 0x00], &id.to_be_bytes()[..]].concat()).unwrap_or_default();
    [&destination[..], &LIAR[..], &tag[..], &ether_type.to_be_bytes()[..], packet].concat()
}

/// An answer that claims the address.
fn claim(address: IpAddr, asker: IpAddr, destination: Mac, tag: Option<u16>) -> Vec<u8> {
    match (address, asker) {
        (IpAddr::V4(address), IpAddr::V4(asker)) => {
            let (sender, target) = (address.octets(), asker.octets());
            let operation = Operation::Reply;
            let packet = Packet { operation, sender_mac: LIAR, sender, target_mac: destination, target };
            frame(destination, tag, ethernet::ARP, &packet.emit())
        }
        (IpAddr::V6(address), IpAddr::V6(asker)) => {
            let (source, target) = (address.octets(), asker.octets());
            let target_mac = Some(LIAR);
            let told =
                Advertisement { router: false, solicited: true, replaces: true, target: source, target_mac };
            let (fixed, option) = told.emit(source, target);
            let header = ipv6::Header {
                fixed: ipv6::Fixed {
                    version: 6,
                    traffic_class: 0,
                    flow_label: 0,
                    payload_len: 32,
                    next_header: ipv6::ICMP,
                    hop_limit: ndp::HOP_LIMIT,
                },
                source,
                destination: target,
            };
            let packet = [&header.emit()[..], &fixed, &option.unwrap()].concat();
            frame(destination, tag, ethernet::IPV6, &packet)
        }
        _ => unreachable!("one family"),
    }
}

#[test]
fn frames_for_others_teach_nothing() {
    let lab = super::v6::lab();
    let (lb, gw) = (lab.ns("lb"), lab.ns("gw"));
    let pairs = [(BACKEND, super::LB), ("2001:db8::21".parse().unwrap(), "2001:db8::1".parse().unwrap())];
    ip(&lb, "link set dev eth0 promisc on");
    within(&lb, async {
        for (backend, own) in pairs {
            let watcher = Watcher::start(vec![target(backend)]).await.unwrap();
            let mut seen = watcher.resolutions();
            until(&mut seen, backend, has_mac(mac(0x21))).await;
            for (destination, tag) in [(mac(1), Some(100)), (mac(0x77), None)] {
                lab::send_frame(&gw, &claim(backend, own, destination, tag));
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert!(
                    has_mac(mac(0x21))(&seen.borrow()[&backend]),
                    "{backend}: {destination:02x?} {tag:?}"
                );
            }
            lab::send_frame(&gw, &claim(backend, own, mac(1), None));
            until(&mut seen, backend, has_mac(LIAR)).await;
        }
    });
}
