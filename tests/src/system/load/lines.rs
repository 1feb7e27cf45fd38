//! A client's connection of each kind: it asks, and hears who answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::farm::{ANSWER, QUESTION};
use super::tally::Kind;
use crate::system::Identity;

/// After how long a datagram's question is sent again: one that is lost on a busy machine is no stall.
const REPEAT: Duration = Duration::from_millis(300);

/// A connection.
pub(super) enum Line {
    Tcp(TcpStream),
    Udp(tokio::net::UdpSocket),
    Quic(Endpoint, Connection),
}

impl Line {
    pub(super) async fn open(kind: Kind, to: SocketAddr, identity: &Identity) -> io::Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        match kind {
            Kind::Tcp => {
                let stream = TcpStream::connect(to).await?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
            Kind::Udp => {
                let socket = tokio::net::UdpSocket::bind(any).await?;
                socket.connect(to).await?;
                Ok(Self::Udp(socket))
            }
            Kind::Quic => {
                let socket = UdpSocket::bind(any)?;
                let config = EndpointConfig::default();
                let endpoint = Endpoint::new(config, None, socket, Arc::new(TokioRuntime))?;
                let trust = identity.client().map_err(io::Error::other)?;
                let connecting =
                    endpoint.connect_with(trust, to, Identity::NAME).map_err(io::Error::other)?;
                Ok(Self::Quic(endpoint, connecting.await?))
            }
        }
    }

    /// Asks question `number`; the backend that answers it.
    pub(super) async fn ask(&mut self, number: u64) -> io::Result<u8> {
        let question: [u8; QUESTION] = number.to_be_bytes();
        match self {
            Self::Tcp(stream) => {
                let mut answer = [0; ANSWER];
                stream.write_all(&question).await?;
                stream.read_exact(&mut answer).await?;
                who(&question, &answer)
            }
            Self::Udp(socket) => ask_datagram(socket, &question).await,
            Self::Quic(_, connection) => {
                let (mut out, mut back) = connection.open_bi().await?;
                out.write_all(&question).await?;
                out.finish()?;
                who(&question, &back.read_to_end(ANSWER).await.map_err(io::Error::other)?)
            }
        }
    }

    /// Ends it as a client does that has all it wanted.
    pub(super) async fn close(self) {
        match self {
            Self::Tcp(mut stream) => drop(stream.shutdown().await),
            Self::Udp(_) => {}
            Self::Quic(endpoint, connection) => {
                connection.close(0_u32.into(), b"");
                let _told = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
            }
        }
    }
}

async fn ask_datagram(socket: &tokio::net::UdpSocket, question: &[u8]) -> io::Result<u8> {
    let mut answer = [0; 64];
    loop {
        socket.send(question).await?;
        let answered = timeout(REPEAT, async {
            loop {
                let length = socket.recv(&mut answer).await?;
                // The second answer to a question that was sent twice comes before the next one's.
                if let Ok(who) = who(question, &answer[..length]) {
                    return io::Result::Ok(who);
                }
            }
        });
        if let Ok(who) = answered.await {
            return who;
        }
    }
}

fn who(question: &[u8], answer: &[u8]) -> io::Result<u8> {
    match answer.split_last() {
        Some((who, number)) if number == question => Ok(*who),
        _ => Err(io::Error::other(format!("{answer:?} answers {question:?}"))),
    }
}
