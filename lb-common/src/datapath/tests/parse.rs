//! Parsing at its edges: lengths, options, extension headers, protocols.

use super::*;

#[test]
fn a_frame_cut_anywhere_is_never_forwarded() {
    let whole = tcp(4000, true);
    for len in 0..whole.len() {
        let tables = tables(Slot::settled(id(1)));
        let (verdict, _) = send(&tables, &whole[..len]);
        // With fewer than 20 bytes of IPv4 nobody can tell whom it is for.
        let expected = if len < 14 + 20 { Verdict::Pass } else { Verdict::Drop };
        assert_eq!(verdict, expected, "{len} bytes");
        assert_eq!(dropped(&tables, Reason::Malformed), u64::from(len >= 34), "{len} bytes");
    }
    assert_eq!(sent_to(&tables(Slot::settled(id(1))), &whole), 1);
}

#[test]
fn contradicting_lengths_are_malformed() {
    let cases: [(&str, usize, u8); 6] = [
        ("version 6 in the first nibble", 14, 0x65),
        ("header length 16", 14, 0x44),
        ("header length 60 in a shorter packet", 14, 0x4f),
        ("total length beyond the frame", 16, 0xff),
        ("total length below the header", 17, 19),
        ("total length below the TCP header", 17, 39),
    ];
    for (name, offset, value) in cases {
        let tables = tables(Slot::settled(id(1)));
        let mut frame = tcp(4000, true);
        frame[offset] = value;
        assert_eq!(send(&tables, &frame).0, Verdict::Drop, "{name}");
        assert_eq!(dropped(&tables, Reason::Malformed), 1, "{name}");
        frame[30] = 99; // for another address: not our business
        assert_eq!(send(&tables, &frame).0, Verdict::Pass, "{name}");
    }
}

#[test]
fn options_move_the_ports() {
    for words in 0..=10u8 {
        let mut frame = tcp(4000, true);
        let extra = usize::from(words) * 4;
        frame.splice(34..34, std::iter::repeat_n(1, extra));
        frame[14] = 0x45 + words;
        let total = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        assert_eq!(sent_to(&tables(Slot::settled(id(1))), &frame), 1, "{extra} bytes of options");
    }
}

#[test]
fn padding_behind_the_packet_is_no_harm() {
    let mut frame = udp(4000);
    frame.resize(60, 0xaa);
    let tables = tables(Slot::settled(id(2)));
    assert_eq!(sent_to(&tables, &frame), 2);
    assert_eq!(tables.forwarded.borrow()[&2].bytes, 20 + 8 + 5, "bytes of the IP packet, not of the frame");
}

