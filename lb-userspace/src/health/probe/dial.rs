//! Sockets for probes: where they go, where they come from, how they are closed. Must not know any protocol above.

use std::fmt::Display;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::failure::Failure;
use super::progress::Stage;

/// How a probe gets to its target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dial {
    /// The address that is probed; ICMP takes no notice of the port.
    pub target: SocketAddr,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Source port, of exactly this number: for probes through the service path, where it decides the backend. Several
    /// probes may use the same one towards different targets at once.
    pub source_port: Option<u16>,
    /// Interface that the packets leave by (`SO_BINDTODEVICE`).
    pub interface: Option<String>,
}

impl Dial {
    /// A plain way to the target: source and interface by the host's routes.
    pub fn to(target: SocketAddr) -> Self {
        Self { target, source: None, source_port: None, interface: None }
    }

    /// A connection. However it ends, closing it sends a reset: nothing stays in TIME_WAIT, where it would take up
    /// ports here and keep `source_port` from being used again. What was sent before has left by then unless the
    /// peer's window was full.
    pub async fn tcp(&self) -> Result<TcpStream, Failure> {
        let socket = self.open(Type::STREAM, Protocol::TCP).map_err(|e| connecting(&e))?;
        self.prepare(&socket, self.source_port)?;
        let stream = TcpSocket::from_std_stream(socket.into()).connect(self.target).await;
        let stream = stream.map_err(|e| self.not_connected(&e))?;
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).map_err(|e| connecting(&e))?;
        Ok(stream)
    }

    /// A socket that sends datagrams to the target and hears only from there.
    pub fn udp(&self) -> Result<UdpSocket, Failure> {
        let socket = self.open(Type::DGRAM, Protocol::UDP).map_err(|e| connecting(&e))?;
        self.prepare(&socket, self.source_port)?;
        self.hear_errors(&socket)?;
        socket.connect(&self.target.into()).map_err(|e| self.not_connected(&e))?;
        UdpSocket::from_std(socket.into()).map_err(|e| connecting(&e))
    }

    /// A socket for ICMP messages to and from the target, and how it hands them over. To tokio it is a UDP socket, of
    /// which only what any connected socket can do is used: send, receive.
    /// Datagram sockets are allowed for groups in `net.ipv4.ping_group_range`, raw ones with CAP_NET_RAW.
    pub(super) fn icmp(&self) -> Result<(UdpSocket, Type), Failure> {
        let protocol = if self.target.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        let (socket, kind) = match self.open(Type::DGRAM, protocol) {
            Ok(socket) => (socket, Type::DGRAM),
            Err(_) => match self.open(Type::RAW, protocol) {
                Ok(socket) => (socket, Type::RAW),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    let words = "ICMP needs CAP_NET_RAW, or a group in net.ipv4.ping_group_range";
                    return Err(Failure::Local(words.to_owned()));
                }
                Err(error) => return Err(connecting(&error)),
            },
        };
        self.prepare(&socket, None)?;
        self.hear_errors(&socket)?;
        let mut target = self.target;
        target.set_port(0);
        socket.connect(&target.into()).map_err(|e| self.not_connected(&e))?;
        Ok((UdpSocket::from_std(socket.into()).map_err(|e| connecting(&e))?, kind))
    }

    fn open(&self, kind: Type, protocol: Protocol) -> std::io::Result<Socket> {
        Socket::new(Domain::for_address(self.target), kind.nonblocking(), Some(protocol))
    }

    /// Binds a socket to what is asked for, and to nothing else.
    fn prepare(&self, socket: &Socket, port: Option<u16>) -> Result<(), Failure> {
        if let Some(name) = &self.interface {
            socket.bind_device(Some(name.as_bytes())).map_err(|error| match error.raw_os_error() {
                Some(code) if Errno::from_raw(code) == Errno::ENODEV => here(format!("no interface {name}")),
                _ => here(format!("cannot use interface {name}: {error}")),
            })?;
        }
        if self.source.is_none() && port.is_none() {
            return Ok(());
        }
        if port.is_some() {
            socket.set_reuse_address(true).map_err(|e| connecting(&e))?;
        }
        let local = self.local(port.unwrap_or(0))?;
        socket.bind(&local.into()).map_err(|error| match error.kind() {
            ErrorKind::AddrNotAvailable => here(format!("{} is no address of this host", local.ip())),
            ErrorKind::AddrInUse => here(format!("local port {} is in use", local.port())),
            _ => here(format!("cannot use local address {local}: {error}")),
        })
    }

    fn local(&self, port: u16) -> Result<SocketAddr, Failure> {
        match (self.target, self.source) {
            (SocketAddr::V4(_), None) => Ok((Ipv4Addr::UNSPECIFIED, port).into()),
            (SocketAddr::V6(_), None) => Ok((Ipv6Addr::UNSPECIFIED, port).into()),
            (SocketAddr::V4(_), Some(IpAddr::V4(source))) => Ok((source, port).into()),
            // A link-local source is on the target's link.
            (SocketAddr::V6(target), Some(IpAddr::V6(source))) => {
                Ok(SocketAddrV6::new(source, port, 0, target.scope_id()).into())
            }
            (target, Some(source)) => {
                Err(here(format!("source {source} and target {} are of different families", target.ip())))
            }
        }
    }

    /// Without this option the kernel keeps "host unreachable" from sockets without a connection.
    fn hear_errors(&self, socket: &Socket) -> Result<(), Failure> {
        let set = match self.target {
            SocketAddr::V4(_) => setsockopt(socket, sockopt::Ipv4RecvErr, &true),
            SocketAddr::V6(_) => setsockopt(socket, sockopt::Ipv6RecvErr, &true),
        };
        set.map_err(|errno| connecting(&errno.into()))
    }

    fn not_connected(&self, error: &std::io::Error) -> Failure {
        match (error.kind(), self.source_port) {
            (ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse, Some(port)) => {
                here(format!("local port {port} is in use towards {}", self.target))
            }
            _ => connecting(error),
        }
    }
}

fn connecting(error: &std::io::Error) -> Failure {
    Failure::from_io(error, Stage::Connect)
}

fn here(words: impl Display) -> Failure {
    Failure::Local(words.to_string())
}
