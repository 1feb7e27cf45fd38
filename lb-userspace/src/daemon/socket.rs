//! The control socket: one JSON request and one JSON reply per connection, a line each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::Error;

/// Largest request or reply: a config of the largest size, escaped.
const MAX_LINE: u64 = 8 << 20;
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
}

/// What the daemon answers.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Reply {
    /// What changed, or would.
    pub steps: Vec<String>,
    /// Warnings.
    pub warnings: Vec<String>,
    /// Number of the configuration in force.
    pub generation: u64,
    /// Why it was refused, and whether it was the input's fault.
    pub error: Option<(String, bool)>,
}

/// Opens the socket, only for root. A stale one is replaced: whoever holds the writers' lock is the only daemon.
pub(super) fn listen(path: &Path) -> Result<UnixListener, Error> {
    let failed = |action| move |source| Error::File { action, path: path.to_owned(), source };
    let _stale = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed("opening socket"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(failed("protecting socket"))?;
    Ok(listener)
}

/// Reads a client's request. The daemon serves one client at a time, and none for long.
pub(super) async fn read(stream: &mut tokio::net::UnixStream) -> io::Result<Request> {
    let mut line = String::new();
    let mut limited = tokio::io::BufReader::new(stream).take(MAX_LINE);
    tokio::time::timeout(Duration::from_secs(2), limited.read_line(&mut line)).await??;
    serde_json::from_str(&line).map_err(io::Error::other)
}

/// Answers it.
pub(super) async fn answer(mut stream: tokio::net::UnixStream, reply: &Reply) -> io::Result<()> {
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
