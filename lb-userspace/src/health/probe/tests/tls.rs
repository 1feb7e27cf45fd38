//! HTTPS with certificates made for the occasion.

use std::io::Write;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

use super::super::Unusable;
use super::server::{Server, Then, talk};
use super::*;
use crate::model::{HttpCheck, TlsCheck};

const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn file(&self) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(self.0.pem().as_bytes()).unwrap();
        file
    }

    /// A certificate for `name`, valid until that year.
    fn server(&self, name: &str, until: i32) -> ServerConfig {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS12, &TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }
}

async fn serve(config: ServerConfig) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, acceptor) = (listener.local_addr().unwrap(), TlsAcceptor::from(Arc::new(config)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = talk(&mut stream, ("\r\n\r\n", RESPONSE, Then::Wait)).await;
            }
        }
    });
    address
}

fn check(tls: TlsCheck, host: Option<&str>) -> CheckKind {
    CheckKind::Http(HttpCheck {
        tls: Some(tls),
        method: "GET".into(),
        path: "/".into(),
        host: host.map(str::to_owned),
        headers: Vec::new(),
        expected_status: vec![200..=200],
        expected_body: None,
    })
}

fn verify(ca: &NamedTempFile) -> TlsCheck {
    TlsCheck { sni: None, verify: true, ca_file: Some(ca.path().to_str().unwrap().to_owned()) }
}

#[tokio::test]
async fn names_come_from_sni_then_host_then_the_address() {
    let authority = Authority::new("known");
    let ca = authority.file();
    let named = serve(authority.server("web.test", 2999)).await;
    let sni = TlsCheck { sni: Some("web.test".into()), ..verify(&ca) };
    for (tls, host) in [
        (verify(&ca), Some("web.test")),
        (verify(&ca), Some("web.test:8443")),
        (sni.clone(), None),
        (sni, Some("other.test")),
    ] {
        assert_eq!(result(&check(tls, host), named).await, Ok(()), "{host:?}");
    }
    let numbered = serve(authority.server("127.0.0.1", 2999)).await;
    for host in [None, Some("192.0.2.1:443"), Some("[2001:db8::1]")] {
        assert_eq!(result(&check(verify(&ca), host), numbered).await, Ok(()), "{host:?}");
    }
}

#[tokio::test]
async fn certificates_that_are_not_good() {
    let (authority, stranger) = (Authority::new("known"), Authority::new("unknown"));
    let ca = authority.file();
    let cases = [
        (authority.server("web.test", 2002), "TLS: certificate expired"),
        (authority.server("other.test", 2999), "TLS: certificate not valid for web.test"),
        (stranger.server("web.test", 2999), "TLS: certificate of an unknown issuer"),
    ];
    for (server, expected) in cases {
        let target = serve(server).await;
        let verifying = check(verify(&ca), Some("web.test"));
        assert_eq!(words(result(&verifying, target).await), (expected.to_owned(), "tls"));
        let lenient = check(TlsCheck { verify: false, ..verify(&ca) }, Some("web.test"));
        assert_eq!(result(&lenient, target).await, Ok(()), "{expected}");
    }
    let namesake = serve(Authority::new("known").server("web.test", 2999)).await;
    let (found, _) = words(result(&check(verify(&ca), Some("web.test")), namesake).await);
    assert_eq!(found, "TLS: certificate or handshake with a wrong signature");
    let address = serve(authority.server("web.test", 2999)).await;
    let (found, _) = words(result(&check(verify(&ca), None), address).await);
    assert_eq!(found, "TLS: certificate not valid for 127.0.0.1");
}

#[tokio::test]
async fn old_and_new_versions() {
    let authority = Authority::new("known");
    for version in [&TLS12, &TLS13] {
        for verify in [true, false] {
            let mut config = authority.server("web.test", 2999);
            let resolver = config.cert_resolver.clone();
            config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(resolver);
            let target = serve(config).await;
            let ca = authority.file();
            let tls = TlsCheck { verify, ..super::tls::verify(&ca) };
            assert_eq!(result(&check(tls, Some("web.test")), target).await, Ok(()));
        }
    }
}