#[test]
fn what_is_flooded_to_another_station_passes() {
    let tables = tables(Slot::settled(id(1)));
    let mut frame = tcp(1, true);
    frame[5] = 77;
    assert_eq!(send(&tables, &frame).0, Verdict::Pass);
    let mut arp = [&[2, 0, 0, 0, 0, 77], &CLIENT_MAC[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    arp.extend([&CLIENT_MAC[..], &CLIENT, &[0; 6], &VIP].concat());
    assert_eq!(send(&tables, &arp).0, Verdict::Pass, "another balancer is asked");
    arp[..6].copy_from_slice(&[0xff; 6]);
    assert_eq!(send(&tables, &arp).0, Verdict::Transmit, "everybody is asked");
    assert_eq!(dropped(&tables, Reason::OtherMac), 2);
}

/// Numbers of IPv6 extension headers that are looked through, and of two that are not.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
const AUTHENTICATION: u8 = 51;

#[test]
fn ipv6_tcp_udp_and_sctp_reach_their_backend() {
    let cases = [(Body::Tcp(SYN), 80, 1), (Body::Tcp(ACK), 80, 0), (Body::Udp, 53, 0), (Body::Sctp, 5060, 0)];
    for is_v6 in [false, true] {
        for (body, port, flows) in cases.clone() {
            let packet = of(is_v6, body, port).payload(12);
            let seen = see(&tables(Slot::settled(id(2))), &packet.bytes());
            seen.is("forwarded", Verdict::Transmit, forwarded(2, packet.packet().len(), flows));
            assert_eq!(packet_in(&seen.bytes, 0), packet.packet());
        }
        let other = of(is_v6, Body::Sctp, 80).bytes();
        see(&tables(Slot::settled(id(2))), &other).is("SCTP", Verdict::Drop, reason(Reason::OtherPort));
    }
}

#[test]
fn an_ipv6_frame_cut_anywhere_is_never_forwarded() {
    for packet in [v6(Body::Tcp(SYN), 80), v6(Body::Udp, 53).padding_extension(DESTINATION, 1)] {
        let whole = packet.payload(3).bytes();
        for len in 0..whole.len() {
            let (verdict, expected) = match len {
                0..14 => (Verdict::Pass, Reason::NotIp),
                14..54 => (Verdict::Pass, Reason::MalformedElsewhere),
                _ => (Verdict::Drop, Reason::Malformed),
            };
            see(&tables(Slot::settled(id(1))), &whole[..len]).is("cut", verdict, reason(expected));
        }
        assert_eq!(sent_to(&tables(Slot::settled(id(1))), &whole), 1);
    }
}

#[test]
fn contradicting_ipv6_lengths_are_malformed() {
    let cases: [(&str, usize, u8); 4] = [
        ("version", 14, 0x45),
        ("payload length beyond the frame", 18, 0xff),
        ("payload length below the TCP header", 19, 19),
        ("no payload", 19, 0),
    ];
    for (name, offset, value) in cases {
        let mut frame = v6(Body::Tcp(SYN), 80).bytes();
        frame[offset] = value;
        see(&tables(Slot::settled(id(1))), &frame).is(name, Verdict::Drop, reason(Reason::Malformed));
        frame[50] = 99; // for another address: not our business
        let elsewhere = reason(Reason::MalformedElsewhere);
        see(&tables(Slot::settled(id(1))), &frame).is(name, Verdict::Pass, elsewhere);
    }
}

#[test]
fn addresses_that_stand_for_ipv4_ones_are_nobodys() {
    for mapped_end in [0, 1] {
        let mut packet = v6(Body::Tcp(SYN), 80);
        let ends = [&mut packet.from.0, &mut packet.to.0];
        *ends.into_iter().nth(mapped_end).unwrap() = Ipv4Addr::from(VIP).to_ipv6_mapped().into();
        see(&tables(Slot::settled(id(1))), &packet.bytes()).is(
            "mapped",
            Verdict::Pass,
            reason(Reason::NotIp),
        );
    }
}

#[test]
fn extension_headers_are_looked_through() {
    let plain = || v6(Body::Tcp(SYN), 80).payload(7);
    let cases = [
        ("hop by hop", plain().padding_extension(HOP_BY_HOP, 0)),
        ("destination options", plain().padding_extension(DESTINATION, 3)),
        ("routing", plain().padding_extension(ROUTING, 2)),
        ("atomic fragment", plain().fragment_header(0, false, 9)),
        ("the longest", plain().padding_extension(DESTINATION, 100)),
        (
            "one of each",
            plain()
                .padding_extension(HOP_BY_HOP, 0)
                .padding_extension(DESTINATION, 1)
                .padding_extension(ROUTING, 0)
                .fragment_header(0, false, 9)
                .padding_extension(DESTINATION, 0),
        ),
    ];
    for (what, packet) in cases {
        let seen = see(&tables(Slot::settled(id(1))), &packet.bytes());
        seen.is(what, Verdict::Transmit, forwarded(1, packet.packet().len(), 1));
        assert_eq!(packet_in(&seen.bytes, 0), packet.packet(), "{what}");
        assert_eq!(seen.layers().len(), 3 + packet.extensions.len());
        let elsewhere = Build { to: (packet.to.0, 81), ..packet };
        see(&tables(Slot::settled(id(1))), &elsewhere.bytes()).is(
            what,
            Verdict::Drop,
            reason(Reason::OtherPort),
        );
    }
}

#[test]
fn too_many_extension_headers_are_dropped_for_a_service_only() {
    let mut packet = v6(Body::Tcp(SYN), 80);
    for _ in 0..6 {
        packet = packet.padding_extension(DESTINATION, 0);
    }
    let tables = tables(Slot::settled(id(1)));
    see(&tables, &packet.bytes()).is("ours", Verdict::Drop, reason(Reason::LongHeaders));
    packet.to.0 = CLIENT6.into();
    see(&tables, &packet.bytes()).is("elsewhere", Verdict::Pass, reason(Reason::OtherProtocol));
    packet.extensions.pop();
    packet.to.0 = VIP6.into();
    see(&tables, &packet.bytes()).is("five", Verdict::Transmit, forwarded(1, 40 + 5 * 8 + 20, 1));
}

#[test]
fn extension_headers_that_do_not_fit_are_malformed() {
    for kind in [HOP_BY_HOP, ROUTING, DESTINATION, FRAGMENT] {
        // The packet ends within the header that it announces; the frame goes on.
        let mut frame = v6(Body::Tcp(SYN), 80).padding_extension(kind, 0).bytes();
        frame[18..20].copy_from_slice(&7u16.to_be_bytes());
        see(&tables(Slot::settled(id(1))), &frame).is("short", Verdict::Drop, reason(Reason::Malformed));
        let mut frame = v6(Body::Raw(kind), 80).bytes();
        see(&tables(Slot::settled(id(1))), &frame).is("nothing", Verdict::Drop, reason(Reason::Malformed));
        frame.resize(100, kind);
        see(&tables(Slot::settled(id(1))), &frame).is("padding", Verdict::Drop, reason(Reason::Malformed));
    }
    let mut frame = v6(Body::Tcp(SYN), 80).padding_extension(DESTINATION, 0).bytes();
    frame[55] = 200; // the length of the options, beyond the packet
    see(&tables(Slot::settled(id(1))), &frame).is("long", Verdict::Drop, reason(Reason::Malformed));
}

#[test]
fn other_protocols_pass() {
    for number in [AUTHENTICATION, 50, 59, 47, 41, 4, 2, 103, 255] {
        let tables = tables(Slot::settled(id(1)));
        let passes = || reason(Reason::OtherProtocol);
        see(&tables, &v6(Body::Raw(number), 0).payload(64).bytes()).is("v6", Verdict::Pass, passes());
        see(&tables, &v4(Body::Raw(number), 0).payload(64).bytes()).is("v4", Verdict::Pass, passes());
        let behind = v6(Body::Raw(number), 0).payload(64).padding_extension(DESTINATION, 0).bytes();
        see(&tables, &behind).is("v6 behind options", Verdict::Pass, passes());
    }
}

#[test]
fn nothing_configured_passes_everything() {
    let tables = HostTables { ingress: 1, ..HostTables::default() };
    for input in [v4(Body::Tcp(SYN), 80).bytes(), v6(Body::Udp, 53).bytes(), Vec::new(), vec![0; 13]] {
        see(&tables, &input).is("no port", Verdict::Pass, reason(Reason::NotIp));
    }
}

#[test]
fn while_packets_are_sampled_the_same_happens() {
    for sampling in [0, 1] {
        let mut tables = tables(Slot::settled(id(1)));
        tables.control.sampling = sampling;
        let passed = see(&tables, &v4(Body::Tcp(SYN), 80).bytes());
        passed.is("common", Verdict::Transmit, forwarded(1, 40, 1));
        let rare = v6(Body::Icmp(128, 0, [0; 4]), 0).bytes();
        see(&tables, &rare).is("rare", Verdict::Transmit, reason(Reason::EchoAnswered));
    }
}
