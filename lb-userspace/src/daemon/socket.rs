//! The control socket: one JSON request per connection, and one JSON reply or a stream of events, a line each.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::Error;
use super::blast::Blast;
use super::check::Checked;
use super::overrides::Order;
use crate::health::view::ServiceHealth;

/// Largest request or reply: the health of a hundred thousand backends.
const MAX_LINE: u64 = 128 << 20;
/// How long a client may take to send its request, and how long one waits for a reply.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command asks of the daemon.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Request {
    /// Bring the data plane to a config and keep it.
    Apply {
        /// File it is from.
        origin: String,
        /// Its text.
        text: String,
        /// Only say what would change.
        dry_run: bool,
        /// Overrule the guard rails.
        force: bool,
    },
    /// Say how all backends are.
    Health,
    /// Take the operator's word about a backend.
    Order(Order),
    /// Tell of every change from now on, a line of JSON each, until the client leaves.
    Events,
    /// Make every probe of a config once, as far as its backends are in force.
    Check {
        /// File it is from.
        origin: String,
        /// Its text.
        text: String,
    },
}

/// What the daemon answers.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Reply {
    /// What changed, or would.
    pub steps: Vec<String>,
    /// Warnings.
    pub warnings: Vec<String>,
    /// What guard rails have against it.
    pub objections: Vec<String>,
    /// What it would do to flows.
    pub blast: Vec<Blast>,
    /// Number of the configuration in force.
    pub generation: u64,
    /// How all backends are.
    pub health: Vec<ServiceHealth>,
    /// Slots that have settled only because it took too long, since the daemon began.
    pub forced_settles: u64,
    /// The same by service, as services are displayed; those without any are left out.
    pub forced: BTreeMap<String, u64>,
    /// In how many seconds the first slot settles by force that had this backend, by its number.
    pub settling_s: BTreeMap<u32, u64>,
    /// What the probes of a check found.
    pub checked: Vec<Checked>,
    /// Why it was refused, and whether it was the input's fault.
    pub error: Option<(String, bool)>,
}

impl Reply {
    pub(super) fn failed(error: &Error) -> Self {
        Self { error: Some((error.to_string(), error.is_bad_input())), ..Self::default() }
    }
}

/// A request and where its answer goes.
pub(super) type Asked = (Request, oneshot::Sender<Reply>);

/// Serves clients, each in a task of its own, until the daemon ends: a slow one keeps nobody waiting.
pub(super) fn serve(
    listener: UnixListener,
    requests: mpsc::UnboundedSender<Asked>,
    events: impl Fn() -> broadcast::Receiver<String> + Send + 'static,
) {
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(client(stream, requests.clone(), events()));
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
}

async fn client(
    mut stream: tokio::net::UnixStream,
    requests: mpsc::UnboundedSender<Asked>,
    events: broadcast::Receiver<String>,
) {
    let reply = match read(&mut stream).await {
        Ok(Request::Events) => return drop(tell(stream, events).await),
        Ok(request) => {
            let (answer, reply) = oneshot::channel();
            let _daemon_ends = requests.send((request, answer));
            match reply.await {
                Ok(reply) => reply,
                Err(_) => return,
            }
        }
        Err(error) => {
            Reply { error: Some((format!("request not understood: {error}"), true)), ..Reply::default() }
        }
    };
    if let Err(error) = answer(stream, &reply).await {
        tracing::debug!(%error, "client gone");
    }
}

/// Passes events on until the client leaves. One that lags behind is told how many it has lost.
async fn tell(mut stream: tokio::net::UnixStream, mut events: broadcast::Receiver<String>) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut nothing = [0; 1];
    loop {
        let line = tokio::select! {
            event = events.recv() => match event {
                Ok(line) => line,
                Err(broadcast::error::RecvError::Lagged(lost)) => format!("{{\"event\":\"lost\",\"count\":{lost}}}"),
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            read = reader.read(&mut nothing) => match read? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        writer.write_all(line.as_bytes()).await?;
        writer.write_all(b"\n").await?;
    }
}

/// Opens the socket, only for root. A stale one is replaced: whoever holds the writers' lock is the only daemon.
pub(super) fn listen(path: &Path) -> Result<UnixListener, Error> {
    let failed = |action| move |source| Error::File { action, path: path.to_owned(), source };
    let _stale = std::fs::remove_file(path);
    // Nobody but root even between the call and the permissions.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.map_err(failed("opening socket"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(failed("protecting socket"))?;
    Ok(listener)
}

/// Reads a client's request.
async fn read(stream: &mut tokio::net::UnixStream) -> io::Result<Request> {
    let mut line = String::new();
    let mut limited = tokio::io::BufReader::new(stream).take(MAX_LINE);
    tokio::time::timeout(Duration::from_secs(2), limited.read_line(&mut line)).await??;
    serde_json::from_str(&line).map_err(io::Error::other)
}

/// Answers it.
async fn answer(mut stream: tokio::net::UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply).map_err(io::Error::other)?;
    line.push(b'\n');
    tokio::time::timeout(Duration::from_secs(2), stream.write_all(&line)).await?
}

/// Whether a daemon listens there.
pub fn is_running(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

/// Asks the daemon; `None` if none runs.
pub fn request(path: &Path, request: &Request) -> Result<Option<Reply>, Error> {
    let Ok(stream) = UnixStream::connect(path) else {
        return Ok(None);
    };
    let talk = |mut stream: UnixStream| -> io::Result<Reply> {
        stream.set_read_timeout(Some(PATIENCE))?;
        serde_json::to_writer(&mut stream, request)?;
        stream.write_all(b"\n")?;
        let mut line = String::new();
        BufReader::new(stream.take(MAX_LINE)).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    };
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::NoAnswer(PATIENCE),
        _ => Error::File { action: "asking the daemon at", path: path.to_owned(), source },
    };
    talk(stream).map(Some).map_err(failed)
}

/// Calls `tell` with each event of the daemon, a line of JSON, until it says no or the daemon ends; false if none runs.
pub fn events(path: &Path, mut tell: impl FnMut(&str) -> bool) -> Result<bool, Error> {
    let Ok(mut stream) = UnixStream::connect(path) else {
        return Ok(false);
    };
    let mut listen = || -> io::Result<()> {
        serde_json::to_writer(&mut stream, &Request::Events)?;
        stream.write_all(b"\n")?;
        for line in BufReader::new(&stream).lines() {
            if !tell(&line?) {
                break;
            }
        }
        Ok(())
    };
    listen().map_err(|source| Error::File {
        action: "listening to the daemon at",
        path: path.to_owned(),
        source,
    })?;
    Ok(true)
}
