//! Talks to a server over one TLS connection, HTTP/1.1 or HTTP/2, with or without a client certificate.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pki::Identity;
use crate::standin::tls::provider;

/// Which server certificate is believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// One that a CA of this PEM bundle signed for the server's name.
    Ca(String),
    /// This very certificate.
    Exactly(CertificateDer<'static>),
}

/// How to connect.
#[derive(Clone)]
pub struct ClientOptions {
    /// Where to.
    pub address: SocketAddr,
    /// Where from; the kernel chooses when absent.
    pub source: Option<IpAddr>,
    /// Name in the `ClientHello` and in the server's certificate.
    pub server_name: String,
    /// Which server is believed.
    pub trust: Trust,
    /// Own certificate.
    pub identity: Option<Identity>,
    /// HTTP/2 instead of HTTP/1.1.
    pub http2: bool,
}

impl ClientOptions {
    /// HTTP/1.1 to the server named `kubernetes`, without a client certificate.
    pub fn new(address: SocketAddr, trust: Trust) -> Self {
        Self {
            address,
            source: None,
            server_name: "kubernetes".to_owned(),
            trust,
            identity: None,
            http2: false,
        }
    }

    /// The same with a client certificate.
    #[must_use]
    pub fn with_identity(self, identity: &Identity) -> Self {
        Self { identity: Some(identity.clone()), ..self }
    }

    /// The same from a source address.
    #[must_use]
    pub fn from_source(self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The same over HTTP/2.
    #[must_use]
    pub fn with_http2(self) -> Self {
        Self { http2: true, ..self }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// The body as text, whatever it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// One connection.
pub struct Client {
    sender: Sender,
    connection: JoinHandle<hyper::Result<()>>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// When the server cannot be reached or believed, or does not speak the wanted HTTP version.
    pub async fn connect(options: &ClientOptions) -> Result<Self> {
        let stream = connect_tls(options).await?;
        let io = TokioIo::new(stream);
        Ok(if options.http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(1 << 20);
            let (sender, connection) = builder.handshake(io).await?;
            Self { sender: Sender::Http2(sender), connection: tokio::spawn(connection) }
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            Self { sender: Sender::Http1(sender), connection: tokio::spawn(connection.with_upgrades()) }
        })
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// When the connection breaks first.
    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Incoming>> {
        let mut request = request.map(Full::new);
        Ok(match &mut self.sender {
            Sender::Http1(sender) => {
                // Go's server refuses HTTP/1.1 without one.
                request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("kubernetes"));
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }

    /// Sends a request and reads its whole answer.
    ///
    /// # Errors
    /// When the connection breaks first.
    pub async fn fetch(&mut self, request: Request<Bytes>) -> Result<Answer> {
        let (head, body) = self.send(request).await?.into_parts();
        let body = body.collect().await.context("the body broke off")?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// GETs `target` (path and query).
    ///
    /// # Errors
    /// When the connection breaks first.
    pub async fn get(&mut self, target: &str) -> Result<Answer> {
        self.fetch(Request::get(target).body(Bytes::new())?).await
    }

    /// Sends `body` as JSON.
    ///
    /// # Errors
    /// When the connection breaks first.
    pub async fn send_json(&mut self, method: &str, target: &str, body: &Value) -> Result<Answer> {
        let request =
            Request::builder().method(method).uri(target).header("content-type", "application/json");
        self.fetch(request.body(Bytes::from(body.to_string()))?).await
    }

    /// Another handle to the same HTTP/2 connection, for concurrent requests.
    ///
    /// # Errors
    /// On an HTTP/1.1 connection, which serves one request at a time.
    pub fn share(&self) -> Result<SharedClient> {
        match &self.sender {
            Sender::Http2(sender) => Ok(SharedClient(sender.clone())),
            Sender::Http1(_) => bail!("an HTTP/1.1 connection cannot be shared"),
        }
    }

    /// Whether the connection takes no more requests, as after a GOAWAY.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Sends requests on a connection that others use as well.
#[derive(Clone)]
pub struct SharedClient(http2::SendRequest<Full<Bytes>>);

impl SharedClient {
    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// When the connection breaks first.
    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Incoming>> {
        self.0.ready().await?;
        Ok(self.0.send_request(request.map(Full::new)).await?)
    }
}

/// A TLS connection with the ALPN of the wanted HTTP version.
///
/// # Errors
/// When the server cannot be reached or believed, or does not agree to the protocol.
pub async fn connect_tls(options: &ClientOptions) -> Result<TlsStream<TcpStream>> {
    let stream = connect_tcp(options).await.with_context(|| format!("cannot reach {}", options.address))?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(config(options)?));
    let name = ServerName::try_from(options.server_name.clone())?;
    let stream = connector.connect(name, stream).await.context("TLS handshake")?;
    let agreed = stream.get_ref().1.alpn_protocol();
    ensure!(!options.http2 || agreed == Some(b"h2"), "the server does not speak HTTP/2 but {agreed:?}");
    Ok(stream)
}

async fn connect_tcp(options: &ClientOptions) -> std::io::Result<TcpStream> {
    let socket = if options.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = options.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(options.address).await
}

fn config(options: &ClientOptions) -> Result<ClientConfig> {
    let provider = provider();
    let (algorithms, key_provider) = (provider.signature_verification_algorithms, provider.key_provider);
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &options.trust {
        Trust::Ca(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(certificate?)?;
            }
            builder.with_root_certificates(roots)
        }
        Trust::Exactly(certificate) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Exactly {
                certificate: certificate.clone(),
                algorithms,
            }))
        }
    };
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain =
                CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes()).collect::<Result<_, _>>()?;
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
            // Not looked into: clients bring certificates that rustls cannot read.
            let certified = CertifiedKey::new(chain, key_provider.load_private_key(key)?);
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    config.alpn_protocols = vec![if options.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok(config)
}

/// Believes one certificate and no other.
#[derive(Debug)]
struct Exactly {
    certificate: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
