//! A client that opens a connection for every request and resumes its TLS session.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mvproxy_tests::client::{ClientOptions, Trust};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::promptly;

/// Sessions of one client with a certificate.
pub struct Resuming {
    connector: TlsConnector,
    address: SocketAddr,
}

impl Resuming {
    /// In any of the given TLS versions.
    pub fn new(client: &ClientOptions, versions: &[&'static SupportedProtocolVersion]) -> Self {
        let Trust::Ca(pem) = &client.trust else { panic!("callers believe a CA") };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let identity = client.identity.as_ref().unwrap();
        let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes());
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = provider.key_provider.load_private_key(key).unwrap();
        // Not looked into: clients bring certificates that rustls cannot read.
        let certified = SingleCertAndKey::from(CertifiedKey::new(chain, key));
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
        let config = builder.with_root_certificates(roots).with_client_cert_resolver(Arc::new(certified));
        Self { connector: TlsConnector::from(Arc::new(config)), address: client.address }
    }

    /// GETs `target`: how the TLS session came about, and the status.
    pub async fn get(&self, target: &str) -> (HandshakeKind, u16) {
        self.try_get(target).await.unwrap()
    }

    /// The same; an error when the connection does not come about or breaks off before an answer.
    pub async fn try_get(&self, target: &str) -> io::Result<(HandshakeKind, u16)> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("kubernetes").unwrap();
        let mut stream = self.connector.connect(name, stream).await?;
        let head = format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        promptly("the answer", stream.read_to_end(&mut answer)).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {answer:?}")))?;
        Ok((stream.get_ref().1.handshake_kind().unwrap(), status))
    }
}
