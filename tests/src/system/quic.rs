//! QUIC by quinn: servers whose connection IDs name them, and a client that changes its address. What they say to each
//! other in between is quinn's business; nothing here reads a packet.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use lb_userspace::lab::Netns;
use quinn::{ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::runtime::Runtime;

use super::flows::unspecified;
use super::inside;

/// Longest wait for a handshake or an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a server writes into the connection IDs that it chooses.
#[derive(Debug, Clone, Copy)]
pub enum Ids {
    /// Nothing: they are random.
    Random,
    /// draft-ietf-quic-load-balancers, plaintext: configuration id, then so many bytes of the server's id.
    Draft(u8, usize, u64),
    /// Katran's first version: 16 bits behind the two of the version.
    Katran1(u16),
    /// Katran's second version: the 24 bits behind the first byte.
    Katran2(u32),
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        // A new `RandomState` each time: another number each time.
        let random = RandomState::new().hash_one(0).to_be_bytes();
        let [first, rest @ ..] = random;
        let mut id = Vec::with_capacity(self.cid_len());
        match *self {
            Self::Random => id.push(first),
            Self::Draft(config, length, server) => {
                id.push(config << 5 | first & 0x1f);
                id.extend(&server.to_be_bytes()[8 - length..]);
            }
            // Version 1, then 16 bits that begin within the same byte.
            Self::Katran1(server) => {
                let bits = 1 << 22 | u32::from(server) << 6 | u32::from(first & 0x3f);
                id.extend(&bits.to_be_bytes()[1..]);
            }
            Self::Katran2(server) => {
                id.push(2 << 6 | first & 0x3f);
                id.extend(&server.to_be_bytes()[1..]);
            }
        }
        id.extend(rest);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        7 + match self {
            Self::Random => 1,
            Self::Draft(_, length, _) => 1 + length,
            Self::Katran1(_) => 3,
            Self::Katran2(_) => 4,
        }
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A certificate for all servers of a test.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity of {}", Self::NAME)
    }
}

impl Identity {
    /// The servers' name.
    pub(super) const NAME: &str = "service.example";

    /// A self-signed one.
    pub fn new() -> anyhow::Result<Self> {
        let made =
            rcgen::generate_simple_self_signed([Self::NAME.to_owned()]).context("making a certificate")?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Ok(Self { certificate: made.cert.der().clone(), key })
    }

    /// What a server shows.
    pub(super) fn server(&self) -> anyhow::Result<ServerConfig> {
        let key = PrivateKeyDer::from(self.key.clone_key());
        ServerConfig::with_single_cert(vec![self.certificate.clone()], key)
            .context("the server's certificate")
    }

    /// What a client trusts.
    pub(super) fn client(&self) -> anyhow::Result<quinn::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).context("the certificate")?;
        quinn::ClientConfig::with_root_certificates(Arc::new(roots)).context("TLS")
    }
}

/// A server in a namespace: on each stream it sends back its name and what it got.
#[derive(Debug)]
pub struct QuicServer {
    endpoint: Endpoint,
    runtime: Runtime,
}

impl QuicServer {
    /// Serves this address.
    pub fn start(
        netns: &Netns,
        on: SocketAddr,
        name: &'static str,
        identity: &Identity,
        ids: Ids,
    ) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let socket = inside(netns, || UdpSocket::bind(on))?.with_context(|| format!("serving {on}"))?;
        let server = identity.server()?;
        let mut config = EndpointConfig::default();
        config.cid_generator(move || Box::new(ids));
        let endpoint = runtime.block_on(async {
            let endpoint = Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime))?;
            tokio::spawn(serve(endpoint.clone(), name));
            std::io::Result::Ok(endpoint)
        })?;
        Ok(Self { endpoint, runtime })
    }

    /// Connections that it has accepted and that have not ended.
    pub fn connections(&self) -> usize {
        let _inside = self.runtime.enter();
        self.endpoint.open_connections()
    }
}

async fn serve(endpoint: Endpoint, name: &'static str) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((mut answer, mut question)) = connection.accept_bi().await {
                let Ok(question) = question.read_to_end(1 << 20).await else { return };
                let said = [name.as_bytes(), b" ", &question].concat();
                if answer.write_all(&said).await.is_err() || answer.finish().is_err() {
                    return;
                }
            }
        });
    }
}

/// A connection of a client in a namespace.
#[derive(Debug)]
pub struct QuicClient {
    runtime: Runtime,
    endpoint: Endpoint,
    connection: quinn::Connection,
    netns: Netns,
    to: SocketAddr,
}

impl QuicClient {
    /// Connects from this port.
    pub fn connect(netns: &Netns, port: u16, to: SocketAddr, identity: &Identity) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let socket = bind(netns, port, to)?;
        let config = identity.client()?;
        let (endpoint, connection) = runtime.block_on(async {
            let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
            let connecting = endpoint.connect_with(config, to, Identity::NAME)?;
            let connected = tokio::time::timeout(PATIENCE, connecting).await;
            let connected =
                connected.map_err(|_| anyhow!("no handshake from port {port} within {PATIENCE:?}"));
            anyhow::Ok((endpoint, connected??))
        })?;
        Ok(Self { runtime, endpoint, connection, netns: netns.clone(), to })
    }

    /// Asks on a new stream; the server's name, after the answer has been compared with the question.
    pub fn ask(&self, question: &[u8]) -> anyhow::Result<String> {
        let exchange = async {
            let (mut out, mut back) = self.connection.open_bi().await?;
            out.write_all(question).await?;
            out.finish()?;
            anyhow::Ok(back.read_to_end(1 << 21).await?)
        };
        let limited = async { tokio::time::timeout(PATIENCE, exchange).await };
        let answer =
            self.runtime.block_on(limited).map_err(|_| anyhow!("no answer within {PATIENCE:?}"))??;
        let space = answer.iter().position(|byte| *byte == b' ').context("an answer without a name")?;
        anyhow::ensure!(&answer[space + 1..] == question, "another answer than what was asked");
        Ok(String::from_utf8_lossy(&answer[..space]).into_owned())
    }

    /// Goes on from another port, as behind a NAT that has forgotten, or in another network.
    pub fn migrate(&self, port: u16) -> anyhow::Result<()> {
        let socket = bind(&self.netns, port, self.to)?;
        let _inside = self.runtime.enter();
        self.endpoint.rebind(socket).context("changing the port")
    }
}

fn bind(netns: &Netns, port: u16, to: SocketAddr) -> anyhow::Result<UdpSocket> {
    inside(netns, || UdpSocket::bind(unspecified(to, port)))?.with_context(|| format!("binding port {port}"))
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("runtime")
}