#[tokio::test]
async fn every_probe_sees_the_certificate() {
    let authority = Authority::new("known");
    let ca = authority.file();
    let check = check(verify(&ca), Some("web.test"));
    let prober = prober(&check).unwrap();
    let mut config = authority.server("web.test", 2999);
    let tickets = ring::Ticketer::new().unwrap();
    config.ticketer = tickets.clone();
    let good = serve(config).await;
    for _ in 0..2 {
        assert_eq!(run(&*prober, &Dial::to(good), LONG).await.result, Ok(()));
    }
    // Another server with the same name and ticket keys would resume the session of the first.
    let mut config = authority.server("web.test", 2002);
    config.ticketer = tickets;
    let bad = serve(config).await;
    let outcome = run(&*prober, &Dial::to(bad), LONG).await;
    assert_eq!(words(outcome.result).0, "TLS: certificate expired");
}

#[tokio::test]
async fn no_tls_there() {
    let tls = || check(TlsCheck::default(), None);
    let cases = [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", Then::Wait, "TLS: the server does not speak TLS"),
        ("", Then::Close, "connection closed during the TLS handshake"),
    ];
    for (say, then, expected) in cases {
        let server = Server::start("127.0.0.1", "", say, then).await;
        assert_eq!(words(result(&tls(), server.address).await).0, expected);
    }
    let server = Server::start("127.0.0.1", "never", "", Then::Wait).await;
    let found = words_after_waiting(&tls(), server.address).await;
    assert_eq!(found, "TLS handshake not complete within 400ms");
}

#[tokio::test]
async fn a_server_that_speaks_only_http_2() {
    let mut config = Authority::new("known").server("web.test", 2999);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let target = serve(config).await;
    let (found, label) = words(result(&check(TlsCheck::default(), None), target).await);
    assert_eq!((found.as_str(), label), ("TLS: the server refused with alert NoApplicationProtocol", "tls"));
}

#[tokio::test]
async fn a_server_that_demands_a_certificate() {
    let authority = Authority::new("known");
    let (provider, mut roots) = (Arc::new(ring::default_provider()), RootCertStore::empty());
    roots.add(authority.0.der().clone()).unwrap();
    let clients =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
    for version in [&TLS12, &TLS13] {
        let resolver = authority.server("web.test", 2999).cert_resolver;
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]);
        let builder = builder.unwrap().with_client_cert_verifier(clients.clone());
        let target = serve(builder.with_cert_resolver(resolver)).await;
        let (found, _) = words(result(&check(TlsCheck::default(), None), target).await);
        assert_eq!(found, "TLS: the server refused with alert CertificateRequired");
    }
}

#[test]
fn settings_that_cannot_be_used() {
    let unusable = |tls: TlsCheck| prober(&check(tls, None)).err().unwrap();
    let sni = TlsCheck { sni: Some("not a name".into()), ..TlsCheck::default() };
    assert_eq!(unusable(sni), Unusable::ServerName("not a name".into()));
    let mut ca = NamedTempFile::new().unwrap();
    let path = ca.path().to_str().unwrap().to_owned();
    let none = Unusable::Authorities { path: path.clone(), why: "no certificate in it".into() };
    assert_eq!(unusable(verify(&ca)), none);
    ca.write_all(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    assert!(
        unusable(verify(&ca)).to_string().starts_with(&format!("cannot use the authorities in {path}: "))
    );
    ca.close().unwrap();
    let gone = TlsCheck { sni: None, verify: true, ca_file: Some(path.clone()) };
    let expected = format!("cannot use the authorities in {path}: No such file or directory (os error 2)");
    assert_eq!(unusable(gone).to_string(), expected);
}
