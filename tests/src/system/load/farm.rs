//! Servers of a load in each backend's namespace: they send back a question's number and their own.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow};
use lb_userspace::lab::{Netns, Role, VIP_L2};
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::system::{Identity, Rig, address, inside};

/// TCP and UDP; QUIC has the next one.
pub const LOAD_PORT: u16 = 7000;

/// A question: its number.
pub(super) const QUESTION: usize = 8;
/// An answer: the number again, and the backend's.
pub(super) const ANSWER: usize = QUESTION + 1;

/// The servers on the first backends of a lab. They end when this is dropped.
#[derive(Debug)]
pub struct Farm {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// What QUIC clients trust.
    pub(super) identity: Arc<Identity>,
    /// How many there are.
    pub(super) backends: u8,
}

impl Farm {
    /// Starts them, on the service's address and on the backends' own.
    pub fn start(rig: &Rig, backends: u8) -> anyhow::Result<Self> {
        let identity = Arc::new(Identity::new()?);
        let mut farm = Self { stop: Arc::default(), threads: Vec::new(), identity, backends };
        for number in 1..=backends {
            let (netns, stop) = (rig.lab.netns(Role::Backend(number)), Arc::clone(&farm.stop));
            let identity = Arc::clone(&farm.identity);
            let (ready, started) = mpsc::channel();
            farm.threads.push(thread::spawn(move || {
                let said = ready.clone();
                if let Err(error) = serve(&netns, number, &identity, &stop, &ready) {
                    let _told = said.send(Err(error));
                }
            }));
            started.recv().map_err(|_| anyhow!("the server on b{number} panicked"))??;
        }
        Ok(farm)
    }

    /// Where the service is for this kind, or where a backend itself is.
    pub(super) fn at(backend: Option<u8>, quic: bool) -> SocketAddr {
        let address = backend.map_or(VIP_L2, address);
        SocketAddr::new(IpAddr::V4(address), LOAD_PORT + u16::from(quic))
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

type Ready = mpsc::Sender<anyhow::Result<()>>;

fn serve(
    netns: &Netns,
    number: u8,
    identity: &Identity,
    stop: &AtomicBool,
    ready: &Ready,
) -> anyhow::Result<()> {
    let work = || -> anyhow::Result<()> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
        runtime.block_on(async {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind((Ipv4Addr::UNSPECIFIED, LOAD_PORT).into())?;
            let listener = socket.listen(4096)?;
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(answer(stream, number));
                }
            });
            // Two sockets: an answer comes from the address that was asked.
            for own in [None, Some(number)] {
                let socket = tokio::net::UdpSocket::bind(Farm::at(own, false)).await?;
                tokio::spawn(answer_datagrams(socket, number));
                let socket = UdpSocket::bind(Farm::at(own, true))?;
                let (config, quic) = (EndpointConfig::default(), identity.server()?);
                let endpoint = Endpoint::new(config, Some(quic), socket, Arc::new(TokioRuntime))?;
                tokio::spawn(answer_quic(endpoint, number));
            }
            let _waiting = ready.send(Ok(()));
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        })
    };
    inside(netns, work)?.with_context(|| format!("serving on b{number}"))
}

fn reply(question: &[u8], number: u8) -> Vec<u8> {
    [question, &[number]].concat()
}

async fn answer(mut stream: TcpStream, number: u8) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut question = [0; QUESTION];
    while stream.read_exact(&mut question).await.is_ok() {
        stream.write_all(&reply(&question, number)).await?;
    }
    Ok(())
}

async fn answer_datagrams(socket: tokio::net::UdpSocket, number: u8) {
    let mut bytes = [0; 64];
    loop {
        // An error is an earlier client's, who is gone.
        if let Ok((length, from)) = socket.recv_from(&mut bytes).await {
            let _gone = socket.send_to(&reply(&bytes[..length], number), from).await;
        }
    }
}

async fn answer_quic(endpoint: Endpoint, number: u8) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((mut back, mut question)) = connection.accept_bi().await {
                let Ok(question) = question.read_to_end(QUESTION).await else { return };
                if back.write_all(&reply(&question, number)).await.is_err() || back.finish().is_err() {
                    return;
                }
            }
        });
    }
}
