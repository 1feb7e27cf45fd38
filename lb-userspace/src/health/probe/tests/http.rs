//! Requests and responses.

use super::server::{Server, Then};
use super::*;
use crate::model::{BodyMatch, HttpCheck};

fn check(expected_body: Option<BodyMatch>) -> CheckKind {
    CheckKind::Http(HttpCheck {
        tls: None,
        method: "GET".into(),
        path: "/healthz".into(),
        host: None,
        headers: vec![("X-Probe".into(), "yes".into())],
        expected_status: vec![200..=399],
        expected_body,
    })
}

fn contains(text: &str) -> CheckKind {
    check(Some(BodyMatch::Contains(text.into())))
}

fn matches(pattern: &str) -> CheckKind {
    check(Some(BodyMatch::Regex(pattern.into())))
}

async fn server(say: &'static str, then: Then) -> Server {
    Server::start("127.0.0.1", "\r\n\r\n", say, then).await
}

#[tokio::test]
async fn what_is_sent() {
    let mut server = Server::start("::1", "\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", Then::Wait).await;
    assert_eq!(result(&check(None), server.address).await, Ok(()));
    let request = String::from_utf8(server.seen.recv().await.unwrap().request).unwrap();
    let mut lines: Vec<_> = request.trim_end().split("\r\n").collect();
    assert_eq!(lines.remove(0), "GET /healthz HTTP/1.1");
    lines.sort_unstable();
    let (agent, host) =
        (concat!("user-agent: lb-health/", env!("CARGO_PKG_VERSION")), format!("host: {}", server.address));
    assert_eq!(lines, ["connection: close", &host, agent, "x-probe: yes"]);
}

#[tokio::test]
async fn good_responses() {
    let cases = [
        (check(None), "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", Then::Wait),
        (check(None), "HTTP/1.0 302 Found\r\n\r\n", Then::Close),
        (check(None), "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Then::Close),
        (contains("ok"), "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall ok\r\n", Then::Wait),
        (contains("ok"), "HTTP/1.1 200 OK\r\n\r\nall ok", Then::Close),
        (
            contains("all ok"),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nall \r\n2\r\nok\r\n",
            Then::Wait,
        ),
        (matches("^all (ok|well)$"), "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall well", Then::Wait),
        (matches("x{10}"), "HTTP/1.1 200 OK\r\n\r\n", Then::Repeat("xxxxxxxxxx")),
    ];
    for (check, say, then) in cases {
        let server = server(say, then).await;
        assert_eq!(result(&check, server.address).await, Ok(()), "{say}");
    }
}

#[tokio::test]
async fn bad_responses() {
    let cases = [
        (
            check(None),
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            Then::Wait,
            "HTTP 503, wanted 200–399",
            "status",
        ),
        (
            contains("ok"),
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<h1>no\n",
            Then::Wait,
            "body does not contain `ok` but begins with `<h1>no\\n`",
            "body",
        ),
        (contains("ok"), "HTTP/1.1 204 No Content\r\n\r\n", Then::Wait, "body does not contain `ok`", "body"),
        (
            matches("^ok$"),
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nnope\n",
            Then::Wait,
            "body does not match `^ok$` but begins with `nope\\n`",
            "body",
        ),
        (
            contains("ok"),
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno",
            Then::Close,
            "connection closed before the response body was complete",
            "closed",
        ),
        (
            check(None),
            "HTTP/1.1 200 O",
            Then::Close,
            "connection closed before the response header was complete",
            "closed",
        ),
        (check(None), "", Then::Close, "connection closed before the response header was complete", "closed"),
        (check(None), "", Then::Reset, "connection reset before the response header was complete", "reset"),
        (
            check(None),
            "SSH-2.0-OpenSSH_9.2\r\n",
            Then::Wait,
            "no valid HTTP/1.1 response: invalid HTTP version parsed",
            "protocol",
        ),
    ];
    for (check, say, then, expected, label) in cases {
        let server = server(say, then).await;
        assert_eq!(words(result(&check, server.address).await), (expected.into(), label), "{say}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let target = ([127, 0, 0, 1], free_port()).into();
    assert_eq!(words(result(&check(None), target).await), ("connection refused".into(), "refused"));
}

#[tokio::test]
async fn endless_responses_are_not_read_to_their_end() {
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let too_large = "no valid HTTP/1.1 response: message head is too large";
    let begins = "but begins with `0123456789012345`";
    let cases = [
        ("HTTP/1.1 200 OK\r\nX-Long: ", "0123456789abcdef", too_large.to_owned()),
        ("HTTP/1.1 200 OK\r\n", "A: b\r\n", too_large.to_owned()),
        (chunks, "10\r\n0123456789012345\r\n", format!("body does not contain `ok` {begins}")),
    ];
    for (say, piece, expected) in cases {
        let mut server = server(say, Then::Repeat(piece)).await;
        let (found, _) = words(result(&contains("ok"), server.address).await);
        // Only the first chunk or so is quoted, up to forty characters.
        let found = found.replace(&"0123456789012345".repeat(2), "0123456789012345").replace("01234567…", "");
        assert_eq!(found, expected);
        let seen = server.seen.recv().await.unwrap();
        assert!(seen.end.is_err() && seen.sent < 32 << 20, "{} bytes", seen.sent);
    }
}

#[tokio::test]
async fn slow_responses() {
    let cases = [
        ("", "no complete response header within 400ms"),
        ("HTTP/1.1 200 OK\r\nX-Slow: ", "no complete response header within 400ms"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno", "no complete response body within 400ms"),
    ];
    for (say, expected) in cases {
        let mut server = server(say, Then::Wait).await;
        assert_eq!(words_after_waiting(&contains("ok"), server.address).await, expected);
        assert!(server.seen.recv().await.unwrap().end.is_err(), "the connection is gone with the probe");
    }
}

#[tokio::test]
async fn source_and_port_are_what_the_server_sees() {
    let mut server = server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Then::Close).await;
    let (source, source_port) = (Some("127.0.0.2".parse().unwrap()), Some(free_port()));
    let dial = Dial { source, source_port, ..Dial::to(server.address) };
    for _ in 0..3 {
        assert_eq!(probe(&contains("ok"), &dial, LONG).await.result, Ok(()));
        assert_eq!(server.seen.recv().await.unwrap().peer, ([127, 0, 0, 2], source_port.unwrap()).into());
    }
}
