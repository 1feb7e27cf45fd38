//! Writes well-formed inputs of the target `engine` into a directory, for discovery to begin with.

#[path = "../../tests/src/frames.rs"]
mod frames;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use frames::{Body, Build, SERVICE_VLAN, VLAN};

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 9];
const V4: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10))];
const V6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10)),
];

/// One family's part of the tables: two backends, slot, service flags, QUIC format, VIP flags, four rates.
fn family(method: u8, options: u8, mtu: u16, slot: u8, flags: u8) -> Vec<u8> {
    let [m0, m1] = mtu.to_be_bytes();
    let backend = [method, options, m0, m1, 0x11];
    [&backend[..], &backend, &[slot, flags, 1, 2, 1, 7, 0, 1, 0, 1]].concat()
}

fn input(control: u8, parts: [Vec<u8>; 2], frames: &[Vec<u8>]) -> Vec<u8> {
    let [first, second] = parts;
    let mut bytes = [&[control][..], &first, &second, &[1]].concat();
    bytes.resize(48, 0);
    for frame in frames {
        bytes.extend((frame.len() as u16).to_be_bytes());
        bytes.extend(frame);
    }
    bytes
}

fn frames() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let mut all = Vec::new();
    for [from, to] in [V4, V6] {
        let of = |body, port| Build::new((CLIENT, OWN), (from, 4000), (to, port), body);
        let is_v6 = to.is_ipv6();
        let (echo, error) = if is_v6 { (128, 2) } else { (8, 3) };
        let sent = Build::new((CLIENT, OWN), (to, 80), (from, 4000), Body::Tcp(16)).payload(8).packet();
        let quoting = Build { payload: sent, ..of(Body::Icmp(error, 4, [0; 4]), 0) };
        let parts = of(Body::Udp, 53).payload(64).fragments(32, 7).map(|part| part.bytes()).to_vec();
        all.push(("tcp", vec![of(Body::Tcp(2), 80).bytes(), of(Body::Tcp(16), 80).payload(9).bytes()]));
        all.push(("udp", vec![of(Body::Udp, 53).payload(3).bytes(), of(Body::UdpUnsummed, 53).bytes()]));
        all.push(("sctp", vec![of(Body::Sctp, 5060).bytes(), of(Body::Tcp(2), 0x2001).bytes()]));
        all.push(("tags", vec![of(Body::Tcp(16), 80).tags(&[(SERVICE_VLAN, 3), (VLAN, 5)]).bytes()]));
        all.push(("echo", vec![of(Body::Icmp(echo, 0, [1; 4]), 0).payload(9).bytes()]));
        all.push(("error", vec![quoting.bytes()]));
        all.push(("parts", parts));
        all.push(("big", vec![of(Body::Tcp(16), 80).ip_len(1400).tags(&[(VLAN, 5)]).bytes()]));
        let quic = Build { payload: [&[0x40, 2 << 5, 0x55][..], &[7; 30]].concat(), ..of(Body::Udp, 53) };
        all.push(("quic", vec![quic.bytes()]));
        if is_v6 {
            let asks = Build {
                payload: [&[0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10][..], &[1, 1], &CLIENT].concat(),
                ttl: 255,
                ..of(Body::Icmp(135, 0, [0; 4]), 0)
            };
            let headers = of(Body::Tcp(2), 80).padding_extension(0, 0).padding_extension(60, 1).fragment_header(0, false, 3);
            all.push(("ndp", vec![asks.bytes()]));
            all.push(("headers", vec![headers.bytes()]));
        } else {
            let arp = [&[0xff; 6][..], &CLIENT, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &CLIENT, &[198, 51, 100, 7, 0, 0, 0, 0, 0, 0, 203, 0, 113, 10]];
            all.push(("arp", vec![arp.concat()]));
            all.push(("options", vec![Build { options: 12, ..of(Body::Tcp(2), 80) }.bytes()]));
        }
    }
    all
}

fn main() -> std::io::Result<()> {
    let directory = std::env::args().nth(1).expect("a directory to write to");
    for (n, (name, frames)) in frames().into_iter().enumerate() {
        // Each kind of packet through another kind of tables.
        for (m, method) in [1u8, 2, 3, 4, 5].into_iter().enumerate() {
            if (n + m) % 2 == 0 {
                let options = [0, 1, 0x25, 0x83, 4][m];
                let mtu = if name == "big" { 1300 } else { 1500 };
                let flags = if name == "quic" { 8 } else { [0, 1, 7, 0, 4][m] };
                let part = || family(method, options, mtu, n as u8 % 6, flags);
                let bytes = input([1, 7, 15, 1, 7][m], [part(), part()], &frames);
                std::fs::write(format!("{directory}/{name}-{n}-{method}"), bytes)?;
            }
        }
    }
    Ok(())
}
