//! Terminates clients' TLS as the API server itself would, and opens TLS to API servers.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use self::client_chain::ClientCa;
use self::client_signature::{verify_tls12_signature, verify_tls13_signature};
use crate::credentials::Credentials;
use crate::upstream::TrustClass;

mod client_chain;
mod client_signature;
mod der;
pub mod handshake;

/// Name in every kube-apiserver's serving certificate; what the built-in proxy verifies too.
pub const APISERVER_NAME: &str = "kubernetes.default.svc";
/// SNI of kube-apiserver's connections to itself.
pub const LOOPBACK_CLIENT_NAME: &str = "apiserver-loopback-client";

const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why TLS could not be set up from the loaded credentials.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A CA bundle is unusable as trust anchors for clients.
    #[error("{flag}: the CA bundle cannot verify client certificates")]
    ClientVerifier {
        /// Flag that names the bundle.
        flag: &'static str,
        /// Cause.
        source: rustls::client::VerifierBuilderError,
    },
    /// The peer CA bundle is unusable as trust anchors for servers.
    #[error("--peer-ca-file: the CA bundle cannot verify serving certificates")]
    ServerVerifier(#[source] rustls::client::VerifierBuilderError),
    /// The provider does not offer the protocol versions.
    #[error("TLS 1.2 and 1.3 are not available")]
    Versions(#[source] rustls::Error),
}

/// Everything TLS needs, built from one set of credentials and replaced as a whole.
#[derive(Debug)]
pub struct TlsContext {
    /// Configuration of steered connections; its session store dies with it, so no session outlives a CA.
    pub server: Arc<ServerConfig>,
    /// Decides what a client's certificate proves.
    pub clients: ClientVerifiers,
    /// Configurations towards the local API server.
    pub to_local: UpstreamTls,
    /// Configurations towards peers.
    pub to_peers: UpstreamTls,
}

/// Client configurations towards one kind of upstream.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    asserted: Arc<ClientConfig>,
    asserted_http1: Arc<ClientConfig>,
    plain: Arc<ClientConfig>,
    plain_http1: Arc<ClientConfig>,
}

impl TlsContext {
    /// Builds the configurations.
    ///
    /// # Errors
    /// When a CA bundle cannot serve its purpose.
    pub fn new(credentials: &Credentials) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients =
            ClientVerifiers::new(&credentials.client_ca, credentials.request_header_ca.as_ref(), &provider)?;
        let server = server_config(credentials, &clients, &provider)?;
        let by_ca = WebPkiServerVerifier::builder_with_provider(
            Arc::clone(&credentials.peer_ca),
            Arc::clone(&provider),
        )
        .build()
        .map_err(TlsError::ServerVerifier)?;
        let local: Arc<dyn ServerCertVerifier> = Arc::new(LocalServerVerifier {
            own: credentials.serving.cert.first().cloned().map(CertificateDer::into_owned),
            by_ca: Arc::clone(&by_ca),
        });
        let peers: Arc<dyn ServerCertVerifier> = by_ca;
        Ok(Self {
            server: Arc::new(server),
            clients,
            to_local: UpstreamTls::new(credentials, &local, &provider)?,
            to_peers: UpstreamTls::new(credentials, &peers, &provider)?,
        })
    }
}

