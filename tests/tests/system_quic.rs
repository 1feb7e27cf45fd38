//! QUIC between quinn's client and quinn's servers: connections that go on from another address.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use lb_tests::system::{Identity, Ids, QuicClient, QuicServer, Rig, UdpEcho, ask_udp, until};
use lb_userspace::lab::{Role, VIP_IPIP, VIP_L2, VIP_L2_V6};

const NAMES: [&str; 3] = ["b1", "b2", "b3"];
/// Moves per connection: the odds that all of them end where the first one was by chance are 1 in 3^6.
const MOVES: u16 = 6;

/// A service on UDP port 443 with three backends.
fn service(vip: &str, forwarding: &str, quic: &str, ids: [Option<u64>; 3], v6: bool) -> String {
    let id = |id: Option<u64>| id.map_or_else(String::new, |id| format!(", server_id: {id:#x}"));
    let address = |n| if v6 { format!("\"2001:db8::2{n}\"") } else { format!("203.0.113.2{n}") };
    let backends: String = (1..)
        .zip(ids)
        .map(|(n, own)| format!("      - {{name: b{n}, address: {}{}}}\n", address(n), id(own)))
        .collect();
    format!(
        "services:\n  - name: quic\n    address: \"{vip}\"\n    protocol: udp\n    port: 443\n    \
         forwarding: {forwarding}\n    quic: {quic}\n    backends:\n{backends}"
    )
}

struct Farm {
    rig: Rig,
    servers: Vec<QuicServer>,
    identity: Identity,
    to: SocketAddr,
}

impl Farm {
    /// Servers with these connection IDs behind this service.
    fn new(to: SocketAddr, services: &str, ids: impl Fn(u8) -> Ids) -> anyhow::Result<Self> {
        let rig = Rig::of(|lab| lab.backends(3).big_bytes(0).ipv6())?;
        let identity = Identity::new()?;
        let mut servers = Vec::new();
        for (number, name) in (1..).zip(NAMES) {
            let netns = rig.lab.netns(Role::Backend(number));
            servers.push(QuicServer::start(&netns, to, name, &identity, ids(number))?);
        }
        rig.start_text(services)?;
        rig.wait_up()?;
        Ok(Self { rig, servers, identity, to })
    }

    fn connect(&self, port: u16) -> anyhow::Result<QuicClient> {
        QuicClient::connect(&self.rig.lab.netns(Role::Client), port, self.to, &self.identity)
    }

    /// Connections from four ports, each moving several times between questions, stay with their backends.
    fn expect_connections_to_move(&self) -> anyhow::Result<()> {
        let mut homes = std::collections::BTreeSet::new();
        for first in [30_000, 31_000, 32_000, 33_000] {
            let connection = self.connect(first)?;
            let home = connection.ask(&[7; 3000])?;
            for port in first + 1..=first + MOVES {
                connection.migrate(port)?;
                let answer = connection.ask(&vec![port as u8; 3000]).with_context(|| {
                    format!("the connection from {first} to {home} does not survive port {port}")
                })?;
                ensure!(answer == home, "moved from {home} to {answer} with port {port}");
            }
            homes.insert(home);
        }
        ensure!(homes.len() > 1, "all connections at {homes:?}: nothing is shown");
        let held: usize = self.servers.iter().map(QuicServer::connections).sum();
        println!("connections held: {held}, by {homes:?}");
        Ok(())
    }
}

#[test]
fn draft_ids_keep_a_connection_whose_client_moves() -> anyhow::Result<()> {
    let ids = [Some(0x01ab_cdef), Some(0x02ab_cdef), Some(0x03ab_cdef)];
    let format = "{server_id: {format: draft, config_id: 2, length: 4}}";
    let services = service(&VIP_L2.to_string(), "l2", format, ids, false);
    let server = |n: u8| Ids::Draft(2, 4, u64::from(n) << 24 | 0xab_cdef);
    Farm::new((VIP_L2, 443).into(), &services, server)?.expect_connections_to_move()
}

#[test]
fn draft_ids_work_over_ipv6() -> anyhow::Result<()> {
    let format = "{server_id: {format: draft, config_id: 0, length: 1}}";
    let services = service(&VIP_L2_V6.to_string(), "l2", format, [Some(1), Some(2), Some(3)], true);
    let farm = Farm::new((VIP_L2_V6, 443).into(), &services, |n| Ids::Draft(0, 1, n.into()))?;
    farm.expect_connections_to_move()
}

