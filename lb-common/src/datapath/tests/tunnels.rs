//! Encapsulation: every method in every family pair, byte for byte what an independent library reads.

use super::*;

/// The output of a packet through this tunnel, read back.
#[track_caller]
fn through(entry: BackendEntry, packet: &Build) -> (Vec<Layer>, Vec<u8>) {
    let tables = tables_with(entry);
    let input = packet.bytes();
    let seen = see(&tables, &input);
    let inner = packet.packet();
    let what = format!("{entry:?}");
    seen.is(&what, Verdict::Transmit, forwarded(1, inner.len(), 0));
    let method = Method::from_raw(entry.method).unwrap();
    let overhead = method.overhead(entry.flags & BackendEntry::OUTER_V6 != 0) as usize;
    assert_eq!(seen.bytes.len(), input.len() + overhead, "{what}");
    assert!(
        seen.bytes.ends_with(packet_in(&input, packet.tags.len())),
        "{what}: the inner packet is untouched"
    );
    assert_eq!(seen.bytes[..12], [[2, 0, 0, 0, 1, 1], OWN].concat(), "{what}");
    (seen.layers(), seen.bytes)
}

/// Addresses, TTL, TOS of the first IP header, as text.
fn outer(layers: &[Layer]) -> (String, String, u8, u8) {
    match &layers[1] {
        Layer::V4(ip) => {
            assert!(ip.dont_fragment && ip.identification == 0 && ip.options.is_empty());
            let tos = ip.dscp.value() << 2 | ip.ecn.value();
            let [from, to] = [ip.source, ip.destination].map(|a| Ipv4Addr::from(a).to_string());
            (from, to, ip.time_to_live, tos)
        }
        Layer::V6(ip) => {
            let [from, to] = [ip.source, ip.destination].map(|a| Ipv6Addr::from(a).to_string());
            (from, to, ip.hop_limit, ip.traffic_class)
        }
        other => panic!("{other:?}"),
    }
}

/// The names of headers between the first IP header and the packet that came.
fn between(layers: &[Layer]) -> Vec<&'static str> {
    let named = layers[2..].iter().map_while(|layer| match layer {
        Layer::Gre => Some("gre"),
        Layer::Gue => Some("gue"),
        Layer::Udp(_) => Some("udp"),
        _ => None,
    });
    named.collect()
}

#[test]
fn every_method_in_every_family_pair() {
    for method in TUNNELS {
        for (outer_v6, inner_v6) in FAMILIES {
            for body in [Body::Tcp(ACK), Body::Udp, Body::UdpUnsummed, Body::Sctp] {
                let port = match body {
                    Body::Tcp(_) => 80,
                    Body::Sctp => 5060,
                    _ => 53,
                };
                for len in [0, 1, 2, 3, 1000] {
                    let packet = of(inner_v6, body.clone(), port).payload(len);
                    let entry = tunnel(method, outer_v6, inner_v6);
                    let (layers, _) = through(entry, &packet);
                    let ends = match outer_v6 {
                        true => (NODE6.to_string(), FAR_END6.to_string()),
                        false => (Ipv4Addr::from(NODE).to_string(), Ipv4Addr::from(FAR_END).to_string()),
                    };
                    assert_eq!(outer(&layers), (ends.0, ends.1, 64, 0));
                    let expected: &[&str] = match method {
                        Method::Gre => &["gre"],
                        Method::GueDirect => &["udp"],
                        Method::GueHeader => &["udp", "gue"],
                        _ => &[],
                    };
                    assert_eq!(between(&layers), expected);
                    let inner = &layers[2 + expected.len()];
                    assert_eq!(matches!(inner, Layer::V6(_)), inner_v6, "{method:?}: {inner:?}");
                }
            }
        }
    }
}

#[test]
fn udp_over_ipv6_is_summed_where_the_inner_packet_has_a_checksum() {
    let cases = [
        (Body::Tcp(ACK), 80, true),
        (Body::Udp, 53, true),
        (Body::UdpUnsummed, 53, false),
        (Body::Sctp, 5060, false),
    ];
    for method in [Method::GueDirect, Method::GueHeader] {
        for inner_v6 in [false, true] {
            for (body, port, summed) in cases.clone() {
                for (len, source_bits) in [(0, 0), (1, 8), (77, 24), (1200, 16)] {
                    let packet = of(inner_v6, body.clone(), port).payload(len);
                    let (layers, _) = through(tunnel_from(method, true, inner_v6, source_bits), &packet);
                    let Layer::Udp(udp) = &layers[2] else { panic!("{layers:?}") };
                    assert_eq!(udp.checksum != 0, summed, "{method:?} {body:?}");
                    let (layers, _) = through(tunnel_from(method, false, inner_v6, source_bits), &packet);
                    let Layer::Udp(udp) = &layers[2] else { panic!("{layers:?}") };
                    assert_eq!(udp.checksum, 0, "over IPv4");
                }
            }
        }
    }
}

