//! Small servers inside a backend's namespace: an agent that says what it is told to, an echo for datagrams.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use lb_userspace::lab::Netns;

use super::inside;

/// A thread that ends when this is dropped.
#[derive(Debug)]
struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves again and again.
    fn start(mut serve: impl FnMut() + Send + 'static) -> Self {
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
        let on = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
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
    pub fn listen(netns: &Netns, on: SocketAddrV4, name: &'static str) -> anyhow::Result<Self> {
        let socket = inside(netns, || UdpSocket::bind(on))?.with_context(|| format!("serving {on}"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50))).context("socket")?;
        let mut bytes = [0; 2048];
        Ok(Self(Server::start(move || {
            if let Ok((length, from)) = socket.recv_from(&mut bytes) {
                let answer = [name.as_bytes(), b" ", &bytes[..length]].concat();
                let _client_gone = socket.send_to(&answer, from);
            }
        })))
    }
}

/// Sends a datagram from a port of its own in the namespace; the answer.
pub fn ask_udp(netns: &Netns, to: SocketAddrV4, question: &str) -> anyhow::Result<io::Result<String>> {
    inside(netns, || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.send_to(question.as_bytes(), to)?;
        let mut bytes = [0; 2048];
        let length = socket.recv(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    })
}
