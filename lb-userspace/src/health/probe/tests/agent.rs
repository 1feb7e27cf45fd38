//! Agents.

use super::super::{Admin, AgentReport, Operational, ask};
use super::server::{Server, Then};
use super::*;

async fn asked(say: &'static str, then: Then, timeout: Duration) -> Result<AgentReport, String> {
    let server = Server::start("127.0.0.1", "hello\n", say, then).await;
    ask(&Dial::to(server.address), Some(b"hello\n"), timeout).await.map_err(|failure| failure.to_string())
}

#[tokio::test]
async fn the_first_line_counts_at_once() {
    for (say, then) in [
        ("drain,50%,up\nmaint\n", Then::Wait),
        ("drain 50% up", Then::Close),
        ("drain 50% up\r", Then::Repeat("x")),
    ] {
        let report = asked(say, then, LONG).await.unwrap();
        assert_eq!((report.admin, report.weight_percent), (Some(Admin::Drain), Some(50)));
        assert_eq!(report.operational, Some(Operational::Up));
    }
}

#[tokio::test]
async fn nothing_needs_to_be_sent() {
    let server = Server::start("::1", "", "down#tired\n", Then::Close).await;
    let report = ask(&Dial::to(server.address), None, LONG).await.unwrap();
    assert_eq!((report.operational, report.reason.as_deref()), (Some(Operational::Down), Some("tired")));
}

#[tokio::test]
async fn what_agents_do_wrong() {
    let cases = [
        ("", Then::Close, "connection closed before an answer"),
        ("", Then::Reset, "connection reset before an answer"),
        ("", Then::Repeat("50% "), "the agent's line is longer than 1 KiB"),
        ("hello?\n", Then::Wait, "`hello?` is no agent's answer"),
    ];
    for (say, then, expected) in cases {
        assert_eq!(asked(say, then, LONG).await, Err(expected.to_owned()));
    }
    assert_eq!(asked("", Then::Wait, SHORT).await, Err("no answer within 400ms".to_owned()));
    assert_eq!(asked("up", Then::Wait, SHORT).await, Err("no complete answer within 400ms".to_owned()));
}
