//! The ARP sockets, one per interface in use, each with a task that reads it. Must not know why anybody is
//! asked or what an answer changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use lb_common::wire::arp::Packet;

use super::arp::{ArpSocket, FRAME_LEN, frame, parse};
use super::error::Error;
use super::nexthop::Hop;
use super::{Mac, is_station};

/// What an ARP packet says about its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) hop: Hop,
    pub(super) mac: Mac,
}

/// All open sockets.
pub(super) struct Ports {
    ports: BTreeMap<u32, Port>,
    heard: mpsc::Sender<Heard>,
}

struct Port {
    socket: Arc<ArpSocket>,
    _reader: JoinSet<()>,
}

impl Ports {
    /// Without sockets; what they hear goes to `heard`.
    pub(super) fn new(heard: mpsc::Sender<Heard>) -> Self {
        Self { ports: BTreeMap::new(), heard }
    }

    /// Opens and closes sockets so that exactly these interfaces have one; returns the failures.
    pub(super) fn keep(&mut self, wanted: &BTreeSet<u32>) -> Vec<Error> {
        self.ports.retain(|ifindex, _| wanted.contains(ifindex));
        let mut failures = Vec::new();
        for &ifindex in wanted {
            if self.ports.contains_key(&ifindex) {
                continue;
            }
            match ArpSocket::open(ifindex) {
                Ok(socket) => {
                    let socket = Arc::new(socket);
                    let mut reader = JoinSet::new();
                    reader.spawn(read(ifindex, Arc::clone(&socket), self.heard.clone()));
                    self.ports.insert(ifindex, Port { socket, _reader: reader });
                }
                Err(error) => failures.push(error),
            }
        }
        failures
    }

    /// Closes the socket of a deleted interface.
    pub(super) fn close(&mut self, ifindex: u32) {
        self.ports.remove(&ifindex);
    }

    /// Sends a packet through an interface that has a socket.
    pub(super) fn send(&self, ifindex: u32, packet: &Packet, destination: Mac) -> io::Result<()> {
        match self.ports.get(&ifindex) {
            Some(port) => port.socket.send(&frame(packet, destination)),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

async fn read(ifindex: u32, socket: Arc<ArpSocket>, heard: mpsc::Sender<Heard>) {
    let mut buffer = [0; FRAME_LEN];
    loop {
        match socket.receive(&mut buffer).await {
            Ok(len) => {
                let Some(packet) = parse(&buffer[..len]) else { continue };
                if !is_station(packet.sender_mac) {
                    continue;
                }
                // When the queue is full the packet is dropped: whoever matters is asked again.
                let hop = Hop { ifindex, via: IpAddr::from(packet.sender) };
                if let Err(mpsc::error::TrySendError::Closed(_)) =
                    heard.try_send(Heard { hop, mac: packet.sender_mac })
                {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(ifindex, %error, "reading ARP");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
