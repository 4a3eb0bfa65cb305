//! TLS towards API servers: whose certificate counts, and which credential which kind of request may use.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{HTTP_1_1, HTTP_2, TlsError};
use crate::credentials::Credentials;
use crate::upstream::{Role, TrustClass};

/// Configurations towards every kind of upstream, and what they are made of.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    inputs: Inputs,
    to_local: ByClass,
    to_peers: ByClass,
}

/// What has to change for the configurations to change.
#[derive(Clone, Debug)]
struct Inputs {
    proxy_client: Arc<CertifiedKey>,
    peer_roots: Arc<RootCertStore>,
    own: Option<CertificateDer<'static>>,
}

/// Client configurations towards one kind of upstream.
#[derive(Clone, Debug)]
struct ByClass {
    asserted: Arc<ClientConfig>,
    asserted_http1: Arc<ClientConfig>,
    plain: Arc<ClientConfig>,
    plain_http1: Arc<ClientConfig>,
}

impl UpstreamTls {
    /// Builds the configurations.
    ///
    /// # Errors
    /// When the peer CA bundle cannot serve its purpose.
    pub fn new(
        credentials: &Credentials,
        provider: &Arc<CryptoProvider>,
        now: UnixTime,
    ) -> Result<Self, TlsError> {
        let inputs = Inputs {
            proxy_client: Arc::clone(&credentials.proxy_client),
            peer_roots: credentials.peer_ca.valid_at(now),
            own: credentials.serving.cert.first().cloned(),
        };
        let verifier = |own| ServerVerifier::new(own, &inputs.peer_roots, provider).map(Arc::new);
        Ok(Self {
            to_local: ByClass::new(&inputs, &verifier(inputs.own.clone())?, provider)?,
            to_peers: ByClass::new(&inputs, &verifier(None)?, provider)?,
            inputs,
        })
    }

    /// Whether connections made with `other` are as good as those made with this.
    pub fn is_same(&self, other: &Self) -> bool {
        let (a, b) = (&self.inputs, &other.inputs);
        Arc::ptr_eq(&a.proxy_client, &b.proxy_client)
            && a.peer_roots.roots == b.peer_roots.roots
            && a.own == b.own
    }

    /// The configuration for ordinary requests of a trust class.
    pub fn for_requests(&self, role: Role, class: TrustClass) -> Arc<ClientConfig> {
        let configs = self.to(role);
        Arc::clone(match class {
            TrustClass::Asserted => &configs.asserted,
            TrustClass::Bearer => &configs.plain,
            // An API server ends an HTTP/2 connection after an unauthenticated request; HTTP/1.1 connections live on.
            TrustClass::Anonymous => &configs.plain_http1,
        })
    }

    /// The configuration for connections that are upgraded, which HTTP/2 cannot be.
    pub fn for_upgrades(&self, role: Role, class: TrustClass) -> Arc<ClientConfig> {
        let configs = self.to(role);
        Arc::clone(match class {
            TrustClass::Asserted => &configs.asserted_http1,
            TrustClass::Bearer | TrustClass::Anonymous => &configs.plain_http1,
        })
    }

    fn to(&self, role: Role) -> &ByClass {
        match role {
            Role::Local => &self.to_local,
            Role::Peer => &self.to_peers,
        }
    }
}

impl ByClass {
    fn new(
        inputs: &Inputs,
        verifier: &Arc<ServerVerifier>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let builder = || {
            let verifier: Arc<dyn ServerCertVerifier> = Arc::<ServerVerifier>::clone(verifier);
            let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
                .with_safe_default_protocol_versions()
                .map_err(TlsError::Versions)?;
            Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
        };
        let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&inputs.proxy_client)));
        let asserted = builder()?.with_client_cert_resolver(resolver);
        let plain = builder()?.with_no_client_auth();
        Ok(Self {
            asserted: with_protocols(&asserted, &[HTTP_2, HTTP_1_1]),
            asserted_http1: with_protocols(&asserted, &[HTTP_1_1]),
            plain: with_protocols(&plain, &[HTTP_2, HTTP_1_1]),
            plain_http1: with_protocols(&plain, &[HTTP_1_1]),
        })
    }
}

fn with_protocols(config: &ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    // A store of its own: sessions never cross trust classes.
    config.resumption = Resumption::in_memory_sessions(64);
    Arc::new(config)
}

/// Verifies API servers: the peer CA vouches for them, or, for the local one, it shows the very certificate that this proxy
/// serves.
///
/// The local port is not privileged, so while the API server is down any local process could listen there.
#[derive(Debug)]
struct ServerVerifier {
    own: Option<CertificateDer<'static>>,
    /// `None` when no CA is valid: then nobody is trusted.
    by_ca: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    fn new(
        own: Option<CertificateDer<'static>>,
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let by_ca = if roots.is_empty() {
            None
        } else {
            let built =
                WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider)).build();
            Some(built.map_err(TlsError::ServerVerifier)?)
        };
        Ok(Self { own, by_ca, algorithms: provider.signature_verification_algorithms })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.own.as_ref().is_some_and(|own| own == leaf) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.by_ca {
            Some(by_ca) => by_ca.verify_server_cert(leaf, intermediates, name, ocsp, now),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
