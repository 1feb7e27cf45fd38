//! Clamping on the host: which segments, which options, and that the checksum stays right.

use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};

use super::*;
use crate::abi::mapped;
use crate::datapath::host::HostFrame;
use crate::wire::checksum;

const VIP: [u8; 4] = [203, 0, 113, 10];
const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const CLIENT: [u8; 4] = [198, 51, 100, 7];
const MOST_V4: u16 = 1440;
const MOST_V6: u16 = 1400;

struct Tables;

impl ClampTables for Tables {
    fn is_vip(&self, address: [u8; 16]) -> bool {
        address == mapped(VIP) || address == VIP6
    }

    fn mss(&self, is_v6: bool) -> u16 {
        if is_v6 { MOST_V6 } else { MOST_V4 }
    }
}

/// A segment from a service with these raw options (a multiple of four bytes).
fn segment(source: [u8; 4], flags: impl FnOnce(&mut TcpHeader), options: &[u8]) -> Vec<u8> {
    let mut tcp = TcpHeader::new(443, 4000, 0x0102_0304, 1024);
    tcp.set_options_raw(options).unwrap();
    flags(&mut tcp);
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(source, CLIENT, 64);
    builder.tcp_header(tcp).write(&mut frame, b"odd").unwrap();
    frame
}

fn segment_v6(options: &[u8]) -> Vec<u8> {
    let mut tcp = TcpHeader::new(443, 4000, 0x0102_0304, 1024);
    tcp.set_options_raw(options).unwrap();
    syn_ack(&mut tcp);
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(VIP6, [9; 16], 64);
    builder.tcp_header(tcp).write(&mut frame, b"odd").unwrap();
    frame
}

fn syn_ack(tcp: &mut TcpHeader) {
    (tcp.syn, tcp.ack) = (true, true);
}

fn decide(frame: &[u8]) -> Clamp {
    clamp(&HostFrame::new(frame), &Tables)
}

/// The frame after the change, as the kernel makes it.
fn lowered(frame: &[u8]) -> Vec<u8> {
    let Clamp::Lower(lower) = decide(frame) else { panic!("{:?}", decide(frame)) };
    let mut frame = frame.to_vec();
    let (at, sum) = (lower.at, lower.checksum_at);
    let check = u16::from_be_bytes([frame[sum], frame[sum + 1]]);
    let word = |bytes| u32::from(u16::from_be_bytes(bytes));
    let check = checksum::update(check, word(lower.before), word(lower.after));
    frame[at..at + 2].copy_from_slice(&lower.mss);
    frame[sum..sum + 2].copy_from_slice(&check.to_be_bytes());
    frame
}

/// The MSS option of a frame, and whether the checksum holds, as another library sees it.
fn seen(frame: &[u8]) -> (Option<u16>, bool) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("TCP is wanted") };
    let mss = tcp.options_iterator().find_map(|option| match option {
        Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
        _ => None,
    });
    let check = match packet.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap()
        }
        etherparse::NetSlice::Ipv6(ip) => {
            tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap()
        }
        _ => panic!("IP is wanted"),
    };
    (mss, check == tcp.checksum())
}

#[test]
fn a_value_that_is_too_large_is_lowered_wherever_the_option_stands() {
    let cases: [(&str, &[u8]); 6] = [
        ("first", &[2, 4, 0x05, 0xb4]),
        ("behind a NOP, at an odd offset", &[1, 2, 4, 0x05, 0xb4, 0, 0, 0]),
        ("behind two", &[1, 1, 2, 4, 0x05, 0xb4, 1, 1]),
        ("behind a window scale", &[3, 3, 7, 2, 4, 0xff, 0xff, 0]),
        ("last of many", &[8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 4, 2, 2, 4, 0x22, 0xf4]),
        ("behind 36 NOPs", &[&[1u8; 36][..], &[2, 4, 0x05, 0xb4]].concat()),
    ];
    for (what, options) in cases {
        let frame = segment(VIP, syn_ack, options);
        assert_eq!(seen(&lowered(&frame)), (Some(MOST_V4), true), "{what}");
        assert_eq!(seen(&lowered(&segment_v6(options))), (Some(MOST_V6), true), "{what}, IPv6");
        let changed = lowered(&frame).iter().zip(&frame).filter(|(new, old)| new != old).count();
        assert!(changed <= 4, "{what}: {changed} bytes changed");
        assert_eq!(decide(&lowered(&frame)), Clamp::Keep(ClampReason::LowEnough), "{what}, again");
    }
    let syn = segment(VIP, |tcp| tcp.syn = true, &[2, 4, 0x05, 0xb4]);
    assert_eq!(seen(&lowered(&syn)), (Some(MOST_V4), true), "SYN without ACK");
}

