//! Connections, and how sockets are bound and closed.

use std::io::ErrorKind;
use std::net::TcpStream;

use socket2::{Domain, Socket, Type};

use super::super::{Stage, Unreachable};
use super::server::{Server, Then};
use super::*;
use crate::model::Exchange;

fn connect() -> CheckKind {
    CheckKind::Tcp(Exchange::default())
}

fn ping() -> CheckKind {
    CheckKind::Tcp(Exchange { send: Some(b"PING\r\n".to_vec()), expect: Some(b"PONG".to_vec()) })
}

#[tokio::test]
async fn a_connection_is_enough_and_ends_with_a_reset() {
    for ip in ["127.0.0.1", "::1"] {
        let mut server = Server::start(ip, "", "", Then::Wait).await;
        let outcome = probe(&connect(), &Dial::to(server.address), LONG).await;
        assert_eq!(outcome.result, Ok(()));
        assert!(outcome.latency > Duration::ZERO && outcome.latency < LONG);
        let end = server.seen.recv().await.unwrap().end;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn nobody_listens() {
    let target = ([127, 0, 0, 1], free_port()).into();
    assert_eq!(words(result(&connect(), target).await), ("connection refused".into(), "refused"));
}

#[tokio::test]
async fn a_full_queue_does_not_answer() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let target = listener.local_addr().unwrap().as_socket().unwrap();
    let _filler = TcpStream::connect(target).unwrap();
    let outcome = probe(&connect(), &Dial::to(target), SHORT).await;
    assert_eq!(outcome.result, Err(Failure::Timeout { stage: Stage::Connect, after: SHORT }));
    assert!(outcome.latency >= SHORT);
    assert_eq!(words(outcome.result).0, "no answer to the connection request within 400ms");
}

#[tokio::test]
async fn no_way_there() {
    // The kernel refuses connections to broadcast addresses in these words, and sends nothing.
    let target = "255.255.255.255:9".parse().unwrap();
    assert_eq!(result(&connect(), target).await, Err(Failure::Unreachable(Unreachable::Network)));
}

#[tokio::test]
async fn the_answer_holds_what_is_expected() {
    for then in [Then::Close, Then::Wait, Then::Repeat("x")] {
        let mut server = Server::start("127.0.0.1", "PING\r\n", "+PONG\r\n", then).await;
        assert_eq!(result(&ping(), server.address).await, Ok(()));
        assert_eq!(server.seen.recv().await.unwrap().request, b"PING\r\n");
    }
}

#[tokio::test]
async fn wrong_answers() {
    let cases = [
        ("-ERR\r\n", Then::Close, "answer does not contain `PONG` but begins with `-ERR\\r\\n`", "answer"),
        ("", Then::Close, "connection closed before an answer", "closed"),
        ("", Then::Reset, "connection reset before an answer", "reset"),
    ];
    for (say, then, expected, label) in cases {
        let server = Server::start("127.0.0.1", "PING\r\n", say, then).await;
        assert_eq!(words(result(&ping(), server.address).await), (expected.into(), label));
    }
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let mut server = Server::start("127.0.0.1", "PING\r\n", "", Then::Repeat("0123456789")).await;
    let (found, _) = words(result(&ping(), server.address).await);
    let begin = "0123456789".repeat(4);
    assert_eq!(found, format!("answer does not contain `PONG` but begins with `{begin}…`"));
    assert!(server.seen.recv().await.unwrap().end.is_err());
}

#[tokio::test]
async fn slow_answers() {
    for (say, expected) in [("", "no answer within 400ms"), ("+PO", "no complete answer within 400ms")] {
        let mut server = Server::start("127.0.0.1", "PING\r\n", say, Then::Wait).await;
        assert_eq!(words_after_waiting(&ping(), server.address).await, expected);
        let seen = server.seen.recv().await.unwrap();
        assert!(seen.end.is_err(), "the connection is gone with the probe: {seen:?}");
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read() {
    let send = Some(vec![0; 16 << 20]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let check = CheckKind::Tcp(Exchange { send, expect: None });
    let found = words_after_waiting(&check, listener.local_addr().unwrap()).await;
    assert_eq!(found, "request could not be sent within 400ms");
}

#[tokio::test]
async fn source_and_port_are_what_the_server_sees() {
    let mut server = Server::start("127.0.0.1", "PING\r\n", "PONG", Then::Close).await;
    let (source, port) = ("127.0.0.2".parse().unwrap(), free_port());
    let dial = Dial { source: Some(source), source_port: Some(port), ..Dial::to(server.address) };
    for check in [connect(), ping(), ping(), connect()] {
        assert_eq!(probe(&check, &dial, LONG).await.result, Ok(()), "nothing is left that holds the port");
        assert_eq!(server.seen.recv().await.unwrap().peer, ([127, 0, 0, 2], port).into());
    }
    let dial = Dial { source_port: None, interface: Some("lo".into()), ..dial };
    assert_eq!(probe(&ping(), &dial, LONG).await.result, Ok(()));
    assert_eq!(server.seen.recv().await.unwrap().peer.ip(), source);
}

#[tokio::test]
async fn one_source_port_towards_two_targets() {
    let one = Server::start("127.0.0.1", "never", "", Then::Wait).await;
    let two = Server::start("127.0.0.1", "never", "", Then::Wait).await;
    let port = free_port();
    let source_port = Some(port);
    let _held = Dial { source_port, ..Dial::to(one.address) }.tcp().await.unwrap();
    let _other = Dial { source_port, ..Dial::to(two.address) }.tcp().await.unwrap();
    let again = Dial { source_port, ..Dial::to(one.address) }.tcp().await;
    let expected = format!("local port {port} is in use towards {}", one.address);
    assert_eq!(again.err().map(|e| e.to_string()), Some(expected));
}

#[tokio::test]
async fn what_this_host_does_not_have() {
    let to = Dial::to("127.0.0.1:9".parse().unwrap());
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let cases = [
        (
            Dial { source: Some("192.0.2.99".parse().unwrap()), ..to.clone() },
            "192.0.2.99 is no address of this host".to_owned(),
        ),
        (
            Dial { source: Some("::1".parse().unwrap()), ..to.clone() },
            "source ::1 and target 127.0.0.1 are of different families".to_owned(),
        ),
        (Dial { interface: Some("no-such-if".into()), ..to.clone() }, "no interface no-such-if".to_owned()),
        (Dial { source_port: Some(port), ..to.clone() }, format!("local port {port} is in use")),
    ];
    for (dial, expected) in cases {
        assert_eq!(words(probe(&connect(), &dial, LONG).await.result), (expected, "local"));
    }
}