impl UpstreamTls {
    fn new(
        credentials: &Credentials,
        verifier: &Arc<dyn ServerCertVerifier>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let builder = || {
            let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
                .with_safe_default_protocol_versions()
                .map_err(TlsError::Versions)?;
            Ok(builder.dangerous().with_custom_certificate_verifier(Arc::clone(verifier)))
        };
        let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&credentials.proxy_client)));
        let asserted = builder()?.with_client_cert_resolver(resolver);
        let plain = builder()?.with_no_client_auth();
        Ok(Self {
            asserted: with_protocols(&asserted, &[HTTP_2, HTTP_1_1]),
            asserted_http1: with_protocols(&asserted, &[HTTP_1_1]),
            plain: with_protocols(&plain, &[HTTP_2, HTTP_1_1]),
            plain_http1: with_protocols(&plain, &[HTTP_1_1]),
        })
    }

    /// The configuration for ordinary requests of a trust class.
    pub fn for_requests(&self, class: TrustClass) -> &Arc<ClientConfig> {
        match class {
            TrustClass::Asserted => &self.asserted,
            TrustClass::Bearer => &self.plain,
            // An API server ends an HTTP/2 connection after an unauthenticated request; HTTP/1.1 connections live on.
            TrustClass::Anonymous => &self.plain_http1,
        }
    }

    /// The configuration for connections that are upgraded, which HTTP/2 cannot be.
    pub fn for_upgrades(&self, class: TrustClass) -> &Arc<ClientConfig> {
        match class {
            TrustClass::Asserted => &self.asserted_http1,
            TrustClass::Bearer | TrustClass::Anonymous => &self.plain_http1,
        }
    }
}

fn with_protocols(config: &ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // A store of its own: sessions never cross trust classes.
    config.resumption = Resumption::in_memory_sessions(64);
    Arc::new(config)
}

fn server_config(
    credentials: &Credentials,
    clients: &ClientVerifiers,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let verifier = AnyClientCertificate {
        hints: clients.root_hints(),
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&credentials.serving))));
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1_1.to_vec()];
    Ok(config)
}

/// Checks client certificates against the two CAs that may vouch for them.
#[derive(Clone, Debug)]
pub struct ClientVerifiers {
    client: ClientCa,
    front_proxy: Option<ClientCa>,
}

impl ClientVerifiers {
    pub(crate) fn new(
        client_ca: &Arc<RootCertStore>,
        front_proxy_ca: Option<&Arc<RootCertStore>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let build = |roots: &Arc<RootCertStore>, flag| {
            ClientCa::new(roots, provider).map_err(|source| TlsError::ClientVerifier { flag, source })
        };
        Ok(Self {
            client: build(client_ca, "--client-ca-file")?,
            front_proxy: front_proxy_ca
                .map(|roots| build(roots, "--requestheader-client-ca-file"))
                .transpose()?,
        })
    }

    /// Whether the certificate is an ordinary client's: chain, validity and clientAuth usage.
    pub fn is_client(&self, leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        self.client.vouches_for(leaf, chain, now)
    }

    /// Whether there is a CA for front proxies, and so a request-header authenticator.
    pub fn knows_front_proxies(&self) -> bool {
        self.front_proxy.is_some()
    }

    /// Whether the certificate is a front proxy's; its name is not looked at.
    pub fn is_front_proxy(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> bool {
        self.front_proxy.as_ref().is_some_and(|ca| ca.vouches_for(leaf, chain, now))
    }

    fn root_hints(&self) -> Vec<DistinguishedName> {
        let front_proxy = self.front_proxy.iter().flat_map(ClientCa::subjects);
        self.client.subjects().iter().chain(front_proxy).cloned().collect()
    }
}

/// Accepts any client certificate whose key the client holds; what it proves is decided in [`crate::identity`].
///
/// kube-apiserver asks for a certificate and never fails a handshake over it: one that does not verify draws a 401, or
/// nothing when a token authenticates the request.
#[derive(Debug)]
struct AnyClientCertificate {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies the local API server: it shows the very certificate this proxy serves, or one the peer CA vouches for.
///
/// The port is not privileged, so while the API server is down any local process could listen there.
#[derive(Debug)]
struct LocalServerVerifier {
    own: Option<CertificateDer<'static>>,
    by_ca: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for LocalServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.own.as_ref().is_some_and(|own| own == leaf) {
            return Ok(ServerCertVerified::assertion());
        }
        self.by_ca.verify_server_cert(leaf, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_ca.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_ca.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_ca.supported_verify_schemes()
    }
}
