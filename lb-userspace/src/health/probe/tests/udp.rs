//! Datagrams.

use tokio::net::UdpSocket;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::*;
use crate::model::Exchange;

fn expecting(expect: &str) -> CheckKind {
    CheckKind::Udp(Exchange { send: Some(b"PING".to_vec()), expect: Some(expect.into()) })
}

/// Answers every datagram with `say`, or not at all; hands over what it got and from where.
async fn server(
    ip: &str,
    say: Option<&'static str>,
) -> (SocketAddr, UnboundedReceiver<(Vec<u8>, SocketAddr)>) {
    let socket = UdpSocket::bind((ip, 0)).await.unwrap();
    let (address, (sender, seen)) = (socket.local_addr().unwrap(), mpsc::unbounded_channel());
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let _ = sender.send((buffer[..length].to_vec(), peer));
            if let Some(say) = say {
                let _ = socket.send_to(say.as_bytes(), peer).await;
            }
        }
    });
    (address, seen)
}

#[tokio::test]
async fn the_answer_holds_what_is_expected() {
    for ip in ["127.0.0.1", "::1"] {
        let (target, mut seen) = server(ip, Some("+PONG")).await;
        assert_eq!(result(&expecting("PONG"), target).await, Ok(()));
        assert_eq!(seen.recv().await.unwrap().0, b"PING");
    }
}

#[tokio::test]
async fn wrong_answers_fail_at_once() {
    let (target, _seen) = server("127.0.0.1", Some("-ERR\0")).await;
    let expected = "answer does not contain `PONG` but begins with `-ERR\\0`";
    assert_eq!(words(result(&expecting("PONG"), target).await), (expected.into(), "answer"));
}

#[tokio::test]
async fn silence_fails_only_where_an_answer_is_expected() {
    let (target, mut seen) = server("127.0.0.1", None).await;
    assert_eq!(words_after_waiting(&expecting("PONG"), target).await, "no answer within 400ms");
    let any = CheckKind::Udp(Exchange::default());
    let outcome = probe(&any, &Dial::to(target), LONG).await;
    assert_eq!(outcome.result, Ok(()));
    assert!(outcome.latency >= Duration::from_millis(200) && outcome.latency < LONG / 2);
    assert_eq!(probe(&any, &Dial::to(target), Duration::from_millis(50)).await.result, Ok(()));
    assert_eq!(seen.recv().await.unwrap().0, b"PING");
    assert_eq!(seen.recv().await.unwrap().0, b"", "an empty datagram by default");
}

#[tokio::test]
async fn any_answer_ends_the_waiting() {
    let (target, _seen) = server("127.0.0.1", Some("whatever")).await;
    assert_eq!(result(&CheckKind::Udp(Exchange::default()), target).await, Ok(()));
}

#[tokio::test]
async fn nobody_listens() {
    for ip in ["127.0.0.1", "::1"] {
        let target = UdpSocket::bind((ip, 0)).await.unwrap().local_addr().unwrap();
        for check in [expecting("PONG"), CheckKind::Udp(Exchange::default())] {
            assert_eq!(words(result(&check, target).await), ("port unreachable".into(), "unreachable"));
        }
    }
}

#[tokio::test]
async fn source_and_port_are_what_the_server_sees() {
    let (target, mut seen) = server("127.0.0.1", Some("PONG")).await;
    let (source, source_port) = (Some("127.0.0.2".parse().unwrap()), Some(free_port()));
    let dial = Dial { source, source_port, interface: Some("lo".into()), target };
    for _ in 0..3 {
        assert_eq!(probe(&expecting("PONG"), &dial, LONG).await.result, Ok(()));
        assert_eq!(seen.recv().await.unwrap().1, ([127, 0, 0, 2], source_port.unwrap()).into());
    }
}