#[test]
fn vlan_tags_and_ip_options_are_looked_through() {
    let plain = segment(VIP, syn_ack, &[2, 4, 0x05, 0xb4]);
    let tagged = [&plain[..12], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7], &plain[12..]].concat();
    let Clamp::Lower(lower) = decide(&tagged) else { panic!("{:?}", decide(&tagged)) };
    let Clamp::Lower(expected) = decide(&plain) else { panic!("{:?}", decide(&plain)) };
    let moved = Lower { at: expected.at + 8, checksum_at: expected.checksum_at + 8, ..expected };
    assert_eq!(lower, moved);
    let mut options = [&plain[..34], &[1; 8], &plain[34..]].concat();
    options[14] = 0x47;
    options[17] += 8;
    let Clamp::Lower(lower) = decide(&options) else { panic!("{:?}", decide(&options)) };
    assert_eq!(lower, moved);
}

#[test]
fn nothing_is_raised_and_no_option_is_added() {
    use ClampReason::{LowEnough, NoOption};
    let cases: [(&str, &[u8], ClampReason); 8] = [
        ("equal", &[2, 4, 0x05, 0xa0], LowEnough),
        ("lower", &[2, 4, 0x02, 0x18], LowEnough),
        ("zero", &[2, 4, 0, 0], LowEnough),
        ("no options", &[], NoOption),
        ("behind the end", &[0, 2, 4, 0x05, 0xb4, 0, 0, 0], NoOption),
        ("of another length", &[2, 3, 0x05, 0xb4], NoOption),
        ("behind an option of length 0", &[8, 0, 1, 1, 2, 4, 0x05, 0xb4], NoOption),
        ("behind an option of length 1", &[8, 1, 1, 1, 2, 4, 0x05, 0xb4], NoOption),
    ];
    for (what, options, reason) in cases {
        assert_eq!(decide(&segment(VIP, syn_ack, options)), Clamp::Keep(reason), "{what}");
    }
}

#[test]
fn other_packets_are_left_alone() {
    let options = [2, 4, 0x05, 0xb4];
    let ack = segment(VIP, |tcp| tcp.ack = true, &options);
    assert_eq!(decide(&ack), Clamp::NotOurs, "no SYN");
    assert_eq!(decide(&segment(CLIENT, syn_ack, &options)), Clamp::NotOurs, "not from a service address");
    let good = segment(VIP, syn_ack, &options);
    for (what, offset, value) in
        [("UDP", 23, 17), ("a fragment", 20, 0x20), ("ARP", 13, 6), ("ihl", 14, 0x44)]
    {
        let mut frame = good.clone();
        frame[offset] = value;
        assert_eq!(decide(&frame), Clamp::NotOurs, "{what}");
    }
    for len in 0..good.len() {
        assert_eq!(decide(&good[..len]), Clamp::NotOurs, "cut to {len} bytes");
    }
    let mut frame = good.clone();
    frame[46] = 0xf2;
    assert_eq!(decide(&frame), Clamp::Keep(ClampReason::NoOption), "a data offset beyond the packet");
    frame[46] = 0x42;
    assert_eq!(decide(&frame), Clamp::Keep(ClampReason::NoOption), "a data offset within the header");
}
