//! The sockets for asking, one per interface and protocol in use, each with a task that reads it. Must not know why
//! anybody is asked or what an answer changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::error::Error;
use super::nexthop::Hop;
use super::prober::Told;
use super::socket::{FrameSocket, Protocol};
use super::{arp, is_station, ndp};

/// Longest frame that is read, in bytes; no question or answer is longer.
const LONGEST_FRAME: usize = 1514;

/// What a packet says about whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) hop: Hop,
    pub(super) told: Told,
}

/// An interface, and how is asked there.
pub(super) type Place = (u32, Protocol);

/// All open sockets.
pub(super) struct Ports {
    ports: BTreeMap<Place, Port>,
    heard: mpsc::Sender<Heard>,
}

struct Port {
    socket: Arc<FrameSocket>,
    _reader: JoinSet<()>,
}

impl Ports {
    /// Without sockets; what they hear goes to `heard`.
    pub(super) fn new(heard: mpsc::Sender<Heard>) -> Self {
        Self { ports: BTreeMap::new(), heard }
    }

    /// Opens and closes sockets so that exactly these places have one; returns the failures.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<Place>) -> Vec<Error> {
        self.ports.retain(|place, _| wanted.contains(place));
        let mut failures = Vec::new();
        for &(ifindex, protocol) in wanted {
            if self.ports.contains_key(&(ifindex, protocol)) {
                continue;
            }
            match FrameSocket::open(ifindex, protocol) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    let mut reader = JoinSet::new();
                    reader.spawn(read(ifindex, protocol, Arc::clone(&socket), self.heard.clone()));
                    self.ports.insert((ifindex, protocol), Port { socket, _reader: reader });
                }
                Err(error) => failures.push(error),
            }
        }
        failures
    }

    /// Closes the sockets of a deleted interface.
    pub(super) fn close(&mut self, ifindex: u32) {
        self.ports.retain(|(index, _), _| *index != ifindex);
    }

    /// Sends a frame where there is a socket for it.
    pub(super) fn send(&self, place: Place, frame: &[u8]) -> io::Result<()> {
        match self.ports.get(&place) {
            Some(port) => port.socket.send(frame),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

async fn read(ifindex: u32, protocol: Protocol, socket: Arc<FrameSocket>, heard: mpsc::Sender<Heard>) {
    let mut buffer = [0; LONGEST_FRAME];
    loop {
        match socket.receive(&mut buffer).await {
            Ok(len) => {
                let Some((via, told)) = understand(protocol, &buffer[..len]) else { continue };
                let hop = Hop { ifindex, via };
                // When the queue is full the packet is dropped: whoever matters is asked again.
                if let Err(mpsc::error::TrySendError::Closed(_)) = heard.try_send(Heard { hop, told }) {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(ifindex, ?protocol, %error, "listening to neighbours");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What a frame says about whom.
fn understand(protocol: Protocol, frame: &[u8]) -> Option<(IpAddr, Told)> {
    match protocol {
        Protocol::Arp => {
            let packet = arp::parse(frame).filter(|packet| is_station(packet.sender_mac))?;
            Some((packet.sender.into(), Told::Here(packet.sender_mac)))
        }
        Protocol::Ndp => ndp::parse(frame).map(|(via, told)| (via.into(), told)),
    }
}
