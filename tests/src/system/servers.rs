//! Small servers inside a backend's namespace: an agent that says what it is told to, an echo for datagrams.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use lb_userspace::lab::Netns;

use super::flows::unspecified;
use super::inside;

/// A thread that ends when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves again and again.
    pub(super) fn start(mut serve: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                serve();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A TCP server that tells whoever connects one line: HAProxy's agent.
#[derive(Debug)]
pub struct Agent {
    line: Arc<Mutex<String>>,
    _server: Server,
}

impl Agent {
    /// Listens on this port of the namespace, and says `line`.
    pub fn listen(netns: &Netns, port: u16, line: &str) -> anyhow::Result<Self> {
        let on = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listener =
            inside(netns, || TcpListener::bind(on))?.with_context(|| format!("listening on {on}"))?;
        listener.set_nonblocking(true).context("listener")?;
        let line = Arc::new(Mutex::new(line.to_owned()));
        let said = Arc::clone(&line);
        let server = Server::start(move || match listener.accept() {
            Ok((mut stream, _)) => {
                let words = said.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let _client_gone = writeln!(stream, "{words}");
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        });
        Ok(Self { line, _server: server })
    }

    /// What it says from now on.
    pub fn say(&self, line: &str) {
        line.clone_into(&mut self.line.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A UDP server that sends back what it gets, with its name in front.
#[derive(Debug)]
pub struct UdpEcho(#[expect(dead_code, reason = "held for its end")] Server);

impl UdpEcho {
    /// Serves this address, which its answers come from.
    pub fn listen(netns: &Netns, on: impl Into<SocketAddr>, name: &'static str) -> anyhow::Result<Self> {
        let on = on.into();
        let socket = inside(netns, || UdpSocket::bind(on))?.with_context(|| format!("serving {on}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50))).context("socket")?;
        let mut bytes = vec![0; usize::from(u16::MAX)];
        Ok(Self(Server::start(move || {
            if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                let answer = [name.as_bytes(), b" ", &bytes[..length]].concat();
                let _client_gone = socket.send_to(&answer, from);
            }
        })))
    }
}

/// A TCP server on many ports at once: tells whoever connects its name and the address that was asked for.
#[derive(Debug)]
pub struct Names(#[expect(dead_code, reason = "held for its end")] Server);

impl Names {
    /// Serves these ports on every address of the namespace.
    pub fn listen(netns: &Netns, ports: &[u16], name: &'static str) -> anyhow::Result<Self> {
        let open = |port: &u16| TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port));
        let listeners: Vec<_> = inside(netns, || ports.iter().map(open).collect::<io::Result<_>>())?
            .with_context(|| format!("listening on {ports:?}"))?;
        listeners.iter().try_for_each(|listener| listener.set_nonblocking(true)).context("listener")?;
        Ok(Self(Server::start(move || {
            for (mut stream, _) in listeners.iter().filter_map(|listener| listener.accept().ok()) {
                if let Ok(asked) = stream.local_addr() {
                    let address = SocketAddr::new(asked.ip().to_canonical(), asked.port());
                    let _client_gone = writeln!(stream, "{name} {address}");
                }
            }
            thread::sleep(Duration::from_millis(5));
        })))
    }
}

/// Connects from any port in the namespace and reads the one line that a [`Names`] says.
pub fn ask_name(
    netns: &Netns,
    to: impl Into<SocketAddr>,
    limit: Duration,
) -> anyhow::Result<io::Result<String>> {
    let to = to.into();
    inside(netns, || {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let mut line = String::new();
        stream.read_to_string(&mut line)?;
        Ok(line.trim_end().to_owned())
    })
}

/// A UDP socket of a client, whose flow stays the same.
#[derive(Debug)]
pub struct Datagrams(UdpSocket);

impl Datagrams {
    /// From this address and port of the namespace to a service.
    pub fn open(netns: &Netns, from: SocketAddr, to: SocketAddr) -> anyhow::Result<Self> {
        let socket = inside(netns, || UdpSocket::bind(from).and_then(|s| s.connect(to).map(|()| s)))?;
        let socket = socket.with_context(|| format!("from {from} to {to}"))?;
        socket.set_read_timeout(Some(Duration::from_secs(2))).context("socket")?;
        Ok(Self(socket))
    }

    /// Sends a datagram; the answer of a [`UdpEcho`]: the server's name and what it got.
    pub fn ask(&self, question: &[u8]) -> io::Result<(String, Vec<u8>)> {
        self.0.send(question)?;
        let mut bytes = vec![0; usize::from(u16::MAX)];
        let length = self.0.recv(&mut bytes)?;
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap_or(length);
        let name = String::from_utf8_lossy(&bytes[..space]).into_owned();
        Ok((name, bytes[(space + 1).min(length)..length].to_vec()))
    }

    /// Sends without waiting.
    pub fn send(&self, question: &[u8]) -> io::Result<usize> {
        self.0.send(question)
    }

    /// Answers that come until none has come for this long.
    pub fn drain(&self, silence: Duration) -> io::Result<usize> {
        self.0.set_read_timeout(Some(silence))?;
        let mut bytes = [0; 2048];
        Ok(std::iter::from_fn(|| self.0.recv(&mut bytes).ok()).count())
    }
}

/// Sends a datagram from a port of its own in the namespace; the answer.
pub fn ask_udp(
    netns: &Netns,
    to: impl Into<SocketAddr>,
    question: &str,
) -> anyhow::Result<io::Result<String>> {
    let to = to.into();
    inside(netns, || {
        let socket = UdpSocket::bind(unspecified(to, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send_to(question.as_bytes(), to)?;
        let mut bytes = [0; 2048];
        let length = socket.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    })
}