#[test]
fn katrans_ids_keep_a_connection_whose_client_moves() -> anyhow::Result<()> {
    // The first backend's ids are of version 1, the others' of version 2.
    let ids = [Some(0xfe01), Some(0x02_0304), Some(0xff_fffe)];
    let services = service(&VIP_L2.to_string(), "l2", "{server_id: {format: katran}}", ids, false);
    let server = |n: u8| match n {
        1 => Ids::Katran1(0xfe01),
        2 => Ids::Katran2(0x02_0304),
        _ => Ids::Katran2(0xff_fffe),
    };
    Farm::new((VIP_L2, 443).into(), &services, server)?.expect_connections_to_move()
}

/// Through a tunnel, where QUIC's own path MTU discovery meets it.
#[test]
fn ids_work_through_a_tunnel() -> anyhow::Result<()> {
    let format = "{server_id: {format: draft, config_id: 6, length: 8}}";
    let server = |n: u8| 0x0123_4567_89ab_cd00 | u64::from(n);
    let services = service(&VIP_IPIP.to_string(), "ipip", format, [1, 2, 3].map(|n| Some(server(n))), false);
    let rig_and = Farm::new((VIP_IPIP, 443).into(), &services, |n| Ids::Draft(6, 8, server(n)))?;
    rig_and.rig.decap_all(3)?;
    rig_and.expect_connections_to_move()
}

/// The other tests can fail: without server ids the same moves break the connection.
#[test]
fn without_ids_a_connection_breaks_when_its_client_moves() -> anyhow::Result<()> {
    let services = service(&VIP_L2.to_string(), "l2", "{}", [None; 3], false);
    let farm = Farm::new((VIP_L2, 443).into(), &services, |_| Ids::Random)?;
    let stayed = farm.connect(29_000)?;
    stayed.ask(b"first")?;
    let moved = farm.expect_connections_to_move();
    let said =
        format!("{:#}", moved.err().context("all moves survived, without anything that names the server")?);
    ensure!(said.contains("does not survive"), "{said}");
    // One that stays is not disturbed.
    stayed.ask(b"second").map(drop)
}

/// An id that no backend has, or that a client has made up for its first packet, decides nothing.
#[test]
fn foreign_ids_fall_back_to_the_flow() -> anyhow::Result<()> {
    let format = "{server_id: {format: draft, config_id: 2, length: 4}}";
    let services = service(&VIP_L2.to_string(), "l2", format, [Some(1), Some(2), Some(3)], false);
    // Their ids are of another configuration, and name servers that are not there.
    let server = |n: u8| if n == 1 { Ids::Draft(3, 4, 2) } else { Ids::Draft(2, 4, 0x99) };
    let farm = Farm::new((VIP_L2, 443).into(), &services, server)?;
    for port in 34_000..34_006 {
        let connection = farm.connect(port)?;
        let home = connection.ask(b"one")?;
        ensure!((0..3).all(|_| connection.ask(b"more").is_ok_and(|name| name == home)), "torn from {home}");
    }
    Ok(())
}

/// UDP without QUIC: a question, an answer, the same server each time for the same flow.
#[test]
fn datagrams_are_answered_over_both_families() -> anyhow::Result<()> {
    let rig = Rig::of(|lab| lab.backends(3).big_bytes(0).ipv6())?;
    let mut servers = Vec::new();
    for (number, name) in (1..).zip(NAMES) {
        let netns = rig.lab.netns(Role::Backend(number));
        servers.push(UdpEcho::listen(&netns, (VIP_L2, 53), name)?);
        servers.push(UdpEcho::listen(&netns, (VIP_L2_V6, 53), name)?);
    }
    let backends = |v6: bool| -> String {
        let address = |n| if v6 { format!("\"2001:db8::2{n}\"") } else { format!("203.0.113.2{n}") };
        (1..=3).map(|n| format!("{{address: {}}}, ", address(n))).collect()
    };
    rig.start_text(&format!(
        "services:\n  - {{name: dns, address: {VIP_L2}, protocol: udp, port: 53, forwarding: l2, backends: [{}]}}\n  \
         - {{name: dns6, address: \"{VIP_L2_V6}\", protocol: udp, port: 53, forwarding: l2, backends: [{}]}}\n",
        backends(false),
        backends(true)
    ))?;
    rig.wait_up()?;
    for to in [SocketAddr::from((VIP_L2, 53)), SocketAddr::from((VIP_L2_V6, 53))] {
        let client = rig.lab.netns(Role::Client);
        let mut seen = std::collections::BTreeSet::new();
        until("answers of all", Duration::from_secs(10), || {
            let answer = ask_udp(&client, to, "hello")??;
            let name = answer.strip_suffix(" hello").with_context(|| format!("{answer:?}"))?;
            seen.insert(name.to_owned());
            Ok((seen.len() == 3).then_some(()))
        })?;
    }
    Ok(())
}
