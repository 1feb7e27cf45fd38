//! TLS of probes: whom to trust, which name to ask for, and what went wrong in words. Must not know what is sent.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Unusable;
use super::failure::Failure;
use super::progress::Stage;
use crate::model::TlsCheck;

/// A TLS client for one check.
pub(super) struct Client {
    connector: TlsConnector,
    /// `None`: the address that is probed.
    name: Option<ServerName<'static>>,
}

/// Takes any certificate, but has the server prove that it holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl Client {
    /// A client for a check with this `Host` header.
    pub(super) fn new(check: &TlsCheck, host: Option<&str>) -> Result<Self, Unusable> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| Unusable::Tls(e.to_string()))?;
        let mut config = match check.verify {
            true => builder.with_root_certificates(authorities(check)?).with_no_client_auth(),
            false => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A resumed session shows no certificate: an expired one would go unnoticed.
        config.resumption = Resumption::disabled();
        Ok(Self { connector: Arc::new(config).into(), name: name(check, host)? })
    }

    /// The handshake, as a client of the check's name, or else of `address`.
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        address: IpAddr,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let name = self.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.into()));
        let handshake = self.connector.connect(name, stream).await;
        handshake.map_err(|error| Failure::from_io(&error, Stage::Handshake))
    }
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What went wrong in TLS, if that is what the error of a stream is about.
pub(super) fn words(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::InvalidMessage(_) => "the server does not speak TLS".to_owned(),
        Error::AlertReceived(alert) => format!("the server refused with alert {alert:?}"),
        other => other.to_string(),
    })
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => "certificate expired".to_owned(),
        E::NotValidYet | E::NotValidYetContext { .. } => "certificate not valid yet".to_owned(),
        E::UnknownIssuer => "certificate of an unknown issuer".to_owned(),
        E::NotValidForName => "certificate not valid for the name asked for".to_owned(),
        E::NotValidForNameContext { expected, .. } => {
            format!("certificate not valid for {}", expected.to_str())
        }
        E::BadEncoding => "certificate cannot be read".to_owned(),
        E::Revoked => "certificate revoked".to_owned(),
        E::BadSignature => "certificate or handshake with a wrong signature".to_owned(),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "certificate is not for servers".to_owned(),
        other => format!("certificate refused: {other}"),
    }
}

/// The name to ask for: the one given, else the host's if it is a name.
fn name(check: &TlsCheck, host: Option<&str>) -> Result<Option<ServerName<'static>>, Unusable> {
    if let Some(sni) = &check.sni {
        return ServerName::try_from(sni.clone()).map(Some).map_err(|_| Unusable::ServerName(sni.clone()));
    }
    let host = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _port)| name));
    let name = host.and_then(|host| ServerName::try_from(host.to_owned()).ok());
    Ok(name.filter(|name| matches!(name, ServerName::DnsName(_))))
}

fn authorities(check: &TlsCheck) -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &check.ca_file else {
        let found = rustls_native_certs::load_native_certs();
        // One bad file among the system's hundred does no harm.
        let (added, _ignored) = roots.add_parsable_certificates(found.certs);
        return match (added, found.errors.first()) {
            (0, Some(error)) => Err(Unusable::System(error.to_string())),
            (0, None) => Err(Unusable::System("there are none".to_owned())),
            _ => Ok(roots),
        };
    };
    let unusable = |why: String| Unusable::Authorities { path: path.clone(), why };
    let pem = std::fs::read(path).map_err(|e| unusable(e.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
        roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
    }
    if roots.is_empty() { Err(unusable("no certificate in it".to_owned())) } else { Ok(roots) }
}
