//! Decides what clients' certificates prove, and asks for them in a way that never fails a handshake.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};

use super::TlsError;
use super::direct::{self, is_issued_directly};
use crate::credentials::CaBundle;

/// Checks client certificates against the two CAs that may vouch for them.
#[derive(Clone, Debug)]
pub struct ClientVerifiers {
    client: Authority,
    front_proxy: Option<Authority>,
}

/// One CA bundle, as far as it is valid.
#[derive(Clone, Debug)]
struct Authority {
    bundle: Arc<CaBundle>,
    /// `None` when none of its certificates is valid: then it vouches for nobody.
    chains: Option<Arc<dyn ClientCertVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifiers {
    /// Takes the certificates that are valid at `now`.
    ///
    /// # Errors
    /// When they cannot be trust anchors.
    pub fn new(
        client_ca: &Arc<CaBundle>,
        front_proxy_ca: Option<&Arc<CaBundle>>,
        provider: &Arc<CryptoProvider>,
        now: UnixTime,
    ) -> Result<Self, TlsError> {
        let build = |bundle, flag| Authority::new(bundle, flag, provider, now);
        Ok(Self {
            client: build(client_ca, "--client-ca-file")?,
            front_proxy: front_proxy_ca
                .map(|bundle| build(bundle, "--requestheader-client-ca-file"))
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
        self.front_proxy.as_ref().is_some_and(|authority| authority.vouches_for(leaf, chain, now))
    }

    /// Names of the CAs, for clients that have several certificates.
    fn root_hints(&self) -> Vec<DistinguishedName> {
        let all = std::iter::once(&self.client).chain(&self.front_proxy);
        let chains = all.filter_map(|authority| authority.chains.as_ref());
        chains.flat_map(|verifier| verifier.root_hint_subjects()).cloned().collect()
    }
}

impl Authority {
    fn new(
        bundle: &Arc<CaBundle>,
        flag: &'static str,
        provider: &Arc<CryptoProvider>,
        now: UnixTime,
    ) -> Result<Self, TlsError> {
        let roots = bundle.valid_at(now);
        let chains: Option<Arc<dyn ClientCertVerifier>> = if roots.is_empty() {
            None
        } else {
            let built = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
            Some(built.map_err(|source| TlsError::ClientVerifier { flag, source })?)
        };
        Ok(Self {
            bundle: Arc::clone(bundle),
            chains,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    fn vouches_for(&self, leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let by_chain = self.chains.as_ref().is_some_and(|it| it.verify_client_cert(leaf, chain, now).is_ok());
        by_chain || is_issued_directly(leaf, self.bundle.certificates_at(now), now, &self.algorithms)
    }
}

/// Accepts any client certificate whose key the client holds; what it proves is decided in [`crate::identity`].
///
/// kube-apiserver asks for a certificate and never fails a handshake over it: one that does not verify draws a 401, or
/// nothing when a token authenticates the request.
#[derive(Debug)]
pub(super) struct AnyClientCertificate {
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyClientCertificate {
    pub(super) fn new(clients: &ClientVerifiers, provider: &CryptoProvider) -> Self {
        Self { hints: clients.root_hints(), algorithms: provider.signature_verification_algorithms }
    }
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
        match direct::unread_public_key(cert) {
            Some(key) => direct::verify_tls12_signature(message, &key, dss, &self.algorithms),
            None => verify_tls12_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match direct::unread_public_key(cert) {
            Some(key) => {
                let key = SubjectPublicKeyInfoDer::from(key);
                verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
            }
            None => verify_tls13_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
