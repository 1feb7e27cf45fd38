//! A server that says what it is told to, whatever it is asked.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// What it does after its words.
#[derive(Clone, Copy)]
pub(super) enum Then {
    /// Closes.
    Close,
    /// Closes with a reset.
    Reset,
    /// Says nothing more, until the client goes.
    Wait,
    /// Says this again and again, until the client goes.
    Repeat(&'static str),
}

/// What it saw of a connection.
#[derive(Debug)]
pub(super) struct Seen {
    /// The client.
    pub(super) peer: SocketAddr,
    /// What came before it answered.
    pub(super) request: Vec<u8>,
    /// How many bytes it could send.
    pub(super) sent: usize,
    /// How the connection ended.
    pub(super) end: io::Result<usize>,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) seen: UnboundedReceiver<Seen>,
}

impl Server {
    /// Listens on a port of `ip`; answers once `until` has come.
    pub(super) async fn start(ip: &str, until: &'static str, say: &'static str, then: Then) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let (address, (sender, seen)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel());
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                tokio::spawn(serve(stream, peer, (until, say, then), sender.clone()));
            }
        });
        Self { address, seen }
    }
}

async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    script: (&'static str, &'static str, Then),
    seen: UnboundedSender<Seen>,
) {
    if matches!(script.2, Then::Reset) {
        stream.set_zero_linger().unwrap();
    }
    let (request, sent, end) = talk(&mut stream, script).await;
    let _ = seen.send(Seen { peer, request, sent, end });
}

/// Follows the script on any stream.
pub(super) async fn talk(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    (until, say, then): (&str, &str, Then),
) -> (Vec<u8>, usize, io::Result<usize>) {
    let mut request = Vec::new();
    while !request.ends_with(until.as_bytes()) {
        match stream.read_buf(&mut request).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    let mut sent = say.len();
    let mut end = stream.write_all(say.as_bytes()).await.map(|()| 0);
    match then {
        Then::Close => end = stream.shutdown().await.map(|()| 0),
        Then::Reset => {}
        Then::Wait => end = stream.read(&mut [0; 64]).await,
        Then::Repeat(piece) => {
            while end.is_ok() {
                end = stream.write_all(piece.as_bytes()).await.map(|()| 0);
                sent += piece.len();
            }
        }
    }
    (request, sent, end)
}
