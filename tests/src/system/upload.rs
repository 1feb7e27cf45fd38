//! An upload over TCP, and what it taught the client's kernel about the path.

use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context;
use lb_userspace::lab::{Netns, Role};

use super::servers::Server;
use super::{Rig, inside};

/// A TCP server that takes all it gets and then tells how much it was, and a digest.
#[derive(Debug)]
pub struct Sink(#[expect(dead_code, reason = "held for its end")] Server);

impl Sink {
    /// Serves this address, one connection after the other.
    pub fn listen(netns: &Netns, on: SocketAddr) -> anyhow::Result<Self> {
        let listener =
            inside(netns, || TcpListener::bind(on))?.with_context(|| format!("listening on {on}"))?;
        listener.set_nonblocking(true).context("listener")?;
        Ok(Self(Server::start(move || match listener.accept() {
            Ok((stream, _)) => {
                let _client_gone = take(stream);
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        })))
    }
}

fn take(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut bytes, mut digest, mut total) = (vec![0; 1 << 16], DefaultHasher::new(), 0);
    loop {
        match stream.read(&mut bytes)? {
            0 => break,
            length => {
                bytes[..length].iter().for_each(|byte| digest.write_u8(*byte));
                total += length;
            }
        }
    }
    write!(stream, "{total} {:016x}", digest.finish())
}

/// Sends so many bytes to a [`Sink`]; an error unless all of them arrive within the time for each step.
pub fn upload(netns: &Netns, to: SocketAddr, length: usize, limit: Duration) -> anyhow::Result<()> {
    let bytes: Vec<u8> = (0..length).map(|at| (at * 31 / 8) as u8).collect();
    let mut digest = DefaultHasher::new();
    bytes.iter().for_each(|byte| digest.write_u8(*byte));
    let answer = inside(netns, || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_write_timeout(Some(limit))?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(&bytes)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    let (answer, wanted) = (answer.context("upload")?, format!("{length} {:016x}", digest.finish()));
    anyhow::ensure!(answer == wanted, "{answer:?} arrived, not {wanted:?}");
    Ok(())
}

impl Rig {
    /// The path MTU that a machine's kernel has learnt for packets to `to`, sent from `from` if that matters.
    pub fn path_mtu(&self, role: Role, to: IpAddr, from: Option<IpAddr>) -> anyhow::Result<Option<u16>> {
        let mut args = vec!["route".to_owned(), "get".to_owned(), to.to_string()];
        args.extend(from.into_iter().flat_map(|from| ["from".to_owned(), from.to_string()]));
        let shown = self.on(role, "ip", &args)?.expect(0)?;
        let mut words = shown.out.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
        words.next().map(|mtu| mtu.parse().with_context(|| format!("odd MTU in {shown}"))).transpose()
    }
}
