//! Link headers: VLAN tags kept, replaced and added, and which port a packet leaves by.

use super::frames::{SERVICE_VLAN, VLAN};
use super::*;

/// No tag, one, two.
const TAGGED: [&[(u16, u16)]; 4] = [&[], &[(VLAN, 5)], &[(SERVICE_VLAN, 7)], &[(SERVICE_VLAN, 7), (VLAN, 5)]];

fn ids(layers: &[Layer]) -> Vec<u16> {
    let id = |layer: &Layer| if let Layer::Tag(id) = layer { Some(*id) } else { None };
    layers.iter().filter_map(id).collect()
}

#[test]
fn tags_are_kept_or_replaced() {
    for method in [Method::L2].into_iter().chain(TUNNELS) {
        for (outer_v6, inner_v6) in FAMILIES {
            for tags in TAGGED {
                for tag in [Tag::Kept, Tag::Vlan(100), Tag::Vlan(4094)] {
                    let mut entry = match method {
                        Method::L2 => backend(1),
                        _ => tunnel(method, outer_v6, inner_v6),
                    };
                    entry.flags |= tag.flags();
                    let packet = of(inner_v6, Body::Tcp(ACK), 80).payload(11).tags(tags);
                    let input = packet.bytes();
                    let seen = see(&tables_with(entry), &input);
                    let what = format!("{method:?} {tags:?} {tag:?}");
                    let inner = packet.packet();
                    seen.is(&what, Verdict::Transmit, forwarded(1, inner.len(), 0));
                    let layers = seen.layers();
                    let (expected, kind) = match tag {
                        Tag::Kept => {
                            (tags.iter().map(|(_, id)| *id).collect(), tags.first().map(|tag| tag.0))
                        }
                        Tag::Vlan(id) => (vec![id], Some(VLAN)),
                    };
                    assert_eq!(ids(&layers), expected, "{what}");
                    let Layer::Ethernet(link) = &layers[0] else { panic!() };
                    if let Some(kind) = kind {
                        assert_eq!(link.ether_type.0, kind, "{what}");
                    }
                    assert_eq!((link.destination, link.source), ([2, 0, 0, 0, 1, 1], OWN), "{what}");
                    assert!(seen.bytes.ends_with(&inner), "{what}");
                    let outer = method.overhead(outer_v6) as usize;
                    assert_eq!(seen.bytes.len(), 14 + 4 * expected.len() + outer + inner.len(), "{what}");
                }
            }
        }
    }
}

#[test]
fn another_port_means_redirect_with_that_ports_address() {
    for (port, verdict, mac) in [(1, Verdict::Transmit, OWN), (2, Verdict::Redirect(2), FAR)] {
        for method in [Method::L2].into_iter().chain(TUNNELS) {
            let mut entry = if method == Method::L2 { backend(1) } else { tunnel(method, false, false) };
            entry.next_hop = NextHop::new([2, 0, 0, 0, 1, 1], port).0;
            entry.egress = Egress::new(mac, 1500).0;
            let seen = see(&tables_with(entry), &v4(Body::Tcp(SYN), 80).bytes());
            seen.is("port", verdict, forwarded(1, 40, 1));
            assert_eq!(seen.bytes[6..12], mac);
            let mut tables = tables_with(entry);
            tables.ingress = 2;
            let other = Build { link: (CLIENT_MAC, FAR), ..v4(Body::Tcp(SYN), 80) };
            let expected = if port == 2 { Verdict::Transmit } else { Verdict::Redirect(1) };
            assert_eq!(see(&tables, &other.bytes()).verdict, expected);
        }
    }
}

#[test]
fn no_room_for_a_tag_is_no_headroom() {
    let entry = BackendEntry { flags: Tag::Vlan(9).flags(), ..backend(1) };
    let tables = tables_with(entry);
    let mut frame = HostFrame::without_headroom(&v4(Body::Tcp(SYN), 80).bytes());
    assert_eq!(run(&mut frame, &tables), Verdict::Drop);
    assert_eq!(counts(&tables), drop_of(Reason::NoHeadroom));
    let mut frame = HostFrame::without_headroom(&v4(Body::Tcp(SYN), 80).tags(TAGGED[3]).bytes());
    assert_eq!(run(&mut frame, &tables), Verdict::Transmit, "two tags make room for one");
}

#[test]
fn a_third_tag_or_half_a_tag_is_nobodys() {
    let tables = tables(Slot::settled(id(1)));
    let three = v4(Body::Tcp(SYN), 80).tags(&[(VLAN, 1), (VLAN, 2), (VLAN, 3)]).bytes();
    see(&tables, &three).is("three", Verdict::Pass, reason(Reason::NotIp));
    let two = v4(Body::Tcp(SYN), 80).tags(&[(SERVICE_VLAN, 1), (VLAN, 2)]).bytes();
    for len in 14..22 {
        see(&tables, &two[..len]).is("cut", Verdict::Pass, reason(Reason::NotIp));
    }
}

#[test]
fn another_stations_frames_pass_whatever_is_in_them() {
    let tables = tables(Slot::settled(id(1)));
    for mac in [[2, 0, 0, 0, 0, 77], [0x33, 0x33, 0xff, 0, 0, 0x10], [0x33, 0x33, 0, 0, 0, 1], [0xff; 6]] {
        for is_v6 in [false, true] {
            for body in [Body::Tcp(SYN), Body::Udp, Body::Icmp(if is_v6 { 128 } else { 8 }, 0, [0; 4])] {
                let link = (CLIENT_MAC, mac);
                for tags in TAGGED {
                    let input = Build { link, ..of(is_v6, body.clone(), 80) }.tags(tags).bytes();
                    see(&tables, &input).is("another station", Verdict::Pass, reason(Reason::OtherMac));
                }
            }
        }
    }
}
