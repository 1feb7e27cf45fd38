//! TCP connections made inside a namespace, from fixed source ports: the same flows in every run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use lb_userspace::lab::Netns;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Runs something on a thread of its own inside the namespace. Sockets made there stay there.
pub fn inside<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| -> anyhow::Result<T> {
            enter(netns)?;
            Ok(work())
        });
        thread.join().map_err(|_| anyhow!("panic in namespace {}", netns.name()))?
    })
}

fn enter(netns: &Netns) -> anyhow::Result<()> {
    let file = File::open(netns.path()).with_context(|| format!("opening namespace {}", netns.name()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering namespace {}", netns.name()))
}

/// A request for `http://TO/` over a connection of its own.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// The service.
    pub to: SocketAddr,
    /// The client's port.
    pub port: u16,
    /// How long connecting, and each read, may take.
    pub limit: Duration,
}

/// Any address of the family of `to`, with this port.
pub fn unspecified(to: SocketAddr, port: u16) -> SocketAddr {
    match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

/// Connects from a fixed port of the current namespace.
fn open(request: &Request) -> io::Result<TcpStream> {
    let family = if request.to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = TimeVal::new(request.limit.as_secs() as i64, request.limit.subsec_micros().into());
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(unspecified(request.to, request.port)))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(request.to))?;
    Ok(fd.into())
}

/// Requests the page from the current namespace; the name of the backend that answered.
pub fn fetch(request: &Request) -> io::Result<String> {
    let mut stream = open(request)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let name = page.lines().find_map(|line| line.strip_prefix("backend "));
    name.map(str::to_owned).ok_or_else(|| io::Error::other(format!("no backend named in {page:?}")))
}

/// Requests a page from each of these ports of the namespace, eight at a time; the answering backend by port.
pub fn fetch_all(
    netns: &Netns,
    to: impl Into<SocketAddr>,
    ports: impl IntoIterator<Item = u16>,
) -> anyhow::Result<BTreeMap<u16, String>> {
    let to = to.into();
    let left: Mutex<Vec<u16>> = Mutex::new(ports.into_iter().collect());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let worker = || -> anyhow::Result<Vec<(u16, String)>> {
        enter(netns)?;
        let mut answers = Vec::new();
        while let Some(port) = next() {
            let request = Request { to, port, limit: Duration::from_secs(8) };
            answers.push((port, fetch(&request).with_context(|| format!("from port {port} to {to}"))?));
        }
        Ok(answers)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(worker)).collect();
        let mut all = BTreeMap::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("panic in a client"))??);
        }
        Ok(all)
    })
}

/// A server in a namespace that sends back what it gets.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens there; serves one connection after the other.
    pub fn listen(netns: &Netns, on: impl Into<SocketAddr>) -> anyhow::Result<Self> {
        let on = on.into();
        let listener =
            inside(netns, || TcpListener::bind(on))?.with_context(|| format!("listening on {on}"))?;
        listener.set_nonblocking(true).context("listener")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    let _client_gone = echo(stream, &stopped);
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

fn echo(mut stream: TcpStream, stopped: &AtomicBool) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut bytes = [0; 4096];
    while !stopped.load(Ordering::Relaxed) {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) => stream.write_all(&bytes[..length])?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A long connection to an [`Echo`]: asks and checks the answer fifty times a second.
#[derive(Debug)]
pub struct Conversation {
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Conversation {
    /// Connects from the namespace.
    pub fn start(netns: &Netns, to: impl Into<SocketAddr>) -> anyhow::Result<Self> {
        let to = to.into();
        let stream = inside(netns, || TcpStream::connect_timeout(&to, Duration::from_secs(3)))?;
        let mut stream = stream.with_context(|| format!("connecting to {to}"))?;
        let (rounds, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&rounds), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            while !stopped.load(Ordering::Relaxed) {
                let question = counted.fetch_add(1, Ordering::Relaxed).to_be_bytes().repeat(100);
                stream.write_all(&question)?;
                let mut answer = vec![0; question.len()];
                stream.read_exact(&mut answer)?;
                if answer != question {
                    return Err(io::Error::other("another answer than what was asked"));
                }
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        });
        Ok(Self { rounds, stop, thread: Some(thread) })
    }

    /// An error unless it is alive and gets on.
    pub fn check(&self, when: &str) -> anyhow::Result<()> {
        let before = self.rounds.load(Ordering::Relaxed);
        super::until(&format!("more of the conversation {when}"), Duration::from_secs(5), || {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            ensure!(!ended, "the conversation has ended");
            Ok((self.rounds.load(Ordering::Relaxed) >= before + 3).then_some(()))
        })
    }

    /// Ends it; an error if it broke before.
    pub fn finish(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result.context("the conversation broke")?,
            Some(Err(_)) | None => bail!("the conversation panicked"),
        }
        Ok(self.rounds.load(Ordering::Relaxed))
    }
}