#[test]
fn what_no_checksum_covers_gives_no_udp_checksum() {
    // Bytes behind the datagram ("surplus area", RFC 9868) are under no checksum.
    for is_v6 in [false, true] {
        let whole = of(is_v6, Body::Udp, 53).payload(16);
        let mut bytes = whole.clone().payload(24).bytes();
        let datagram = whole.bytes();
        let at = bytes.len() - 8 - 24;
        bytes[at..at + 8 + 16].copy_from_slice(&datagram[at..at + 8 + 16]);
        let seen = see(&tables_with(tunnel(Method::GueDirect, true, is_v6)), &bytes);
        let sum = &seen.bytes[14 + 40 + 6..14 + 40 + 8];
        assert_eq!((seen.verdict, sum), (Verdict::Transmit, &[0, 0][..]), "IPv6: {is_v6}");
    }
    let packet = v6(Body::Tcp(ACK), 80).padding_extension(60, 0);
    let (layers, _) = through(tunnel(Method::GueDirect, true, true), &packet);
    assert!(matches!(&layers[2], Layer::Udp(udp) if udp.checksum == 0), "extension headers");
    let packet = v4(Body::Tcp(ACK), 80).payload(9);
    let packet = Build { options: 8, ..packet };
    let (layers, _) = through(tunnel(Method::GueDirect, true, false), &packet);
    assert!(matches!(&layers[2], Layer::Udp(udp) if udp.checksum != 0), "options are under the header's");
}

#[test]
fn ecn_is_copied_and_dscp_copied_or_set() {
    for (outer_v6, inner_v6) in FAMILIES {
        for tos in [0, 1, 2, 3, 0xb8, 0xb9, 0xba, 0xbb, 0xff] {
            for (dscp, expected) in
                [(BackendEntry::COPY_DSCP, tos), (0, tos & 3), (46 << 2, 46 << 2 | tos & 3)]
            {
                let entry = BackendEntry { dscp, ..tunnel(Method::Ipip, outer_v6, inner_v6) };
                let packet = Build { tos, ..of(inner_v6, Body::Tcp(ACK), 80) };
                let (layers, _) = through(entry, &packet);
                assert_eq!(outer(&layers).3, expected, "inner {tos:#x}, configured {dscp:#x}");
            }
        }
    }
}

#[test]
fn the_outer_ttl_is_the_configured_one() {
    for (outer_v6, inner_v6) in FAMILIES {
        for ttl in [1, 64, 255] {
            let entry = sealed(BackendEntry { ttl, ..tunnel(Method::Gre, outer_v6, inner_v6) }, inner_v6);
            let (layers, _) = through(entry, &Build { ttl: 9, ..of(inner_v6, Body::Tcp(ACK), 80) });
            assert_eq!(outer(&layers).2, ttl, "{layers:?}");
        }
    }
}

#[test]
fn hashed_source_bits_stay_in_their_prefix_and_with_their_flow() {
    for method in TUNNELS {
        for (outer_v6, inner_v6) in FAMILIES {
            for bits in [1, 7, 16, 24] {
                let low = (1u128 << bits) - 1;
                let base = match outer_v6 {
                    true => u128::from(NODE6),
                    false => u128::from(u32::from_be_bytes(NODE)),
                };
                let mut seen = BTreeMap::new();
                for port in 4000..4064 {
                    for len in [0, 5] {
                        let mut packet = of(inner_v6, Body::Tcp(ACK), 80).payload(len);
                        packet.from.1 = port;
                        let (layers, _) = through(tunnel_from(method, outer_v6, inner_v6, bits), &packet);
                        let source = match &layers[1] {
                            Layer::V4(ip) => u128::from(u32::from_be_bytes(ip.source)),
                            Layer::V6(ip) => u128::from_be_bytes(ip.source),
                            other => panic!("{other:?}"),
                        };
                        assert_eq!(source & !low, base & !low, "{bits} bits");
                        assert_eq!(*seen.entry(port).or_insert(source), source, "one flow, one source");
                    }
                }
                let different: std::collections::BTreeSet<_> = seen.values().collect();
                assert!(different.len() > if bits == 1 { 1 } else { 20 }, "{bits} bits: {different:?}");
            }
        }
    }
}

#[test]
fn flow_labels_and_udp_sources_vary_by_flow_only() {
    let of_flow = |port: u16, len: usize| {
        let mut packet = v6(Body::Tcp(ACK), 80).payload(len);
        packet.from.1 = port;
        let (layers, _) = through(tunnel(Method::GueDirect, true, true), &packet);
        let (Layer::V6(ip), Layer::Udp(udp)) = (&layers[1], &layers[2]) else { panic!("{layers:?}") };
        assert!(udp.source_port >= 0xc000 && udp.destination_port == oracle::GUE_PORT);
        (ip.flow_label.value(), udp.source_port)
    };
    let flows: std::collections::BTreeSet<_> = (4000..4064).map(|port| of_flow(port, 0)).collect();
    assert!(flows.len() > 60, "{flows:?}");
    assert_eq!(of_flow(4000, 0), of_flow(4000, 777));
}

#[test]
fn without_headroom_an_encapsulated_packet_is_dropped_and_counted() {
    for method in TUNNELS {
        for (outer_v6, inner_v6) in FAMILIES {
            let tables = tables_with(tunnel(method, outer_v6, inner_v6));
            let mut frame = HostFrame::without_headroom(&of(inner_v6, Body::Tcp(ACK), 80).bytes());
            assert_eq!(run(&mut frame, &tables), Verdict::Drop);
            assert_eq!(counts(&tables), drop_of(Reason::NoHeadroom));
        }
    }
}

#[test]
fn an_entry_without_method_or_way_is_counted_by_its_reason() {
    let cases = [
        ("no method", BackendEntry { method: 0, ..backend(1) }, Reason::NoBackend),
        ("unknown method", BackendEntry { method: 77, ..backend(1) }, Reason::NoBackend),
        ("no next hop", BackendEntry { next_hop: 0, ..backend(1) }, Reason::NoNextHop),
    ];
    for (what, entry, expected) in cases {
        let input = v4(Body::Tcp(SYN), 80).bytes();
        see(&tables_with(entry), &input).is(what, Verdict::Drop, drop_of(expected));
    }
}
